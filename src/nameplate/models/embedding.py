"""Photos → embeddings, as fast as decoding and inference allow together, and the cache of them.

Photos are read, hashed, decoded and preprocessed in threads (the decoders release the interpreter's lock)
while the runtime computes; no more than `AHEAD` chunks wait, so memory does not grow with the job.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from nameplate.errors import BundleError, Failure, PhotoError
from nameplate.models.bundle import Bundle, numbers
from nameplate.models.cache import ArrayCache
from nameplate.models.lanes import Tuning
from nameplate.models.runtime import BATCH, Batch, ChosenRuntime, Runtime
from nameplate.models.stopwatch import Watch, no_watch
from nameplate.photos.decode import decode_with_header, read_bytes, read_header
from nameplate.photos.fingerprint import WORDS, perceptual_hash
from nameplate.photos.parallel import ordered_map
from nameplate.photos.preprocess import preprocess
from nameplate.photos.quality import Quality, measure_quality
from nameplate.storage import sha256
from nameplate.types import NO_TTA, Limits, Preprocess

CHUNK, AHEAD = 8, 12
"""Photos a thread takes at once, and chunks that may wait for the runtime."""
STRETCH = 256
"""Photos in a row that fill no batch, because they are unreadable or known, before they are let go."""

CENTRE = 0.75
"""Share of the height and of the width that is called the centre: where the car is."""
GREY = 128
"""What a hidden part is painted with."""

NOT_COMPUTED = Failure("not computed", "of this photo the model computes NaN, infinity or near it")
"""The failure of a photo whose embedding or probabilities are no numbers."""

Hidden = Literal["centre", "border"]
Pixels = NDArray[np.uint8]
Source = str | Path | bytes | Pixels | Callable[[], bytes]
"""A path, a file's bytes, pixels, or what gives a file's bytes when it is called, in one of the threads."""
S = TypeVar("S")
T = TypeVar("T")


@dataclass(slots=True)
class Row:
    """One photo on its way through the pipeline."""

    digest: str | None = None
    """SHA-256 of the file; None for pixels and for what could not be opened."""
    width: int = 0
    height: int = 0
    decoded: tuple[int, int] = (0, 0)
    """Height and width of the pixels that were decoded, upright and perhaps reduced."""
    hash: NDArray[np.uint64] | None = None
    """Perceptual hash, where it was asked for."""
    quality: Quality | None = None
    """Size, light and sharpness of the photo; None where it was not decoded."""
    embedding: NDArray[np.float32] | None = None
    """float32 (D,); None where the photo is unreadable, or was known already."""
    views: NDArray[np.float32] | None = None
    """float32 V×D, of all looks that are averaged, `embedding` first; None where there is but one."""
    failure: Failure | None = None
    """Why it cannot be read."""
    picture: Pixels | None = None
    """Waits for the runtime."""
    more: int = 0
    """Looks at the same photo besides this one, whose rows follow."""
    runtime: str = ""
    """What computed the embedding."""

    def measure(self, pixels: Pixels, picture: Pixels, size: Preprocess) -> None:
        """Keep the quality of the photo, which was decoded to `pixels` and preprocessed by `size` to `picture`."""
        short_side = min(self.width, self.height) or min(pixels.shape[:2])
        self.quality = measure_quality(pixels, picture, size, short_side)

    def take(self, embedding: NDArray[np.float32], runtime: str, views: NDArray[np.float32] | None = None) -> None:
        """Keep what a runtime computed; where a number of it is none that becomes the row's failure."""
        self.runtime = runtime
        if numbers(embedding) and (views is None or numbers(views)):
            self.embedding, self.views = embedding, views
        else:
            self.failure = NOT_COMPUTED


