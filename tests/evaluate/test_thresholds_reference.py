"""The reference image: a model must repeat its recorded answer with any runtime, and another model does not give it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nameplate.evaluate.thresholds import with_reference
from nameplate.model.bundle import load_bundle
from nameplate.model.model import Model
from nameplate.model.reference import ReferenceAnswer, reference_photo, reference_problem


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "openvino-bf16"])
def test_the_shipped_bundle_repeats_its_recorded_answer(runtime: str) -> None:
    if runtime != "onnxruntime":
        pytest.importorskip("openvino")
    model = Model.load(runtime=runtime)
    golden = model.bundle.manifest.golden
    assert golden is not None
    [found] = model.predict([reference_photo()])
    assert reference_problem(golden, found, runtime) is None


def test_a_model_with_a_slightly_wrong_head_is_detected() -> None:
    bundle = load_bundle("cars196")
    assert bundle.weight is not None
    assert bundle.bias is not None
    assert bundle.manifest.golden is not None
    same = with_reference(replace(bundle.manifest, golden=None), bundle.backbone, bundle.weight, bundle.bias)
    assert same.golden is not None
    assert dict(same.golden.top) == pytest.approx(dict(bundle.manifest.golden.top), abs=0.005)
    shifted = np.roll(bundle.bias, 1), np.roll(bundle.weight, 1, axis=1)
    other = with_reference(bundle.manifest, bundle.backbone, shifted[1], shifted[0]).golden
    assert other is not None
    [now] = Model.load(runtime="onnxruntime").predict([reference_photo()])
    assert "when it was made" in str(reference_problem(other, now, "onnxruntime"))


def test_a_photo_that_cannot_be_read_is_a_problem() -> None:
    golden = load_bundle("cars196").manifest.golden
    assert golden is not None
    [broken] = Model.load().predict([reference_photo()[:500]])
    assert "could not be read" in str(reference_problem(golden, broken, "onnxruntime"))


def test_int8_may_differ_a_little_more() -> None:
    model = Model.load(runtime="onnxruntime")
    [found] = model.predict([reference_photo()])
    assert found.nameplate is not None
    assert found.confidence is not None
    for away, fits in ((0.05, True), (0.2, False)):
        said = ReferenceAnswer(((found.nameplate, found.confidence + away),))
        assert reference_problem(said, found, "onnxruntime") is not None
        assert (reference_problem(replace(said, int8=True), found, "onnxruntime") is None) == fits
