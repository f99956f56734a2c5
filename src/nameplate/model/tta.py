"""Test-time augmentation (TTA): several views of a photo are classified, and their probabilities are averaged.

mirror     adds the mirror image
scales     adds the middle of the photo, and the photo inside a larger grey frame
sharpen    adds the model input after unsharp masking, where the photo is not sharp
original   replaces the photo by five random passes with the augmentation of recipe `original`

Where the bundle locates cars, the views are of the crop of the car, as the plain model input is.
Averaging probabilities is the usual way (A. Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural
Networks", 2012). It can also make right answers wrong (D. Shanmugam et al., "Better Aggregation in Test-Time
Augmentation", 2021). docs/tta.md says what each name gains here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from nameplate.defaults import NO_TTA
from nameplate.errors import UsageError
from nameplate.images.augment import Augmentation, augment
from nameplate.images.parallel import ordered_map
from nameplate.images.transforms import WHOLE, Box, Pixels, centred, crop, preprocess, sharpened, sharpness_of
from nameplate.model.bundle import Bundle
from nameplate.model.detector import MOST_CARS
from nameplate.model.pipeline import (
    AHEAD,
    DecodedPhoto,
    Outcome,
    PreparedPhoto,
    Settings,
    Source,
    UnreadablePhoto,
    Views,
    embed_prepared,
    mirrored,
    prepare_decoded,
    prepare_photo,
)
from nameplate.runtime.base import Runtime
from nameplate.storage import sha256
from nameplate.types import Cars, Preprocess

ZOOMS = (0.8, 1.25)
"""`scales`: the sides of each view, as shares of the photo's sides."""
PASSES, SEED = 5, 20
"""`original`: the number of random passes, and the seed of their random numbers."""
SHARP = 0.0085
"""`sharpen`: a photo whose `sharpness_of` is lower is not sharp. The value is the 3 % quantile of every sixth photo of
cars196, in right colours, that trained the shipped bundle (978 photos; docs/tta.md)."""
# `original`: the notebook's amounts, those of recipe `original` (a test compares them). They stand here, too, because
# recipes are read by `fit/`, which imports `model/`.
ORIGINAL_AUGMENTATION = Augmentation(
    rotate=15, brightness=0.5, flip=0.5, shift=0.15, shear=15, zoom=0.15, fill="nearest"
)
FULL = "mirror,scales"
"""What `full` stands for."""
WAYS = (NO_TTA, "mirror", "scales", "sharpen", "full", "original")


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

    @property
    def view_count(self) -> int:
        """Most views that a photo gets."""
        return self.passes or len(self.views)

    def views_of(self, pixels: Pixels) -> tuple[TTAView, ...]:
        """The views of a photo, uint8 H×W×3; a sharp photo gets no sharpened view."""
        if not any(view.sharpen for view in self.views) or sharpness_of(pixels) < SHARP:
            return self.views
        return tuple(view for view in self.views if not view.sharpen)


ADDED_VIEWS: dict[str, tuple[TTAView, ...]] = {
    "mirror": (TTAView(mirror=True),),
    "scales": tuple(TTAView(centred(side)) for side in ZOOMS),
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
    if "closer" in parts:
        raise UsageError(
            "The test-time augmentation 'closer' has been removed: bundles now locate the car in the photo and name "
            "its crop, which is more accurate (docs/detector.md). Leave 'closer' out."
        )
    if len(set(parts)) < len(parts) or not set(parts) <= set(ADDED_VIEWS):
        raise UsageError(
            f"Unknown test-time augmentation '{name}'. There are {', '.join(WAYS)}; "
            f"{', '.join(ADDED_VIEWS)} may be joined by commas, each once."
        )
    return TTAPlan((TTAView(), *(view for part in ADDED_VIEWS if part in parts for view in ADDED_VIEWS[part])))


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
    """Embeds photos with all views of one plan."""

    def __init__(self, bundle: Bundle, settings: Settings, runtime: Runtime) -> None:
        """Read the plan from the settings.

        Args:
            bundle: the backbone and its preprocessing.
            settings: name of the plan (`tta`), threads and limits.
            runtime: runs the backbone.

        Raises:
            UsageError: there is no such plan.
        """
        self._bundle, self._settings, self._runtime = bundle, settings, runtime
        self._size, self._tta = bundle.manifest.preprocess, parse_tta(settings.tta)

    def rows(self, sources: Iterable[Source]) -> Iterator[Outcome]:
        """`pipeline.embed_stream` with all views of each photo: in order, in memory that does not grow."""
        # The bound is in model inputs, and a photo has one for each view of each car.
        most = self._tta.view_count * (MOST_CARS if self._settings.cars == "all" else 1)
        ahead = max(2 * self._settings.threads, AHEAD // most)
        return self.embed(ordered_map(self.prepare, sources, self._settings.threads, ahead))

    def prepare(self, source: Source) -> PreparedPhoto | UnreadablePhoto:
        """Decode a photo and make its model inputs; safe to call from several threads."""
        return prepare_photo(source, self._size, self._settings, self._make_views)

    def prepare_decoded(self, photo: DecodedPhoto, cars: Cars | None = None) -> PreparedPhoto:
        """`prepare` for a photo that is already decoded.

        Args:
            photo: the decoded photo.
            cars: which cars are named; None: as the settings say.
        """
        settings = self._settings if cars is None else replace(self._settings, cars=cars)
        return prepare_decoded(photo, self._size, settings, self._make_views)

    def embed(self, photos: Iterator[PreparedPhoto | UnreadablePhoto]) -> Iterator[Outcome]:
        """Embed prepared photos."""
        return embed_prepared(self._bundle, photos, self._runtime)

    @property
    def _make_views(self) -> Views | None:
        return self._views if self._tta != TTAPlan() else None

    def _views(self, photo: DecodedPhoto, whole: Pixels) -> tuple[Pixels, ...]:
        if self._tta.passes:
            # A photo given as pixels has no file, so the SHA-256 of its pixels seeds the random passes.
            digest = photo.file.digest or sha256(np.ascontiguousarray(photo.pixels).tobytes())
            return tuple(random_passes(whole, self._size, digest, self._tta.passes))
        views = self._tta.views_of(photo.pixels)
        return tuple(whole if view == TTAView() else make_view(photo.pixels, view, self._size) for view in views)
