"""Several bundles as one: its answers, its calibration, and what cannot be combined."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nameplate.data import read_dataset
from nameplate.data.dataset import Dataset
from nameplate.demo import photos_folder
from nameplate.errors import NameplateError, UsageError
from nameplate.evaluate.evaluator import evaluate_model
from nameplate.fit.combine import combined
from nameplate.fit.ensemble import make_ensemble
from nameplate.fit.held_out import held_out_photos, merged_photos
from nameplate.fit.linear_probe import train_head
from nameplate.fit.recipe import Recipe, load_recipe
from nameplate.model.bundle import SCHEMA, Bundle, Manifest, load_bundle, save_bundle
from nameplate.model.classifier import probabilities
from nameplate.model.model import Model
from nameplate.types import HeadRecipe
from tests.fit.tiny_backbone import CHANNELS, SIZE, tiny_backbone

RECIPE = HeadRecipe(holdout=0.5, mirror=False, folds=2)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """60 photos of each of five designs."""
    found = read_dataset(photos_folder("train"))
    names = found.nameplates[:5]
    photos = [photo for name in names for photo in [p for p in found.photos if p.label == name][:60]]
    return replace(found, photos=tuple(photos), nameplates=names)


@pytest.fixture(scope="module")
def members(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three bundles: two backbones with a head each, and a second head on the first one."""
    root = tmp_path_factory.mktemp("members")
    made = []
    for name, seed, balanced in (("one", 3, False), ("two", 4, False), ("three", 3, True)):
        bare = save_bundle(
            root / f"bare-{name}",
            Bundle(Manifest(SCHEMA, name, (), (), SIZE, CHANNELS[-1], 1.0, {}), tiny_backbone(seed)),
        )
        model = Model.load(str(bare.folder), runtime="onnxruntime", threads=1)
        train_head(dataset, root / name, model=model, recipe=replace(RECIPE, balanced=balanced))
        made.append(root / name)
    return made


def calibrated_logits(path: Path, photos: list[str]) -> np.ndarray:
    model = Model.load(path, runtime="onnxruntime", threads=1)
    logits: np.ndarray = model.logits(model.embed(photos)) / model.bundle.manifest.temperature
    return logits


def test_two_backbones_answer_as_the_mean_of_their_logits(members: list[Path], tmp_path: Path) -> None:
    made = make_ensemble([str(each) for each in members[:2]], tmp_path / "e", weights=[3, 1], threads=1)
    assert made.backbones == 2
    assert made.photos_per_second is not None
    photos = [photo.path for photo in held_out_photos(load_bundle(members[0]))[:40]]
    wanted = 0.75 * calibrated_logits(members[0], photos) + 0.25 * calibrated_logits(members[1], photos)
    model = Model.load(tmp_path / "e", runtime="onnxruntime", threads=1)
    temperature = model.bundle.manifest.temperature
    answers = model.predict(photos)
    expected = probabilities(wanted.astype(np.float32), temperature)
    assert [each.nameplate for each in answers] == [model.nameplates[i] for i in expected.argmax(1)]
    assert [each.confidence for each in answers] == pytest.approx(expected.max(1).tolist(), abs=1e-4)


def test_heads_on_one_backbone_cost_nothing(members: list[Path], tmp_path: Path) -> None:
    made = make_ensemble([str(members[0]), str(members[2])], tmp_path / "e", threads=1)
    assert made.backbones == 1
    assert made.photos_per_second is None
    assert "cost" not in made.cost
    assert made.bundle.digest == load_bundle(members[0]).digest


def test_it_carries_the_terms_of_all_its_members(members: list[Path], tmp_path: Path) -> None:
    copies = []
    for number, terms in enumerate([{"weights": "A"}, {"weights": "B", "photos": "C"}, {"weights": "A"}]):
        bundle = load_bundle(members[number])
        manifest = replace(bundle.manifest, provenance=bundle.manifest.provenance | {"licence": terms})
        save_bundle(tmp_path / f"{number}", replace(bundle, manifest=manifest))
        copies.append(str(tmp_path / f"{number}"))
    made = make_ensemble(copies, tmp_path / "e", weights=[1, 1, 1], threads=1)
    assert made.bundle.terms == {"weights": "A; B", "photos": "C"}


def test_it_is_judged_on_photos_that_trained_no_member(members: list[Path], dataset: Dataset, tmp_path: Path) -> None:
    made = make_ensemble([str(each) for each in members[:2]], tmp_path / "e", threads=1)
    assert made.evaluation is not None
    again = evaluate_model(Model.load(tmp_path / "e", runtime="onnxruntime", threads=1), dataset)
    assert again.evaluation.photos == made.evaluation.photos
    assert again.evaluation.top1.value == pytest.approx(made.evaluation.top1.value, abs=0.02)
    assert made.verdict is not None
    assert "more than noise" in made.verdict
    html = made._repr_html_()
    assert "top-1 of the ensemble" in html
    assert "<script" not in html


def test_the_verdicts_of_known_cars_are_those_of_the_first_member(members: list[Path], tmp_path: Path) -> None:
    make_ensemble([str(each) for each in members[:2]], tmp_path / "e", threads=1)
    model = Model.load(tmp_path / "e", runtime="onnxruntime", threads=1)
    first = Model.load(members[0], runtime="onnxruntime", threads=1)
    photos = [photo.path for photo in held_out_photos(first.bundle)[:60]]
    assert model.bundle.ood_detector is not None
    assert first.bundle.ood_detector is not None
    near, _ = model.bundle.ood_detector.distances(model.embed(photos))
    own, _ = first.bundle.ood_detector.distances(first.embed(photos))
    assert near * 2 == pytest.approx(own, rel=1e-3)  # divided by twice as many dimensions
    kept = [answer.verdict not in ("unknown car", "not a car") for answer in model.predict(photos)]
    assert np.mean(kept) > 0.8


