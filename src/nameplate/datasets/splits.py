"""Splits that are stratified by class, repeatable from a seed, and never part the copies of one picture.

A photo's place depends on its class, its group's content digest and the seed alone, not on the order of the
files: adding photos leaves most others where they were.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


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
