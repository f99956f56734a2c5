"""The pipeline, of which everything is composed that names or embeds photos: decode → preprocess → embed.

Each step has a type of its own, and takes the type of the step before:

    Source → `decode_photo` → DecodedPhoto → `prepare_decoded` → PreparedPhoto → `embed_prepared` → EmbeddedPhoto

At each step an UnreadablePhoto may come instead, which the later steps pass on. `Model` classifies and decides.
Photos are decoded and prepared in threads while the runtime computes, and few of them wait, so that memory does not
grow with their number.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from nameplate.defaults import NO_TTA
from nameplate.errors import BundleError, Failure, PhotoError
from nameplate.images.decode import decode_with_header, read_bytes, read_header
from nameplate.images.parallel import ordered_map
from nameplate.images.phash import perceptual_hash
from nameplate.images.quality import Quality, measure_quality
from nameplate.images.transforms import preprocess
from nameplate.model.bundle import Bundle, all_finite
from nameplate.model.runtime_choice import ChosenRuntime
from nameplate.runtime.base import BATCH, Batch, Batching, Runtime, Watch, no_watch
from nameplate.storage import sha256
from nameplate.types import Floats, Limits, Preprocess

AHEAD = 96
"""Model inputs that may wait for the runtime."""
STRETCH = 256
"""Photos in a row that fill no batch, because they are unreadable or cached, before they are let go."""
SIDEWAYS = 5
"""From this EXIF orientation on a photo lies on its side (CIPA DC-008)."""

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
T = TypeVar("T")
X = TypeVar("X")


@dataclass(frozen=True, slots=True)
class PhotoFile:
    """What is known of a photo before its pixels are."""

    digest: str | None
    """SHA-256 of the file, hexadecimal; None for pixels."""
    width: int
    """In pixels as stored, before EXIF orientation."""
    height: int
    """In pixels as stored, before EXIF orientation."""
    orientation: int = 1
    """EXIF's, 1–8; 1 is upright."""

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height of the photo once it is turned upright."""
        return (self.width, self.height) if self.orientation < SIDEWAYS else (self.height, self.width)


@dataclass(frozen=True, slots=True)
class UnreadablePhoto:
    """A photo that some step could not go on with."""

    failure: Failure
    digest: str | None = None
    """SHA-256 of the file; None for pixels, and for a file that could not be opened."""


@dataclass(frozen=True, slots=True)
class CachedPhoto:
    """A photo that was not decoded, because its embedding is at hand."""

    digest: str


@dataclass(frozen=True, slots=True)
class DecodedPhoto:
    """A photo as pixels."""

    file: PhotoFile
    pixels: Pixels
    """uint8 H×W×3, RGB, upright, perhaps at a reduced scale."""


@dataclass(frozen=True, slots=True)
class PreparedPhoto:
    """A photo that waits for the backbone."""

    file: PhotoFile
    decoded: tuple[int, int]
    """Height and width of the decoded pixels."""
    inputs: tuple[Pixels, ...]
    """Model inputs, at least one: the views of the photo, uint8 `Preprocess.height`×`Preprocess.width`×3 each."""
    quality: Quality | None
    """Size, light and sharpness of the photo; None where what came was a model input already."""
    hash: NDArray[np.uint64] | None = None
    """Perceptual hash, where it was asked for."""


@dataclass(frozen=True, slots=True)
class EmbeddedPhoto:
    """A photo that the backbone has seen."""

    file: PhotoFile
    views: Floats
    """float32 V×D: the embedding of each view, V ≥ 1."""
    runtime: str
    """The name of the runtime that computed them; a temperature belongs to it."""
    quality: Quality | None
    """As in `PreparedPhoto`."""
    hash: NDArray[np.uint64] | None = None
    """As in `PreparedPhoto`."""

    @property
    def embedding(self) -> Floats:
        """float32 (D,): of the first view, which is the photo as it is, but with recipe `original`'s passes."""
        first: Floats = self.views[0]
        return first

    @property
    def digest(self) -> str | None:
        """SHA-256 of the file, None for pixels."""
        return self.file.digest


Outcome = EmbeddedPhoto | UnreadablePhoto
"""What the pipeline makes of a photo."""
Views = Callable[[DecodedPhoto, Pixels], tuple[Pixels, ...]]
"""Makes the model inputs of a photo from it and its plain model input, the photo preprocessed as it is."""


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
    batching: Batching | None = None
    """How many photos go through the runtime at once; None: as is its way."""
    watch: Watch = no_watch
    """Measures where the time goes."""


