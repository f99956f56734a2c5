"""A run in folds from photos to its ensemble: what each fold sees, interruptions, and what is written."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nameplate.data import read_dataset
from nameplate.data.dataset import Dataset
from nameplate.demo import photos_folder
from nameplate.errors import NameplateError
from nameplate.evaluate.evaluator import trained_digests
from nameplate.fit.ensemble import make_ensemble
from nameplate.fit.fold_run import FoldsResult, begin_run, continue_run
from nameplate.fit.folds import PREDICTIONS, TABLE, fold_folder, load_plan
from nameplate.fit.held_out import recorded_photos
from nameplate.fit.linear_probe import train_head
from nameplate.fit.split import Split
from nameplate.model.bundle import HEAD, IN_RUN, MANIFEST, SCHEMA, Bundle, Manifest, load_bundle, save_bundle
from nameplate.model.model import Model
from nameplate.types import HeadRecipe
from tests.fit.tiny_backbone import CHANNELS, SIZE, tiny_backbone

RECIPE = HeadRecipe(holdout=0.0, mirror=False, folds=2)
FOLDS = 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("tiny") / "bare"
    provenance: dict[str, object] = {"licence": {"weights": "random"}}
    manifest = Manifest(SCHEMA, "tiny", (), (), SIZE, CHANNELS[-1], 1.0, {}, provenance=provenance)
    save_bundle(folder, Bundle(manifest, tiny_backbone()))
    return Model.load(folder, runtime="onnxruntime", threads=1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """20 photos of each of four designs, two of them twice, of a fifth one photo, and 5 of each in a test part."""
    root = tmp_path_factory.mktemp("data") / "designs"
    for number, design in enumerate(sorted(photos_folder("train").iterdir())[:5]):
        paths = sorted(design.glob("*.jpg"))
        for part, chosen in (("train", paths[: 1 if number == 4 else 20]), ("test", paths[20 : 20 + 5 * (number < 4)])):
            (root / part / design.name).mkdir(parents=True)
            for path in chosen:
                shutil.copy(path, root / part / design.name)
        shutil.copy(paths[0], root / "train" / design.name / "again.jpg")
    return read_dataset(root)


def begin(dataset: Dataset, folder: Path, model: Model) -> None:
    begin_run(lambda: dataset, folder, RECIPE, FOLDS, model=model)


@pytest.fixture(scope="module")
def run(dataset: Dataset, model: Model, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FoldsResult]:
    folder = tmp_path_factory.mktemp("made") / "run"
    begin(dataset, folder, model)
    return folder, continue_run(folder)


def test_the_table_has_each_photo_once_as_the_fold_that_did_not_see_it_answers(run: tuple[Path, FoldsResult]) -> None:
    folder, result = run
    rows = list(csv.DictReader(io.StringIO((folder / TABLE).read_text("utf-8"))))
    assert len(rows) == 84  # two photos of the fifth design are one, and train every fold
    assert len({row["photo"] for row in rows}) == 84
    assert result.always == 2
    for fold in range(1, FOLDS + 1):
        mine = [row for row in rows if row["fold"] == str(fold)]
        model = Model.load(fold_folder(folder, fold), runtime="onnxruntime", threads=1)
        assert trained_digests(model.bundle).isdisjoint(row["sha256"] for row in mine)
        answers = [answer.nameplate for answer in model.predict([row["photo"] for row in mine])]
        assert answers == [row["nameplate"] for row in mine]
    right = np.mean([row["label"] == row["nameplate"] for row in rows])
    assert result.scores.whole.top1.value == pytest.approx(right)


def test_copies_share_a_fold(run: tuple[Path, FoldsResult]) -> None:
    rows = list(csv.DictReader(io.StringIO((run[0] / TABLE).read_text("utf-8"))))
    folds: dict[str, set[str]] = {}
    for row in rows:
        folds.setdefault(row["sha256"], set()).add(row["fold"])
    assert len(folds) == 80
    assert all(len(each) == 1 for each in folds.values())


def test_heads_on_one_backbone_become_one_bundle_of_their_mean_logits(run: tuple[Path, FoldsResult]) -> None:
    folder, result = run
    whole = load_bundle(folder)
    folds = [load_bundle(fold_folder(folder, fold)) for fold in range(1, FOLDS + 1)]
    assert result.backbones == 1
    assert whole.digest == folds[0].digest
    assert whole.weight is not None
    embeddings = np.random.default_rng(0).normal(0, 1, (50, CHANNELS[-1])).astype(np.float32)
    heads = [(each.weight, each.bias) for each in folds if each.weight is not None and each.bias is not None]
    mean = np.mean([embeddings @ weight + bias for weight, bias in heads], axis=0)
    assert len(heads) == FOLDS
    found = embeddings @ whole.weight + (0 if whole.bias is None else whole.bias)
    # The temperatures of the folds may differ a little; the answers are those of the mean.
    assert (found.argmax(1) == mean.argmax(1)).mean() > 0.9
    assert whole.terms == {"weights": "random"}
    assert recorded_photos(whole)
    assert len(trained_digests(whole)) == 81


def test_the_test_part_of_the_data_judges_the_ensemble(run: tuple[Path, FoldsResult]) -> None:
    folder, result = run
    assert result.held_out is not None
    assert result.held_out.photos == 20
    photos = [photo for photo in recorded_photos(load_bundle(folder)) if photo.split == "test"]
    answers = Model.load(folder, runtime="onnxruntime").predict([photo.path for photo in photos])
    right = np.mean([answer.nameplate == photo.label for answer, photo in zip(answers, photos, strict=True)])
    assert result.held_out.top1.value == pytest.approx(right)
    assert "Held out from all folds" in result._repr_html_()


def test_with_a_bundle_that_trained_on_all_folds_the_test_part_judges(
    run: tuple[Path, FoldsResult], dataset: Dataset, model: Model, tmp_path: Path
) -> None:
    train_head(dataset, tmp_path / "one", model=model, recipe=replace(RECIPE, balanced=True))
    made = make_ensemble([str(run[0]), str(tmp_path / "one")], tmp_path / "both", threads=1)
    assert made.evaluation is not None
    assert made.evaluation.photos == 20
    assert "only 20 photos trained no member" in made.weighing.reason


def training(model: Model, *, fail_in: str = "") -> Callable[[Path, Split], None]:
    def train(here: Path, split: Split) -> None:
        if here.name == fail_in:
            raise KeyboardInterrupt
        train_head(split, here / IN_RUN, model=model, recipe=RECIPE, overwrite=True)

    return train


def test_an_interrupted_run_goes_on_with_the_next_fold(
    run: tuple[Path, FoldsResult], dataset: Dataset, model: Model, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    begin(dataset, folder, model)
    with pytest.raises(KeyboardInterrupt):
        continue_run(folder, training(model, fail_in="fold-2"))
    assert not (folder / IN_RUN).exists()
    with pytest.raises(NameplateError, match="--resume"):
        begin(dataset, folder, model)
    begun: list[int] = []
    result = continue_run(folder, training(model, fail_in="fold-1"), begun=begun.append)
    assert begun == [2, 3]
    assert result.resumed == 1
    assert (folder / TABLE).read_bytes() == (run[0] / TABLE).read_bytes()
    assert (folder / IN_RUN / HEAD).read_bytes() == (run[0] / IN_RUN / HEAD).read_bytes()
    # What was killed between the bundle and its predictions is not trained again either.
    (fold_folder(folder, 3) / PREDICTIONS).unlink()
    again = continue_run(folder, training(model, fail_in="fold-3"))
    assert again.scores == result.scores


def test_a_photo_that_vanished_is_left_out(dataset: Dataset, model: Model, tmp_path: Path) -> None:
    folder, copy = tmp_path / "run", tmp_path / "photos"
    photos = []
    for number, photo in enumerate(dataset.photos):
        path = copy / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        shutil.copy(photo.path, path)
        photos.append(photo.with_(path=str(path)))
    begin(replace(dataset, photos=tuple(photos)), folder, model)
    plan = load_plan(folder)
    gone = plan.folds.index(2)
    Path(plan.photos[gone].path).unlink()
    result = continue_run(folder)
    assert result.scores.whole.photos == 83
    assert plan.photos[gone].path not in (folder / TABLE).read_text("utf-8")
    assert (fold_folder(folder, 1) / IN_RUN / MANIFEST).is_file()
