"""The neighbour index: embeddings and thumbnails of the training photos, to show those most similar to another photo.

It is index.safetensors in a bundle, where the bundle's owner asked for it (`nameplate train … --index`):

centre       float32 (D,): mean of the embeddings
spread       float32 (D,): their standard deviation
embeddings   float16 N×D: (embedding - centre) / spread, normalised to length 1
pictures     uint8: concatenated JPEGs of at most `LONGEST` pixels
ends         int64 (N,): the end of each JPEG in `pictures`
names        uint8: JSON, [[path, nameplate], …]; the paths are relative to the folder that contains all photos
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from nameplate.errors import BundleError, DataError, PhotoError
from nameplate.images.decode import decode
from nameplate.images.parallel import ordered_map
from nameplate.model.bundle import INDEX, MAX_BYTES, Bundle
from nameplate.storage import absolute
from nameplate.types import Floats, Limits, Photo

LONGEST = 160
"""Longest side of a thumbnail, in pixels."""
QUALITY = 80
"""JPEG quality of a thumbnail."""
MOST_PHOTOS = 20_000
"""Most photos in an index. Of more, those with the smallest digests are kept: a random choice that never changes."""
THUMBNAIL_LIMITS = Limits(bytes=256 << 10, pixels=LONGEST * LONGEST)
"""Limits for decoding a thumbnail."""
TYPES = {
    "centre": np.float32,
    "spread": np.float32,
    "embeddings": np.float16,
    "pictures": np.uint8,
    "ends": np.int64,
    "names": np.uint8,
}
LEAST_SPREAD = 1e-6
"""Least standard deviation, so that a constant dimension of the embedding does not divide by 0."""


@dataclass(frozen=True, slots=True)
class NeighbourIndex:
    """The training photos of a head."""

    centre: Floats
    """float32 (D,)."""
    spread: Floats
    """float32 (D,), above 0."""
    embeddings: NDArray[np.float16]
    """float16 N×D, rows of length 1."""
    paths: tuple[str, ...]
    nameplates: tuple[str, ...]
    thumbnails: tuple[bytes, ...]
    """Thumbnails, as JPEG files."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A training photo that is similar to another photo."""

    path: str
    """Relative to the folder that contained all photos."""
    nameplate: str
    similarity: float
    """Cosine, −1 to 1."""
    thumbnail: bytes
    """Thumbnail, as a JPEG file."""


def nearest(index: NeighbourIndex, embedding: Floats, count: int) -> tuple[Neighbour, ...]:
    """The training photos most similar to an embedding, float32 (D,), by cosine, nearest first; at most `count`."""
    # Both sides are standardised in the same way and have length 1, so the dot product is the cosine.
    cosine = index.embeddings.astype(np.float32) @ _unit((embedding - index.centre) / index.spread)
    best = np.argsort(-cosine, kind="stable")[:count]
    return tuple(
        Neighbour(index.paths[i], index.nameplates[i], float(np.clip(cosine[i], -1, 1)), index.thumbnails[i])
        for i in best.tolist()
    )


def make_index(photos: Sequence[Photo], embeddings: Floats, threads: int) -> bytes:
    """The content of index.safetensors for some photos; a photo that is no longer readable is left out.

    Args:
        photos: N labelled photos, with their digests.
        embeddings: float32 N×D.
        threads: number of threads that make thumbnails.

    Raises:
        DataError: no photo can be read, or the file would exceed the size limit of a bundle's file.
    """
    # By digest, so that the choice depends on the photos alone and not on their order.
    order = sorted(range(len(photos)), key=lambda place: str(photos[place].sha256))[:MOST_PHOTOS]
    chosen = sorted(order)
    made = list(ordered_map(_small, [photos[place].path for place in chosen], threads))
    there = [(place, thumbnail) for place, thumbnail in zip(chosen, made, strict=True) if thumbnail is not None]
    if not there:
        raise DataError(f"None of the {len(photos):,} photos that train can be read again for the index.")
    # Statistics are of the photos in the index alone, in float64, because float32 sums of 20,000 rows lose digits.
    rows = embeddings[[place for place, _ in there]]
    paths = _below_common([photos[place].path for place, _ in there])
    names = [(path, str(photos[place].label)) for path, (place, _) in zip(paths, there, strict=True)]
    centre = rows.mean(0, dtype=np.float64).astype(np.float32)
    spread = np.maximum(rows.std(0, dtype=np.float64), LEAST_SPREAD).astype(np.float32)
    data = save_tensors(
        {
            "centre": centre,
            "spread": spread,
            "embeddings": _unit((rows - centre) / spread).astype(np.float16),
            "pictures": np.frombuffer(b"".join(thumbnail for _, thumbnail in there), np.uint8),
            "ends": np.cumsum([len(thumbnail) for _, thumbnail in there], dtype=np.int64),
            "names": np.frombuffer(msgspec.json.encode(names), np.uint8),
        }
    )
    if len(data) > MAX_BYTES[INDEX]:
        raise DataError(
            f"The index would have {len(data):,} bytes, and {MAX_BYTES[INDEX]:,} is the most. Train without --index."
        )
    return data


