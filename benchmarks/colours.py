"""Accuracy on the held-out photos as they are, with red and blue exchanged, and without colour.

    python benchmarks/colours.py CARS196

The photos of cars196 that are shared widely come with red and blue in each other's place: see docs/experiments.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nameplate.data import read_dataset
from nameplate.defaults import DEFAULT_BUNDLE
from nameplate.evaluate.evaluator import trained_digests
from nameplate.evaluate.metrics import wilson
from nameplate.images.decode import decode, read_bytes
from nameplate.model.model import Model
from nameplate.storage import sha256

Pixels = NDArray[np.uint8]
VIEWS: dict[str, Callable[[Pixels], Pixels]] = {
    "as they are": lambda photo: photo,
    "red and blue exchanged": lambda photo: np.ascontiguousarray(photo[:, :, ::-1]),
    "grey": lambda photo: np.repeat(photo.mean(2, keepdims=True).astype(np.uint8), 3, 2),
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default=DEFAULT_BUNDLE)
    arguments = parser.parse_args()
    model = Model.load(arguments.model)
    trained = trained_digests(model.bundle)
    known = set(model.bundle.manifest.nameplates)
    photos = [photo for photo in read_dataset(arguments.folder).photos if photo.label in known]
    held = [photo for photo in photos if sha256(read_bytes(photo.path)) not in trained]
    pixels = [decode(photo.path) for photo in held]
    for name, view in VIEWS.items():
        answers = model.predict([view(photo) for photo in pixels])
        right = sum(answer.nameplate == photo.label for answer, photo in zip(answers, held, strict=True))
        top1 = wilson(right, len(held))
        print(f"{name:23} {top1.value:.3f} ({top1.low:.3f}–{top1.high:.3f}) of {len(held):,}", flush=True)


if __name__ == "__main__":
    main()
