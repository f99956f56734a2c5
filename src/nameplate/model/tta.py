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

import math
import tomllib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

import numpy as np

from nameplate.defaults import NO_TTA
from nameplate.errors import BundleError, UsageError
from nameplate.images.augment import Augmentation, augment
from nameplate.images.parallel import ordered_map
from nameplate.images.transforms import WHOLE, Box, centred, crop, frame, preprocess, sharpened, sharpness_of
from nameplate.model.bundle import Bundle, numbers
from nameplate.model.pipeline import (
    AHEAD,
    DecodedPhoto,
    EmbeddedPhoto,
    Outcome,
    Pixels,
    PreparedPhoto,
    Settings,
    Source,
    UnreadablePhoto,
    check_size,
    decode_photo,
    embed_prepared,
    embedded,
    mirrored,
    prepare_decoded,
    prepare_photo,
    run_through,
)
from nameplate.runtime.base import Batch, Runtime, no_watch
from nameplate.runtime.ort import OnnxRuntime
from nameplate.storage import sha256
from nameplate.types import Doubles, Floats, Preprocess

# JOINED `region`: where in a photo the car is, read off the backbone's own features; no detector.
#
# JOINED A place's embedding is the longer, the more the backbone sees there that it tells cars by; sky and street leave it
# JOINED near the least. So the length, which needs no head and no class, is the map that found the car best of those that
# JOINED were tried (docs/tta.md); the idea of looking for objects in the last features is B. Zhou et al., "Learning Deep
# JOINED Features for Discriminative Localization", 2016.


TAIL = 0.05
"""Share of the map that may lie beyond each edge of the region."""
MARGIN = 0.02
"""Widens the region, a share of the frame on every side."""
LEAST = 0.25
"""Least side of the region, as a share of the frame's: nearer than that there is nothing to see."""
STRETCH = 4 / 3
"""The region is as wide for its height as the model's picture, times or divided by up to this."""
NEARLY_ALL = 0.7
"""A region of more than this share of the photo's area is no closer look."""


def region(places: Floats, height: int, width: int, size: Preprocess) -> Box | None:
    """The part of a photo that the car fills, with some margin.

    Args:
        places: float32 h×w×D, the embedding of each place of the model's picture.
        height: of the photo.
        width: of the photo.
        size: the model's picture, and how the photo was fitted into it.

    Returns:
        The box, within the photo; None where it is nearly all of the photo.
    """
    length = np.linalg.norm(places, axis=-1)
    heat = length - length.min()
    if heat.sum() <= 0:
        return None
    left, top, right, bottom = frame(width, height, size)
    spans = (_span(heat.sum(1), top / height, bottom / height), _span(heat.sum(0), left / width, right / width))
    low, high = np.array(spans).T
    middle, sides = (low + high) / 2, np.maximum(high - low + 2 * MARGIN, LEAST)
    sides = np.minimum(_of_aspect(sides, size.width / size.height * height / width, size), 1)
    if sides.prod() > NEARLY_ALL:
        return None
    first = np.clip(middle - sides / 2, 0, 1 - sides)
    return (float(first[0]), float(first[1]), float(first[0] + sides[0]), float(first[1] + sides[1]))


def _span(heat: Floats, first: float, last: float) -> tuple[float, float]:
    """Between which places of an axis from `first` to `last` all of the heat lies but for its tails."""
    grown = np.concatenate([[0], np.cumsum(heat)]) / heat.sum()
    low, high = np.interp([TAIL, 1 - TAIL], grown, np.linspace(first, last, len(grown)))
    return float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1))


def _of_aspect(sides: Doubles, wanted: float, size: Preprocess) -> Doubles:
    """Height and width, one of them widened until width / height is near enough to what is wanted."""
    stretch = 1.0 if size.fit == "crop" else STRETCH  # what is not of its shape would be cut off
    high, wide = sides
    return np.array([max(high, wide / (wanted * stretch)), max(wide, high * wanted / stretch)])


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
class TTAView:
    """One look at a photo."""

    box: Box = WHOLE
    mirror: bool = False
    sharpen: bool = False


@dataclass(frozen=True, slots=True)
class Tta:
    """How a photo is looked at."""

    views: tuple[TTAView, ...] = (TTAView(),)
    """Looks at the photo, itself first."""
    passes: int = 0
    """Random passes, which stand in the place of `views`."""
    closer: bool = False
    """Whether a look at the region of the car follows."""

    @property
    def looks(self) -> int:
        """How many there are before that, at a photo that gets them all."""
        return self.passes or len(self.views)

    def views_of(self, pixels: Pixels) -> tuple[TTAView, ...]:
        """Those at a photo, uint8 H×W×3: a sharp one is not looked at sharpened."""
        if not any(view.sharpen for view in self.views) or sharpness_of(pixels) < SHARP:
            return self.views
        return tuple(view for view in self.views if not view.sharpen)