def embed_stream(
    bundle: Bundle, sources: Iterable[Source], settings: Settings, runtime: Runtime | None = None
) -> Iterator[Outcome]:
    """Embed photos one after another; they come in order.

    Args:
        bundle: the backbone and its preprocessing.
        sources: of the photos, see `Source`.
        settings: see `Settings`.
        runtime: what runs the backbone; None chooses by the first pictures.
    """
    size = bundle.manifest.preprocess
    photos = ordered_map(lambda source: prepare_photo(source, size, settings), sources, settings.threads, AHEAD)
    return embed_prepared(bundle, photos, runtime or _chosen(bundle, settings))


def _chosen(bundle: Bundle, settings: Settings) -> ChosenRuntime:
    return ChosenRuntime(bundle, settings.runtime, settings.threads, settings.batching, settings.watch)


def prepare_photo(
    source: Source, size: Preprocess, settings: Settings, views: Views | None = None
) -> PreparedPhoto | UnreadablePhoto:
    """Decode a photo and make its model inputs: what one of the threads does of the pipeline.

    Args:
        source: see `Source`.
        size: the model's input.
        settings: see `Settings`.
        views: makes several inputs of the photo; None: as `settings` say (`mirror`, `hide`).
    """
    found = prepare_uncached(source, size, settings, lambda _: False, views)
    assert not isinstance(found, CachedPhoto)
    return found


def prepare_uncached(
    source: Source, size: Preprocess, settings: Settings, cached: Callable[[str], bool], views: Views | None = None
) -> PreparedPhoto | UnreadablePhoto | CachedPhoto:
    """`prepare_photo`, but a photo whose embedding is at hand is read and not decoded.

    Args:
        source: see `prepare_photo`.
        size: see `prepare_photo`.
        settings: see `prepare_photo`.
        cached: says of a digest whether its embedding is at hand.
        views: see `prepare_photo`.
    """
    decoded = _decode_uncached(source, settings, (size.height, size.width), cached)
    return prepare_decoded(decoded, size, settings, views) if isinstance(decoded, DecodedPhoto) else decoded


def decode_photo(source: Source, settings: Settings, at_least: tuple[int, int]) -> DecodedPhoto | UnreadablePhoto:
    """Read, hash and decode one photo.

    Args:
        source: see `Source`.
        settings: give the limits, and the watch that measures reading and decoding.
        at_least: height and width that a reduced scale must leave, see `photos.decode`.
    """
    found = _decode_uncached(source, settings, at_least, lambda _: False)
    assert not isinstance(found, CachedPhoto)
    return found


def _decode_uncached(
    source: Source, settings: Settings, at_least: tuple[int, int], cached: Callable[[str], bool]
) -> DecodedPhoto | UnreadablePhoto | CachedPhoto:
    if isinstance(source, np.ndarray):
        return DecodedPhoto(PhotoFile(None, source.shape[1], source.shape[0]), source)
    digest = None
    try:
        with settings.watch("read"):
            data = bytes_of(source, settings.limits)
            digest = sha256(data)
        if cached(digest):
            return CachedPhoto(digest)
        with settings.watch("decode"):
            header = read_header(data, settings.limits)
            pixels = decode_with_header(data, header, settings.limits, at_least)
    except PhotoError as error:
        return UnreadablePhoto(error.failure, digest)
    return DecodedPhoto(PhotoFile(digest, header.width, header.height, header.orientation), pixels)


def bytes_of(source: str | Path | bytes | Callable[[], bytes], limits: Limits) -> bytes:
    """A photo's file, wherever it comes from; raises PhotoError."""
    if isinstance(source, bytes):
        return source
    return read_bytes(source, limits) if isinstance(source, (str, Path)) else source()


def prepare_decoded(
    photo: DecodedPhoto, size: Preprocess, settings: Settings, views: Views | None = None
) -> PreparedPhoto:
    """Make the model inputs of a decoded photo; see `prepare_photo`."""
    # Here a detector will locate the car, and the part of the photo around it will take the place of `photo.pixels`.
    with settings.watch("resize"):
        whole = preprocess(photo.pixels, size)
        quality = measure_quality(photo.pixels, whole, size, min(photo.file.width, photo.file.height))
        inputs = (_varied(whole, settings),) if views is None else views(photo, whole)
    hash_ = perceptual_hash(whole) if settings.hashes else None
    return PreparedPhoto(photo.file, photo.pixels.shape[:2], inputs, quality, hash_)


