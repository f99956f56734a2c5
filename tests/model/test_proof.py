"""Bundles whose backbone does not work or is hostile: one sentence for each, and nothing hangs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nameplate.errors import BundleError, PhotoError
from nameplate.evaluate.evaluator import trained_digests
from nameplate.model import proof
from nameplate.model.bundle import load_bundle, save_bundle
from nameplate.model.cam import explain
from nameplate.model.model import Model
from nameplate.model.ood import MahalanobisDetector, fit_detector
from nameplate.model.proof import load_proven, prove
from nameplate.model.reference import reference_photo
from tests.model.backbones import FLOAT, INT64, MEANS, SIDE, backbone, good, helper, nan_of_black, node, save


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAMEPLATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def nan() -> bytes:
    return backbone(node("Sub", MEANS, MEANS, "zeros"), node("Div", "zeros", "zeros", "n"), matmul("n"))


def matmul(name: str) -> Any:
    return node("MatMul", name, "weight", "embedding")


def infinity() -> bytes:
    return backbone(node("MatMul", MEANS, "weight", "a"), node("Exp", "a", "b"), node("Exp", "b", "embedding"))


def beyond_all_measure() -> bytes:
    return backbone(node("Mul", MEANS, "huge", "a"), matmul("a"), huge=np.array([1e30]))


def fewer_rows() -> bytes:
    cut = node("Slice", "all", "zero", "one", "embedding")
    return backbone(node("MatMul", MEANS, "weight", "all"), cut, zero=np.array([0]), one=np.array([1]))


def one_number() -> bytes:
    output = helper.make_tensor_value_info("embedding", FLOAT, [])
    return backbone(node("ReduceMean", MEANS, "embedding", keepdims=0), output=output)


def whole_numbers() -> bytes:
    output = helper.make_tensor_value_info("embedding", INT64, ["n", 4])
    return backbone(node("MatMul", MEANS, "weight", "all"), node("Cast", "all", "embedding", to=INT64), output=output)


def other_size() -> bytes:
    output = helper.make_tensor_value_info("embedding", FLOAT, ["n", 3])
    return backbone(node("Identity", MEANS, "embedding"), output=output)


def does_not_load() -> bytes:
    return backbone(node("MatMul", "nowhere", "weight", "embedding"))


def much_memory() -> bytes:
    """Eight gigabytes, whose size depends on the photo, so that nothing is computed before it is there."""
    return backbone(
        node("ReduceMin", MEANS, "least", keepdims=1),
        node("Clip", "least", "two", "two", "same"),
        node("Cast", "same", "count", to=INT64),
        node("Reshape", "count", "flat", "first"),
        node("Slice", "first", "zero", "one", "side"),
        node("Mul", "side", "giga", "size"),
        node("ConstantOfShape", "size", "large"),
        node("ReduceMean", "large", "mean", keepdims=0),
        node("Add", MEANS, "mean", "sum"),
        matmul("sum"),
        two=np.float32(2),
        flat=np.array([-1]),
        zero=np.array([0]),
        one=np.array([1]),
        giga=np.array([1 << 30]),
    )


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (nan, "The backbone gives NaN for the reference image"),
        (infinity, "The backbone gives infinity for the reference image"),
        (beyond_all_measure, r"The backbone gives numbers beyond ±1e\+09 for the reference image"),
        (fewer_rows, "The backbone gives 1×4 for 2 photos, not a row for each"),
        (one_number, "The backbone gives one number for 2 photos, not a row for each"),
        (whole_numbers, "The backbone gives int64, not float32"),
        (other_size, "The backbone gives 3 numbers for a photo, and bundle.json says 4"),
        (does_not_load, "ONNX Runtime cannot load the backbone: .*nowhere"),
    ],
)
def test_a_backbone_that_does_not_work_is_refused_in_a_sentence(
    made: Callable[[], bytes], why: str, tmp_path: Path
) -> None:
    folder = save(tmp_path / "theirs", made())
    for _ in range(2):  # the second time from the cache
        with pytest.raises(BundleError, match=f"'theirs' is refused. {why}"):
            Model.load(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits of the address space")
def test_a_backbone_that_takes_all_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"'theirs' is refused. The backbone needs more than 4\.0 GB of memory"):
        Model.load(save(tmp_path / "theirs", much_memory()))


def test_a_backbone_that_takes_too_long_is_refused_and_tried_again(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = load_bundle(save(tmp_path / "theirs", good()))
    with monkeypatch.context() as patch:
        patch.setattr(proof, "PROOF_SECONDS", 0.001)
        with pytest.raises(BundleError, match=r"'theirs' is refused. The backbone needs more than 0\.001 s"):
            prove(bundle)
        assert not own_cache.exists()
    prove(bundle)
    monkeypatch.setattr(proof, "PROOF_SECONDS", 0)  # would be too short for anything
    prove(bundle)


def test_what_ships_needs_no_proof(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "PROOF_SECONDS", 0)
    load_proven("cars196")
    assert not own_cache.exists()


def test_a_process_that_dies_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\ncat > /dev/null\necho boom >&2\nkill -SEGV $$\n")
    script.chmod(0o755)
    folder = save(tmp_path / "theirs", good())
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(BundleError, match=r"crashed the process that tried it, which ended with -11 \(boom\)"):
        Model.load(folder)


BLACK, GREY = (np.full((SIDE, SIDE, 3), value, np.uint8) for value in (0, 128))


@pytest.mark.parametrize("tta", ["none", "mirror"])
def test_a_photo_of_which_nan_is_computed_gets_an_error_and_no_answer(tta: str, tmp_path: Path) -> None:
    model = Model.load(save(tmp_path / "theirs", nan_of_black()), tta=tta)
    for many in (1, 20):
        answers = model.predict([GREY, BLACK, reference_photo()] * many)
        assert [answer.error for answer in answers[::3] + answers[2::3]] == [None] * 2 * many
        for answer in answers[1::3]:
            assert (answer.verdict, answer.nameplate, answer.confidence, answer.top) == ("unreadable", None, None, ())
            assert answer.error == "not computed: of this photo the model computes NaN, infinity or near it"
    with pytest.raises(PhotoError, match="not computed: photo 2: of this photo the model computes NaN"):
        model.embed([GREY, BLACK])
    assert model.verify(BLACK, "Audi A4").verdict == "unsure"


def test_a_detector_with_extreme_values_gives_an_error_and_no_answer(tmp_path: Path) -> None:
    bundle = load_bundle(save(tmp_path / "theirs", good()))
    known = fit_detector(np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32), np.arange(60) % 2)
    for name, value in (("scale", 1e-38), ("mean", 3e38), ("shares", 3e38)):
        tensors = known.tensors | {name: np.full_like(known.tensors[name], value)}
        hostile = MahalanobisDetector.of(tensors, 4, 2)
        save_bundle(tmp_path / name, replace(bundle, ood_detector=hostile))
        [answer] = Model.load(tmp_path / name).predict(GREY)
        assert str(answer.error).startswith("not computed"), name


def test_an_invalid_table_of_photos_is_refused_when_it_is_read(tmp_path: Path) -> None:
    bundle = load_bundle(save(tmp_path / "theirs", good()))
    for photos, why in ((b"\xff\xfe", "utf-8"), (b"path,split\na.jpg,train\n", "no column 'sha256'")):
        with pytest.raises(BundleError, match=rf"photos\.csv of 'theirs' is damaged: .*{why}"):
            trained_digests(replace(bundle, photos=photos))


def test_a_map_with_nan_is_not_explained(tmp_path: Path) -> None:
    places = helper.make_tensor_value_info("map", FLOAT, ["n", 1, 1, 4])
    made = backbone(
        node("MatMul", MEANS, "weight", "embedding"),
        node("Div", "embedding", "embedding", "ones"),
        node("Unsqueeze", "ones", "axes", "map"),
    )
    import onnx

    model = onnx.load_from_string(made)
    model.graph.output.append(places)
    known = Model.load(save(tmp_path / "theirs", model.SerializeToString()), runtime="onnxruntime")
    assert known.predict(BLACK)[0].error is None
    assert explain(known, GREY).predicted.nameplate in known.nameplates
    with pytest.raises(PhotoError, match="not computed"):
        explain(known, BLACK)
