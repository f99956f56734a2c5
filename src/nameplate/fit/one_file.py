"""Exports a bundle as one ONNX file: backbone, classifier and temperature in one graph, labels in its metadata.

Such a file needs no Nameplate to run. It takes model inputs, or (`with_resize`) photos of any size; then it also
locates the car, crops and resizes, with the arithmetic of the pipeline (`onnx_graph.py`, `onnx_locator.py`).
`export_one_file` compares its answers with those of `Model` on photos, and writes nothing where they differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper

from nameplate import __version__
from nameplate.errors import BundleError, UsageError
from nameplate.fit.onnx_graph import (
    SUPPORT,
    Graph,
    add_network,
    cropped,
    finished,
    model_input,
    network,
    numbers,
    tensor_info,
)
from nameplate.fit.onnx_locator import BOX, SCORE, main_car
from nameplate.fit.parity import FULL, FileParity, parity
from nameplate.images.parallel import ordered_map
from nameplate.model.bundle import Bundle
from nameplate.model.embeddings import Progress
from nameplate.model.model import Model
from nameplate.model.pipeline import (
    DecodedPhoto,
    PreparedPhoto,
    Settings,
    UnreadablePhoto,
    decode_photo,
    prepare_decoded,
)
from nameplate.runtime.onnx_file import first_output_alone
from nameplate.runtime.ort import OnnxRuntime, open_session
from nameplate.storage import whole_file
from nameplate.types import Floats, Preprocess

PROBABILITIES, EMBEDDING = "probabilities", "embedding"
"""Names of the outputs."""
RUNTIME = "onnxruntime"
"""The runtime whose answers are the reference, and whose temperature is in the file."""
BOX_GAP = 0.001
"""The largest difference of a box's edge, as a share of the photo's side: less than a pixel in most photos."""
FORMAT = 1
"""Version of the metadata and of the names of inputs and outputs."""
DETECTOR = ".detector.onnx"
"""How the name of the second file ends, which holds the car detector."""


@dataclass(frozen=True, slots=True)
class OneFile:
    """What `export_one_file` wrote."""

    model: Path
    detector: Path | None
    """The file of the car detector, where the bundle locates cars and the model's file does not."""
    labels: Path
    """The metadata as JSON, for runtimes that cannot read them from an ONNX file."""
    parity: FileParity
    unreadable: tuple[tuple[str, str], ...]
    """Path and reason of each photo that could not be read."""


def export_one_file(
    bundle: Bundle,
    target: Path,
    photos: Sequence[str],
    *,
    with_resize: bool = False,
    overwrite: bool = False,
    settings: Settings,
    progress: Progress = lambda *_: None,
) -> OneFile:
    """Build the file, compare it with the bundle, and write it.

    Args:
        bundle: a bundle with a classifier.
        target: the file to write, `.onnx`. Beside it `.json` is written, and `.detector.onnx` where it is needed.
        photos: paths of the photos to compare on.
        with_resize: whether the file takes photos of any size, and locates, crops and resizes by itself.
        overwrite: whether to replace files that exist.
        settings: threads and limits.
        progress: see `Progress`.

    Raises:
        UsageError: `target` is no .onnx file, or a file exists and `overwrite` is false.
        BundleError: the bundle has no classifier, or cannot be written as one file.
        DataError: none of the photos can be read.
        NameplateError: the file does not answer as the bundle does.
    """
    separate = bundle.manifest.preprocess.locate != "none" and not with_resize
    labels, detector = target.with_suffix(".json"), target.with_suffix(DETECTOR) if separate else None
    _refuse(target, [each for each in (target, labels, detector) if each is not None], overwrite)
    data, finder = one_file(bundle, with_resize=with_resize), detector_file() if separate else None
    agreement, unreadable = compare(bundle, data, photos, settings, detector=finder, progress=progress)
    agreement.refuse("The file", bundle.manifest.name)
    metadata = describe(bundle, with_resize=with_resize) | {"parity": _json(asdict(agreement))}
    if detector is not None and finder is not None:
        _write(detector, finder)
    _write(labels, msgspec.json.format(msgspec.json.encode(readable(metadata)), indent=2) + b"\n")
    _write(target, _with_metadata(data, metadata))
    return OneFile(target, detector, labels, agreement, unreadable)


def _refuse(target: Path, files: Sequence[Path], overwrite: bool) -> None:
    if target.suffix != ".onnx":
        raise UsageError(f"'{target}' must end in .onnx.")
    for file in files:
        if file.exists() and not overwrite:
            raise UsageError(f"'{file}' is there already. Choose another name, or pass --overwrite.")


def _write(target: Path, data: bytes) -> None:
    with whole_file(target) as temporary:
        temporary.write_bytes(data)


