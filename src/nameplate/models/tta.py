"""Test-time augmentation: a photo is looked at several times, and the probabilities of all looks are averaged.

mirror     its mirror image
scales     a part of it, and it as a part of a larger grey frame
closer     the region that the backbone's own features point at (`region.py`); no detector
sharpen    its model's picture after unsharp masking, of a photo that is not sharp
original   the notebook's five random passes instead of the photo as it is: recipe `original`'s augmentation

Averaging probabilities is what the field does (A. Krizhevsky et al., "ImageNet Classification with Deep
Convolutional Neural Networks", 2012); that it may also turn right answers wrong is shown by D. Shanmugam et al.,
"Better Aggregation in Test-Time Augmentation", 2021. What each is worth here: docs/tta.md.
"""

from __future__ import annotations

import itertools
import math
import tomllib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from nameplate.errors import BundleError, UsageError
from nameplate.models.bundle import Bundle, numbers
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
from nameplate.models.region import region
from nameplate.models.runtime import Batch, OnnxRuntime, Runtime
from nameplate.photos.augment import augment
from nameplate.photos.augmentation import Augmentation
from nameplate.photos.cut import WHOLE, Box, centred, cut
from nameplate.photos.preprocess import preprocess
from nameplate.photos.sharpness import sharpened, sharpness_of
from nameplate.storage import sha256
from nameplate.types import NO_TTA, Preprocess

Floats = NDArray[np.float32]

ZOOMS = (0.8, 1.25)
"""`scales`: sides of what is seen, as shares of the photo's own."""
PASSES, SEED = 5, 20
"""`original`: random passes, and the seed of what is drawn in them."""
CLOSER_COUNTS = 2
"""`closer`: a look at the region counts as so many, since the car is larger there (docs/tta.md)."""
SHARP = 0.0085
"""`sharpen`: a photo whose `sharpness_of` is below it is not sharp. The 3 % point of every sixth photo of cars196, in
right colours, that trained the bundle that ships (978 photos; docs/tta.md)."""
FULL = "mirror,scales,closer"
"""What `full` stands for."""
WAYS = (NO_TTA, "mirror", "scales", "closer", "sharpen", "full", "original")


@dataclass(frozen=True, slots=True)
class View:
    """One look at a photo."""

    box: Box = WHOLE
    mirror: bool = False
    sharpen: bool = False


@dataclass(frozen=True, slots=True)
class Tta:
    """How a photo is looked at."""

    views: tuple[View, ...] = (View(),)
    """Looks at the photo, itself first."""
    passes: int = 0
    """Random passes, which stand in the place of `views`."""
    closer: bool = False
    """Whether a look at the region of the car follows."""

    @property
    def looks(self) -> int:
        """How many there are before that, at a photo that gets them all."""
        return self.passes or len(self.views)

    def views_of(self, pixels: Pixels) -> tuple[View, ...]:
        """Those at a photo, uint8 H×W×3: a sharp one is not looked at sharpened."""
        if not any(view.sharpen for view in self.views) or sharpness_of(pixels) < SHARP:
            return self.views
        return tuple(view for view in self.views if not view.sharpen)


ADDED: dict[str, tuple[View, ...]] = {
    "mirror": (View(mirror=True),),
    "scales": tuple(View(centred(side)) for side in ZOOMS),
    "closer": (),
    "sharpen": (View(sharpen=True),),
}
"""The ways that may be joined by commas, with the looks that each adds to the photo's own."""