def test_a_member_of_noise_is_left_out_and_the_figures_are_of_photos_that_fitted_no_weight(
    members: list[Path], dataset: Dataset, tmp_path: Path
) -> None:
    noise = load_bundle(members[1])
    random = np.random.default_rng(0).normal(0, 30, (CHANNELS[-1], 5)).astype(np.float32)
    save_bundle(tmp_path / "noise", replace(noise, weight=random))
    made = make_ensemble([str(members[0]), str(tmp_path / "noise")], tmp_path / "e", threads=1)
    assert made.weighing.fitted
    assert list(made.weighing.weights) == [1, 0]
    assert made.backbones == 1
    assert made.evaluation is not None
    metrics = made.bundle.manifest.provenance["metrics"]
    assert isinstance(metrics, dict)
    assert metrics["log_loss"] == made.evaluation.log_loss
    of_all = evaluate_model(Model.load(tmp_path / "e", runtime="onnxruntime", threads=1), dataset)
    assert made.evaluation.log_loss > of_all.evaluation.log_loss


def test_the_order_of_the_nameplates_may_differ(members: list[Path]) -> None:
    one = load_bundle(members[0])
    assert one.weight is not None
    assert one.bias is not None
    turned = replace(
        one,
        manifest=replace(one.manifest, nameplates=one.manifest.nameplates[::-1], ids=one.manifest.ids[::-1]),
        weight=one.weight[:, ::-1],
        bias=one.bias[::-1],
        ood_detector=None,
    )
    found = combined([one, turned], [0.5, 0.5], "both")
    assert found.weight == pytest.approx(one.weight)


def test_photos_of_several_bundles_train_if_they_trained_any(members: list[Path]) -> None:
    one = load_bundle(members[0])
    assert one.photos is not None
    other = replace(one, photos=one.photos.replace(b",validation,", b",train,"))
    photos, groups = merged_photos([one, other])
    assert len(photos) == len(held_out_photos(one)) + sum(p.split == "train" for p in merged_photos([one])[0])
    assert {photo.split for photo in photos} == {"train"}
    assert len(groups) == len(photos)


def test_without_common_held_out_photos_it_says_that_it_is_not_judged(members: list[Path], tmp_path: Path) -> None:
    one = load_bundle(members[0])
    assert one.photos is not None
    save_bundle(tmp_path / "all", replace(one, photos=one.photos.replace(b",validation,", b",train,")))
    made = make_ensemble([str(tmp_path / "all"), str(members[1])], tmp_path / "e", threads=1)
    assert made.evaluation is None
    assert made.verdict is None
    assert made.weighing.weights == (0.5, 0.5)
    assert "no photo trained none" in made.weighing.reason
    [answer] = Model.load(tmp_path / "e", runtime="onnxruntime").predict(held_out_photos(one)[0].path)
    assert answer.nameplate is not None


def test_what_cannot_be_averaged_is_refused(members: list[Path], tmp_path: Path) -> None:
    one, two = map(str, members[:2])
    bundle = load_bundle(one)
    other = replace(bundle.manifest, nameplates=("x", *bundle.manifest.nameplates[1:]))
    save_bundle(tmp_path / "names", replace(bundle, manifest=other))
    larger = replace(bundle.manifest, preprocess=replace(SIZE, fit="pad"))
    save_bundle(tmp_path / "fit", replace(bundle, manifest=larger))
    bare = str(members[0].parent / "bare-one")
    for names, weights, why in (
        ([one], None, "two or more"),
        ([one, one], None, "two or more different"),
        ([one, two], [1.0], "need 2 weights"),
        ([one, two], [1.0, -1.0], "none of them negative"),
        ([one, str(tmp_path / "names")], None, "different nameplates .2 differences, such as"),
        ([one, str(tmp_path / "fit")], None, "fit squash and pad"),
        ([one, bare], None, "has no head"),
    ):
        with pytest.raises(UsageError, match=why):
            make_ensemble(names, tmp_path / "e", weights=weights, threads=1)
        assert not (tmp_path / "e").exists()


@pytest.mark.parametrize("name", ["few", "fine-tune"])
def test_networks_of_these_recipes_go_with_heads_on_the_bundle_that_ships(name: str) -> None:
    recipe = load_recipe(name)  # as docs/ensembles.md says
    assert isinstance(recipe, Recipe)
    last = recipe.stages[-1]
    assert recipe.preprocess(last.height, last.width) == load_bundle("cars196").manifest.preprocess


def test_it_replaces_no_member_and_nothing_without_being_told(members: list[Path], tmp_path: Path) -> None:
    one, two = map(str, members[:2])
    shutil.copytree(one, tmp_path / "one")
    with pytest.raises(UsageError, match="is there already"):
        make_ensemble([one, two], tmp_path / "one", threads=1)
    with pytest.raises(UsageError, match="is one of the members"):
        make_ensemble([str(tmp_path / "one"), two], tmp_path / "one", overwrite=True, threads=1)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(NameplateError, match="is no bundle"):
        make_ensemble([one, two], tmp_path / "notes", overwrite=True, threads=1)
