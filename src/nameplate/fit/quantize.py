"""A float32 backbone → the same in int8, by ONNX Runtime's static quantisation, without torch.

Filters become int8 with a scale for each output channel, activations uint8 between the least and the greatest value
that calibration photos show (B. Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018). Only convolutions and what clips their outputs are quantised: they are
all but a few per cent of the work. Pooling, standard deviations, whitening and classifier stay in float32. Percentiles,
signed activations and NNCF's bias correction were measured and gave no more (docs/int8.md).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from nameplate.data.dataset import Dataset
from nameplate.errors import BundleError, DataError, PhotoError
from nameplate.evaluate.evaluator import trained_digests
from nameplate.fit.half import store_as_half
from nameplate.images.decode import read_bytes
from nameplate.images.parallel import ordered_map
from nameplate.model.bundle import Bundle
from nameplate.model.embeddings import Progress
from nameplate.model.pipeline import PreparedPhoto, Settings, prepare_photo
from nameplate.runtime.base import BATCH
from nameplate.runtime.ort import OnnxRuntime, import_onnxruntime
from nameplate.runtime.select import available_cpus
from nameplate.storage import sha256
from nameplate.types import Photo

onnxruntime = import_onnxruntime()  # before any part of it is imported in another way

QUANTISED = ("Conv", "Clip", "Relu")
"""Operators that compute in int8."""
FILTER_BITS = 8
SENSITIVITY_PICTURES = 16
"""Pictures that tell which convolutions suffer most; they need not tell by how much."""


def quantize(
    backbone: bytes, pictures: NDArray[np.uint8], in_float: Sequence[str] = (), bits: int = FILTER_BITS
) -> bytes:
    """Quantise a backbone; inputs, outputs and opset stay what they are.

    Args:
        backbone: the float32 ONNX file.
        pictures: photos to calibrate on, prepared: uint8 N×H×W×3.
        in_float: names of nodes that stay in float32 (`convolutions` lists them).
        bits: of the filters, 8 or 7. With 8, processors without VNNI add up two products in 16 bits that do not hold
            them, and so compute something else; 7 is safe everywhere and rounds twice as roughly.

    Returns:
        An ONNX file with QuantizeLinear and DequantizeLinear, whole in itself.

    Raises:
        BundleError: ONNX Runtime cannot load the backbone, or it has no convolutions, or is in int8 already.
    """
    model = folded(backbone)
    kept = [name for name in convolutions(model) if name not in in_float]
    if not kept or any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        raise BundleError("There is nothing to quantise: the backbone has no convolutions in float32.")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "int8.onnx"
        quantize_static(
            model,
            target,
            _Pictures(model.graph.input[0].name, pictures),
            op_types_to_quantize=list(QUANTISED),
            nodes_to_exclude=list(in_float),
            per_channel=True,
            reduce_range=bits == 7,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        made = onnx.load(target)
    store_as_half(made)
    return _cleaned(made)


def by_sensitivity(
    backbone: bytes, pictures: NDArray[np.uint8], progress: Callable[[int, int], None] = lambda *_: None
) -> list[str]:
    """Names of the convolutions, first the one that in int8, alone, shifts the embedding most.

    Args:
        backbone: the float32 ONNX file.
        pictures: uint8 N×H×W×3; `SENSITIVITY_PICTURES` of them are looked at.
        progress: called with convolutions done and in all.
    """
    few = pictures[:: -(-len(pictures) // SENSITIVITY_PICTURES)]
    names = convolutions(folded(backbone))
    exact = OnnxRuntime(backbone, available_cpus()).run(few)
    shifts = {}
    for number, name in enumerate(names, start=1):
        alone = quantize(backbone, few, [other for other in names if other != name])
        shifts[name] = float(np.square(OnnxRuntime(alone, available_cpus()).run(few) - exact).mean())
        progress(number, len(names))
    return sorted(names, key=lambda name: -shifts[name])


def convolutions(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions, first to last."""
    return [node.name for node in model.graph.node if node.op_type == "Conv"]


def folded(backbone: bytes) -> onnx.ModelProto:
    """The graph as ONNX Runtime simplifies it: batch norms folded into filters, constants computed, all in float32.

    Raises:
        BundleError: it cannot be loaded.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "folded.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC  # ONNX's own operators
        options.optimized_model_filepath = str(target)
        options.log_severity_level = 4
        try:
            onnxruntime.InferenceSession(backbone, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common base but Exception
            raise BundleError(f"ONNX Runtime cannot load the backbone: {error}") from None
        model = onnx.load(target)
    used = {node.domain for node in model.graph.node}
    opsets = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")  # else it asks for just this
    return model


def _cleaned(model: onnx.ModelProto) -> bytes:
    del model.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


class _Pictures(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is read as Any
    """Pictures in batches, as ONNX Runtime asks for them."""

    def __init__(self, name: str, pictures: NDArray[np.uint8]) -> None:
        self._batches: Iterator[dict[str, Any]] = iter(
            {name: pictures[start : start + BATCH]} for start in range(0, len(pictures), BATCH)
        )

    def get_next(self) -> dict[str, Any] | None:
        """The next batch; None after the last."""
        return next(self._batches, None)


# JOINED Which photos calibrate an int8 backbone, and which judge it.


CALIBRATION = 300
"""Training photos that calibrate, at most, spread over the nameplates: NNCF takes as many by default."""


def training_and_held(
    dataset: Dataset, bundle: Bundle, settings: Settings, progress: Progress
) -> tuple[list[Photo], tuple[Photo, ...], tuple[tuple[str, str], ...]]:
    """Photos that trained the bundle, those that may judge it, and what cannot be read.

    A bundle that does not say what trained it is taken at the data's word: its train part calibrates.
    """
    taught = trained_digests(bundle)
    known = {*bundle.manifest.nameplates, *bundle.manifest.ids}
    train, held, unreadable = [], [], []
    for number, photo in enumerate(dataset.photos, start=1):
        try:
            photo = photo.with_(sha256=sha256(read_bytes(photo.path, settings.limits)))
        except PhotoError as error:
            unreadable.append((photo.path, str(error)))
            continue
        if photo.sha256 in taught or (not taught and photo.split == "train"):
            train.append(photo)
        elif photo.label in known:
            held.append(photo)
        progress("read", number, len(dataset.photos))
    if not train:
        raise DataError(
            "No photo to calibrate on: none of the data trained this model. Give the data that it was trained on, "
            "with the photos that were held out."
        )
    return train, tuple(held), tuple(unreadable)


def calibration_pictures(
    train: Sequence[Photo], bundle: Bundle, settings: Settings
) -> tuple[NDArray[np.uint8], tuple[Photo, ...]]:
    """Prepared photos to calibrate on, uint8 N×H×W×3, and which they are; every nameplate has its share."""
    ordered = sorted(train, key=lambda photo: (str(photo.label), str(photo.sha256)))
    places = np.unique(np.linspace(0, len(ordered) - 1, min(CALIBRATION, len(ordered))).round().astype(int))
    chosen, pictures = [], []
    spread = [ordered[place] for place in places]
    size = bundle.manifest.preprocess
    prepared = ordered_map(lambda photo: prepare_photo(photo.path, size, settings), spread, settings.threads)
    for photo, found in zip(spread, prepared, strict=True):
        if isinstance(found, PreparedPhoto):
            chosen.append(photo)
            pictures.append(found.inputs[0])
    if not pictures:
        raise DataError(f"None of {len(places):,} photos to calibrate on can be read.")
    return np.stack(pictures), tuple(chosen)
