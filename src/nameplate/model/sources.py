"""Conversion of what the Python API takes (one photo or many, of every usual kind) to sources for the pipeline."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Never, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from nameplate.errors import PhotoError, Reason, UsageError
from nameplate.images.pillow import to_rgb
from nameplate.images.transforms import Pixels
from nameplate.model.pipeline import Source
from nameplate.storage import printable
from nameplate.types import Limits

KINDS = "a path, a file's bytes, a file opened with 'rb', a Pillow image or a uint8 array H×W, H×W×3 or H×W×4"
"""The kinds of photos, for error messages."""
AS_TEXT = "the file is opened as text; open it with 'rb'"


class BinaryFile(Protocol):
    """Anything that is read like a file opened with 'rb'."""

    def read(self, size: int = ..., /) -> bytes:
        """Read so many bytes, or fewer at the end."""
        ...


PhotoLike = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | BinaryFile
    | Image.Image
    | NDArray[Any]
    | Callable[[], bytes]
)
"""One photo: a path; a file's bytes; a file opened with 'rb'; a Pillow image; pixels, uint8 H×W (grey), H×W×3 (RGB)
or H×W×4 (RGBA, laid over white); or a function that returns a file's bytes and is called in one of the threads."""
Photos = PhotoLike | Iterable[PhotoLike]
"""One photo, or many; an array uint8 N×H×W×3 is N photos."""


def each_photo(photos: Photos) -> Iterable[PhotoLike]:
    """The photos one by one; a single photo gives one. A path is never taken for a list of letters.

    Raises:
        UsageError: `photos` is neither a photo nor a list of photos.
    """
    if isinstance(photos, np.ndarray) and photos.ndim == 4:
        return list(photos)
    if isinstance(photos, (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, np.ndarray)):
        return [photos]
    if callable(photos) or callable(getattr(photos, "read", None)):
        return [cast(PhotoLike, photos)]
    if isinstance(photos, Iterable) and not hasattr(photos, "__array__"):  # a tensor would iterate over its rows
        return photos
    raise UsageError(f"'{type(photos).__name__}' is no photo and no list of photos. Give {KINDS}, or several of them.")


def as_list(photos: Photos) -> list[PhotoLike]:
    """`each_photo` as a list."""
    return list(each_photo(photos))


def photo_name(photo: object, number: int) -> str:
    """The name of a photo in answers and errors: its path, or `photo N` with N from 1; `number` counts from 0."""
    if isinstance(photo, (str, os.PathLike)):
        return printable(os.fsdecode(photo))
    return f"photo {number + 1}"


def as_sources(photos: Iterable[PhotoLike], limits: Limits) -> Iterator[Source]:
    """`as_source` of each photo."""
    return (as_source(photo, limits) for photo in photos)


def as_source(photo: PhotoLike | Source, limits: Limits) -> Source:
    """One photo as a source for the pipeline.

    An open file is read here, and a Pillow image converted here, because the pipeline reads in threads, and may read a
    source twice (test-time augmentation `closer`). A photo that cannot be read becomes a source that raises its error
    in the pipeline, so that other photos are not affected.

    Args:
        photo: of any kind.
        limits: largest file and most pixels.
    """
    try:
        return _source(photo, limits)
    except PhotoError as error:
        return partial(_refuse, error.reason, error.detail)


def _refuse(reason: Reason, detail: str) -> Never:
    raise PhotoError(reason, detail)


def _source(photo: object, limits: Limits) -> Source:
    if isinstance(photo, (str, Path, bytes)):
        return photo
    if isinstance(photo, os.PathLike):
        return os.fsdecode(photo)
    if isinstance(photo, (bytearray, memoryview)):
        return bytes(photo)
    if isinstance(photo, np.ndarray):
        return pixels_of_array(photo)
    if isinstance(photo, Image.Image):
        return pixels_of_image(photo, limits)
    if callable(getattr(photo, "read", None)):
        return _read(cast(BinaryFile, photo), limits)
    if callable(photo):
        return cast(Source, photo)
    array = ": turn it into an array first, uint8 H×W×3" if hasattr(photo, "__array__") else f"; give {KINDS}"
    raise PhotoError("not a photo", f"this is of type {type(photo).__name__}{array}")


def _read(file: BinaryFile, limits: Limits) -> bytes:
    try:
        data: object = file.read(limits.bytes + 1)
    except UnicodeDecodeError:
        raise PhotoError("not a photo", AS_TEXT) from None
    except (OSError, ValueError) as error:  # ValueError: it is closed
        raise PhotoError("missing", f"the file cannot be read: {error}") from None
    if isinstance(data, str):
        raise PhotoError("not a photo", AS_TEXT)
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise PhotoError("not a photo", f"read() of a {type(file).__name__} gives a {type(data).__name__}, not bytes")
    if not data:
        raise PhotoError("empty", "nothing is left to read of the file; seek(0) goes back to its start")
    return bytes(data)


def pixels_of_array(array: NDArray[Any]) -> Pixels:
    """An array as RGB pixels, uint8 H×W×3. Grey fills all three channels, and RGBA is laid over white.

    Raises:
        PhotoError: the array has another type or shape.
    """
    shape = "×".join(map(str, array.shape))
    if array.dtype != np.uint8:
        why = ", (array * 255).round().astype(np.uint8) where it runs from 0 to 1" if array.dtype.kind == "f" else ""
        raise PhotoError("not a photo", f"the array is {array.dtype} {shape}; give uint8 from 0 to 255{why}")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        turn = "; with channels first, array.transpose(1, 2, 0)" if array.ndim == 3 and len(array) in (1, 3, 4) else ""
        raise PhotoError("not a photo", f"the array is {shape}; give H×W, H×W×3 (RGB) or H×W×4 (RGBA){turn}")
    if array.size == 0:
        raise PhotoError("empty", f"the array is {shape}, so it has no pixels")
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    if array.shape[2] == 4:
        array = to_rgb(Image.fromarray(np.ascontiguousarray(array), "RGBA"))
    return array


def pixels_of_image(image: Image.Image, limits: Limits) -> Pixels:
    """A Pillow image as upright RGB pixels, uint8 H×W×3, the same that `images.decode` gives for its file.

    Raises:
        PhotoError: it has more pixels than the limits allow, or none, or its file is damaged.
    """
    width, height = image.size
    if width * height > limits.pixels:
        raise PhotoError("too large", f"{width}×{height} = {width * height:,} pixels, the limit is {limits.pixels:,}")
    if width * height == 0:
        raise PhotoError("empty", f"the image is {width}×{height}, so it has no pixels")
    try:
        return np.ascontiguousarray(to_rgb(ImageOps.exif_transpose(image)))
    except PhotoError:
        raise
    except Exception as error:  # Pillow reads the file only now, and raises errors of many types
        raise PhotoError("damaged", f"Pillow: {error or type(error).__name__}") from None
