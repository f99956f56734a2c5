"""Holdout split and folds that keep copies of one image together, and the search for such copies.

The splits are stratified by class and repeatable from a seed. Where a photo goes depends on its class, the SHA-256 of
its group and the seed alone, not on the order of the files, so that adding photos leaves most others where they were.

`near_pairs` finds exact, resized, recompressed and mirrored copies by their perceptual hashes. `find_copies` also finds
cropped ones, which hashes miss, by aligning pairs of photos.
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

NEAR_BITS = 50
"""Two hashes that differ in at most so many of 256 bits belong to one image (docs/experiments.md, 2026-11-22)."""
HASHES_AT_ONCE = 512


def near_pairs(hashes: NDArray[np.uint64], bits: int = NEAR_BITS) -> NDArray[np.int64]:
    """Find the pairs of hashes of one image, mirrored copies included.

    Args:
        hashes: uint64 N×4.
        bits: number of bits, of 256, that may differ.

    Returns:
        int64 P×2, i < j in each row. All pairs are compared in blocks: 15,561 photos take about 2 seconds.
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
    """Number the groups of photos that must stay together: copies of one image, and groups that the data gives.

    Args:
        digests: SHA-256 of each photo.
        hashes: uint64 N×4 of each photo.
        given: the group that the data gives each photo, None where it gives none.
        further: int64 P×2, further pairs of one image, whose hashes are not near.

    Returns:
        int64 (N,): the number of each photo's group.
    """
    # Union-find; the representative of a group is its first photo, so that the numbers depend on the order alone.
    parent = np.arange(len(digests))

    def find(at: int) -> int:
        while parent[at] != at:
            # Path halving keeps the chains short.
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


# Copies by alignment: the same file, or cropped, resized, recompressed or mirrored.

CANDIDATE_BITS = 75
"""Pairs whose perceptual hashes differ in at most so many of 256 bits are aligned."""
NEIGHBOURS, MIN_COSINE = 3, 0.4
"""Each photo is also aligned with so many nearest neighbours by embedding, where their cosine is at least
`MIN_COSINE`."""
SAME = 0.945
"""Correlation after alignment from which two photos are one image (docs/experiments.md, 2026-11-22)."""
COPY_NAME = re.compile(r"(^|[\W_])(copy|copie|copia|kopie|kopia|копия|duplicate)([\W_\d]|$)|\(\d+\)$", re.IGNORECASE)
"""How the usual systems name a copy: `a copy`, `Copy of a`, `a - Kopie`, `Копия a`, `a (2)`."""
ROWS_AT_ONCE = 1024
PAIRS_AT_ONCE = 2048


@dataclass(frozen=True, slots=True)
class Copies:
    """Pairs of photos that are copies of one image."""

    pairs: NDArray[np.int64]
    """int64 P×2, i < j in each row."""
    likeness: Floats
    """float32 (P,): 1 where the files have the same bytes, else the correlation after alignment."""
    exact: NDArray[np.bool_]
    """bool (P,): whether the files have the same bytes."""


