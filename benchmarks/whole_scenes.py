"""Accuracy where the photo is a third of a larger scene: each held-out photo on a background, at a random place.

    python benchmarks/whole_scenes.py CARS196

The background is grey, or the top fifth of another held-out photo (sky, houses) stretched over the frame.
Photos that trained the model are left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nameplate.datasets import read_dataset
from nameplate.evaluation.judge import trained_digests
from nameplate.evaluation.metrics import evaluate
from nameplate.models.model import Model
from nameplate.photos.decode import decode
from nameplate.photos.preprocess import PAD_GREY
from nameplate.storage import sha256
from nameplate.types import DEFAULT_BUNDLE

SIDES = (1.0, (1 / 2) ** 0.5, (1 / 3) ** 0.5, 0.5)
"""Shares of the frame's height and width that the photo takes: all, half, a third, a quarter of its area."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default=DEFAULT_BUNDLE)
    arguments = parser.parse_args()
    model, dataset = Model.load(arguments.model), read_dataset(arguments.folder)
    known = trained_digests(model.bundle)
    photos = [p for p in dataset.photos if sha256(Path(p.path).read_bytes()) not in known]
    classes = np.array([model.nameplates.index(str(photo.label)) for photo in photos])
    pixels = [decode(photo.path) for photo in photos]
    for background in ("grey", "scene"):
        for side in SIDES:
            scenes = (scene(pixels, place, side, background) for place in range(len(pixels)))
            rows = np.stack([row.embedding for row in model.rows(scenes) if row.embedding is not None])
            found = evaluate(model.probabilities(rows), classes, model.nameplates).top1
            print(f"{background:5} {side**2:4.2f} of the frame: {found.value:.3f} ({found.low:.3f}–{found.high:.3f})")


def scene(pixels: list[NDArray[np.uint8]], place: int, side: float, background: str) -> NDArray[np.uint8]:
    """A photo, at its own size, in a frame that is 1/side as high and wide."""
    photo = pixels[place]
    if side == 1:
        return photo
    draw = np.random.default_rng([20, place])
    height, width = round(photo.shape[0] / side), round(photo.shape[1] / side)
    frame = np.full((height, width, 3), PAD_GREY, np.uint8)
    if background == "scene":
        other = Image.fromarray(pixels[int(draw.integers(len(pixels)))])
        box = (0, 0, other.width, max(1, other.height // 5))
        frame = np.array(other.resize((width, height), Image.Resampling.BILINEAR, box=box))
    top, left = (int(draw.integers(f - p + 1)) for f, p in zip((height, width), photo.shape[:2], strict=True))
    frame[top : top + photo.shape[0], left : left + photo.shape[1]] = photo
    return frame


if __name__ == "__main__":
    main()
