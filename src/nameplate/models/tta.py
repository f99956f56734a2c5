"""Test-time augmentation: a photo is looked at several times, and the probabilities of all looks are averaged.

mirror     its mirror image
scales     a part of it, and it as a part of a larger grey frame
closer     the region that the backbone's own features point at (`region.py`); no detector
original   the notebook's five random passes instead of the photo as it is: recipe `original`'s augmentation

Averaging probabilities is what the field does (A. Krizhevsky et al., "ImageNet Classification with Deep
Convolutional Neural Networks", 2012); that it may also turn right answers wrong is shown by D. Shanmugam et al.,
"Better Aggregation in Test-Time Augmentation", 2021. What each is worth here: docs/tta.md.
"""

from __future__ import annotations

import tomllib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from nameplate.errors import BundleError, UsageError
from nameplate.models.bundle import Bundle
from nameplate.models.embedding import (
    CHUNK,
    Pixels,
    Row,
    Settings,
    Source,
    check_size,
    embed_stream,
    embedded,
    open_photo,
    prepared,
    run_through,
)
from nameplate.models.runtime import Batch, Runtime
from nameplate.photos.augment import augment
from nameplate.photos.augmentation import Augmentation
from nameplate.photos.preprocess import PAD_GREY, preprocess
from nameplate.storage import sha256
from nameplate.types import NO_TTA, Preprocess

ZOOMS = (0.8, 1.25)
"""`scales`: sides of what is seen, as shares of the photo's own."""
PASSES, SEED = 5, 20
"""`original`: random passes, and the seed of what is drawn in them."""
FULL = "mirror,scales,closer"
"""What `full` stands for."""
WAYS = (NO_TTA, "mirror", "scales", "closer", "full", "original")

Box = tuple[float, float, float, float]
"""Top, left, bottom, right as shares of the photo's height and width; what lies beyond 0–1 is grey."""
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class View:
    """One look at a photo."""

    box: Box = WHOLE
    mirror: bool = False


@dataclass(frozen=True, slots=True)
class Tta:
    """How a photo is looked at."""

    views: tuple[View, ...] = (View(),)
    """Looks at the photo, itself first."""
    passes: int = 0
    """Random passes, which stand in the place of `views`."""
    closer: bool = False
    """Whether a look at the region of the car follows."""


def _zoomed(side: float) -> Box:
    edge = (1 - side) / 2
    return (edge, edge, 1 - edge, 1 - edge)


ADDED: dict[str, tuple[View, ...]] = {
    "mirror": (View(mirror=True),),
    "scales": tuple(View(_zoomed(side)) for side in ZOOMS),
    "closer": (),
}
"""The ways that may be joined by commas, with the looks that each adds to the photo's own."""


def parse_tta(name: str) -> Tta:
    """One of `WAYS`, or some of `ADDED` joined by commas: each adds its looks, and all weigh alike.

    Raises:
        UsageError: an unknown name, one named twice, or one that stands alone among others.
    """
    if name == NO_TTA:
        return Tta()
    if name == "original":
        return Tta(passes=PASSES)
    parts = (FULL if name == "full" else name).split(",")
    if len(set(parts)) < len(parts) or not set(parts) <= set(ADDED):
        raise UsageError(
            f"Unknown test-time augmentation '{name}'. There are {', '.join(WAYS)}; "
            f"{', '.join(ADDED)} may be joined by commas, each once."
        )
    return Tta((View(), *(view for part in ADDED if part in parts for view in ADDED[part])), closer="closer" in parts)


def look(pixels: Pixels, view: View, size: Preprocess) -> Pixels:
    """A photo, uint8 H×W×3, as one look shows it: uint8 `size.height`×`size.width`×3."""
    picture = preprocess(cut(pixels, view.box), size)
    return np.ascontiguousarray(picture[:, ::-1]) if view.mirror else picture


def cut(pixels: Pixels, box: Box) -> Pixels:
    """The part of a photo in a box, with grey where the box leaves it; uint8 H×W×3, at least one pixel."""
    if box == WHOLE:
        return pixels
    height, width = pixels.shape[:2]
    top, bottom = _edges(box[0], box[2], height)
    left, right = _edges(box[1], box[3], width)
    inside = pixels[max(0, top) : bottom, max(0, left) : right]
    beyond = ((max(0, -top), max(0, bottom - height)), (max(0, -left), max(0, right - width)), (0, 0))
    return np.pad(inside, beyond, constant_values=PAD_GREY)


def _edges(first: float, last: float, side: int) -> tuple[int, int]:
    low = round(first * side)
    return low, max(low + 1, round(last * side))


@cache
def original_augmentation() -> Augmentation:
    """What recipe `original` says, which is where the notebook's amounts stand."""
    recipe = resources.files("nameplate") / "training" / "recipes" / "original.toml"
    return Augmentation(**tomllib.loads(recipe.read_text("utf-8"))["augmentation"])


def random_passes(pixels: Pixels, size: Preprocess, digest: str, count: int = PASSES) -> list[Pixels]:
    """A photo varied at random, the same for the same photo in whatever order or batch.

    Args:
        pixels: uint8 H×W×3.
        size: of the pictures, and how the photo is fitted into them.
        digest: of the photo, hexadecimal; with `SEED` it decides what is drawn.
        count: of pictures.

    Returns:
        uint8 `size.height`×`size.width`×3 each.
    """
    draw = np.random.default_rng([SEED, int(digest, 16)])
    whole, settings = preprocess(pixels, size), original_augmentation()
    return [augment(whole, size.height, size.width, settings, draw) for _ in range(count)]


def embed_views(bundle: Bundle, sources: Iterable[Source], tta: Tta, settings: Settings, runtime: Runtime) -> Iterator[Row]:
    """`embed_stream` with all looks at each photo in its row's `views`, in order, in flat memory.

    Args:
        bundle: the backbone and its preprocessing.
        sources: paths, bytes or uint8 H×W×3 pixels.
        tta: the looks.
        settings: threads and limits.
        runtime: what runs the backbone.
    """
    if tta == Tta():
        return embed_stream(bundle, sources, settings, runtime=runtime)
    return _first_looks(bundle, sources, tta, settings, runtime)


def _first_looks(bundle: Bundle, sources: Iterable[Source], tta: Tta, settings: Settings, runtime: Runtime) -> Iterator[Row]:
    looks = tta.passes or len(tta.views)
    size = bundle.manifest.preprocess

    def prepare(source: Source) -> list[Row]:
        row, pixels = open_photo(source, settings.limits, (size.height, size.width))
        if pixels is None:
            return [row]
        if tta.passes:
            pictures = random_passes(pixels, size, row.digest or sha256(pixels.tobytes()), tta.passes)
        else:
            pictures = [look(pixels, view, size) for view in tta.views]
        row.picture = pictures[0]
        return [row, *(Row(picture=picture) for picture in pictures[1:])]

    rows = embedded(bundle, prepared(sources, prepare, settings.threads, max(1, CHUNK // looks)), runtime)
    for row in rows:
        if row.embedding is not None:
            row.views = np.stack([row.embedding, *(next(rows).embedding for _ in range(looks - 1))])
        yield row