def one_file(bundle: Bundle, *, with_resize: bool = False) -> bytes:
    """Build the ONNX file.

    Args:
        bundle: a bundle with a classifier.
        with_resize: see `export_one_file`.

    Returns:
        An ONNX file. Without `with_resize` it takes `photos`, uint8 N×height×width×3, and gives `probabilities`,
        float32 N×C, and `embedding`, float32 N×D. With it, it takes one `photo`, uint8 H×W×3, and N is 1; where the
        bundle locates cars, it also gives `box`, float32 (4,), top, left, bottom, right as shares of the photo, and
        `score`, float32 (1,), the detector's confidence, 0 where it found no car.

    Raises:
        BundleError: the bundle has no classifier, its fit or filter has no ONNX operator, or its opset is too new.
    """
    size, graph = bundle.manifest.preprocess, Graph()
    batch: int | str
    if with_resize:
        inputs, outputs = _photo_in(graph, size)
        entry, batch = tensor_info("photo", TensorProto.UINT8, ["H", "W", 3]), 1
    else:
        inputs, outputs, batch = "photos", [], "N"
        entry = tensor_info("photos", TensorProto.UINT8, ["N", size.height, size.width, 3])
    _classifier(graph, bundle, inputs)
    classes, width = len(bundle.manifest.nameplates), bundle.manifest.embedding
    named = [
        tensor_info(PROBABILITIES, TensorProto.FLOAT, [batch, classes]),
        tensor_info(EMBEDDING, TensorProto.FLOAT, [batch, width]),
    ]
    return finished(graph, "nameplate", entry, [*named, *outputs], describe(bundle, with_resize=with_resize))


def _photo_in(graph: Graph, size: Preprocess) -> tuple[str, list[onnx.ValueInfoProto]]:
    """Append locating, cropping and resizing; return the model input and the outputs of the detector."""
    if size.fit == "crop" or size.interpolation not in SUPPORT:
        raise BundleError(
            f"--with-resize cannot resize as this bundle does (fit {size.fit}, filter {size.interpolation}): only "
            "squash and pad, bilinear and bicubic can be. Leave it out, and resize as docs/export.md describes."
        )
    if size.locate == "none":
        return model_input(graph, "photo", size), []
    box, score = main_car(graph, "photo")
    graph.op("Cast", box, name=BOX, to=TensorProto.FLOAT)
    graph.op("Identity", score, name=SCORE)
    inputs = model_input(graph, cropped(graph, "photo", box), size)
    return inputs, _box_outputs()


def _box_outputs() -> list[onnx.ValueInfoProto]:
    return [tensor_info(BOX, TensorProto.FLOAT, [4]), tensor_info(SCORE, TensorProto.FLOAT, [1])]


def _classifier(graph: Graph, bundle: Bundle, inputs: str) -> None:
    """Append the backbone, the linear classifier, the temperature and the softmax."""
    weight, bias = Model(bundle, Settings()).require_head()
    try:
        backbone = network(first_output_alone(bundle.backbone))
    except ValueError as error:
        raise BundleError(
            f"'{bundle.manifest.name}' cannot be one file: its backbone has operators of {error}, newer than 18."
        ) from None
    [embedding] = add_network(graph, backbone, inputs, "backbone/")
    graph.op("Identity", embedding, name=EMBEDDING)
    graph.tensors.append(numbers(np.ascontiguousarray(weight), "head.weight"))
    graph.tensors.append(numbers(bias, "head.bias"))
    logits = graph.op("Add", graph.op("MatMul", EMBEDDING, "head.weight"), "head.bias")
    temperature = graph.constant(bundle.manifest.temperature_of(RUNTIME), np.float32)
    graph.op("Softmax", graph.op("Div", logits, temperature), name=PROBABILITIES, axis=1)


def detector_file() -> bytes:
    """The car detector as a file of its own: `photo`, uint8 H×W×3, in; `box` and `score` as in `one_file` out."""
    graph = Graph()
    box, score = main_car(graph, "photo")
    graph.op("Cast", box, name=BOX, to=TensorProto.FLOAT)
    graph.op("Identity", score, name=SCORE)
    entry = tensor_info("photo", TensorProto.UINT8, ["H", "W", 3])
    metadata = {
        "nameplate": __version__,
        "format": str(FORMAT),
        "input": "photo: uint8 H×W×3, RGB, upright, of any size",
        "outputs": "box: float32 (4,), top, left, bottom, right of the main car as shares of the photo; all of it "
        "where no car was found or the car fills it. score: float32 (1,), 0 where no car was found",
    }
    return finished(graph, "nameplate-detector", entry, _box_outputs(), metadata)


