"""The pipeline from a photo to its embedding: decode → locate → preprocess → embed.

Everything that classifies or embeds photos is composed of these functions. Each step has its own type, and takes the
type of the step before:

    Source → `decode_photo` → DecodedPhoto → `prepare_decoded` → PreparedPhoto → `embed_prepared` → EmbeddedPhoto

`prepare_decoded` locates the car and preprocesses the part of the photo around it. An UnreadablePhoto can take the
place of any of these, and later steps pass it on. `Model` classifies and decides. Photos are decoded and prepared in
threads while the runtime computes. Only a few of them wait at any time, so memory does not grow with their number.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
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
from nameplate.images.transforms import WHOLE, Box, Pixels, crop, preprocess
from nameplate.model.bundle import Bundle, all_finite
from nameplate.model.detector import LocatedCar, crop_box, locate
from nameplate.model.runtime_choice import ChosenRuntime
from nameplate.runtime.base import BATCH, Batch, Batching, Runtime, Watch, no_watch
from nameplate.storage import sha256
from nameplate.types import Cars, Floats, Limits, PixelBox, Preprocess

AHEAD = 96
"""Most model inputs that wait for the runtime."""
STRETCH = 256
"""Most consecutive photos without a model input (unreadable or cached ones) before the waiting photos are yielded."""
SIDEWAYS = 5
"""EXIF orientations from this one on swap width and height (CIPA DC-008)."""

CENTRE = 0.75
"""Share of the height and of the width that counts as the centre, where the car usually is."""
GREY = 128
"""Value that a hidden part of the model input is painted with."""

NOT_COMPUTED = Failure("not computed", "of this photo the model computes NaN, infinity or near it")
"""The failure of a photo whose embedding or probabilities are not finite numbers."""

Hidden = Literal["centre", "border"]
Source = str | Path | bytes | Pixels | Callable[[], bytes]
"""A path, a file's bytes, pixels, or a function that returns a file's bytes and is called in one of the threads."""
T = TypeVar("T")
X = TypeVar("X")


@dataclass(frozen=True, slots=True)
class PhotoFile:
    """What is known of a photo's file before it is decoded."""

    digest: str | None
    """SHA-256 of the file, hexadecimal; None for pixels."""
    width: int
    """In pixels as stored, before EXIF orientation."""
    height: int
    """In pixels as stored, before EXIF orientation."""
    orientation: int = 1
    """EXIF orientation, 1–8; 1 is upright."""

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height of the photo once it is turned upright."""
        return (self.width, self.height) if self.orientation < SIDEWAYS else (self.height, self.width)


@dataclass(frozen=True, slots=True)
class UnreadablePhoto:
    """A photo that failed in some step."""

    failure: Failure
    digest: str | None = None
    """SHA-256 of the file, hexadecimal; None for pixels, and for a file that could not be opened."""


@dataclass(frozen=True, slots=True)
class CachedPhoto:
    """A photo that was not decoded, because its embedding is in the cache."""

    digest: str


@dataclass(frozen=True, slots=True)
class DecodedPhoto:
    """A photo as pixels."""

    file: PhotoFile
    pixels: Pixels
    """uint8 H×W×3, RGB, upright, possibly at a reduced scale."""


@dataclass(frozen=True, slots=True)
class PreparedCar:
    """One car of a photo, or the whole photo, with its model inputs."""

    inputs: tuple[Pixels, ...]
    """One for each view, at least one: uint8 `Preprocess.height`×`Preprocess.width`×3."""
    quality: Quality | None
    """Size, light and sharpness of the part of the photo that is named; None where it was not measured."""
    box: PixelBox | None = None
    """The car's box; None where the whole photo is named."""
    crop: Box = WHOLE
    """The part of the photo that the model inputs show."""


@dataclass(frozen=True, slots=True)
class PreparedPhoto:
    """A photo with its model inputs, ready for the backbone."""

    file: PhotoFile
    car: PreparedCar
    """The car, or the whole photo, that the answer is about."""
    others: tuple[PreparedCar, ...] = ()
    """The other cars, where all are asked for."""
    all_cars: bool = False
    """Whether all cars were asked for. `car` is then the whole photo only where none was found."""
    covered: float | None = None
    """Share of the photo that the box of the main car covers, 0 where no car was found; None where none was sought."""
    hash: NDArray[np.uint64] | None = None
    """Perceptual hash of the whole photo; None unless it was asked for."""

    @property
    def inputs(self) -> tuple[Pixels, ...]:
        """The model inputs of all cars, those of `car` first."""
        return self.car.inputs + tuple(pixels for car in self.others for pixels in car.inputs)


