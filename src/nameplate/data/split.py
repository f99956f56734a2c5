"""Splits that are stratified by class, repeatable from a seed, and never part the copies of one picture.

A photo's place depends on its class, its group's content digest and the seed alone, not on the order of the
files: adding photos leaves most others where they were.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from nameplate.images.phash import MIRROR, WORDS, alignment
from nameplate.types import Floats, Photo

# JOINED Copies of one picture, found by their perceptual hashes (exact, resized, recompressed, mirrored), and groups of them.
#
# JOINED `evaluation.same` finds those that hashes miss.


NEAR_BITS = 50
"""Hashes of at most so many different bits of 256 are of one picture (docs/experiments.md, 2026-11-22)."""
HASHES_AT_ONCE = 512


def near_pairs(hashes: NDArray[np.uint64], bits: int = NEAR_BITS) -> NDArray[np.int64]:
    """Pairs of pictures that are the same, also mirrored.

    Args:
        hashes: uint64 N×4.
        bits: how many of 256 bits may differ.

    Returns:
        int64 P×2, each row i < j. Compares all pairs, in blocks: 15,561 photos take about 2 seconds.
    """
    pairs = []
    for start in range(0, len(hashes), HASHES_AT_ONCE):
        block, rest = hashes[start : start + HASHES_AT_ONCE], hashes[start:]
        near = _distances(block, rest) <= bits
        near |= _distances(block ^ MIRROR, rest) <= bits
        i, j = np.nonzero(np.triu(near, 1))
        pairs.append(np.stack([i, j], axis=1) + start)
    return np.concatenate(pairs) if pairs else np.zeros((0, 2), np.int64)


def _distances(rows: NDArray[np.uint64], columns: NDArray[np.uint64]) -> NDArray[np.uint16]:
    total = np.zeros((len(rows), len(columns)), np.uint16)
    for word in range(WORDS):
        total += np.bitwise_count(rows[:, word, None] ^ columns[None, :, word])
    return total


def groups(
    digests: Sequence[str],
    hashes: NDArray[np.uint64],
    given: Sequence[str | None] | None = None,
    further: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """The number of each photo's group: copies of one picture, and groups that the data gives.

    Args:
        digests: SHA-256 of each photo.
        hashes: uint64 N×4 of each photo.
        given: the data's own group of each photo, None where it has none.
        further: int64 P×2, pairs that are of one picture though their hashes are not near.

    Returns:
        int64 of shape (N,).
    """
    parent = np.arange(len(digests))

    def find(at: int) -> int:
        while parent[at] != at:
            parent[at] = at = parent[parent[at]]
        return at

    def join(i: int, j: int) -> None:
        parent[max(find(i), find(j))] = min(find(i), find(j))

    first: dict[tuple[str, str], int] = {}
    for number, digest in enumerate(digests):
        join(number, first.setdefault(("digest", digest), number))
        if given is not None and (group := given[number]) is not None:
            join(number, first.setdefault(("group", group), number))
    for i, j in (*near_pairs(hashes), *(() if further is None else further)):
        join(int(i), int(j))
    return np.array([find(number) for number in range(len(digests))], np.int64)


# JOINED `find_copies`: photos that show one picture: the same file, or cropped, resized, recompressed, mirrored.


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
    likeness: Floats
    """P: 1 where the files are the same bytes, else their correlation, aligned."""
    exact: NDArray[np.bool_]
    """P: whether the files are the same bytes."""


def find_copies(
    digests: Sequence[str],
    hashes: NDArray[np.uint64],
    embeddings: Floats,
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


def candidate_pairs(digests: Sequence[str], hashes: NDArray[np.uint64], embeddings: Floats) -> NDArray[np.int64]:
    """Pairs that may be of one picture, by hash or by embedding, less those of the same bytes.

    Returns:
        int64 P×2, each row i < j and each pair once.
    """
    pairs = np.concatenate([near_pairs(hashes, CANDIDATE_BITS), near_neighbours(embeddings)])
    pairs = np.setdiff1d(_as_numbers(pairs, len(digests)), _as_numbers(_same_bytes(digests), len(digests)))
    return np.stack(np.divmod(pairs, max(1, len(digests))), 1)


def likenesses(
    pairs: NDArray[np.int64], greys: NDArray[np.uint8], progress: Callable[[int, int], None] = lambda *_: None
) -> Floats:
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


def near_neighbours(embeddings: Floats) -> NDArray[np.int64]:
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


def hold_out(
    labels: Sequence[str], digests: Sequence[str], groups: NDArray[np.int64], fraction: float, seed: int
) -> NDArray[np.bool_]:
    """Which photos to keep out of training.

    Args:
        labels: class of each photo.
        digests: SHA-256 of each photo.
        groups: int64 (N,), photos of one group stay together (see `datasets.duplicates.groups`).
        fraction: the share of every class to keep out, 0 ≤ fraction < 1; a class of several groups
            gives at least one and keeps at least one.
        seed: another seed, another split.

    Returns:
        bool (N,), true where held out.
    """
    held = np.zeros(len(labels), bool)
    for members in _groups_of_each_class(labels, digests, groups, seed):
        photos = sum(len(group) for group in members)
        quota = min(max(1, round(photos * fraction)), photos - 1) if fraction > 0 else 0
        taken = 0
        for group in members[: len(members) - 1]:
            if taken + len(group) <= quota:
                held[group] = True
                taken += len(group)
        if quota and not taken and len(members) > 1:  # every group is larger than the share
            held[min(members, key=len)] = True
    return held


def folds(
    labels: Sequence[str], digests: Sequence[str], groups: NDArray[np.int64], count: int, seed: int
) -> NDArray[np.int64]:
    """The cross-validation fold (0 … count-1) of each photo, stratified, groups kept together; int64 (N,)."""
    fold = np.zeros(len(labels), np.int64)
    offset = 0
    for members in _groups_of_each_class(labels, digests, groups, seed):
        sizes = np.zeros(count, np.int64)
        for group in sorted(members, key=len, reverse=True):
            place = min(range(count), key=lambda k: (sizes[k], (k - offset) % count))
            fold[group] = place
            sizes[place] += len(group)
        offset += len(members)  # so that small classes do not all begin in fold 0
    return fold


def _groups_of_each_class(
    labels: Sequence[str], digests: Sequence[str], groups: NDArray[np.int64], seed: int
) -> list[list[NDArray[np.int64]]]:
    """For each class its groups in seeded order; a group of several classes counts for its most frequent."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    by_class: dict[str, list[tuple[bytes, NDArray[np.int64]]]] = {}
    for members in np.split(order, starts)[1:]:
        counts: dict[str, int] = {}
        for member in members:
            counts[labels[member]] = counts.get(labels[member], 0) + 1
        label = max(sorted(counts), key=lambda name: counts[name])
        place = hashlib.sha256(f"{seed}:{min(digests[m] for m in members)}".encode()).digest()
        by_class.setdefault(label, []).append((place, members))
    return [
        [members for _, members in sorted(found, key=lambda pair: pair[0])] for _, found in sorted(by_class.items())
    ]