def find_copies(
    digests: Sequence[str],
    hashes: NDArray[np.uint64],
    embeddings: Floats,
    greys: NDArray[np.uint8],
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Copies:
    """Find all pairs of copies.

    Args:
        digests: SHA-256 of each photo.
        hashes: uint64 N×4.
        embeddings: float32 N×D.
        greys: uint8 N×64×64, the photos in grey.
        progress: called with the number of candidate pairs that are compared, and of all of them.
    """
    return _aligned(digests, candidate_pairs(digests, hashes, embeddings), greys, progress)


def find_hashed_copies(
    digests: Sequence[str],
    hashes: NDArray[np.uint64],
    greys: NDArray[np.uint8],
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Copies:
    """`find_copies` without embeddings: among the candidates are those with near hashes alone."""
    pairs = near_pairs(hashes, CANDIDATE_BITS)
    return _aligned(digests, _of_other_bytes(digests, pairs), greys, progress)


def _aligned(
    digests: Sequence[str],
    candidates: NDArray[np.int64],
    greys: NDArray[np.uint8],
    progress: Callable[[int, int], None],
) -> Copies:
    """The pairs of the same bytes, and those of the candidates that alignment shows to be one image."""
    exact = _same_bytes(digests)
    likeness = likenesses(candidates, greys, progress)
    same = likeness >= SAME
    return Copies(
        np.concatenate([exact, candidates[same]]),
        np.concatenate([np.ones(len(exact), np.float32), likeness[same]]),
        np.arange(len(exact) + same.sum()) < len(exact),
    )


def candidate_pairs(digests: Sequence[str], hashes: NDArray[np.uint64], embeddings: Floats) -> NDArray[np.int64]:
    """Find the pairs that may be copies, by hash or by embedding, without those of the same bytes.

    Returns:
        int64 P×2, i < j in each row, each pair once.
    """
    return _of_other_bytes(digests, np.concatenate([near_pairs(hashes, CANDIDATE_BITS), near_neighbours(embeddings)]))


def _of_other_bytes(digests: Sequence[str], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs without those of the same bytes, each pair once."""
    pairs = np.setdiff1d(_as_numbers(pairs, len(digests)), _as_numbers(_same_bytes(digests), len(digests)))
    return np.stack(np.divmod(pairs, max(1, len(digests))), 1)


def likenesses(
    pairs: NDArray[np.int64], greys: NDArray[np.uint8], progress: Callable[[int, int], None] = lambda *_: None
) -> Floats:
    """Compute the correlation of pairs under the best crop, mirrored or not; from `SAME` on they are one image.

    Args:
        pairs: int64 P×2, indices into `greys`.
        greys: uint8 N×64×64.
        progress: called with the number of pairs that are compared, and of all of them.

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
    """Pair each photo with its nearest neighbours by embedding: int64 P×2, i < j; a pair may occur twice."""
    # Without centring, all embeddings of one network have high cosines, whatever they show.
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
    """Choose the copy to keep: the one with the most pixels, then one whose name does not say that it is a copy, then
    the one with the shortest name, then the first.
    """

    def worth(photo: Photo) -> tuple[int, bool, int]:
        stem = PurePath(photo.path).stem
        return (photo.width or 0) * (photo.height or 0), COPY_NAME.search(stem) is None, -len(stem)

    return max(copies, key=worth)


def connected(pairs: NDArray[np.int64], photos: int) -> NDArray[np.int64]:
    """Number the connected components of photos that pairs join: int64 (N,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(photos, photos))
    return connected_components(graph, directed=False)[1].astype(np.int64)  # type: ignore[no-any-return]


def _same_bytes(digests: Sequence[str]) -> NDArray[np.int64]:
    """Pair each photo with the first one of the same bytes: int64 P×2."""
    first: dict[str, int] = {}
    pairs = [(first.setdefault(digest, number), number) for number, digest in enumerate(digests)]
    return np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2)


def _as_numbers(pairs: NDArray[np.int64], photos: int) -> NDArray[np.int64]:
    """One integer for each pair, so that sets of pairs can be compared: int64 (P,)."""
    return pairs[:, 0] * photos + pairs[:, 1]


def hold_out(
    labels: Sequence[str], digests: Sequence[str], groups: NDArray[np.int64], fraction: float, seed: int
) -> NDArray[np.bool_]:
    """Choose the photos of the holdout, which do not train.

    Args:
        labels: class of each photo.
        digests: SHA-256 of each photo.
        groups: int64 (N,), photos of one group stay together (see `groups`).
        fraction: fraction of every class in the holdout, 0 ≤ fraction < 1. A class of several groups gives at least one
            group to the holdout and keeps at least one for training.
        seed: another seed gives another split.

    Returns:
        bool (N,), true where the photo is in the holdout.
    """
    holdout = np.zeros(len(labels), bool)
    for members in _groups_of_each_class(labels, digests, groups, seed):
        photos = sum(len(group) for group in members)
        # At least one photo of each class is evaluated, and at least one trains.
        quota = min(max(1, round(photos * fraction)), photos - 1) if fraction > 0 else 0
        taken = 0
        for group in members[: len(members) - 1]:
            if taken + len(group) <= quota:
                holdout[group] = True
                taken += len(group)
        if quota and not taken and len(members) > 1:  # Every group is larger than the quota.
            holdout[min(members, key=len)] = True
    return holdout


def folds(
    labels: Sequence[str], digests: Sequence[str], groups: NDArray[np.int64], count: int, seed: int
) -> NDArray[np.int64]:
    """Choose the cross-validation fold (0 … count-1) of each photo: int64 (N,), stratified, groups kept together."""
    fold = np.zeros(len(labels), np.int64)
    offset = 0
    for members in _groups_of_each_class(labels, digests, groups, seed):
        sizes = np.zeros(count, np.int64)
        for group in sorted(members, key=len, reverse=True):
            # The largest groups are placed first, each into the smallest fold; ties begin at another fold for each
            # class.
            place = min(range(count), key=lambda k: (sizes[k], (k - offset) % count))
            fold[group] = place
            sizes[place] += len(group)
        offset += len(members)  # Otherwise all small classes would begin in fold 0.
    return fold


def _groups_of_each_class(
    labels: Sequence[str], digests: Sequence[str], groups: NDArray[np.int64], seed: int
) -> list[list[NDArray[np.int64]]]:
    """The groups of each class in seeded order. A group with several classes belongs to the most frequent of them."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    by_class: dict[str, list[tuple[bytes, NDArray[np.int64]]]] = {}
    for members in np.split(order, starts)[1:]:
        counts: dict[str, int] = {}
        for member in members:
            counts[labels[member]] = counts.get(labels[member], 0) + 1
        label = max(sorted(counts), key=lambda name: counts[name])
        # The order depends on the content of the files and the seed alone, not on names or the order of the photos.
        place = hashlib.sha256(f"{seed}:{min(digests[m] for m in members)}".encode()).digest()
        by_class.setdefault(label, []).append((place, members))
    return [
        [members for _, members in sorted(found, key=lambda pair: pair[0])] for _, found in sorted(by_class.items())
    ]