@dataclass(frozen=True, slots=True)
class EmbeddedCar:
    """One car of a photo, or the whole photo, with its embeddings."""

    views: Floats
    """float32 V×D: the embedding of each view, V ≥ 1."""
    quality: Quality | None
    """As in `PreparedCar`."""
    box: PixelBox | None = None
    """As in `PreparedCar`."""
    crop: Box = WHOLE
    """As in `PreparedCar`."""

    @property
    def embedding(self) -> Floats:
        """float32 (D,), of the first view: the car as it is, except with the test-time augmentation `original`."""
        first: Floats = self.views[0]
        return first


@dataclass(frozen=True, slots=True)
class EmbeddedPhoto:
    """A photo with its embeddings."""

    file: PhotoFile
    car: EmbeddedCar
    """As in `PreparedPhoto`."""
    runtime: str
    """Name of the runtime that computed the embeddings; the calibration temperature depends on it."""
    others: tuple[EmbeddedCar, ...] = ()
    """As in `PreparedPhoto`."""
    all_cars: bool = False
    """As in `PreparedPhoto`."""
    covered: float | None = None
    """As in `PreparedPhoto`."""
    hash: NDArray[np.uint64] | None = None
    """As in `PreparedPhoto`."""

    @property
    def embedding(self) -> Floats:
        """float32 (D,): `EmbeddedCar.embedding` of the car that the answer is about."""
        return self.car.embedding

    @property
    def digest(self) -> str | None:
        """SHA-256 of the file, None for pixels."""
        return self.file.digest


Outcome = EmbeddedPhoto | UnreadablePhoto
"""The result of the pipeline for a photo."""
Views = Callable[[DecodedPhoto, Pixels], tuple[Pixels, ...]]
"""Makes the model inputs of a car. It gets the decoded photo, cropped to the car, and the plain model input of it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How photos are embedded."""

    runtime: str = "auto"
    threads: int = 1
    limits: Limits = field(default_factory=Limits)
    hashes: bool = False
    """Whether to compute perceptual hashes."""
    mirror: bool = False
    """Whether to embed the photos mirrored left to right."""
    hide: Hidden | None = None
    """The part of each model input to paint grey."""
    tta: str = NO_TTA
    """Test-time augmentation for classification (`model.tta`); embeddings are always of the photo as it is."""
    cars: Cars = "main"
    """Which cars of a photo are named."""
    batching: Batching | None = None
    """How model inputs are grouped for the runtime; None: the runtime's default."""
    watch: Watch = no_watch
    """Measures the time of each stage."""


def embed_stream(
    bundle: Bundle, sources: Iterable[Source], settings: Settings, runtime: Runtime | None = None
) -> Iterator[Outcome]:
    """Embed a stream of photos, in order.

    Args:
        bundle: the backbone and its preprocessing.
        sources: the photos, see `Source`.
        settings: see `Settings`.
        runtime: runs the backbone; None: chosen as soon as the first batches show the length of the job.
    """
    size = bundle.manifest.preprocess
    photos = ordered_map(lambda source: prepare_photo(source, size, settings), sources, settings.threads, AHEAD)
    return embed_prepared(bundle, photos, runtime or _chosen(bundle, settings))


def _chosen(bundle: Bundle, settings: Settings) -> ChosenRuntime:
    return ChosenRuntime(bundle, settings.runtime, settings.threads, settings.batching, settings.watch)


def prepare_photo(
    source: Source, size: Preprocess, settings: Settings, views: Views | None = None
) -> PreparedPhoto | UnreadablePhoto:
    """Decode a photo and make its model inputs: the part of the pipeline that runs in threads.

    Args:
        source: see `Source`.
        size: size of the model input, and how the photo is fitted into it.
        settings: see `Settings`.
        views: makes the model inputs; None: one input, changed as `settings` say (`mirror`, `hide`).
    """
    found = prepare_uncached(source, size, settings, lambda _: False, views)
    assert not isinstance(found, CachedPhoto)
    return found


