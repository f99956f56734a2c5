"""Test-time augmentation (TTA): several views of a photo are classified, and their probabilities are averaged.

mirror     adds the mirror image
scales     adds the middle of the photo, and the photo inside a larger grey frame
closer     adds the region of the car, which the backbone's own features show (`region`)
sharpen    adds the model input after unsharp masking, where the photo is not sharp
original   replaces the photo by five random passes with the augmentation of recipe `original`

Averaging probabilities is the usual way (A. Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural
Networks", 2012). It can also make right answers wrong (D. Shanmugam et al., "Better Aggregation in Test-Time
Augmentation", 2021). docs/tta.md says what each name gains here.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from nameplate.defaults import NO_TTA
from nameplate.errors import BundleError, UsageError
from nameplate.images.augment import Augmentation, augment
from nameplate.images.parallel import ordered_map
from nameplate.images.transforms import WHOLE, Box, Pixels, centred, crop, frame, preprocess, sharpened, sharpness_of
from nameplate.model.bundle import Bundle, all_finite
from nameplate.model.pipeline import (
    AHEAD,
    DecodedPhoto,
    EmbeddedPhoto,
    Outcome,
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

# The region of the car: where in a photo the car is, by the length of the backbone's embedding at each place. The
# backbone gives long embeddings where it sees what distinguishes cars, and the shortest ones for sky and street. Of the
# maps that were tried (docs/tta.md), this one found the car best, and it needs neither a head nor a class. The idea
# comes from B. Zhou et al., "Learning Deep Features for Discriminative Localization", 2016.

TAIL = 0.05
"""Share of the map's sum that may lie beyond each edge of the region."""
MARGIN = 0.02
"""Added to the region on every side, as a share of the frame."""
LEAST = 0.25
"""Least side of the region, as a share of the frame's side. A closer view would show no more."""
STRETCH = 4 / 3
"""The region's aspect ratio is that of the model input, times or divided by at most this."""
NEARLY_ALL = 0.7
"""A region of more than this share of the photo's area adds no view."""


def region(places: Floats, height: int, width: int, size: Preprocess) -> Box | None:
    """The part of a photo that the car fills, with some margin.

    Args:
        places: float32 h×w×D, the embedding of each place of the model input.
        height: the photo's, in pixels.
        width: the photo's, in pixels.
        size: size of the model input, and how the photo was fitted into it.

    Returns:
        The box as shares of the photo's sides; None where it is nearly all of the photo.
    """
    length = np.linalg.norm(places, axis=-1)
    heat = length - length.min()
    if heat.sum() <= 0:
        return None
    left, top, right, bottom = frame(width, height, size)
    spans = (_span(heat.sum(1), top / height, bottom / height), _span(heat.sum(0), left / width, right / width))
    low, high = np.array(spans).T
    # In the order of the axes: index 0 is vertical, index 1 horizontal.
    middle, sides = (low + high) / 2, np.maximum(high - low + 2 * MARGIN, LEAST)
    sides = np.minimum(_of_aspect(sides, size.width / size.height * height / width, size), 1)
    if sides.prod() > NEARLY_ALL:
        return None
    first = np.clip(middle - sides / 2, 0, 1 - sides)
    return (float(first[0]), float(first[1]), float(first[0] + sides[0]), float(first[1] + sides[1]))


def _span(heat: Floats, first: float, last: float) -> tuple[float, float]:
    """The interval of an axis, from `first` to `last`, that holds all of the heat but a tail at each end."""
    grown = np.concatenate([[0], np.cumsum(heat)]) / heat.sum()
    low, high = np.interp([TAIL, 1 - TAIL], grown, np.linspace(first, last, len(grown)))
    return float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1))


def _of_aspect(sides: Doubles, wanted: float, size: Preprocess) -> Doubles:
    """Height and width, one of them enlarged until width / height is within `STRETCH` of the wanted ratio."""
    stretch = 1.0 if size.fit == "crop" else STRETCH  # a crop would cut off what exceeds the model input's shape
    high, wide = sides
    return np.array([max(high, wide / (wanted * stretch)), max(wide, high * wanted / stretch)])


ZOOMS = (0.8, 1.25)
"""`scales`: the sides of each view, as shares of the photo's sides."""
PASSES, SEED = 5, 20
"""`original`: the number of random passes, and the seed of their random numbers."""
CLOSER_WEIGHT = 2
"""`closer`: weight of the view of the region in the average, because the car is larger there (docs/tta.md)."""
SHARP = 0.0085
"""`sharpen`: a photo whose `sharpness_of` is lower is not sharp. The value is the 3 % quantile of every sixth photo of
cars196, in right colours, that trained the shipped bundle (978 photos; docs/tta.md)."""
# `original`: the notebook's amounts, those of recipe `original` (a test compares them). They stand here, too, because
# recipes are read by `fit/`, which imports `model/`.
ORIGINAL_AUGMENTATION = Augmentation(
    rotate=15, brightness=0.5, flip=0.5, shift=0.15, shear=15, zoom=0.15, fill="nearest"
)
FULL = "mirror,scales,closer"
"""What `full` stands for."""
WAYS = (NO_TTA, "mirror", "scales", "closer", "sharpen", "full", "original")