@dataclass(frozen=True, slots=True)
class Settings:
    """How photos are embedded."""

    runtime: str = "auto"
    threads: int = 1
    limits: Limits = field(default_factory=Limits)
    hashes: bool = False
    """Whether to compute perceptual hashes too."""
    mirror: bool = False
    """Whether to embed the photos mirrored left to right."""
    hide: Hidden | None = None
    """A part of the photos to paint grey before they are embedded."""
    tta: str = NO_TTA
    """How a model looks at a photo to name it (`models.tta`); embeddings are always of the photo as it is."""
    tuning: Tuning | None = None
    """How many photos go through the runtime at once; None: as is its way."""
    watch: Watch = no_watch
    """Measures where the time goes."""


def embed_stream(
    bundle: Bundle,
    sources: Iterable[Source],
    settings: Settings,
    known: Callable[[str], bool] = lambda _: False,
    runtime: Runtime | None = None,
) -> Iterator[Row]:
    """Embed photos one after another; rows come in the photos' order.

    Args:
        bundle: the backbone and its preprocessing.
        sources: of the photos, see `Source`.
        settings: see `Settings`.
        known: says of a digest that its embedding is at hand; such a photo is not decoded.
        runtime: what runs the backbone; None chooses by the first pictures.
    """
    size = bundle.manifest.preprocess
    rows = prepared(sources, lambda source: (prepare_photo(source, size, settings, known),), settings.threads)
    runtime = runtime or ChosenRuntime(bundle, settings.runtime, settings.threads, settings.tuning, settings.watch)
    return embedded(bundle, rows, runtime)


def embedded(bundle: Bundle, rows: Iterator[Row], runtime: Runtime) -> Iterator[Row]:
    """Prepared rows with the embeddings of their pictures, in order."""

    def embed(batches: Iterable[Batch]) -> Iterator[Iterable[tuple[NDArray[np.float32], str]]]:
        ran = ""
        for embeddings in runtime.embed(batches):
            ran = ran or runtime.name  # a stretch is one runtime's, whatever is opened in its course
            check_size(embeddings, bundle)
            yield ((embedding, ran) for embedding in embeddings)

    for row, found in run_through(rows, embed):
        if found is not None:
            row.take(*found)
        yield row


def run_through(
    rows: Iterator[Row], run: Callable[[Iterable[Batch]], Iterator[Iterable[T]]]
) -> Iterator[tuple[Row, T | None]]:
    """Each row, in order, with what `run` made of its picture; None where it has none. The picture is let go."""
    waiting: deque[Row] = deque()
    for row in rows:  # once for each stretch: `_batches` reads on
        for results in run(_batches(itertools.chain([row], rows), waiting)):
            for result in results:
                while waiting[0].picture is None:
                    yield waiting.popleft(), None
                done = waiting.popleft()
                done.picture = None
                yield done, result
        while waiting:
            yield waiting.popleft(), None


def check_size(embeddings: NDArray[np.float32], bundle: Bundle) -> None:
    """Raises BundleError where a backbone's embeddings, N×D, are not of the size that the bundle states."""
    if embeddings.shape[1:] != (bundle.manifest.embedding,):
        raise BundleError(
            f"'{bundle.manifest.name}' is no bundle that works: its backbone gives {embeddings.shape} "
            f"for some photos, and bundle.json says N×{bundle.manifest.embedding}."
        )


def _batches(rows: Iterator[Row], waiting: deque[Row]) -> Iterator[Batch]:
    """Batches of pictures, until the rows end or a long stretch of them fills none."""
    pictures: list[Pixels] = []
    stretch = 0
    for row in rows:
        waiting.append(row)
        stretch += 1
        if row.picture is not None:
            pictures.append(row.picture)
        if len(pictures) == BATCH:
            yield np.stack(pictures)
            pictures.clear()
            stretch = 0
        elif stretch >= STRETCH:
            break
    if pictures:
        yield np.stack(pictures)


def prepared(
    sources: Iterable[S], prepare: Callable[[S], Sequence[Row]], threads: int, chunk: int = CHUNK
) -> Iterator[Row]:
    """The rows that `prepare` makes of each source, in order, made in threads.

    Args:
        sources: read as far ahead as `AHEAD` chunks.
        prepare: reads and prepares one source; raises no PhotoError.
        threads: that prepare.
        chunk: sources that a thread takes at once.
    """
    for rows in ordered_map(prepare, sources, threads, AHEAD * chunk):
        yield from rows


