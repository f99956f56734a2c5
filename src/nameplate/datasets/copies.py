"""`find_copies`: photos that show one picture: the same file, or cropped, resized, recompressed, mirrored."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from nameplate.datasets.duplicates import near_pairs
from nameplate.photos.align import alignment
from nameplate.types import Photo

CANDIDATE_BITS = 75
"""Perceptual hashes of at most so many different bits of 256 are looked at more closely."""
NEIGHBOURS, MIN_COSINE = 3, 0.4
"""So are a photo's nearest neighbours by embedding, where they are at least so near."""
SAME = 0.945
"""Correlation, aligned, from which two photos are one picture (docs/experiments.md, 2026-11-22)."""
COPY_NAME = re.compile(r"(^|[\W_])(copy|copie|copia|kopie|kopia|копия|duplicate)([\W_\d]|$)|\(\d+\)$", re.IGNORECASE)
"""How the usual systems name a copy: `a copy`, `Copy of a`, `a - Kopie`, `Копия a`, `a (2)`."""
ROWS_AT_ONCE = 1024
PAIRS_AT_ONCE = 2048


@dataclass(frozen=True, slots=True)
class Copies:
    """Pairs of photos of one picture."""

    pairs: NDArray[np.int64]
    """P×2, each row i < j."""
    likeness: NDArray[np.float32]
    """P: 1 where the files are the same bytes, else their correlation, aligned."""
    exact: NDArray[np.bool_]
    """P: whether the files are the same bytes."""


def find_copies(
    digests: Sequence[str],
    hashes: NDArray[np.uint64],
    embeddings: NDArray[np.float32],
    greys: NDArray[np.uint8],
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Copies:
    """Find all pairs.

    Args:
        digests: SHA-256 of each photo.
        hashes: uint64 N×4.
        embeddings: float32 N×D.
        greys: uint8 N×64×64.
        progress: called with candidates compared and to compare.
    """
    exact = _same_bytes(digests)
    candidates = candidate_pairs(digests, hashes, embeddings)
    likeness = likenesses(candidates, greys, progress)
    same = likeness >= SAME
    return Copies(
        np.concatenate([exact, candidates[same]]),
        np.concatenate([np.ones(len(exact), np.float32), likeness[same]]),
        np.arange(len(exact) + same.sum()) < len(exact),
    )


def candidate_pairs(
    digests: Sequence[str], hashes: NDArray[np.uint64], embeddings: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Pairs that may be of one picture, by hash or by embedding, less those of the same bytes.

    Returns:
        int64 P×2, each row i < j and each pair once.
    """
    pairs = np.concatenate([near_pairs(hashes, CANDIDATE_BITS), near_neighbours(embeddings)])
    pairs = np.setdiff1d(_as_numbers(pairs, len(digests)), _as_numbers(_same_bytes(digests), len(digests)))
    return np.stack(np.divmod(pairs, max(1, len(digests))), 1)


def likenesses(
    pairs: NDArray[np.int64], greys: NDArray[np.uint8], progress: Callable[[int, int], None] = lambda *_: None
) -> NDArray[np.float32]:
    """Correlation of pairs of photos under the best crop, straight or mirrored: from `SAME` they are one picture.

    Args:
        pairs: int64 P×2, places in `greys`.
        greys: uint8 N×64×64.
        progress: called with pairs compared and to compare.

    Returns:
        float32 (P,).
    """
    likeness = np.zeros(len(pairs), np.float32)
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        first, second = pairs[start : start + PAIRS_AT_ONCE].T
        straight = alignment(greys[first], greys[second])
        mirrored = alignment(np.ascontiguousarray(greys[first][:, :, ::-1]), greys[second])
        likeness[start : start + len(first)] = np.maximum(straight, mirrored)
        progress(start + len(first), len(pairs))
    return likeness


def near_neighbours(embeddings: NDArray[np.float32]) -> NDArray[np.int64]:
    """Each photo with its nearest others by embedding: int64 P×2, each row i < j, some twice."""
    centred = embeddings - embeddings.mean(0)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    count = min(NEIGHBOURS, len(centred) - 1)
    found = []
    for start in range(0, len(centred) if count else 0, ROWS_AT_ONCE):
        cosines = centred[start : start + ROWS_AT_ONCE] @ centred.T
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -1
        nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        i, place = np.nonzero(np.take_along_axis(cosines, nearest, 1) >= MIN_COSINE)
        found.append(np.sort(np.stack([start + i, nearest[i, place]], 1), axis=1))
    return np.concatenate(found) if found else np.zeros((0, 2), np.int64)


def best_copy(copies: Sequence[Photo]) -> Photo:
    """The one of several copies that stays: of most pixels, then the one whose name does not say that it is a copy,
    then the one of the shortest name, then the first.
    """

    def worth(photo: Photo) -> tuple[int, bool, int]:
        stem = PurePath(photo.path).stem
        return (photo.width or 0) * (photo.height or 0), COPY_NAME.search(stem) is None, -len(stem)

    return max(copies, key=worth)


def connected(pairs: NDArray[np.int64], photos: int) -> NDArray[np.int64]:
    """The number of each photo's group where pairs belong together: int64 (N,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(photos, photos))
    return connected_components(graph, directed=False)[1].astype(np.int64)  # type: ignore[no-any-return]


def _same_bytes(digests: Sequence[str]) -> NDArray[np.int64]:
    """Each photo with the first one of the same bytes."""
    first: dict[str, int] = {}
    pairs = [(first.setdefault(digest, number), number) for number, digest in enumerate(digests)]
    return np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2)


def _as_numbers(pairs: NDArray[np.int64], photos: int) -> NDArray[np.int64]:
    return pairs[:, 0] * photos + pairs[:, 1]