@dataclass(frozen=True, slots=True)
class TTAView:
    """One view of a photo: which part of it, and how that part is changed."""

    box: Box = WHOLE
    mirror: bool = False
    sharpen: bool = False


@dataclass(frozen=True, slots=True)
class TTAPlan:
    """The views of a photo that a name of `WAYS` stands for."""

    views: tuple[TTAView, ...] = (TTAView(),)
    """The first is the photo as it is."""
    passes: int = 0
    """Number of random passes, which replace `views`; 0 where there are none."""
    closer: bool = False
    """Whether a view of the region of the car is added."""

    @property
    def view_count(self) -> int:
        """Most views that a photo gets before that of the region."""
        return self.passes or len(self.views)

    def views_of(self, pixels: Pixels) -> tuple[TTAView, ...]:
        """The views of a photo, uint8 H×W×3; a sharp photo gets no sharpened view."""
        if not any(view.sharpen for view in self.views) or sharpness_of(pixels) < SHARP:
            return self.views
        return tuple(view for view in self.views if not view.sharpen)


ADDED_VIEWS: dict[str, tuple[TTAView, ...]] = {
    "mirror": (TTAView(mirror=True),),
    "scales": tuple(TTAView(centred(side)) for side in ZOOMS),
    "closer": (),
    "sharpen": (TTAView(sharpen=True),),
}
"""The names that may be joined by commas, with the views that each adds to the photo as it is."""


def parse_tta(name: str) -> TTAPlan:
    """The plan of a name in `WAYS`, or of several names in `ADDED_VIEWS` joined by commas.

    Raises:
        UsageError: a name is unknown, occurs twice, or cannot be joined with others.
    """
    if name == NO_TTA:
        return TTAPlan()
    if name == "original":
        return TTAPlan(passes=PASSES)
    parts = (FULL if name == "full" else name).split(",")
    if len(set(parts)) < len(parts) or not set(parts) <= set(ADDED_VIEWS):
        raise UsageError(
            f"Unknown test-time augmentation '{name}'. There are {', '.join(WAYS)}; "
            f"{', '.join(ADDED_VIEWS)} may be joined by commas, each once."
        )
    return TTAPlan(
        (TTAView(), *(view for part in ADDED_VIEWS if part in parts for view in ADDED_VIEWS[part])),
        closer="closer" in parts,
    )


def make_view(pixels: Pixels, view: TTAView, size: Preprocess) -> Pixels:
    """The model input of one view of a photo: uint8 H×W×3 → uint8 `size.height`×`size.width`×3."""
    picture = preprocess(crop(pixels, view.box), size)
    if view.sharpen:
        picture = sharpened(picture)
    return mirrored(picture) if view.mirror else picture


def random_passes(pixels: Pixels, size: Preprocess, digest: str, count: int = PASSES) -> list[Pixels]:
    """Random variations of a photo. They depend on the photo alone, not on its place in a job or in a batch.

    Args:
        pixels: uint8 H×W×3.
        size: size of the model input, and how the photo is fitted into it.
        digest: SHA-256 of the photo, hexadecimal; with `SEED` it seeds the random numbers.
        count: number of variations.

    Returns:
        uint8 `size.height`×`size.width`×3 each.
    """
    draw = np.random.default_rng([SEED, int(digest, 16)])
    whole, settings = preprocess(pixels, size), ORIGINAL_AUGMENTATION
    return [augment(whole, size.height, size.width, settings, draw) for _ in range(count)]