def prepare_uncached(
    source: Source, size: Preprocess, settings: Settings, cached: Callable[[str], bool], views: Views | None = None
) -> PreparedPhoto | UnreadablePhoto | CachedPhoto:
    """`prepare_photo`, except that a photo whose embedding is in the cache is read but not decoded.

    Args:
        source: see `prepare_photo`.
        size: see `prepare_photo`.
        settings: see `prepare_photo`.
        cached: whether the cache has the embedding of a photo with this SHA-256.
        views: see `prepare_photo`.
    """
    decoded = _decode_uncached(source, settings, (size.height, size.width), cached)
    return prepare_decoded(decoded, size, settings, views) if isinstance(decoded, DecodedPhoto) else decoded


def decode_photo(source: Source, settings: Settings, at_least: tuple[int, int]) -> DecodedPhoto | UnreadablePhoto:
    """Read, hash and decode one photo.

    Args:
        source: see `Source`.
        settings: contain the limits, and the watch that measures reading and decoding.
        at_least: least height and width at a reduced scale, see `images.decode`.
    """
    found = _decode_uncached(source, settings, at_least, lambda _: False)
    assert not isinstance(found, CachedPhoto)
    return found


def _decode_uncached(
    source: Source, settings: Settings, at_least: tuple[int, int], cached: Callable[[str], bool]
) -> DecodedPhoto | UnreadablePhoto | CachedPhoto:
    if isinstance(source, np.ndarray):  # pixels have no file, so no digest and no EXIF orientation
        return DecodedPhoto(PhotoFile(None, source.shape[1], source.shape[0]), source)
    digest = None
    try:
        with settings.watch("read"):
            data = bytes_of(source, settings.limits)  # read once, so that digest and pixels are of the same bytes
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
    """The bytes of a photo's file.

    Raises:
        PhotoError: the file cannot be read, or is larger than the limits allow.
    """
    if isinstance(source, bytes):
        return source
    return read_bytes(source, limits) if isinstance(source, (str, Path)) else source()


def prepare_decoded(
    photo: DecodedPhoto, size: Preprocess, settings: Settings, views: Views | None = None
) -> PreparedPhoto:
    """Locate the cars of a decoded photo and make their model inputs; see `prepare_photo`."""
    found: tuple[LocatedCar, ...] = ()
    covered = None
    if settings.cars == "all" or (settings.cars == "main" and size.locate != "none"):
        with settings.watch("locate"):
            found = locate(photo.pixels)
            covered = found[0].area if found else 0.0
    with settings.watch("resize"):
        named = found if settings.cars == "all" else found[:1]
        cars = [_prepare_car(photo, car, size, settings, views) for car in named or (None,)]
    # The hash is that of the whole photo, also where it is cropped, mirrored, or a part of it is hidden.
    hash_ = perceptual_hash(preprocess(photo.pixels, size)) if settings.hashes else None
    return PreparedPhoto(photo.file, cars[0], tuple(cars[1:]), settings.cars == "all", covered, hash_)


def _prepare_car(
    photo: DecodedPhoto, car: LocatedCar | None, size: Preprocess, settings: Settings, views: Views | None
) -> PreparedCar:
    """Make the model inputs of a car; of the whole photo where it is None."""
    height, width = photo.pixels.shape[:2]
    part = WHOLE if car is None else crop_box(car)
    box = None if car is None or part == WHOLE else pixel_box(car.box, *photo.file.upright)
    pixels = crop(photo.pixels, part)
    # Sides as the file states them, because the decoder may have read a reduced scale.
    shares = pixels.shape[0] / height, pixels.shape[1] / width
    wide, high = photo.file.upright
    short_side = min(round(high * shares[0]), round(wide * shares[1]))
    whole = preprocess(pixels, size)
    quality = measure_quality(pixels, whole, size, short_side)
    inputs = (_varied(whole, settings),) if views is None else views(replace(photo, pixels=pixels), whole)
    return PreparedCar(inputs, quality, box, part)


def pixel_box(box: Box, width: int, height: int) -> PixelBox:
    """A box in whole pixels of an upright photo, at least one along each axis, within the photo."""
    left, top = min(round(box[1] * width), width - 1), min(round(box[0] * height), height - 1)
    return PixelBox(left, top, max(left + 1, round(box[3] * width)), max(top + 1, round(box[2] * height)))


def _varied(whole: Pixels, settings: Settings) -> Pixels:
    if settings.hide is not None:
        whole = _without(whole, settings.hide)
    return mirrored(whole) if settings.mirror else whole


def mirrored(pixels: Pixels) -> Pixels:
    """An image, uint8 H×W×3, mirrored left to right."""
    return np.ascontiguousarray(pixels[:, ::-1])


