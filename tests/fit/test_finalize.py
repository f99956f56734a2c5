"""`calibrate_bundle` and `finalize`, which every way of making a bundle shares."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nameplate.errors import BundleError, NameplateError
from nameplate.evaluate.calibration import MIN_CALIBRATION
from nameplate.fit.finalize import (
    BFLOAT16_RUNTIME,
    Calibrated,
    HeldOut,
    OutOfFold,
    RuntimeEmbeddings,
    bfloat16_check,
    calibrate_bundle,
    finalize,
)
from nameplate.model.bundle import SCHEMA, Bfloat16Check, Bundle, Manifest, load_bundle
from nameplate.model.classifier import fit_temperature, probabilities
from nameplate.model.model import Model
from nameplate.model.ood import fit_detector
from nameplate.model.verdict import Thresholds
from nameplate.types import Floats, Preprocess

NAMES = ("Alder One", "Alder Two", "Birch Three")
SIZE = 48
HEAD = np.eye(SIZE, 3, dtype=np.float32) * 4, np.zeros(3, np.float32)


def photos(count: int, seed: int, spread: float = 1.0) -> tuple[Floats, NDArray[np.int64]]:
    """Embeddings N×D around the axis of their class, some of them nearer to another one's."""
    random = np.random.default_rng(seed)
    classes = np.arange(count) % 3
    noise = random.normal(0, 0.4 * spread, (count, SIZE))
    return (np.eye(3, SIZE)[classes] + noise).astype(np.float32), classes


def draft(backbone: bytes = b"") -> Bundle:
    manifest = Manifest(SCHEMA, "draft", NAMES, NAMES, Preprocess(32, 48), SIZE, 1.5, {})
    return Bundle(manifest, backbone, *HEAD, None, fit_detector(*photos(90, 7)))


def held_out(count: int, *runtimes: str) -> HeldOut:
    """The same photos by each runtime; each one adds a little noise of its own."""
    embedded = [
        RuntimeEmbeddings(name, photos(count, 1, 1 + number / 10)[0], np.arange(count))
        for number, name in enumerate(runtimes)
    ]
    return HeldOut(tuple(embedded), photos(count, 1)[1])


def test_each_runtime_gets_its_temperature_and_the_first_one_is_evaluated() -> None:
    held = held_out(120, "openvino", "onnxruntime")
    made = calibrate_bundle(draft(), held)
    manifest = made.bundle.manifest
    logits = {each.runtime: each.embeddings @ HEAD[0] + HEAD[1] for each in held.embedded}
    assert manifest.temperatures == {name: fit_temperature(found, held.classes) for name, found in logits.items()}
    assert manifest.temperatures["openvino"] != manifest.temperatures["onnxruntime"]
    assert manifest.temperature == manifest.temperatures["openvino"]
    assert np.array_equal(made.probs, probabilities(logits["openvino"], manifest.temperature))
    assert made.evaluation is not None
    assert made.evaluation.top1.value == (logits["openvino"].argmax(1) == held.classes).mean()
    assert manifest.makes == ("Alder", "Alder", "Birch")
    assert manifest.thresholds.nameplate is not None
    assert manifest.claims is not None


def test_too_few_photos_leave_the_drafts_temperature_and_its_check() -> None:
    check = Bfloat16Check(9, 0.5, 0.4)
    begun = draft()
    begun = replace(begun, manifest=replace(begun.manifest, bfloat16=check))
    manifest = calibrate_bundle(begun, held_out(MIN_CALIBRATION - 1, "onnxruntime")).bundle.manifest
    assert (manifest.temperature, manifest.temperatures, manifest.bfloat16) == (1.5, {}, check)


def test_without_held_out_photos_nothing_is_evaluated() -> None:
    made = calibrate_bundle(draft(), held_out(0, "onnxruntime"))
    assert made.evaluation is None
    assert made.probs.shape == (0, 3)
    assert made.bundle.manifest.thresholds == Thresholds()


