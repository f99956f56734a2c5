"""Open Inference Protocol V2: an answer's tensors into its body, the other way round from `tensors.py`."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from nameplate.serving.tensors import InferRequest

Tensor = NDArray[np.float32] | Sequence[str]


def write_response(
    model: str, version: str, request: InferRequest, tensors: Mapping[str, Tensor]
) -> tuple[bytes, int | None]:
    """An answer's body, and the length of the JSON in it where binary data follow.

    Args:
        model: its name.
        version: its version.
        request: what is answered.
        tensors: output → float32 array, or strings; at least those that are asked for.
    """
    outputs, tail = [], []
    for wanted in request.outputs:
        tensor = tensors[wanted.name]
        numbers = isinstance(tensor, np.ndarray)
        shown: dict[str, object] = {
            "name": wanted.name,
            "datatype": "FP32" if numbers else "BYTES",
            "shape": np.shape(tensor) if numbers else (len(tensor),),
        }
        if wanted.binary:
            data = _binary(tensor)
            tail.append(data)
            shown["parameters"] = {"binary_data_size": len(data)}
        else:
            shown["data"] = tensor.ravel().tolist() if isinstance(tensor, np.ndarray) else list(tensor)
        outputs.append(shown)
    said = {} if request.id is None else {"id": request.id}
    head = msgspec.json.encode({"model_name": model, "model_version": version, **said, "outputs": outputs})
    return b"".join((head, *tail)), len(head) if tail else None


def _binary(tensor: Tensor) -> bytes:
    if isinstance(tensor, np.ndarray):
        return tensor.astype("<f4", order="C", copy=False).tobytes()
    return b"".join(struct.pack("<I", len(text)) + text for text in (string.encode() for string in tensor))