def read_index(bundle: Bundle) -> NeighbourIndex | None:
    """The index of a bundle; None where it has none.

    Raises:
        BundleError: the index is damaged, or does not fit the bundle.
    """
    data = bundle.index_bytes()
    if data is None:
        return None
    try:
        return _parsed(data, bundle)
    except (SafetensorError, KeyError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise BundleError(f"The {INDEX} of '{bundle.manifest.name}' is damaged: {error}. Train again.") from None


def _parsed(data: bytes, bundle: Bundle) -> NeighbourIndex:
    tensors = load_tensors(data)
    for name, kind in TYPES.items():
        if tensors[name].dtype != kind:
            raise ValueError(f"{name} are {tensors[name].dtype}")
    centre, spread, embeddings, ends = (tensors[name] for name in ("centre", "spread", "embeddings", "ends"))
    names = msgspec.json.decode(tensors["names"].tobytes(), type=list[tuple[str, str]])
    photos, size = len(names), bundle.manifest.embedding
    if (
        not centre.shape == spread.shape == (size,)
        or embeddings.shape != (photos, size)
        or ends.shape != (photos,)
        or not photos
    ):
        raise ValueError(f"{photos} names, embeddings {embeddings.shape} and {ends.shape} pictures")
    if not (np.isfinite([centre, spread]).all() and (spread >= LEAST_SPREAD / 2).all()):
        raise ValueError("its centre or its spread is not a valid number")
    if not (np.abs(embeddings) <= 1).all():
        raise ValueError("an embedding is not of length 1")
    pictures = tensors["pictures"].tobytes()
    # The ends come from a file, so every slice is checked before it is cut.
    begins = np.concatenate([[0], ends[:-1]])
    lengths = ends - begins
    if begins.min() < 0 or lengths.min() < 1 or lengths.max() > THUMBNAIL_LIMITS.bytes or ends[-1] != len(pictures):
        raise ValueError("the ends of its thumbnails are inconsistent")
    # An index that was copied from another bundle would show other cars.
    if not {nameplate for _, nameplate in names} <= set(bundle.manifest.nameplates):
        raise ValueError("it has a nameplate that the bundle does not know")
    cut = tuple(pictures[a:b] for a, b in zip(begins.tolist(), ends.tolist(), strict=True))
    return NeighbourIndex(centre, spread, embeddings, tuple(p for p, _ in names), tuple(n for _, n in names), cut)


def _unit(rows: Floats) -> Floats:
    """Normalise rows, or a single vector, to length 1."""
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.maximum(length, 1e-12), np.float32)


def _small(path: str) -> bytes | None:
    try:
        image = Image.fromarray(decode(path, at_least=(LONGEST, LONGEST)))
    except PhotoError:
        return None
    image.thumbnail((LONGEST, LONGEST))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _below_common(paths: Sequence[str]) -> list[str]:
    """The paths relative to their deepest common folder, so that a bundle does not reveal where that folder is."""
    whole = [absolute(path) for path in paths]
    try:
        folder = os.path.commonpath([os.path.dirname(path) for path in whole])  # noqa: PTH120 - text, not files
    except ValueError:  # on Windows, paths on several drives have no common folder
        return [os.path.basename(path) for path in whole]  # noqa: PTH119
    return [os.path.relpath(path, folder).replace(os.sep, "/") for path in whole]
