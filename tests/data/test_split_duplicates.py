"""Copies of one image."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nameplate.data import split
from nameplate.data.split import NEAR_BITS, groups, near_pairs
from nameplate.images.phash import MIRROR


def _random(count: int, seed: int = 0) -> NDArray[np.uint64]:
    return np.random.default_rng(seed).integers(0, 2**64, (count, 4), np.uint64)


def _flipped(hash_: NDArray[np.uint64], bits: int) -> NDArray[np.uint64]:
    """The hash with its first bits flipped."""
    mask = np.packbits(np.arange(256) < bits).view(np.uint64)
    return hash_ ^ mask


def _brute_force(hashes: NDArray[np.uint64], bits: int) -> set[tuple[int, int]]:
    words = [int.from_bytes(row.tobytes(), "little") for row in hashes]
    mirror = int.from_bytes(MIRROR.tobytes(), "little")
    return {
        (i, j)
        for i in range(len(words))
        for j in range(i + 1, len(words))
        if min((words[i] ^ words[j]).bit_count(), (words[i] ^ mirror ^ words[j]).bit_count()) <= bits
    }


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 9),
    copies=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 80), st.booleans()), max_size=20),
    bits=st.sampled_from([0, 10, NEAR_BITS]),
)
def test_near_pairs_are_those_that_comparing_one_by_one_finds(
    seed: int, copies: list[tuple[int, int, bool]], bits: int
) -> None:
    originals = _random(8, seed)
    more = [_flipped(originals[which], by) ^ (MIRROR if mirrored else np.uint64(0)) for which, by, mirrored in copies]
    hashes = np.stack([*originals, *more])
    pairs = near_pairs(hashes, bits)
    assert pairs.dtype == np.int64
    found = [(int(i), int(j)) for i, j in pairs]
    assert len(found) == len(set(found))
    assert set(found) == _brute_force(hashes, bits)


def test_pairs_across_blocks_are_found() -> None:
    count = 2 * split.ROWS_AT_ONCE + 7
    hashes = _random(count)
    hashes[-1] = _flipped(hashes[3], NEAR_BITS)
    hashes[-2] = _flipped(hashes[split.ROWS_AT_ONCE], NEAR_BITS) ^ MIRROR
    hashes[-3] = _flipped(hashes[5], NEAR_BITS + 1)
    assert near_pairs(hashes).tolist() == [[3, count - 1], [split.ROWS_AT_ONCE, count - 2]]


def test_nothing_is_near_nothing() -> None:
    assert near_pairs(np.zeros((0, 4), np.uint64)).shape == (0, 2)
    assert near_pairs(_random(1)).shape == (0, 2)


def test_equal_digests_are_one_group() -> None:
    assert groups(["a", "b", "a", "c"], _random(4)).tolist() == [0, 1, 0, 3]


def test_groups_that_the_data_gives_are_kept() -> None:
    assert groups(list("abcde"), _random(5), ["x", None, "y", "x", None]).tolist() == [0, 1, 2, 0, 4]


def test_a_group_named_like_a_digest_is_not_that_photos() -> None:
    assert groups(["a", "b"], _random(2), [None, "a"]).tolist() == [0, 1]


def test_near_and_mirrored_images_are_one_group() -> None:
    hashes = _random(4)
    hashes[2] = _flipped(hashes[0], NEAR_BITS)
    hashes[3] = hashes[1] ^ MIRROR
    assert groups(list("abcd"), hashes).tolist() == [0, 1, 0, 1]


def test_chains_are_one_group() -> None:
    hashes = _random(6)
    hashes[1] = _flipped(hashes[0], NEAR_BITS)
    hashes[2] = _flipped(hashes[0], 2 * NEAR_BITS)  # near 1, far from 0
    assert not {(0, 2)} & _brute_force(hashes, NEAR_BITS)
    given_ = [None, None, "advert", "advert", None, None]
    assert groups(["a", "b", "c", "d", "d", "f"], hashes, given_).tolist() == [0, 0, 0, 0, 0, 5]


def test_no_photos_have_no_groups() -> None:
    assert groups([], np.zeros((0, 4), np.uint64)).shape == (0,)
