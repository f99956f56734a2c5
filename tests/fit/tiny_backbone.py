"""A backbone of three convolutions with random filters, and a bundle with it that identifies the embedded cars."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nameplate.data import read_dataset
from nameplate.demo import photos_folder
from nameplate.fit.linear_probe import train_head
from nameplate.model.bundle import SCHEMA, Bundle, Manifest, save_bundle
from nameplate.model.model import Model
from nameplate.model.pipeline import Settings
from nameplate.types import HeadRecipe, Preprocess

SIZE = Preprocess(height=32, width=48)
CHANNELS = (3, 16, 32, 48)


def tiny_backbone(seed: int = 3) -> bytes:
    """uint8 N×32×48×3 → embedding N×48 and map N×4×6×48."""
    random = np.random.default_rng(seed)
    tensors: dict[str, NDArray[Any]] = {"scale": np.array(1 / 255, np.float32), "places": np.array([2, 3], np.int64)}
    nodes, last = [], "chw"
    nodes.append(helper.make_node("Cast", ["photos"], ["numbers"], to=TensorProto.FLOAT))
    nodes.append(helper.make_node("Mul", ["numbers", "scale"], ["scaled"]))
    nodes.append(helper.make_node("Transpose", ["scaled"], ["chw"], perm=[0, 3, 1, 2]))
    for layer, (taken, given) in enumerate(pairwise(CHANNELS)):
        weight = random.normal(0, (2 / (9 * taken)) ** 0.5, (given, taken, 3, 3))
        tensors[f"w{layer}"] = weight.astype(np.float16).astype(np.float32)
        conv = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
        nodes.append(helper.make_node("Conv", [last, f"w{layer}"], [f"c{layer}"], f"conv{layer}", **conv))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"], f"relu{layer}"))
        last = f"r{layer}"
    nodes.append(helper.make_node("ReduceMean", [last, "places"], ["pooled"], keepdims=0))
    nodes.append(helper.make_node("Transpose", [last], ["hwc"], perm=[0, 2, 3, 1]))
    matrix = np.eye(CHANNELS[-1]) + random.normal(0, 0.1, (CHANNELS[-1], CHANNELS[-1]))
    tensors["matrix"] = matrix.astype(np.float16).astype(np.float32)
    nodes.append(helper.make_node("MatMul", ["pooled", "matrix"], ["embedding"]))
    nodes.append(helper.make_node("MatMul", ["hwc", "matrix"], ["map"]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("photos", TensorProto.UINT8, ["n", SIZE.height, SIZE.width, 3])],
        [
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", CHANNELS[-1]]),
            helper.make_tensor_value_info("map", TensorProto.FLOAT, ["n", 4, 6, CHANNELS[-1]]),
        ],
        [numpy_helper.from_array(tensor, name) for name, tensor in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


NAMES = ("Lada 2101", "Škoda 105", "Wartburg 353")


def random_bundle(**preprocess: object) -> Bundle:
    """A bundle of three nameplates in memory, with a classifier of random numbers."""
    random = np.random.default_rng(5)
    manifest = Manifest(
        schema=SCHEMA,
        name="tiny",
        nameplates=NAMES,
        ids=NAMES,
        preprocess=replace(SIZE, **preprocess),  # type: ignore[arg-type]
        embedding=CHANNELS[-1],
        temperature=2.0,
        temperatures={"onnxruntime": 0.5},
        files={},
        makes=("Lada", "Škoda", "Wartburg"),
    )
    weight = random.normal(0, 3, (CHANNELS[-1], len(NAMES))).astype(np.float32)
    return Bundle(manifest, tiny_backbone(), weight, random.normal(0, 1, len(NAMES)).astype(np.float32))


def tiny_bundle(folder: Path) -> Bundle:
    """A bundle that names the embedded training photos' cars; 500 photos trained it and 500 judge."""
    manifest = Manifest(
        schema=SCHEMA,
        name="tiny",
        nameplates=(),
        ids=(),
        preprocess=SIZE,
        embedding=CHANNELS[-1],
        temperature=1.0,
        files={},
    )
    bare = save_bundle(folder / "bare", Bundle(manifest, tiny_backbone()))
    model = Model(bare, Settings("onnxruntime"))
    recipe = HeadRecipe(holdout=0.5, mirror=False)
    return train_head(read_dataset(photos_folder("train")), folder / "tiny", model=model, recipe=recipe).bundle
