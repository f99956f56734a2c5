"""Stores the weights of an ONNX model as float16 where float16 holds them exactly."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HALF = ".half"
"""What follows a tensor's name where it is stored as float16."""
SMALL = 64
"""Tensors with fewer values than this are not changed."""


def store_as_half(model: onnx.ModelProto) -> None:
    """Store each weight tensor as float16 where that is exact; a Cast node after it restores float32.

    Runtimes fold the Cast when they load the model, so that only the file's size changes. A tensor that was computed
    during the export (a standardised filter, a mask) is not exact in float16, and stays float32: it is never rounded.

    Args:
        model: is changed in place.
    """
    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.ndim < 2 or values.size < SMALL:
            continue
        with np.errstate(over="ignore"):  # an overflow gives infinity, which the comparison below finds
            half = values.astype(np.float16)
        if not np.array_equal(half, values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, name + HALF))
        casts.append(helper.make_node("Cast", [name + HALF], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]  # the types that it states are no longer true