def _without(whole: Pixels, part: Hidden) -> Pixels:
    """A model input whose centre, or all but its centre, is painted grey."""
    height, width = whole.shape[:2]
    top, left = round(height * (1 - CENTRE) / 2), round(width * (1 - CENTRE) / 2)
    centre = (slice(top, height - top), slice(left, width - left))
    painted = whole.copy() if part == "centre" else np.full_like(whole, GREY)
    painted[centre] = GREY if part == "centre" else whole[centre]
    return painted


def embed_prepared(bundle: Bundle, photos: Iterator[PreparedPhoto | X], runtime: Runtime) -> Iterator[Outcome | X]:
    """Embed prepared photos, in order; all other items are passed on in their places."""

    def embed(batches: Iterable[Batch]) -> Iterator[Iterable[tuple[Floats, str]]]:
        ran = ""
        for embeddings in runtime.embed(batches):
            # The name is taken once: `ChosenRuntime` can open another runtime meanwhile, for another job.
            ran = ran or runtime.name
            check_size(embeddings, bundle)
            yield ((embedding, ran) for embedding in embeddings)

    for photo, found in run_through(photos, embed):
        if isinstance(photo, PreparedPhoto):
            yield embedded(photo, np.stack([embedding for embedding, _ in found]), found[0][1])
        else:
            yield photo


def embedded(photo: PreparedPhoto, embeddings: Floats, runtime: str) -> Outcome:
    """A photo with its embeddings; unreadable if one of them holds NaN, infinity or near it.

    Args:
        photo: the prepared photo.
        embeddings: float32 N×D, those of `photo.inputs`.
        runtime: name of the runtime that computed them.
    """
    if not all_finite(embeddings):
        return UnreadablePhoto(NOT_COMPUTED, photo.file.digest)
    cars, start = [], 0
    for car in (photo.car, *photo.others):
        views = embeddings[start : start + len(car.inputs)]
        start += len(car.inputs)
        cars.append(EmbeddedCar(views, car.quality, car.box, car.crop))
    return EmbeddedPhoto(photo.file, cars[0], runtime, tuple(cars[1:]), photo.all_cars, photo.covered, photo.hash)


def run_through(
    photos: Iterator[PreparedPhoto | X], run: Callable[[Iterable[Batch]], Iterator[Iterable[T]]]
) -> Iterator[tuple[PreparedPhoto | X, tuple[T, ...]]]:
    """Run the model inputs of photos in full batches, and give each photo its results, in order.

    Args:
        photos: read ahead until they fill batches. Items that are not prepared have no inputs.
        run: uint8 N×H×W×3 batches, N ≤ `BATCH`, in order → one result for each input of each batch.

    Yields:
        Each item with the results of its inputs.
    """
    # A photo's inputs may be spread over two batches, so results are queued until a photo has all of its own.
    waiting: deque[PreparedPhoto | X] = deque()
    made: deque[T] = deque()
    for photo in photos:  # `_batches` reads on from the same iterator, so this loop runs once for each stretch
        for results in run(_batches(itertools.chain([photo], photos), waiting)):
            made.extend(results)
            while waiting and _inputs(waiting[0]) <= len(made):
                done = waiting.popleft()
                yield done, tuple(made.popleft() for _ in range(_inputs(done)))
        while waiting:  # only items without inputs are left
            yield waiting.popleft(), ()


def _inputs(photo: object) -> int:
    return len(photo.inputs) if isinstance(photo, PreparedPhoto) else 0


def check_size(embeddings: Floats, bundle: Bundle) -> None:
    """Check that embeddings, N×D, have the size that the bundle states.

    Raises:
        BundleError: they have another size.
    """
    if embeddings.shape[1:] != (bundle.manifest.embedding,):
        raise BundleError(
            f"'{bundle.manifest.name}' does not work: its backbone gives embeddings of shape {embeddings.shape}, "
            f"and bundle.json says N×{bundle.manifest.embedding}."
        )


def _batches(photos: Iterator[PreparedPhoto | X], waiting: deque[PreparedPhoto | X]) -> Iterator[Batch]:
    """Batches of model inputs, until the photos end or `STRETCH` photos in a row fill none; appends to `waiting`."""
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
        if stretch >= STRETCH:  # the caller yields what waits, so that thousands of cached photos do not pile up
            break
    if inputs:
        yield np.stack(inputs)
