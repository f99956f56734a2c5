"""Verdicts of a head that knows some of the rendered designs, with the others as OOD samples."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nameplate.data import read_dataset
from nameplate.demo import photos_folder
from nameplate.errors import BundleError
from nameplate.evaluate.evaluator import EvaluationResult, evaluate_model
from nameplate.evaluate.ood import evaluate_ood, known_verdicts
from nameplate.fit.linear_probe import train_head
from nameplate.model.bundle import load_bundle
from nameplate.model.model import Model
from nameplate.model.pipeline import Settings
from nameplate.types import HeadRecipe

KNOWN = ("Corvane Lark", "Ostrel Tarn", "Vessoro Borda")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, EvaluationResult]:
    dataset = read_dataset(photos_folder("train"))
    photos = tuple(p for p in dataset.photos if p.label in KNOWN and int(Path(p.path).stem) < 60)
    some = replace(dataset, photos=photos, nameplates=KNOWN)
    target = tmp_path_factory.mktemp("made") / "three"
    train_head(some, target, model=Model.load(runtime="onnxruntime"), recipe=HeadRecipe(holdout=0.4, mirror=False))
    model = Model(load_bundle(target), Settings("onnxruntime", 2))
    return model, evaluate_model(model, some)


def test_known_photos_are_sorted_as_the_model_sorts_them(made: tuple[Model, EvaluationResult]) -> None:
    model, judged = made
    found = known_verdicts(model, judged)
    answers = model.predict([photo.path for photo in judged.photos])
    for verdict, count in found.verdicts.items():
        assert sum(answer.verdict == verdict for answer in answers) == count
    assert sum(found.verdicts.values()) == len(judged.photos)
    kept = [(a, p) for a, p in zip(answers, judged.photos, strict=True) if a.verdict in ("answer", "unsure")]
    assert found.kept_held is not None
    assert found.kept_held.value == pytest.approx(np.mean([p.label in a.candidates for a, p in kept]))
    assert found.held.value <= found.kept_held.value
    assert found.size == pytest.approx(np.mean([len(a.candidates) for a, _ in kept]))


def test_ood_photos_are_separated_from_known_ones(made: tuple[Model, EvaluationResult], tmp_path: Path) -> None:
    model, judged = made
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 256, (12, 16, 3)).astype(np.uint8)
        Image.fromarray(noise).resize((320, 240)).save(tmp_path / f"{number}.jpg")
    (tmp_path / "no.jpg").write_bytes(b"no photo")
    noise_found = evaluate_ood(model, judged, tmp_path)
    assert noise_found.verdicts["not a car"] == 12
    assert noise_found.verdicts["unreadable"] == 1
    assert noise_found.far.auroc.value > 0.99
    others = tmp_path / "others"
    others.mkdir()
    for design in ("Halden Pine", "Tamblin Stow"):
        for path in sorted((photos_folder("test") / design).glob("*.jpg")):
            shutil.copy(path, others / f"{design} {path.name}")
    cars = evaluate_ood(model, judged, others)
    assert cars.near.strangers == len(list(others.iterdir()))
    assert cars.verdicts.get("not a car", 0) < 0.2 * cars.near.strangers
    assert cars.near.auroc.value < noise_found.near.auroc.value  # other cars are less strange than noise
    assert cars.as_json()["near"]["auroc"]["value"] == cars.near.auroc.value  # type: ignore[index]


def test_a_bundle_older_than_verdicts_gives_none(made: tuple[Model, EvaluationResult], tmp_path: Path) -> None:
    model, judged = made
    old = Model(replace(model.bundle, ood_detector=None), model.settings)
    assert set(known_verdicts(old, judged).verdicts) <= {"answer", "unsure"}
    with pytest.raises(BundleError, match="Train it again"):
        evaluate_ood(old, judged, photos_folder("test"))
