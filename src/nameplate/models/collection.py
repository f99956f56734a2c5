"""`embed_photos`: a whole data set embedded through the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from nameplate.errors import DataError
from nameplate.models.bundle import Bundle
from nameplate.models.embedding import EmbeddingCache, Hidden, Settings, embed_stream
from nameplate.models.model import Model
from nameplate.models.runtime import PROBE_PHOTOS, Runtime
from nameplate.photos.quality import MEASURE, Quality
from nameplate.types import Photo

Progress = Callable[[str, int, int], None]
"""Called with a step's name, what is done of it and what there is to do."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """Photos with all that is known of them, unreadable ones apart."""

    photos: tuple[Photo, ...]
    embeddings: NDArray[np.float32]
    hashes: NDArray[np.uint64]
    unreadable: tuple[tuple[str, str], ...]
    runtime: str
    qualities: tuple[Quality, ...] = ()
    """Of each photo; empty where they were not kept."""


def embed_photos(
    photos: Sequence[Photo],
    model: Model,
    progress: Progress = lambda *_: None,
    *,
    mirror: bool = False,
    hide: Hidden | None = None,
) -> Embedded:
    """Embed a data set through the cache; what is unreadable is listed apart.

    Args:
        photos: at least one.
        model: gives backbone, runtime and threads.
        progress: see `Progress`.
        mirror: embed the photos mirrored.
        hide: embed them with a part painted grey.

    Raises:
        DataError: there are none, or none can be read.
    """
    if not photos:
        raise DataError("There are no photos to embed.")
    settings = replace(model.settings, mirror=mirror, hide=hide)
    runtime = model.runtime.open(len(photos) if len(photos) >= PROBE_PHOTOS else 0)  # before the cache, which is by it
    return embed_with(runtime, photos, model.bundle, settings, progress)


def embed_with(
    runtime: Runtime,
    photos: Sequence[Photo],
    bundle: Bundle,
    settings: Settings,
    progress: Progress = lambda *_: None,
) -> Embedded:
    """`embed_photos` by a runtime of one's own.

    Args:
        runtime: computes the embeddings; its name is part of the cache's key.
        photos: at least one.
        bundle: says how photos are prepared; its digest is part of the cache's key.
        settings: threads, limits, and whether to mirror.
        progress: see `Progress`.

    Raises:
        DataError: none of the photos can be read.
    """
    decoders = f"Pillow {version('pillow')} simplejpeg {version('simplejpeg')}"
    view = "mirror" if settings.mirror else f"without {settings.hide}" if settings.hide else ""
    key = f"{bundle.digest} {bundle.manifest.preprocess} {decoders} {runtime.name} {view} quality {MEASURE}"
    cache = EmbeddingCache(key, bundle.manifest.embedding)
    settings = replace(settings, hashes=True)
    step = "embed mirrored" if settings.mirror else f"embed without {settings.hide}" if settings.hide else "embed"
    good: list[Photo] = []
    embeddings, hashes, qualities, bad = [], [], [], []
    try:
        rows = embed_stream(bundle, (photo.path for photo in photos), settings, cache.__contains__, runtime)
        for number, (photo, row) in enumerate(zip(photos, rows, strict=True), start=1):
            cache.fill(row)
            cache.add(row)
            if row.embedding is None or row.hash is None or row.quality is None:
                bad.append((photo.path, str(row.failure or "not embedded")))
            else:
                good.append(photo.with_(sha256=row.digest, width=row.width, height=row.height))
                embeddings.append(row.embedding)
                hashes.append(row.hash)
                qualities.append(row.quality)
            progress(step, number, len(photos))
    finally:
        cache.flush()  # an interrupted run goes on from here
    if not good:
        raise DataError(f"None of {len(photos):,} photos can be read; the first, '{bad[0][0]}': {bad[0][1]}.", bad)
    return Embedded(tuple(good), np.stack(embeddings), np.stack(hashes), tuple(bad), runtime.name, tuple(qualities))


def still_there(photos: Sequence[Photo], embedded: Embedded) -> NDArray[np.bool_]:
    """Which photos could be read once more: one may vanish while a long run goes on; bool (N,)."""
    gone = {path for path, _ in embedded.unreadable}
    return np.array([photo.path not in gone for photo in photos])
