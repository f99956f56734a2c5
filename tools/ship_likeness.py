"""Give the bundle that ships a third part of its embedding: how like each nameplate of cars196 a photo is.

    python tools/ship_likeness.py BUNDLE TARGET --data DATA --cars196 CARS196

The embedding of BUNDLE stays as it is, but for the scale of its first part, which becomes that of the second: heads
are fitted on dimensions as they are. Appended is the square root of the probabilities that its own head gives the
nameplates of cars196, at a temperature of its own. What a network says of the categories that it knows describes others
as well (L. Torresani et al., "Efficient Object Category Recognition Using Classemes", 2010), and between square roots
of probabilities the linear product is a measure of their likeness (Bhattacharyya's). Unlike the embedding it is no
linear map of it, so a head that is fitted on few photos gains; measured in docs/experiments.md, 2026-11-28.

What the bundle names does not change: its head has zeros there. Its OOD detector looks at it beside the rest, since
heads are surer of unknown cars by it. Head and detector are rounded to float16, as the weights of the network are, so
that the bundle stays below 20 MB. Temperatures, thresholds and the check of bfloat16 are chosen again, as
`tools/ship_more_names.py` does it.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from scipy.special import softmax

from nameplate.model.bundle import BACKBONE, Bundle, File, load_bundle, save_bundle
from nameplate.model.classifier import class_means
from nameplate.model.embeddings import embed_photos
from nameplate.model.model import Model
from nameplate.model.ood import MahalanobisDetector, WhiteningTransform
from nameplate.runtime.ort import OnnxRuntime
from nameplate.storage import sha256
from nameplate.types import Floats, Photo
from ship_more_names import (  # type: ignore[import-not-found]  # beside this file
    calibrate,
    held_out,
    known_photos,
    parser_of,
)

NAMEPLATES = 196
"""Those of cars196 come first in the head. Others have trained no network."""
LAST_LAYER, FACTOR = 1280, 4.0
"""Size of the first part, and its factor. A power of two, so that nothing is rounded."""
TEMPERATURE, SCALE = 1.5, 24.0
"""Of the likeness; `SCALE` is 0.8 of the mean length of the other parts."""
SPREAD = 1.0
"""The detector divides the likeness by it. Within a nameplate it varies by a third of it."""


def main() -> None:
    """Command line."""
    arguments = parser_of(__doc__).parse_args()
    bundle = load_bundle(arguments.bundle)
    known = known_photos(bundle, arguments.cars196)
    draft = save_bundle(arguments.target, with_likeness(bundle))
    model = Model.load(arguments.target, runtime="onnxruntime")
    trained = embed_photos(training_photos(bundle, [arguments.cars196, arguments.data]), model)
    classes = np.array([model.nameplates.index(str(photo.label)) for photo in trained.photos])
    save_bundle(
        arguments.target, replace(draft, ood_detector=seeing(draft, trained.embeddings, classes)), overwrite=True
    )
    agree(arguments.bundle, arguments.target, known["choose"][:64])
    calibrate(arguments.target, known["choose"])
    made = load_bundle(arguments.target)
    print(f"{sum(file.bytes for file in made.manifest.files.values()):,} bytes")


def with_likeness(bundle: Bundle) -> Bundle:
    """The bundle with the likeness in its embedding."""
    assert bundle.weight is not None
    assert bundle.bias is not None
    assert bundle.ood_detector is not None
    weight = rounded(bundle.weight / scales(len(bundle.weight))[:, None])
    bias = rounded(bundle.bias)
    backbone = appended(bundle.backbone, weight[:, :NAMEPLATES], bias[:NAMEPLATES])
    size = len(weight) + NAMEPLATES
    thresholds = bundle.manifest.thresholds
    assert thresholds.far is not None
    note = {"tool": "tools/ship_likeness.py", "nameplates": NAMEPLATES, "temperature": TEMPERATURE, "scale": SCALE}
    manifest = replace(
        bundle.manifest,
        provenance=bundle.manifest.provenance | {"likeness": note},
        embedding=size,
        files={BACKBONE: File(sha256(backbone), len(backbone))},
        temperatures={},
        thresholds=replace(thresholds, far=thresholds.far * len(weight) / size),  # of distances per dimension
    )
    return replace(
        bundle,
        manifest=manifest,
        backbone=backbone,
        weight=np.concatenate([weight, np.zeros((NAMEPLATES, weight.shape[1]), np.float32)]),
        bias=bias,
        ood_detector=wider(bundle.ood_detector),
    )


def agree(before: Path, after: Path, photos: list[Photo]) -> None:
    """Print how far embeddings, likeness, maps and logits of photos are from what they should be."""
    old, new = (Model.load(each, runtime="onnxruntime") for each in (before, after))
    rows = embed_photos(photos, old).embeddings
    found = embed_photos(photos, new).embeddings
    weight, bias = old.require_head()
    likeness = SCALE * np.sqrt(softmax((rows @ weight + bias)[:, :NAMEPLATES] / TEMPERATURE, axis=1))
    size = new.bundle.manifest.preprocess
    pictures = np.random.default_rng(0).integers(0, 256, (2, size.height, size.width, 3)).astype(np.uint8)
    embedding, places = next(OnnxRuntime(new.bundle.backbone, 2, maps=True).maps([pictures]))
    gaps = {
        "parts": found[:, : rows.shape[1]] - rows * scales(rows.shape[1]),
        "likeness": found[:, rows.shape[1] :] - likeness,
        "map": places.mean((1, 2)) - embedding,
        "logits": new.logits(found) - old.logits(rows),
    }
    print({name: float(np.abs(gap).max()) for name, gap in gaps.items()}, flush=True)


def rounded(values: Floats) -> Floats:
    """Values that float16 can hold, as float32."""
    return values.astype(np.float16).astype(np.float32)


def scales(size: int) -> Floats:
    """float32 (size,): `FACTOR` for the first part of the embedding, 1 for the second."""
    found = np.ones(size, np.float32)
    found[:LAST_LAYER] = FACTOR
    return found


def appended(network: bytes, weight: Floats, bias: Floats) -> bytes:
    """The ONNX file whose outputs have the likeness as their last part; in the map it is the same at each place."""
    model = onnx.load_from_string(network)
    graph = model.graph
    matrix = next(each for each in graph.initializer if each.name == "matrix0.half")
    matrix.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(matrix) * np.float16(FACTOR), matrix.name))
    for node in graph.node:
        for number, name in enumerate(node.output):
            if name in ("embedding", "map"):
                node.output[number] = f"parts.{name}"
    constants = {
        "likeness.weight.half": (weight / TEMPERATURE).astype(np.float16),
        "likeness.bias": bias / np.float32(TEMPERATURE),
        "likeness.scale": np.float32(SCALE),
        "likeness.places": np.array([1, 2], np.int64),
        "likeness.start": np.array([0], np.int64),
        "likeness.stop": np.array([3], np.int64),
        "likeness.size": np.array([weight.shape[1]], np.int64),
    }
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
    nodes: tuple[tuple[str, list[str], str, dict[str, int]], ...] = (
        ("Cast", ["likeness.weight.half"], "likeness.weight", {"to": TensorProto.FLOAT}),
        ("MatMul", ["parts.embedding", "likeness.weight"], "likeness.product", {}),
        ("Add", ["likeness.product", "likeness.bias"], "likeness.logits", {}),
        ("Softmax", ["likeness.logits"], "likeness.probabilities", {"axis": -1}),
        ("Sqrt", ["likeness.probabilities"], "likeness.roots", {}),
        ("Mul", ["likeness.roots", "likeness.scale"], "likeness", {}),
        ("Concat", ["parts.embedding", "likeness"], "embedding", {"axis": -1}),
        ("Shape", ["parts.map"], "likeness.shape", {}),
        ("Slice", ["likeness.shape", "likeness.start", "likeness.stop"], "likeness.grid", {}),
        ("Concat", ["likeness.grid", "likeness.size"], "likeness.target", {"axis": 0}),
        ("Unsqueeze", ["likeness", "likeness.places"], "likeness.place", {}),
        ("Expand", ["likeness.place", "likeness.target"], "likeness.map", {}),
        ("Concat", ["parts.map", "likeness.map"], "map", {"axis": -1}),
    )
    for operator, inputs, output, attributes in nodes:
        graph.node.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
    for each in graph.output:
        each.type.tensor_type.shape.dim[-1].dim_value += weight.shape[1]
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def wider(detector: MahalanobisDetector) -> MahalanobisDetector:
    """The detector for the embedding with the likeness; its means of the likeness are 0 as yet."""
    before = detector.whitening
    factor = scales(len(before.mean))
    further = np.zeros(NAMEPLATES, np.float32)
    transform = WhiteningTransform(
        np.concatenate([before.mean * factor, further]),
        np.concatenate([before.scale * factor, further + np.float32(SPREAD)]),
        np.concatenate([rounded(before.directions), np.zeros((NAMEPLATES, before.directions.shape[1]), np.float32)]),
        before.shares,
    )
    assert detector.backbone_class_means is None
    assert detector.gate is not None
    means = np.concatenate([detector.class_means, np.zeros((len(detector.class_means), NAMEPLATES), np.float32)], 1)
    gate = np.concatenate([detector.gate[:-1] / factor, further, detector.gate[-1:]])
    return MahalanobisDetector(transform, means, None, gate)


def training_photos(bundle: Bundle, roots: list[Path]) -> list[Photo]:
    """The photos that trained the nameplates of the bundle, as its table has them; those of cars196 by name alone."""
    at = held_out.photos_at(roots[0])
    rows = csv.DictReader((bundle.photos or b"").decode().splitlines())
    mine = [row for row in rows if row["split"] == "train" and row["label"] in bundle.manifest.nameplates]
    return [Photo(str(at.get(row["path"], roots[1] / row["path"])), label=row["label"]) for row in mine]


def seeing(draft: Bundle, rows: Floats, classes: NDArray[np.int64]) -> MahalanobisDetector:
    """The draft's detector with each nameplate's mean likeness."""
    detector = draft.ood_detector
    assert detector is not None
    means = detector.class_means.copy()
    means[:, -NAMEPLATES:] = class_means(rows[:, -NAMEPLATES:], classes) / np.float32(SPREAD)
    return replace(detector, class_means=rounded(means))


if __name__ == "__main__":
    main()