def describe(bundle: Bundle, *, with_resize: bool) -> dict[str, str]:
    """The metadata of the file: what its numbers mean, and what it was made from. Lists are JSON."""
    manifest = bundle.manifest
    size = manifest.preprocess
    given = "of any size" if with_resize else f"height {size.height}, width {size.width}, resized by you: preprocess"
    shape = "photo: uint8 H×W×3" if with_resize else f"photos: uint8 N×{size.height}×{size.width}×3"
    return {
        "nameplate": __version__,
        "format": str(FORMAT),
        "model": manifest.name,
        "bundle_sha256": bundle.full_digest,
        "input": f"{shape}, RGB, upright, {given}",
        "outputs": "probabilities: calibrated, one for each of nameplates, in their order. embedding: for similarity",
        "locate": _locate(size, with_resize=with_resize),
        "nameplates": _json(manifest.nameplates),
        "makes": _json(manifest.makes),
        "preprocess": _json(asdict(size)),
        "temperature": repr(manifest.temperature_of(RUNTIME)),
        "licence": _json(manifest.provenance.get("licence")),
        "verdicts": "not in this file: it names a car in any photo; Nameplate itself also says when it may be wrong",
    }


def _locate(size: Preprocess, *, with_resize: bool) -> str:
    if size.locate == "none":
        return "none: the whole photo is named"
    if with_resize:
        return "inside: the file finds the main car and names its crop; box and score say where and how sure"
    return "before: crop the photo to its main car first; the file with the ending .detector.onnx gives the box"


def readable(metadata: dict[str, str]) -> dict[str, object]:
    """The metadata with their JSON decoded."""
    lists = ("nameplates", "makes", "preprocess", "licence", "parity", "temperature")
    return {key: msgspec.json.decode(value) if key in lists else value for key, value in metadata.items()}


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _with_metadata(data: bytes, metadata: dict[str, str]) -> bytes:
    model = onnx.load_from_string(data)
    del model.metadata_props[:]
    helper.set_model_props(model, metadata)
    made: bytes = model.SerializeToString()
    return made


def compare(
    bundle: Bundle,
    data: bytes,
    photos: Sequence[str],
    settings: Settings,
    *,
    detector: bytes | None = None,
    progress: Progress = lambda *_: None,
) -> tuple[FileParity, tuple[tuple[str, str], ...]]:
    """Compare a file with `Model`, photo by photo.

    Args:
        bundle: the bundle that the file was built from.
        data: the ONNX file. Its input says whether it takes photos or model inputs.
        photos: paths of photos.
        settings: threads and limits.
        detector: the file of the car detector, whose boxes are compared as well; None where there is none.
        progress: see `Progress`.

    Returns:
        The agreement, and path and reason of each photo that could not be read.

    Raises:
        DataError: none of the photos can be read.
    """
    model, backbone = Model(bundle, settings), OnnxRuntime(bundle.backbone, settings.threads)
    session = open_session(data, settings.threads, "exported file")
    finder = None if detector is None else open_session(detector, settings.threads, "exported car detector")
    takes_photo = session.get_inputs()[0].name == "photo"
    gaps: list[float] = []
    same: list[bool] = []
    unreadable: list[tuple[str, str]] = []
    for number, (path, found) in enumerate(_prepared(bundle, photos, settings), start=1):
        progress("compare", number, len(photos))
        if isinstance(found, UnreadablePhoto):
            unreadable.append((path, str(found.failure)))
            continue
        pixels, car = found[0].pixels, found[1].car
        inputs = car.inputs[0][None]
        expected = model.probabilities(backbone.run(inputs), RUNTIME)[0]
        probs: Floats = session.run([PROBABILITIES], {"photo": pixels} if takes_photo else {"photos": inputs})[0][0]
        box = car.crop if finder is None else finder.run([BOX], {"photo": pixels})[0]
        gaps.append(float(np.abs(probs - expected).max()))
        # Another crop would give another answer, so that it counts as one.
        same.append(probs.argmax() == expected.argmax() and np.allclose(box, car.crop, rtol=0, atol=BOX_GAP))
    return parity(same, gaps, unreadable), tuple(unreadable)


def _prepared(
    bundle: Bundle, photos: Sequence[str], settings: Settings
) -> Iterator[tuple[str, tuple[DecodedPhoto, PreparedPhoto] | UnreadablePhoto]]:
    """Each photo, decoded at full size, with its model input as the pipeline makes it."""
    size = bundle.manifest.preprocess

    def prepare(path: str) -> tuple[DecodedPhoto, PreparedPhoto] | UnreadablePhoto:
        decoded = decode_photo(path, settings, FULL)
        if isinstance(decoded, UnreadablePhoto):
            return decoded
        return decoded, prepare_decoded(decoded, size, settings)

    found: Iterable[tuple[DecodedPhoto, PreparedPhoto] | UnreadablePhoto]
    found = ordered_map(prepare, photos, settings.threads)
    yield from zip(photos, found, strict=True)