class TTAEmbedder:
    """Embeds photos with all views of one plan; the runtime that `closer` needs is opened once."""

    def __init__(self, bundle: Bundle, settings: Settings, runtime: Runtime) -> None:
        """Read the plan from the settings.

        Args:
            bundle: the backbone and its preprocessing.
            settings: name of the plan (`tta`), threads and limits.
            runtime: runs the backbone. With `closer` ONNX Runtime runs it instead: no other runtime here gives maps.

        Raises:
            UsageError: there is no such plan.
            BundleError: `closer` was asked for, and the backbone gives no maps.
        """
        self._bundle, self._settings, self._runtime = bundle, settings, runtime
        self._size, self._tta = bundle.manifest.preprocess, parse_tta(settings.tta)
        self._mapping = _open_maps(bundle, settings.threads) if self._tta.closer else None

    def rows(self, sources: Iterable[Source]) -> Iterator[Outcome]:
        """`pipeline.embed_stream` with all views of each photo: in order, in memory that does not grow.

        With `closer` a photo is read and decoded a second time, so that no pixels have to be kept. If the second
        decoding fails, the photo keeps its first views.
        """
        # The bound is in model inputs, and a photo has one for each view.
        ahead = max(1, AHEAD // self._tta.view_count)
        return self.embed(
            ordered_map(lambda source: (source, self.prepare(source)), sources, self._settings.threads, ahead)
        )

    def prepare(self, source: Source) -> PreparedPhoto | UnreadablePhoto:
        """Decode a photo and make the model inputs of its first views; safe to call from several threads."""
        return prepare_photo(source, self._size, self._settings, self._views if self._tta != TTAPlan() else None)

    def prepare_decoded(self, photo: DecodedPhoto) -> PreparedPhoto:
        """`prepare` for a photo that is already decoded."""
        return prepare_decoded(photo, self._size, self._settings, self._views if self._tta != TTAPlan() else None)

    def embed(self, photos: Iterable[tuple[Source, PreparedPhoto | UnreadablePhoto]]) -> Iterator[Outcome]:
        """Embed prepared photos, each given with its source, which `closer` reads again."""
        if self._mapping is not None:
            return self._closer(photos, self._mapping)
        return embed_prepared(self._bundle, (photo for _, photo in photos), self._runtime)

    def _views(self, photo: DecodedPhoto, whole: Pixels) -> tuple[Pixels, ...]:
        if self._tta.passes:
            # A photo given as pixels has no file, so the SHA-256 of its pixels seeds the random passes.
            digest = photo.file.digest or sha256(np.ascontiguousarray(photo.pixels).tobytes())
            return tuple(random_passes(whole, self._size, digest, self._tta.passes))
        views = self._tta.views_of(photo.pixels)
        return tuple(whole if view == TTAView() else make_view(photo.pixels, view, self._size) for view in views)

    def _first(
        self, photos: Iterator[PreparedPhoto | UnreadablePhoto], mapping: OnnxRuntime
    ) -> Iterator[tuple[Outcome, Box | None]]:
        """Photos with their first views, and the region for the closer view; None where there is none."""

        def run(batches: Iterable[Batch]) -> Iterator[Iterable[tuple[Floats, Floats]]]:
            for embeddings, places in mapping.maps(batches):
                check_size(embeddings, self._bundle)
                yield zip(embeddings, places, strict=True)

        for photo, found in run_through(photos, run):
            if isinstance(photo, UnreadablePhoto):
                yield photo, None
                continue
            places = found[0][1]  # of the first view, which is the whole photo
            outcome = embedded(photo, np.stack([embedding for embedding, _ in found]), mapping.name)
            usable = isinstance(outcome, EmbeddedPhoto) and all_finite(places)
            yield outcome, region(places, *photo.decoded, self._size) if usable else None

    def _closer(
        self, photos: Iterable[tuple[Source, PreparedPhoto | UnreadablePhoto]], mapping: OnnxRuntime
    ) -> Iterator[Outcome]:
        """The first views, then the view of each photo's region; a photo waits until both are embedded."""
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
                outcome = replace(outcome, views=np.concatenate([outcome.views, *[closer.views] * CLOSER_WEIGHT]))
            yield outcome

    def _prepare_closer(self, found: tuple[Source, Box | None]) -> PreparedPhoto | UnreadablePhoto | None:
        source, box = found
        if box is None:
            return None
        # The photo may be decoded at a scale at which the region alone still has the size of the model input.
        at_least = math.ceil(self._size.height / (box[2] - box[0])), math.ceil(self._size.width / (box[3] - box[1]))
        decoded = decode_photo(source, replace(self._settings, watch=no_watch), at_least)
        if isinstance(decoded, UnreadablePhoto):
            return decoded
        return PreparedPhoto(
            decoded.file, decoded.pixels.shape[:2], (make_view(decoded.pixels, TTAView(box), self._size),), None
        )


def _open_maps(bundle: Bundle, threads: int) -> OnnxRuntime:
    runtime = OnnxRuntime(bundle.backbone, threads, maps=True)
    if not runtime.has_maps:
        raise BundleError(
            f"'{bundle.manifest.name}' cannot be used with --tta closer: its backbone gives no map. Either it was "
            "exported before Nameplate had maps (train it again), or it is a network without a grid of features. "
            "'mirror' and 'scales' need no map."
        )
    return runtime