def _varied(picture: Pixels, settings: Settings) -> Pixels:
    if settings.hide is not None:
        picture = _without(picture, settings.hide)
    return mirrored(picture) if settings.mirror else picture


def mirrored(picture: Pixels) -> Pixels:
    """A picture, uint8 H×W×3, mirrored left to right."""
    return np.ascontiguousarray(picture[:, ::-1])


def _without(picture: Pixels, part: Hidden) -> Pixels:
    """The picture with its centre, or all but its centre, painted grey."""
    height, width = picture.shape[:2]
    top, left = round(height * (1 - CENTRE) / 2), round(width * (1 - CENTRE) / 2)
    centre = (slice(top, height - top), slice(left, width - left))
    painted = picture.copy() if part == "centre" else np.full_like(picture, GREY)
    painted[centre] = GREY if part == "centre" else picture[centre]
    return painted


def embed_prepared(bundle: Bundle, photos: Iterator[PreparedPhoto | X], runtime: Runtime) -> Iterator[Outcome | X]:
    """Embed prepared photos, in order; whatever else is among them is passed on in its place."""

    def embed(batches: Iterable[Batch]) -> Iterator[Iterable[tuple[Floats, str]]]:
        ran = ""
        for embeddings in runtime.embed(batches):
            ran = ran or runtime.name  # a stretch is one runtime's, whatever is opened in its course
            check_size(embeddings, bundle)
            yield ((embedding, ran) for embedding in embeddings)

    for photo, found in run_through(photos, embed):
        if isinstance(photo, PreparedPhoto):
            yield embedded(photo, np.stack([embedding for embedding, _ in found]), found[0][1])
        else:
            yield photo


def embedded(photo: PreparedPhoto, views: Floats, runtime: str) -> Outcome:
    """What becomes of a photo when a runtime has computed its views, float32 V×D: unreadable if one is no numbers."""
    if not all_finite(views):
        return UnreadablePhoto(NOT_COMPUTED, photo.file.digest)
    return EmbeddedPhoto(photo.file, views, runtime, photo.quality, photo.hash)


def run_through(
    photos: Iterator[PreparedPhoto | X], run: Callable[[Iterable[Batch]], Iterator[Iterable[T]]]
) -> Iterator[tuple[PreparedPhoto | X, tuple[T, ...]]]:
    """Each photo, in order, with what `run` made of each of its inputs; nothing is made of what is not prepared.

    Args:
        photos: read ahead until they fill batches.
        run: uint8 N×H×W×3 batches, N ≤ `BATCH`, in order → one result for each input of each batch.
    """
    waiting: deque[PreparedPhoto | X] = deque()
    made: deque[T] = deque()
    for photo in photos:  # once for each stretch: `_batches` reads on
        for results in run(_batches(itertools.chain([photo], photos), waiting)):
            made.extend(results)
            while waiting and _inputs(waiting[0]) <= len(made):
                done = waiting.popleft()
                yield done, tuple(made.popleft() for _ in range(_inputs(done)))
        while waiting:  # nothing but what has no inputs
            yield waiting.popleft(), ()


def _inputs(photo: object) -> int:
    return len(photo.inputs) if isinstance(photo, PreparedPhoto) else 0


def check_size(embeddings: Floats, bundle: Bundle) -> None:
    """Raises BundleError where a backbone's embeddings, N×D, are not of the size that the bundle states."""
    if embeddings.shape[1:] != (bundle.manifest.embedding,):
        raise BundleError(
            f"'{bundle.manifest.name}' is no bundle that works: its backbone gives {embeddings.shape} "
            f"for some photos, and bundle.json says N×{bundle.manifest.embedding}."
        )


def _batches(photos: Iterator[PreparedPhoto | X], waiting: deque[PreparedPhoto | X]) -> Iterator[Batch]:
    """Batches of inputs, until the photos end or a long stretch of them fills none."""
    inputs: list[Pixels] = []
    stretch = 0
    for photo in photos:
        waiting.append(photo)
        stretch += 1
        if isinstance(photo, PreparedPhoto):
            inputs.extend(photo.inputs)
        while len(inputs) >= BATCH:
            yield np.stack(inputs[:BATCH])
            del inputs[:BATCH]
            stretch = 0
        if stretch >= STRETCH:
            break
    if inputs:
        yield np.stack(inputs)
