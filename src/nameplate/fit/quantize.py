"""Quantises a float32 backbone to int8 with ONNX Runtime's static quantisation, without torch.

Weights become int8 with one scale for each output channel. Activations become uint8; their range is the minimum and
maximum over the calibration photos (B. Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018). Only convolutions and their activation functions are quantised, because
they are all but a few per cent of the work. Pooling, standard deviations, whitening and the classifier stay in float32.
Percentile ranges, signed activations and NNCF's bias correction were measured and gained nothing (docs/int8.md).
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

onnxruntime = import_onnxruntime()  # it must come before any other import of onnxruntime

QUANTISED = ("Conv", "Clip", "Relu")
"""ONNX operators that are quantised."""
FILTER_BITS = 8
"""Default number of bits of the weights."""
SENSITIVITY_INPUTS = 16
"""Number of model inputs for `by_sensitivity`: few are enough to rank the convolutions."""


def quantize(
    backbone: bytes, inputs: NDArray[np.uint8], in_float: Sequence[str] = (), bits: int = FILTER_BITS
) -> bytes:
    """Quantise a backbone; its inputs, outputs and opset do not change.

    Args:
        backbone: the float32 ONNX file.
        inputs: model inputs to calibrate on, uint8 N×H×W×3.
        in_float: names of nodes that stay in float32 (`convolutions` lists them).
        bits: number of bits of the weights, 8 or 7. With 8 bits, processors without VNNI add pairs of products in 16
            bits, which can overflow, so that they compute other results. 7 bits are safe on every processor, and
            their rounding steps are twice as large.

    Returns:
        An ONNX file with QuantizeLinear and DequantizeLinear nodes and without external data.

    Raises:
        BundleError: ONNX Runtime cannot load the backbone, it has no convolutions, or it is quantised already.
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
            _CalibrationBatches(model.graph.input[0].name, inputs),
            op_types_to_quantize=list(QUANTISED),
            nodes_to_exclude=list(in_float),
            # A scale for each filter: the filters of depthwise convolutions differ widely in size.
            per_channel=True,
            reduce_range=bits == 7,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        made = onnx.load(target)
    # What stays in float32 is stored as float16, as in the float32 bundle.
    store_as_half(made)
    return _cleaned(made)


def by_sensitivity(
    backbone: bytes, inputs: NDArray[np.uint8], progress: Callable[[int, int], None] = lambda *_: None
) -> list[str]:
    """Names of the convolutions, sorted by how much quantising each of them alone changes the embedding, most first.

    Args:
        backbone: the float32 ONNX file.
        inputs: model inputs, uint8 N×H×W×3; at most `SENSITIVITY_INPUTS` of them are used.
        progress: called with the number of convolutions done and the total.
    """
    # -(-a // b) rounds a / b up, so that at most SENSITIVITY_INPUTS are left.
    few = inputs[:: -(-len(inputs) // SENSITIVITY_INPUTS)]
    names = convolutions(folded(backbone))
    exact = OnnxRuntime(backbone, available_cpus()).run(few)
    shifts = {}
    for number, name in enumerate(names, start=1):
        alone = quantize(backbone, few, [other for other in names if other != name])
        shifts[name] = float(np.square(OnnxRuntime(alone, available_cpus()).run(few) - exact).mean())
        progress(number, len(names))
    return sorted(names, key=lambda name: -shifts[name])


def convolutions(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions in the order of the graph."""
    return [node.name for node in model.graph.node if node.op_type == "Conv"]


def folded(backbone: bytes) -> onnx.ModelProto:
    """The graph after ONNX Runtime's basic optimisations: batch norms and constants are folded; it stays in float32.

    Raises:
        BundleError: ONNX Runtime cannot load the backbone.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "folded.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = (
            onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        )  # keeps standard operators
        options.optimized_model_filepath = str(target)
        options.log_severity_level = 4
        try:
            onnxruntime.InferenceSession(backbone, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common base but Exception
            raise BundleError(f"ONNX Runtime cannot load the backbone: {error}") from None
        model = onnx.load(target)
    used = {node.domain for node in model.graph.node}
    # The optimiser declares domains that the graph does not use, and the ONNX checker refuses unknown ones.
    opsets = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")  # avoids a warning
    return model


def _cleaned(model: onnx.ModelProto) -> bytes:
    """The checked model without metadata, serialised."""
    del model.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


class _CalibrationBatches(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is read as Any
    """Gives the calibration inputs to ONNX Runtime in batches."""

    def __init__(self, name: str, inputs: NDArray[np.uint8]) -> None:
        self._batches: Iterator[dict[str, Any]] = iter(
            {name: inputs[start : start + BATCH]} for start in range(0, len(inputs), BATCH)
        )

    def get_next(self) -> dict[str, Any] | None:
        """The next batch by the name of the graph's input; None after the last."""
        return next(self._batches, None)


# Which photos calibrate an int8 backbone, and which evaluate it. No photo does both.

CALIBRATION = 300
"""Largest number of calibration photos, spread over the nameplates; NNCF's default is the same."""


def training_and_holdout(
    dataset: Dataset, bundle: Bundle, settings: Settings, progress: Progress
) -> tuple[list[Photo], tuple[Photo, ...], tuple[tuple[str, str], ...]]:
    """Sort a data set into calibration and evaluation photos.

    Where the bundle does not record its training photos, the data set's train part is taken for them.

    Returns:
        The photos that trained the bundle, the others whose nameplate it knows, and path and reason of each photo that
        cannot be read.

    Raises:
        DataError: none of the photos trained the bundle.
    """
    trained = trained_digests(bundle)
    known = {*bundle.manifest.nameplates, *bundle.manifest.ids}
    train, holdout, unreadable = [], [], []
    for number, photo in enumerate(dataset.photos, start=1):
        try:
            photo = photo.with_(sha256=sha256(read_bytes(photo.path, settings.limits)))
        except PhotoError as error:
            unreadable.append((photo.path, str(error)))
            continue
        # By digest and not by path: the data may have moved since the training.
        if photo.sha256 in trained or (not trained and photo.split == "train"):
            train.append(photo)
        elif photo.label in known:
            holdout.append(photo)
        progress("read", number, len(dataset.photos))
    if not train:
        raise DataError(
            "No photo to calibrate on: none of the data trained this model. Give the data that it was trained on, "
            "with the photos that were held out."
        )
    return train, tuple(holdout), tuple(unreadable)


def calibration_inputs(
    train: Sequence[Photo], bundle: Bundle, settings: Settings
) -> tuple[NDArray[np.uint8], tuple[Photo, ...]]:
    """Choose at most `CALIBRATION` training photos and prepare them.

    Returns:
        Model inputs, uint8 N×H×W×3, and the photos that they show.

    Raises:
        DataError: none of the chosen photos can be read.
    """
    # Even steps through the photos sorted by nameplate give every nameplate its share.
    ordered = sorted(train, key=lambda photo: (str(photo.label), str(photo.sha256)))
    indices = np.unique(np.linspace(0, len(ordered) - 1, min(CALIBRATION, len(ordered))).round().astype(int))
    chosen, inputs = [], []
    spread = [ordered[i] for i in indices]
    size = bundle.manifest.preprocess
    prepared = ordered_map(lambda photo: prepare_photo(photo.path, size, settings), spread, settings.threads)
    for photo, found in zip(spread, prepared, strict=True):
        if isinstance(found, PreparedPhoto):
            chosen.append(photo)
            inputs.append(found.inputs[0])
    if not inputs:
        raise DataError(f"None of {len(indices):,} photos to calibrate on can be read.")
    return np.stack(inputs), tuple(chosen)
