"""The golden photo: one that ships, to see whether a model answers as it did when it was made.

It is one of the embedded renders, of a car that does not exist: what counts is not the name but that it is the
same name, with the same probability.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from nameplate.images.decode import decode
from nameplate.images.transforms import WHOLE, centred, crop, preprocess
from nameplate.types import Prediction, Preprocess

TOLERANCE = {"onnxruntime": 0.005, "openvino": 0.005, "openvino-bf16": 0.1}
"""How far the probability of a nameplate may lie from what it was, by runtime: processors add up in different
orders, and bfloat16 has three digits."""
INT8_TOLERANCE = 0.1
"""The same of a backbone in int8, by any runtime: where one rounds up and another down, 1/255 of the range is between
them."""


PARTS = (WHOLE, centred(0.9), centred(0.75), centred(0.6))
"""Parts of the golden photo that make pictures of their own, each also mirrored."""


@dataclass(frozen=True, slots=True)
class ReferenceAnswer:
    """What a model said of the golden photo when it was made."""

    top: tuple[tuple[str, float], ...]
    """The most probable nameplates with their probabilities, best first."""
    int8: bool = False
    """Whether its backbone computes in int8."""


def reference_photo() -> bytes:
    """The golden photo's file, a JPEG."""
    return (resources.files("nameplate.model") / "golden.jpg").read_bytes()


def reference_inputs(size: Preprocess) -> NDArray[np.uint8]:
    """Pictures that a backbone can be tried on, the same everywhere: uint8 8×H×W×3, the golden photo first.

    Args:
        size: how the bundle prepares photos.
    """
    pixels = decode(reference_photo())
    pictures = [preprocess(crop(pixels, box), size) for box in PARTS]
    return np.stack([*pictures, *(picture[:, ::-1] for picture in pictures)])


def reference_problem(expected: ReferenceAnswer, found: Prediction, runtime: str) -> str | None:
    """What is wrong with an answer to the golden photo; None where nothing is.

    Args:
        expected: what the model said when it was made.
        found: what it says now.
        runtime: what computed it now, which says how much it may differ.
    """
    if found.error is not None or found.nameplate is None:
        return f"the golden photo could not be read: {found.error}"
    now, allowed = dict(found.top), TOLERANCE.get(runtime, min(TOLERANCE.values()))
    allowed = max(allowed, INT8_TOLERANCE) if expected.int8 else allowed
    for nameplate, chance in expected.top[:1]:
        if abs(now.get(nameplate, 0.0) - chance) > allowed:
            return (
                f"of the golden photo it says '{found.nameplate}' ({found.confidence:.4f}), and it said "
                f"'{nameplate}' ({chance:.4f}) when it was made"
            )
    return None
