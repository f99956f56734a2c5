"""Copies of one picture, found by their perceptual hashes (exact, resized, recompressed, mirrored), and groups of them.

`evaluation.same` finds those that hashes miss.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nameplate.photos.fingerprint import MIRROR, WORDS

NEAR_BITS = 50
"""Hashes of at most so many different bits of 256 are of one picture (docs/experiments.md, 2026-11-22)."""
ROWS_AT_ONCE = 512


def near_pairs(hashes: NDArray[np.uint64], bits: int = NEAR_BITS) -> NDArray[np.int64]:
    """Pairs of pictures that are the same, also mirrored.

    Args:
        hashes: uint64 N×4.
        bits: how many of 256 bits may differ.

    Returns:
        int64 P×2, each row i < j. Compares all pairs, in blocks: 15,561 photos take about 2 seconds.
    """
    pairs = []
    for start in range(0, len(hashes), ROWS_AT_ONCE):
        block, rest = hashes[start : start + ROWS_AT_ONCE], hashes[start:]
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