ADDED: dict[str, tuple[TTAView, ...]] = {
    "mirror": (TTAView(mirror=True),),
    "scales": tuple(TTAView(centred(side)) for side in ZOOMS),
    "closer": (),
    "sharpen": (TTAView(sharpen=True),),
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
    return Tta(
        (TTAView(), *(view for part in ADDED if part in parts for view in ADDED[part])), closer="closer" in parts
    )


def look(pixels: Pixels, view: TTAView, size: Preprocess) -> Pixels:
    """A photo, uint8 H×W×3, as one look shows it: uint8 `size.height`×`size.width`×3."""
    picture = preprocess(crop(pixels, view.box), size)
    if view.sharpen:
        picture = sharpened(picture)
    return mirrored(picture) if view.mirror else picture


@cache
def original_augmentation() -> Augmentation:
    """What recipe `original` says, which is where the notebook's amounts stand."""
    recipe = resources.files("nameplate") / "fit" / "recipes" / "original.toml"
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

    def rows(self, sources: Iterable[Source]) -> Iterator[Outcome]:
        """`pipeline.embed_stream` with all looks at a photo as its views: in order, in flat memory.

        With `closer` a photo is read and decoded a second time, so that none has to be kept; where that fails,
        the first looks stand.
        """
        # The bound is in model inputs, and a photo has one for each look.
        ahead = max(1, AHEAD // self._tta.looks)
        return self.embed(
            ordered_map(lambda source: (source, self.prepare(source)), sources, self._settings.threads, ahead)
        )

    def prepare(self, source: Source) -> PreparedPhoto | UnreadablePhoto:
        """Decode a photo and make the model inputs of its first looks; may be called in several threads."""
        return prepare_photo(source, self._size, self._settings, self._views if self._tta != Tta() else None)

    def prepare_decoded(self, photo: DecodedPhoto) -> PreparedPhoto:
        """`prepare` for a photo that is decoded already."""
        return prepare_decoded(photo, self._size, self._settings, self._views if self._tta != Tta() else None)

    def embed(self, photos: Iterable[tuple[Source, PreparedPhoto | UnreadablePhoto]]) -> Iterator[Outcome]:
        """Embed photos after `prepare`, each beside its source, which is read again for a closer look."""
        if self._mapping is not None:
            return self._closer(photos, self._mapping)
        return embed_prepared(self._bundle, (photo for _, photo in photos), self._runtime)

    def _views(self, photo: DecodedPhoto, whole: Pixels) -> tuple[Pixels, ...]:
        if self._tta.passes:
            # A photo that came as pixels has no file: the pixels are what its random passes are drawn by.
            digest = photo.file.digest or sha256(np.ascontiguousarray(photo.pixels).tobytes())
            return tuple(random_passes(whole, self._size, digest, self._tta.passes))
        views = self._tta.views_of(photo.pixels)
        return tuple(whole if view == TTAView() else look(photo.pixels, view, self._size) for view in views)

    def _first(
        self, photos: Iterator[PreparedPhoto | UnreadablePhoto], mapping: OnnxRuntime
    ) -> Iterator[tuple[Outcome, Box | None]]:
        """Photos after their first looks, and the region to look at closer, None where there is none."""

        def run(batches: Iterable[Batch]) -> Iterator[Iterable[tuple[Floats, Floats]]]:
            for embeddings, places in mapping.maps(batches):
                check_size(embeddings, self._bundle)
                yield zip(embeddings, places, strict=True)

        for photo, found in run_through(photos, run):
            if isinstance(photo, UnreadablePhoto):
                yield photo, None
                continue
            places = found[0][1]
            outcome = embedded(photo, np.stack([embedding for embedding, _ in found]), mapping.name)
            usable = isinstance(outcome, EmbeddedPhoto) and numbers(places)
            yield outcome, region(places, *photo.decoded, self._size) if usable else None

    def _closer(
        self, photos: Iterable[tuple[Source, PreparedPhoto | UnreadablePhoto]], mapping: OnnxRuntime
    ) -> Iterator[Outcome]:
        """First looks, then one at each photo's region; a photo waits until both are done."""
        kept: deque[Source] = deque()
        waiting: deque[Outcome] = deque()

        def remembered() -> Iterator[PreparedPhoto | UnreadablePhoto]:
            for source, photo in photos:
                kept.append(source)
                yield photo

        def regions() -> Iterator[tuple[Source, Box | None]]:
            for outcome, box in self._first(remembered(), mapping):
                waiting.append(outcome)
                yield kept.popleft(), box

        again = ordered_map(self._prepare_closer, regions(), self._settings.threads, AHEAD)
        for closer in embed_prepared(self._bundle, again, mapping):
            outcome = waiting.popleft()
            if isinstance(outcome, EmbeddedPhoto) and isinstance(closer, EmbeddedPhoto):
                outcome = replace(outcome, views=np.concatenate([outcome.views, *[closer.views] * CLOSER_COUNTS]))
            yield outcome

    def _prepare_closer(self, sight: tuple[Source, Box | None]) -> PreparedPhoto | UnreadablePhoto | None:
        source, box = sight
        if box is None:
            return None
        at_least = math.ceil(self._size.height / (box[2] - box[0])), math.ceil(self._size.width / (box[3] - box[1]))
        decoded = decode_photo(source, replace(self._settings, watch=no_watch), at_least)
        if isinstance(decoded, UnreadablePhoto):
            return decoded
        return PreparedPhoto(
            decoded.file, decoded.pixels.shape[:2], (look(decoded.pixels, TTAView(box), self._size),), None
        )


def _open_maps(bundle: Bundle, threads: int) -> OnnxRuntime:
    runtime = OnnxRuntime(bundle.backbone, threads, maps=True)
    if not runtime.has_maps:
        raise BundleError(
            f"'{bundle.manifest.name}' cannot look closer: its backbone gives no map. It was exported before Nameplate "
            "had maps (train it again), or is a network without a grid of features. 'mirror' and 'scales' need none."
        )
    return runtime
