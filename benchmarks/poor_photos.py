"""What `poor photo` changes: verdicts of known cars as they are and degraded, and of folders of other photos.

    python benchmarks/poor_photos.py CARS196 [--folders FOLDER ...] [--model BUNDLE]

Of CARS196, the photos are evaluated that the bundle's table lists as held out. They are found by nameplate and file
name, so that CARS196 may be a copy in other colours. A photo is decoded once by the pipeline, and degraded as in
`robustness.py`. A photo that is a `poor photo` now was an `unknown car` before. The table is Markdown.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nameplate.data import read_dataset
from nameplate.data.dataset import list_photos
from nameplate.defaults import DEFAULT_BUNDLE
from nameplate.images.decode import decode
from nameplate.model.model import Model
from nameplate.types import Photo, Prediction, Preprocess, Verdict
from robustness import Vary, blurred, darkened  # type: ignore[import-not-found]  # beside this file

Pixels = NDArray[np.uint8]
COLUMNS: tuple[Verdict, ...] = ("answer", "unsure", "unknown car", "poor photo", "not a car")


def alone(vary: Vary, size: Preprocess) -> Callable[[Pixels], Pixels]:
    """A variant of `robustness.py` that needs no other photos."""
    return lambda photo: vary([photo], 0, size)


def thumbnail(long_side: int) -> Callable[[Pixels], Pixels]:
    """A photo made so small."""

    def vary(photo: Pixels) -> Pixels:
        image = Image.fromarray(photo)
        image.thumbnail((long_side, long_side), Image.Resampling.BICUBIC, reducing_gap=None)
        return np.asarray(image)

    return vary


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--folders", type=Path, nargs="*", default=[])
    parser.add_argument("--model", default=DEFAULT_BUNDLE)
    arguments = parser.parse_args()
    model = Model.load(arguments.model, runtime="onnxruntime")
    size = model.bundle.manifest.preprocess
    variants: dict[str, Callable[[Pixels], Pixels]] = {
        **{f"blurred, sigma {sigma}": alone(blurred(sigma), size) for sigma in (1, 2, 4)},
        **{f"long side {side} px": thumbnail(side) for side in (100, 64)},
        "1/4 of the light": alone(darkened, size),
    }
    rows = csv.DictReader((model.bundle.photos or b"").decode().splitlines())
    names = {row["path"] for row in rows if row["split"] != "train"}
    held = [p for p in read_dataset(arguments.photos).photos if "/".join(Path(p.path).parts[-2:]) in names]
    pixels = [decode(photo.path, at_least=(size.height, size.width)) for photo in held]
    print(f"| photos | {' | '.join(COLUMNS)} | before: unknown car | flawed | answers right | of flawed ones |")
    print("| --- |" + 9 * " ---: |")
    tell(f"cars196, held out ({len(held):,})", model.stream(photo.path for photo in held), held)
    for name, vary in variants.items():
        tell(name, model.stream(vary(each) for each in pixels), held)
    for folder in arguments.folders:
        found = [answer for answer in model.stream(p.path for p in list_photos(folder)) if answer.error is None]
        tell(f"{folder.parent.name}/{folder.name} ({len(found):,})", found)


def tell(name: str, answers: Iterable[Prediction], photos: Sequence[Photo] = ()) -> None:
    """A line of the table; of unlabelled photos nothing is right or wrong."""
    found = list(answers)
    counts = Counter(answer.verdict for answer in found)
    shares = [counts[verdict] for verdict in COLUMNS]
    shares += [counts["unknown car"] + counts["poor photo"], sum(bool(answer.flaws) for answer in found)]
    told = [(a, a.nameplate == photo.label) for a, photo in zip(found, photos, strict=False) if a.verdict == "answer"]
    right = [share([is_right for _, is_right in told]), share([is_right for a, is_right in told if a.flaws])]
    print(f"| {name} | {' | '.join([f'{100 * n / len(found):.1f} %' for n in shares] + right)} |", flush=True)


def share(right: Sequence[bool]) -> str:
    """How many are right, of how many."""
    return f"{100 * sum(right) / len(right):.1f} % of {len(right):,}" if right else ""


if __name__ == "__main__":
    main()