def parse_tta(name: str) -> Tta:
    """One of `WAYS`, or some of `ADDED` joined by commas: each adds its looks.

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
    if view.sharpen:
        picture = sharpened(picture)
    return np.ascontiguousarray(picture[:, ::-1]) if view.mirror else picture


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


class Looks:
    """A bundle's backbone, looking at photos in one way; what it needs is opened once."""

    def __init__(self, bundle: Bundle, settings: Settings, runtime: Runtime) -> None:
        """Prepare to look.

        Args:
            bundle: the backbone and its preprocessing.
            settings: the way (`tta`), threads and limits.
            runtime: what runs the backbone; with `closer` ONNX Runtime does, which alone gives maps.

        Raises:
            UsageError: there is no such way.
            BundleError: `closer` was asked for, and the backbone gives no maps.
        """
        self._bundle, self._settings, self._runtime = bundle, settings, runtime
        self._size, self._tta = bundle.manifest.preprocess, parse_tta(settings.tta)
        self._mapping = _open_maps(bundle, settings.threads) if self._tta.closer else None

    def rows(self, sources: Iterable[Source]) -> Iterator[Row]:
        """`embed_stream` with all looks at a photo in its row's `views`: in order, in flat memory.

        With `closer` a photo is read and decoded a second time, so that none has to be kept; where that fails,
        the first looks stand.
        """
        if self._tta == Tta():
            return embed_stream(self._bundle, sources, self._settings, runtime=self._runtime)
        if self._mapping is not None:
            return self._closer(sources, self._mapping)
        return (row for row, _ in self._first(sources))

    def _first(self, sources: Iterable[Source]) -> Iterator[tuple[Row, Box | None]]:
        """Photos after their first looks, and the region to look at closer, None where there is none."""
        rows = prepared(sources, self._prepare_first, self._settings.threads, max(1, CHUNK // self._tta.looks))
        seen = run_through(rows, self._run)
        for row, found in seen:
            if found is None:
                yield row, None
                continue
            embedding, ran, places = found
            others = [again[0] for _, again in itertools.islice(seen, row.more) if again is not None]
            row.take(embedding, ran, np.stack([embedding, *others]))
            usable = places is not None and row.failure is None and numbers(places)
            yield row, region(places, *row.decoded, self._size) if places is not None and usable else None

    def _prepare_first(self, source: Source) -> list[Row]:
        """A row for each look, the first with what is known of the photo; one row for an unreadable one."""
        row, pixels = open_photo(
            source, self._settings.limits, (self._size.height, self._size.width), watch=self._settings.watch
        )
        if pixels is None:
            return [row]
        if self._tta.passes:
            digest = row.digest or sha256(np.ascontiguousarray(pixels).tobytes())
            pictures = random_passes(pixels, self._size, digest, self._tta.passes)
        else:
            pictures = [look(pixels, view, self._size) for view in self._tta.views_of(pixels)]
        whole = preprocess(pixels, self._size) if self._tta.passes else pictures[0]
        row.measure(pixels, whole, self._size)
        row.picture, row.more = pictures[0], len(pictures) - 1
        return [row, *(Row(picture=picture) for picture in pictures[1:])]

    def _run(self, batches: Iterable[Batch]) -> Iterator[Iterable[tuple[Floats, str, Floats | None]]]:
        """Embeddings, what computed them, and their maps where regions are read off those."""
        if self._mapping is not None:
            for embeddings, places in self._mapping.maps(batches):
                check_size(embeddings, self._bundle)
                yield zip(embeddings, itertools.repeat(self._mapping.name), places)
            return
        ran = ""
        for embeddings in self._runtime.embed(batches):
            ran = ran or self._runtime.name  # as in `embedding.embedded`
            check_size(embeddings, self._bundle)
            yield ((embedding, ran, None) for embedding in embeddings)

    def _closer(self, sources: Iterable[Source], runtime: Runtime) -> Iterator[Row]:
        """First looks, then one at each photo's region; a row waits until both are done."""
        kept: deque[Source] = deque()
        waiting: deque[Row] = deque()

        def remembered() -> Iterator[Source]:
            for source in sources:
                kept.append(source)
                yield source

        def regions() -> Iterator[tuple[Source, Box | None]]:
            for row, box in self._first(remembered()):
                waiting.append(row)
                yield kept.popleft(), box

        again = prepared(regions(), self._prepare_closer, self._settings.threads)
        for closer in embedded(self._bundle, again, runtime):
            row = waiting.popleft()
            if row.views is not None and closer.embedding is not None:
                row.views = np.concatenate([row.views, *[closer.embedding[None]] * CLOSER_COUNTS])
            yield row

    def _prepare_closer(self, sight: tuple[Source, Box | None]) -> list[Row]:
        source, box = sight
        if box is None:
            return [Row()]
        at_least = math.ceil(self._size.height / (box[2] - box[0])), math.ceil(self._size.width / (box[3] - box[1]))
        row, pixels = open_photo(source, self._settings.limits, at_least)
        if pixels is not None:
            row.picture = look(pixels, View(box), self._size)
        return [row]


def _open_maps(bundle: Bundle, threads: int) -> OnnxRuntime:
    runtime = OnnxRuntime(bundle.backbone, threads, maps=True)
    if not runtime.has_maps:
        raise BundleError(
            f"'{bundle.manifest.name}' cannot look closer: its backbone gives no map. It was exported before Nameplate "
            "had maps (train it again), or is a network without a grid of features. 'mirror' and 'scales' need none."
        )
    return runtime
