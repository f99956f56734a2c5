"""Measures the accuracy where a photo is a third of a larger scene, at a random place on a background.

    python benchmarks/whole_scenes.py CARS196 [--tta none closer] [--every 1] [--parts 3]

The background is grey, or the top fifth of another held-out photo (sky, houses), stretched to the frame. Photos that
trained the model are left out. Every TTA plan after the first one is compared with it photo by photo.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nameplate.data import read_dataset
from nameplate.defaults import DEFAULT_BUNDLE, NO_TTA
from nameplate.evaluate.evaluator import trained_digests
from nameplate.evaluate.metrics import evaluate
from nameplate.evaluate.significance import Paired, paired
from nameplate.images.decode import decode
from nameplate.images.transforms import PAD_GREY
from nameplate.model.model import Model
from nameplate.model.pipeline import EmbeddedPhoto
from nameplate.storage import sha256
from nameplate.types import Evaluation


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default=DEFAULT_BUNDLE)
    parser.add_argument("--tta", nargs="+", default=[NO_TTA], help="Ways of looking (docs/tta.md).")
    parser.add_argument("--every", type=int, default=1, help="Take every so many-th photo.")
    parser.add_argument("--parts", nargs="+", type=int, default=[1, 2, 3, 4], help="The photo is 1/N of the scene.")
    arguments = parser.parse_args()
    model, dataset = Model.load(arguments.model), read_dataset(arguments.folder)
    known = trained_digests(model.bundle)
    photos = [p for p in dataset.photos if sha256(Path(p.path).read_bytes()) not in known]
    photos = photos[:: arguments.every]
    classes = np.array([model.nameplates.index(str(photo.label)) for photo in photos])
    pixels = [decode(photo.path) for photo in photos]
    for background in ("grey", "scene"):
        for part in arguments.parts:
            first: NDArray[np.bool_] | None = None
            for tta in arguments.tta:
                scenes = (scene(pixels, place, part**-0.5, background) for place in range(len(pixels)))
                looks = model.with_settings(tta=tta).embedder
                begun = time.monotonic()
                probs = np.stack([model.probs(row) for row in looks.rows(scenes) if isinstance(row, EmbeddedPhoto)])
                speed = len(pixels) / (time.monotonic() - begun)
                right = probs.argmax(1) == classes
                tell(
                    f"{background:5} 1/{part} of the frame, {tta} ({speed:.1f} photos/s)",
                    evaluate(probs, classes, model.nameplates),
                )
                if first is None:
                    first = right
                else:
                    tell_gain(paired(first, right))


def tell(what: str, found: Evaluation) -> None:
    """A line."""
    top1 = found.top1
    print(f"{what}: {top1.value:.3f} ({top1.low:.3f}–{top1.high:.3f}), log-loss {found.log_loss:.3f}", flush=True)


def tell_gain(found: Paired) -> None:
    """A line below it."""
    gain = found.difference
    print(
        f"      gain {100 * gain.value:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f}), p {found.p:.2g}, "
        f"{found.better} better, {found.worse} worse",
        flush=True,
    )


def scene(pixels: Sequence[NDArray[np.uint8]], place: int, side: float, background: str) -> NDArray[np.uint8]:
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
