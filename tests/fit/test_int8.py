"""The attempts of `export_int8`, and the gates that they must pass."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

if importlib.util.find_spec("onnx") is None:
    pytest.skip("needs onnx", allow_module_level=True)

import onnx

from nameplate.data import read_dataset
from nameplate.demo import photos_folder
from nameplate.errors import DataError
from nameplate.fit import int8 as room
from nameplate.fit.benchmark import Throughput, fastest_of
from nameplate.fit.int8 import Gates, Int8Export, Int8Recipe, export_int8
from nameplate.model.bundle import Bundle
from nameplate.model.pipeline import Settings
from tests.fit.tiny_backbone import tiny_bundle

LENIENT = Gates(photos=50, loss=100, speedup=0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def passed(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Int8Export:
    """An export that passes its gates."""
    return export(tiny, tmp_path_factory.mktemp("int8") / "out", LENIENT)


def export(bundle: Bundle, target: Path, gates: Gates, *, keep: bool = False) -> Int8Export:
    data = read_dataset(photos_folder("train"))
    return export_int8(bundle, data, target, settings=Settings(), recipe=Int8Recipe(gates, keep=keep))


def test_if_too_much_is_lost_sensitive_convolutions_stay_in_float(
    tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LEFT_IN_FLOAT", (0, 2, 3))
    kept = export(tiny, tmp_path / "out", replace(LENIENT, loss=-100), keep=True)
    assert kept.failed
    assert all("points of top-1, more than -100" in failure for failure in kept.failed)
    assert kept.bundle is not None
    provenance = kept.bundle.manifest.provenance["int8"]
    assert isinstance(provenance, dict)
    assert len(provenance["in_float"]) == len(kept.in_float) in (0, 2)  # with all three there is no int8
    names = [t.name for t in onnx.load_from_string(kept.bundle.backbone).graph.initializer if t.data_type == 3]
    assert sum("quantized" in name for name in names) == 3 - len(kept.in_float)


def test_the_first_attempt_that_passes_is_the_last(tiny: Bundle, passed: Int8Export) -> None:
    assert (passed.failed, passed.in_float) == ((), ())
    assert passed.bundle is not None
    assert passed.calibrated == 300
    before, after = (each.manifest.thresholds.far for each in (tiny, passed.bundle))
    assert after is not None
    assert after != before
    # As far as the cars have moved, which depends on how the processor multiplies: 13 % was seen on one.
    assert after == pytest.approx(before, rel=0.2)
    assert {held.photos for held in passed.comparisons} == {500}


def test_a_bundle_without_its_table_uses_the_split_of_the_data(tiny: Bundle, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of the data trained this model"):
        export(replace(tiny, photos=None), tmp_path / "out", LENIENT)


def test_throughputs_are_compared_round_by_round() -> None:
    slow = Throughput("float32", "onnxruntime", (10.0, 20.0, 1.0))
    quick = Throughput("int8", "onnxruntime", (20.0, 40.0, 3.0))
    assert quick.over(slow) == 2
    assert quick.photos_per_second == 20
    faster = replace(quick, runtime="openvino", rounds=(90.0, 90.0, 90.0))
    assert fastest_of([slow, quick, faster], "int8") is faster


def test_a_runtime_that_computes_otherwise_in_int8_does_not_count_as_fast(passed: Int8Export) -> None:
    slow = [Throughput(of, "onnxruntime", (rate,)) for of, rate in (("float32", 10.0), ("int8", 20.0))]
    quick = [Throughput(of, "openvino", (rate,)) for of, rate in (("float32", 25.0), ("int8", 100.0))]
    first = passed.comparisons[0]
    both = replace(passed, throughputs=(*slow, *quick), comparisons=(first, replace(first, runtime="openvino")))
    assert both.speedup == 4
    assert replace(both, comparisons=(first,)).speedup == 0.8
