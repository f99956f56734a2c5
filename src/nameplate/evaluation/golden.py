"""`with_golden`: what a model says of the golden photo, kept with it, so that it can be held to it later."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nameplate.errors import BundleError
from nameplate.models.bundle import BACKBONE, Bundle, File, Manifest
from nameplate.models.golden import Golden, golden_photo
from nameplate.models.model import Model
from nameplate.models.pipeline import Settings
from nameplate.models.proof import prove
from nameplate.storage import sha256


def with_golden(
    manifest: Manifest, backbone: bytes, weight: NDArray[np.float32], bias: NDArray[np.float32]
) -> Manifest:
    """The manifest with what ONNX Runtime says of the golden photo.

    Args:
        manifest: complete but for this.
        backbone: the ONNX file.
        weight: of the head, D×C.
        bias: of the head, C.

    Raises:
        BundleError: what was made does not work: loaded again it would be refused.
    """
    draft = replace(manifest, files={BACKBONE: File(sha256(backbone), len(backbone))})
    bundle = Bundle(draft, backbone, weight, bias)
    prove(bundle)
    model = Model(bundle, Settings("onnxruntime"))
    [prediction] = model.predict(golden_photo())
    if prediction.error is not None:
        raise BundleError(f"'{manifest.name}' does not work: the golden photo is {prediction.error}.")
    return replace(manifest, golden=Golden(prediction.top, model.bundle.int8))
