"""The reference image: a shipped photo that shows whether a model still answers as it did when it was made.

It is one of the rendered photos of the demo, of a car that does not exist. The answer is therefore never right; what
matters is that it is the same nameplate with the same probability. The file is `golden.jpg`, and the key in bundle.json
is `golden`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from nameplate.images.decode import decode
from nameplate.images.transforms import WHOLE, centred, crop, preprocess
from nameplate.types import Prediction, Preprocess

FLOAT32 = ("onnxruntime", "openvino", "onnxruntime-cuda", "openvino-gpu")
TOLERANCE = {**dict.fromkeys(FLOAT32, 0.005), "openvino-bf16": 0.1}
"""Largest change of the nameplate's probability, by runtime. Processors add floats in different orders, and bfloat16
has three significant digits."""
INT8_TOLERANCE = 0.1
"""The same for an int8 backbone on any runtime: where one rounds up and another down, they differ by 1/255 of the
range."""
CROPS = (WHOLE, centred(0.9), centred(0.75), centred(0.6))
"""Crops of the reference image that become model inputs, each also mirrored."""


@dataclass(frozen=True, slots=True)
class ReferenceAnswer:
    """A model's answer to the reference image when it was made; part of bundle.json."""

    top: tuple[tuple[str, float], ...]
    """The most probable nameplates with their probabilities, best first."""
    int8: bool = False
    """Whether its backbone computes in int8."""


def reference_photo() -> bytes:
    """The file of the reference image, a JPEG."""
    return (resources.files("nameplate.model") / "golden.jpg").read_bytes()


def reference_inputs(size: Preprocess) -> NDArray[np.uint8]:
    """Model inputs to try a backbone on, which are the same everywhere: uint8 8×H×W×3, the whole image first.

    Args:
        size: size of the model input, and how a photo is fitted into it.
    """
    pixels = decode(reference_photo())
    inputs = [preprocess(crop(pixels, box), size) for box in CROPS]
    return np.stack([*inputs, *(each[:, ::-1] for each in inputs)])


def reference_problem(expected: ReferenceAnswer, found: Prediction, runtime: str) -> str | None:
    """What is wrong with an answer to the reference image, as a clause; None where nothing is.

    Args:
        expected: the answer when the model was made.
        found: the answer now.
        runtime: the runtime that computed it; it decides how much the answers may differ.
    """
    if found.error is not None or found.nameplate is None:
        return f"the reference image could not be read: {found.error}"
    # An unknown runtime gets the strictest tolerance.
    now, allowed = dict(found.top), TOLERANCE.get(runtime, min(TOLERANCE.values()))
    allowed = max(allowed, INT8_TOLERANCE) if expected.int8 else allowed
    for nameplate, probability in expected.top[:1]:  # the most probable nameplate alone
        if abs(now.get(nameplate, 0.0) - probability) > allowed:
            return (
                f"it answers the reference image with '{found.nameplate}' ({found.confidence:.4f}), and when it was "
                f"made it answered '{nameplate}' ({probability:.4f})"
            )
    return None
