"""A model in one ONNX file: its answers are those of the bundle, its metadata say what they mean; and the gate."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

if importlib.util.find_spec("onnx") is None:
    pytest.skip("needs onnx", allow_module_level=True)

import onnx

from nameplate.demo import photos_folder
from nameplate.errors import BundleError, DataError, NameplateError, UsageError
from nameplate.fit import one_file as module
from nameplate.fit.one_file import compare, export_one_file, one_file
from nameplate.fit.onnx_graph import Graph, finished, tensor_info
from nameplate.images.decode import decode
from nameplate.images.transforms import WHOLE
from nameplate.model.detector import crop_box, locate
from nameplate.model.model import Model
from nameplate.model.pipeline import Settings
from nameplate.runtime.onnx_file import OPERATORS
from nameplate.runtime.ort import open_session
from tests.fit.tiny_backbone import NAMES, SIZE, tiny_backbone
from tests.fit.tiny_backbone import random_bundle as bundle

PHOTOS = [str(path) for path in sorted(photos_folder("test").glob("*/*.jpg"))[::20]]
SETTINGS = Settings("onnxruntime")


def test_it_answers_as_the_bundle_does() -> None:
    found, _ = compare(bundle(), one_file(bundle()), PHOTOS, SETTINGS)
    assert (found.photos, found.same) == (len(PHOTOS), len(PHOTOS))
    assert found.gap < 1e-5


@pytest.mark.parametrize("locate", ["none", "ssd"])
def test_with_resize_it_takes_photos_of_any_size(locate: str) -> None:
    model = Model(bundle(locate=locate), SETTINGS)
    session = open_session(one_file(model.bundle, with_resize=True), 1, "file")
    outputs = [output.name for output in session.get_outputs()]
    assert outputs == ["probabilities", "embedding", *(["box", "score"] if locate == "ssd" else [])]
    for path in PHOTOS[:3]:
        pixels = decode(path)[:, ::2]
        [(answer, expected)] = list(model.answers([pixels]))
        probs, embedding = session.run(outputs[:2], {"photo": pixels})
        assert expected is not None
        assert np.abs(probs[0] - expected).max() < 0.005
        assert answer.nameplate == NAMES[probs[0].argmax()]
        assert np.abs(embedding - model.embed([pixels])).max() < 0.05


def test_several_photos_in_one_batch() -> None:
    session = open_session(one_file(bundle()), 1, "file")
    inputs = np.random.default_rng(0).integers(0, 256, (3, SIZE.height, SIZE.width, 3), np.uint8)
    together = session.run(["probabilities"], {"photos": inputs})[0]
    alone = np.concatenate([session.run(["probabilities"], {"photos": each[None]})[0] for each in inputs])
    assert together.shape == (3, 3)
    assert np.allclose(together, alone, atol=1e-6)
    assert np.allclose(together.sum(1), 1, atol=1e-5)


@pytest.mark.whole
def test_what_is_written(tmp_path: Path) -> None:
    made = export_one_file(bundle(locate="ssd"), tmp_path / "cars.onnx", PHOTOS, settings=SETTINGS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cars.detector.onnx", "cars.json", "cars.onnx"]
    model = onnx.load(made.model)
    metadata = {each.key: each.value for each in model.metadata_props}
    assert json.loads(metadata["nameplates"]) == list(NAMES)
    assert json.loads(metadata["preprocess"])["interpolation"] == "bicubic"
    assert metadata["temperature"] == "0.5"
    assert metadata["locate"].startswith("before")
    assert json.loads(metadata["parity"])["photos"] == len(PHOTOS)
    labels = json.loads((tmp_path / "cars.json").read_text("utf-8"))
    assert labels["nameplates"] == list(NAMES)
    assert labels["bundle_sha256"] == metadata["bundle_sha256"]
    assert (model.opset_import[0].version, model.ir_version) == (18, 8)
    with pytest.raises(UsageError, match="there already"):
        export_one_file(bundle(), made.model, PHOTOS, settings=SETTINGS)
    again = export_one_file(bundle(), made.model, PHOTOS, overwrite=True, settings=SETTINGS)
    assert again.detector is None


def test_it_has_neither_branches_nor_loops_nor_foreign_operators() -> None:
    model = onnx.load_from_string(one_file(bundle(locate="ssd", fit="pad"), with_resize=True))
    assert {node.domain for node in model.graph.node} == {""}
    assert {node.op_type for node in model.graph.node} <= OPERATORS | {"NonMaxSuppression"}
    assert not model.functions


def test_a_file_that_answers_otherwise_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = bundle()
    assert right.weight is not None
    wrong = replace(right, weight=-right.weight)
    monkeypatch.setattr(module, "one_file", lambda *_, **__: one_file(wrong))
    with pytest.raises(NameplateError, match="nothing is written"):
        export_one_file(right, tmp_path / "cars.onnx", PHOTOS, settings=SETTINGS)
    assert not list(tmp_path.iterdir())


def test_a_detector_with_other_boxes_counts_as_another_answer() -> None:
    located, whole = bundle(locate="ssd"), np.array([0, 0, 1, 1])
    assert any(cars and crop_box(cars[0]) != WHOLE for cars in (locate(decode(path)) for path in PHOTOS))
    graph = Graph()
    graph.op("Shape", "photo", name="unused")
    graph.op("Cast", graph.double(whole), name="box", to=onnx.TensorProto.FLOAT)
    entry = tensor_info("photo", onnx.TensorProto.UINT8, ["H", "W", 3])
    output = tensor_info("box", onnx.TensorProto.FLOAT, [4])
    blind = finished(graph, "blind", entry, [output], {})
    found, _ = compare(located, one_file(located), PHOTOS, SETTINGS, detector=blind)
    assert not found.holds


def test_what_cannot_be_one_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no head"):
        one_file(replace(bundle(), weight=None, bias=None))
    for changes in ({"fit": "crop"}, {"interpolation": "lanczos"}):
        one_file(bundle(**changes))
        with pytest.raises(BundleError, match="--with-resize"):
            one_file(bundle(**changes), with_resize=True)
    later = onnx.load_from_string(tiny_backbone())
    later.opset_import[0].version = 21
    with pytest.raises(BundleError, match="opset 21"):
        one_file(replace(bundle(), backbone=later.SerializeToString()))
    with pytest.raises(UsageError, match=r"\.onnx"):
        export_one_file(bundle(), tmp_path / "cars.tflite", PHOTOS, settings=SETTINGS)
    with pytest.raises(DataError, match="None of 1"):
        export_one_file(bundle(), tmp_path / "cars.onnx", [str(tmp_path / "none.jpg")], settings=SETTINGS)


def test_an_earlier_opset_is_converted() -> None:
    earlier = onnx.version_converter.convert_version(onnx.load_from_string(tiny_backbone()), 17)
    old = replace(bundle(), backbone=earlier.SerializeToString())
    found, _ = compare(old, one_file(old, with_resize=True), PHOTOS[:4], SETTINGS)
    assert found.holds
