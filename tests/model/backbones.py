"""Small backbones for tests: uint8 N×H×W×3 → float32 N×4, of a few nodes each, valid and hostile ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nameplate.model.bundle import SCHEMA, Bundle, Manifest, save_bundle
from nameplate.types import Preprocess

onnx = pytest.importorskip("onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper
FLOAT, UINT8, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8, onnx.TensorProto.INT64

D, SIDE = 4, 32
MEANS = "means"
"""The name of what `backbone` begins with: float32 N×3, each photo's mean colour."""


def node(operator: str, *names: str, **attributes: Any) -> Any:
    """A node; the last name is its output."""
    return helper.make_node(operator, list(names[:-1]), list(names[-1:]), **attributes)


def backbone(*nodes: Any, output: Any = None, functions: Any = (), **constants: Any) -> bytes:
    """An ONNX file: the mean colours, some nodes, and an output `embedding` that they give.

    Args:
        nodes: from `MEANS` to `embedding`.
        output: what the output is; None: float32 N×D.
        functions: of the file's own.
        constants: name → array.
    """
    values = {"axes": np.array([1, 2]), "weight": np.arange(3 * D).reshape(3, D) / 9, **constants}
    kinds = {
        name: np.asarray(value, np.int64 if value.dtype.kind == "i" else np.float32) for name, value in values.items()
    }
    graph = helper.make_graph(
        [
            node("Cast", "photos", "colours", to=FLOAT),
            node("ReduceMean", "colours", "axes", MEANS, keepdims=0),
            *nodes,
        ],
        "backbone",
        [helper.make_tensor_value_info("photos", UINT8, ["n", SIDE, SIDE, 3])],
        [output or helper.make_tensor_value_info("embedding", FLOAT, ["n", D])],
        [numpy_helper.from_array(value, name) for name, value in kinds.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    made = helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=9)
    data: bytes = made.SerializeToString()
    return data


def good() -> bytes:
    """A backbone that works."""
    return backbone(node("MatMul", MEANS, "weight", "embedding"))


def nan_of_black() -> bytes:
    """One that works but for black photos, of which it computes 0 / 0."""
    return backbone(node("Div", MEANS, MEANS, "ones"), node("MatMul", "ones", "weight", "embedding"))


def save(folder: Path, data: bytes, *, embedding: int = D, scale: float = 1.0, **changes: Any) -> Path:
    """A bundle of two nameplates around a backbone."""
    manifest = Manifest(
        schema=SCHEMA,
        name=folder.name,
        nameplates=("Audi A4", "Kia Rio"),
        ids=("0", "1"),
        preprocess=Preprocess(SIDE, SIDE),
        embedding=embedding,
        temperature=1.0,
        files={},
    )
    head = np.eye(embedding, 2, dtype=np.float32) * np.float32(scale), np.zeros(2, np.float32)
    save_bundle(folder, Bundle(replace(manifest, **changes), data, *head))
    return folder