def prepare_photo(
    source: Source, size: Preprocess, settings: Settings, known: Callable[[str], bool] = lambda _: False
) -> Row:
    """Read, hash, decode and preprocess one photo: a row whose picture waits for the runtime."""
    row, pixels = open_photo(source, settings.limits, (size.height, size.width), known, settings.watch)
    if pixels is None:
        return row
    with settings.watch("resize"):
        picture = preprocess(pixels, size)
        row.measure(pixels, picture, size)
    if settings.hashes:
        row.hash = perceptual_hash(picture)
    if settings.hide is not None:
        picture = _without(picture, settings.hide)
    row.picture = np.ascontiguousarray(picture[:, ::-1]) if settings.mirror else picture
    return row


def open_photo(
    source: Source,
    limits: Limits,
    at_least: tuple[int, int],
    known: Callable[[str], bool] = lambda _: False,
    watch: Watch = no_watch,
) -> tuple[Row, Pixels | None]:
    """Read, hash and decode one photo: its row and pixels, uint8 H×W×3, None where it is unreadable or known.

    Args:
        source: see `Source`.
        limits: what it may cost.
        at_least: see `photos.decode`.
        known: says of a digest that its photo need not be decoded.
        watch: measures reading and decoding.
    """
    row = Row()
    if isinstance(source, np.ndarray):
        row.height, row.width = row.decoded = source.shape[:2]
        return row, source
    try:
        with watch("read"):
            data = bytes_of(source, limits)
            row.digest = sha256(data)
        if known(row.digest):
            return row, None
        with watch("decode"):
            header = read_header(data, limits)
            row.width, row.height = header.width, header.height
            pixels = decode_with_header(data, header, limits, at_least)
    except PhotoError as error:
        row.failure = error.failure
        return row, None
    row.decoded = pixels.shape[:2]
    return row, pixels


def bytes_of(source: str | Path | bytes | Callable[[], bytes], limits: Limits) -> bytes:
    """A photo's file, wherever it comes from; raises PhotoError."""
    if isinstance(source, bytes):
        return source
    return read_bytes(source, limits) if isinstance(source, (str, Path)) else source()


def _without(picture: Pixels, part: Hidden) -> Pixels:
    """The picture with its centre, or all but its centre, painted grey."""
    height, width = picture.shape[:2]
    top, left = round(height * (1 - CENTRE) / 2), round(width * (1 - CENTRE) / 2)
    centre = (slice(top, height - top), slice(left, width - left))
    painted = picture.copy() if part == "centre" else np.full_like(picture, GREY)
    painted[centre] = GREY if part == "centre" else picture[centre]
    return painted


class EmbeddingCache:
    """Embeddings on disk, by photo digest, for one backbone, preprocessing and runtime."""

    def __init__(self, key: str, size: int) -> None:
        self._cache = ArrayCache(
            "embeddings", key, {"embedding": (size,), "hash": (WORDS,), "size": (2,), "quality": (3,)}
        )
        self.folder, self.flush = self._cache.folder, self._cache.flush

    def __contains__(self, digest: str) -> bool:
        return digest in self._cache

    def add(self, row: Row) -> None:
        """Keep an embedded row."""
        if row.digest is None or row.embedding is None or row.hash is None or row.quality is None:
            return
        size = np.array((row.width, row.height), np.int32)
        quality = np.array(astuple(row.quality), np.float64)
        self._cache.add(row.digest, {"embedding": row.embedding, "hash": row.hash, "size": size, "quality": quality})

    def fill(self, row: Row) -> None:
        """Give a row that was known its embedding, hash and size."""
        if row.digest is not None and row.embedding is None and row.digest in self._cache:
            known = self._cache[row.digest]
            row.take(known["embedding"], row.runtime)
            row.hash = known["hash"]
            row.width, row.height = known["size"].tolist()
            short_side, light, sharpness = known["quality"].tolist()
            row.quality = Quality(int(short_side), light, sharpness)