def test_out_of_fold_answers_help_where_few_photos_are_held_out() -> None:
    few, (rows, classes) = held_out(3, "onnxruntime"), photos(90, 7)
    alone = calibrate_bundle(draft(), few).bundle.manifest.thresholds
    helped = calibrate_bundle(draft(), few, OutOfFold(rows, rows @ HEAD[0], classes)).bundle.manifest.thresholds
    assert alone.near is None
    assert helped.near is not None
    assert (helped.nameplate, helped.make) == (None, None)  # heads of other folds are less sure: no sets by them
    enough = held_out(120, "onnxruntime")
    without = calibrate_bundle(draft(), enough).bundle.manifest
    assert calibrate_bundle(draft(), enough, OutOfFold(rows, rows @ HEAD[0], classes)).bundle.manifest == without


def test_a_backbones_own_threshold_of_no_car_is_kept_and_the_rest_chosen_again() -> None:
    begun = draft()
    begun = replace(begun, manifest=replace(begun.manifest, thresholds=Thresholds(near=9.0, far=2.5)))
    held = held_out(120, "onnxruntime")
    chosen = calibrate_bundle(begun, held).bundle.manifest.thresholds
    assert chosen.far == 2.5
    assert chosen.near != 9.0
    kept = calibrate_bundle(begun, held, thresholds=False).bundle.manifest
    assert (kept.thresholds, kept.claims, kept.makes) == (begun.manifest.thresholds, None, ())
    assert kept.temperature != 1.5


def test_bfloat16_is_compared_with_float32_on_the_photos_that_both_embedded() -> None:
    classes = np.array([0, 1, 2, 0, 1, 2])
    right = np.eye(3, SIZE, dtype=np.float32)[classes]
    wrong = np.roll(right, 1, 1)
    exact = RuntimeEmbeddings("openvino", right[[1, 3, 4]], np.array([1, 3, 4]))
    half = RuntimeEmbeddings(
        BFLOAT16_RUNTIME, np.stack([wrong[0], right[1], wrong[3], right[5]]), np.array([0, 1, 3, 5])
    )
    assert bfloat16_check(HEAD, HeldOut((half, exact), classes)) == Bfloat16Check(2, 1.0, 0.5)
    assert bfloat16_check(HEAD, HeldOut((half,), classes)) is None
    assert bfloat16_check(HEAD, HeldOut((exact,), classes)) is None
    apart = replace(half, embeddings=wrong[:1], indices=np.array([0]))
    assert bfloat16_check(HEAD, HeldOut((apart, exact), classes)) is None


def test_copies_are_resampled_together() -> None:
    held = held_out(120, "onnxruntime")
    alone = calibrate_bundle(draft(), held).evaluation
    grouped = calibrate_bundle(draft(), replace(held, groups=np.arange(120) // 30)).evaluation
    assert alone is not None
    assert grouped is not None
    assert grouped.top1.value == alone.top1.value
    assert grouped.top1.interval != alone.top1.interval


@pytest.fixture(scope="module")
def calibrated() -> Calibrated:
    pytest.importorskip("onnx")
    from tests.fit.tiny_backbone import tiny_backbone

    return calibrate_bundle(draft(tiny_backbone()), held_out(120, "onnxruntime"))


def test_what_is_written_works_and_says_how_it_was_made(calibrated: Calibrated, tmp_path: Path) -> None:
    made = finalize(tmp_path / "b", calibrated, {"made": "now", "metrics": None, "seed": 3})
    loaded = load_bundle(tmp_path / "b")
    assert loaded.full_digest == made.full_digest
    provenance = json.loads((tmp_path / "b" / "bundle.json").read_text())["provenance"]
    assert list(provenance) == ["made", "metrics", "seed"]
    assert calibrated.evaluation is not None
    assert provenance["metrics"]["top1"] == calibrated.evaluation.top1.value
    assert made.manifest.golden is not None
    assert not made.manifest.golden.int8
    assert Model.load(tmp_path / "b", runtime="onnxruntime", threads=1).nameplates == NAMES
    with pytest.raises(NameplateError, match="is there already"):
        finalize(tmp_path / "b", calibrated, {})


def test_a_bundle_that_does_not_work_is_not_written(calibrated: Calibrated, tmp_path: Path) -> None:
    wrong = replace(calibrated.bundle, manifest=replace(calibrated.bundle.manifest, preprocess=Preprocess(64, 64)))
    with pytest.raises(BundleError):
        finalize(tmp_path / "b", replace(calibrated, bundle=wrong), {})
    assert not (tmp_path / "b").exists()
