"""`embed_photos`: the embeddings of a whole data set, through a cache on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from nameplate.errors import DataError
from nameplate.images.parallel import ordered_map
from nameplate.images.quality import MEASURE, Quality
from nameplate.images.transforms import Pixels
from nameplate.model.bundle import Bundle
from nameplate.model.cache import EmbeddingCache
from nameplate.model.detector import BOXES
from nameplate.model.detector import SHA256 as DETECTOR_SHA256
from nameplate.model.model import Model
from nameplate.model.pipeline import (
    AHEAD,
    CachedPhoto,
    DecodedPhoto,
    EmbeddedPhoto,
    Hidden,
    Outcome,
    PreparedPhoto,
    Settings,
    UnreadablePhoto,
    embed_prepared,
    mirrored,
    prepare_uncached,
)
from nameplate.model.runtime_choice import PROBE_PHOTOS
from nameplate.runtime.base import Runtime
from nameplate.types import Floats, Photo, Preprocess

Progress = Callable[[str, int, int], None]
"""Called with the name of a step, the number of items done, and the number of all items."""


@dataclass(frozen=True, slots=True)
class DatasetEmbeddings:
    """The embeddings of a data set; unreadable photos are listed apart."""

    photos: tuple[Photo, ...]
    """The N photos that could be read, with their digests and sizes."""
    embeddings: Floats
    hashes: NDArray[np.uint64]
    unreadable: tuple[tuple[str, str], ...]
    """Path and reason of each photo that could not be read."""
    runtime: str
    """Name of the runtime that computed the embeddings."""
    qualities: tuple[Quality, ...] = ()
    """Size, light and sharpness of each photo; empty where they were not kept."""


def embed_photos(
    photos: Sequence[Photo],
    model: Model,
    progress: Progress = lambda *_: None,
    *,
    mirror: bool = False,
    also_mirrored: bool = False,
    hide: Hidden | None = None,
) -> DatasetEmbeddings:
    """Embed a data set through the cache.

    Args:
        photos: at least one.
        model: contains backbone, runtime and threads.
        progress: see `Progress`.
        mirror: whether to embed the photos mirrored.
        also_mirrored: whether to embed photos that may train in both ways, so that they are decoded once. The mirrored
            embeddings wait in the cache for a call with `mirror`.
        hide: the part of each model input to paint grey.

    Raises:
        DataError: there are no photos, or none can be read.
    """
    if not photos:
        raise DataError("There are no photos to embed.")
    settings = replace(model.settings, mirror=mirror, hide=hide)
    runtime = model.runtime.open(
        len(photos) if len(photos) >= PROBE_PHOTOS else 0
    )  # its name is part of the cache's key
    return embed_with(runtime, photos, model.bundle, settings, progress, also_mirrored=also_mirrored)


def embed_with(
    runtime: Runtime,
    photos: Sequence[Photo],
    bundle: Bundle,
    settings: Settings,
    progress: Progress = lambda *_: None,
    *,
    also_mirrored: bool = False,
) -> DatasetEmbeddings:
    """`embed_photos` on a given runtime.

    Args:
        runtime: computes the embeddings; its name is part of the cache's key.
        photos: at least one.
        bundle: contains the preprocessing; its digest is part of the cache's key.
        settings: threads, limits, and whether to mirror or hide a part.
        progress: see `Progress`.
        also_mirrored: see `embed_photos`.

    Raises:
        DataError: none of the photos can be read.
    """
    # A photo of a data set has one embedding, that of its main car, also where predictions are of all cars.
    settings = replace(settings, hashes=True, cars="main" if settings.cars == "all" else settings.cars)
    cache = _cache(bundle, settings, runtime.name)
    mirror_cache = _cache(bundle, replace(settings, mirror=True), runtime.name) if also_mirrored else None
    outcomes: list[Outcome] = []
    try:
        prepared = _prepared(photos, bundle.manifest.preprocess, settings, cache, mirror_cache)
        found: Iterator[Outcome | CachedPhoto] = embed_prepared(bundle, prepared, runtime)
        for number, outcome in enumerate(found, start=1):
            outcomes.append(_cached(outcome, cache, mirror_cache))
            progress(_step_name(settings), number, len(photos))
    finally:
        cache.flush()  # an interrupted run continues from here
        if mirror_cache is not None:
            mirror_cache.flush()
    return _collected(photos, outcomes, runtime.name)


def _collected(photos: Sequence[Photo], outcomes: Sequence[Outcome], runtime: str) -> DatasetEmbeddings:
    """Separate embedded from unreadable photos.

    Raises:
        DataError: none of the photos can be read.
    """
    good: list[Photo] = []
    embeddings, hashes, qualities, bad = [], [], [], []
    for photo, outcome in zip(photos, outcomes, strict=True):
        if isinstance(outcome, EmbeddedPhoto):
            # Always there: `settings.hashes` is set, and no source is a model input.
            assert outcome.hash is not None
            assert outcome.car.quality is not None
            good.append(photo.with_(sha256=outcome.digest, width=outcome.file.width, height=outcome.file.height))
            embeddings.append(outcome.embedding)
            hashes.append(outcome.hash)
            qualities.append(outcome.car.quality)
        else:
            bad.append((photo.path, str(outcome.failure)))
    if not good:
        raise DataError(f"None of {len(photos):,} photos can be read; the first, '{bad[0][0]}': {bad[0][1]}.", bad)
    return DatasetEmbeddings(tuple(good), np.stack(embeddings), np.stack(hashes), tuple(bad), runtime, tuple(qualities))


def _step_name(settings: Settings) -> str:
    return "embed mirrored" if settings.mirror else f"embed without {settings.hide}" if settings.hide else "embed"


def _cache(bundle: Bundle, settings: Settings, runtime: str) -> EmbeddingCache:
    # Another version of a decoder may give other pixels, and another runtime gives other embeddings.
    decoders = f"Pillow {version('pillow')} simplejpeg {version('simplejpeg')}"
    view = "mirror" if settings.mirror else f"without {settings.hide}" if settings.hide else ""
    key = f"{bundle.digest} {bundle.manifest.preprocess} {decoders} {runtime} {view} quality {MEASURE}"
    if bundle.manifest.preprocess.locate != "none":
        key += f" cars {settings.cars} {DETECTOR_SHA256} {BOXES}"
    return EmbeddingCache(key, bundle.manifest.embedding, runtime)


def _prepared(
    photos: Sequence[Photo],
    size: Preprocess,
    settings: Settings,
    cache: EmbeddingCache,
    mirror_cache: EmbeddingCache | None,
) -> Iterator[PreparedPhoto | UnreadablePhoto | CachedPhoto]:
    """Prepare photos in threads, each with its mirror image where it may train and `mirror_cache` lacks it."""

    def prepare(photo: Photo) -> PreparedPhoto | UnreadablePhoto | CachedPhoto:
        both = mirror_cache is not None and photo.split in (None, "train")

        def cached(digest: str) -> bool:
            return digest in cache and (not both or mirror_cache is None or digest in mirror_cache)

        return prepare_uncached(photo.path, size, settings, cached, _with_mirrored if both else None)

    return ordered_map(prepare, photos, settings.threads, AHEAD)


def _with_mirrored(_: DecodedPhoto, whole: Pixels) -> tuple[Pixels, ...]:
    return whole, mirrored(whole)


def _cached(outcome: Outcome | CachedPhoto, cache: EmbeddingCache, mirror_cache: EmbeddingCache | None) -> Outcome:
    """Put a photo, and its mirror image if it has one, into their caches; returns the photo as it is."""
    if isinstance(outcome, EmbeddedPhoto) and len(outcome.car.views) > 1:
        assert mirror_cache is not None
        mirror_cache.store_or_load(replace(outcome, car=replace(outcome.car, views=outcome.car.views[1:])))
        outcome = replace(outcome, car=replace(outcome.car, views=outcome.car.views[:1]))
    return cache.store_or_load(outcome)


def still_readable(photos: Sequence[Photo], embedded: DatasetEmbeddings) -> NDArray[np.bool_]:
    """Which photos are still readable, bool (N,): files can vanish during a long run."""
    gone = {path for path, _ in embedded.unreadable}
    return np.array([photo.path not in gone for photo in photos])
