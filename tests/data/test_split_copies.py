"""Pairs of photos of one image."""

from __future__ import annotations

import numpy as np
import pytest

from nameplate.data.split import best_copy, connected, find_copies, near_neighbours
from nameplate.images.phash import SIDE
from nameplate.types import Photo

RANDOM = np.random.default_rng(0)


def test_the_same_bytes_are_copies_whatever_they_look_like() -> None:
    hashes = RANDOM.integers(0, 2**63, (4, 4)).astype(np.uint64)
    embeddings = RANDOM.standard_normal((4, 8)).astype(np.float32)
    greys = RANDOM.integers(0, 256, (4, SIDE, SIDE)).astype(np.uint8)
    found = find_copies(["a", "b", "a", "a"], hashes, embeddings, greys)
    assert found.pairs.tolist() == [[0, 2], [0, 3]]
    assert found.exact.all()
    assert (found.likeness == 1).all()


def test_a_mirrored_image_with_a_near_hash_is_a_copy_and_a_different_one_is_not() -> None:
    hashes = np.zeros((3, 4), np.uint64)
    embeddings = RANDOM.standard_normal((3, 8)).astype(np.float32)
    picture, other = RANDOM.integers(0, 256, (2, 8, 8)).repeat(8, 1).repeat(8, 2).astype(np.uint8)
    found = find_copies(list("abc"), hashes, embeddings, np.stack([picture, picture[:, ::-1], other]))
    assert found.pairs.tolist() == [[0, 1]]
    assert not found.exact.any()
    assert found.likeness[0] > 0.99


def test_neighbours_are_found_where_hashes_are_far() -> None:
    rows = RANDOM.standard_normal((30, 16)).astype(np.float32)
    rows[7] = rows[3] + 0.1
    assert [3, 7] in near_neighbours(rows).tolist()
    assert len(near_neighbours(rows[:1])) == 0


def test_pairs_that_share_a_photo_are_one_group() -> None:
    groups = connected(np.array([[0, 2], [2, 4], [1, 3]]), 6)
    assert len({groups[i] for i in (0, 2, 4)}) == 1
    assert len(np.unique(groups)) == 3
    assert len(np.unique(connected(np.zeros((0, 2), np.int64), 3))) == 3


@pytest.mark.parametrize(
    ("names", "stays"),
    [
        (("a copy.jpg", "a.jpg"), "a.jpg"),
        (("Copy of a.jpg", "a.jpg"), "a.jpg"),
        (("a (2).jpg", "a.jpg"), "a.jpg"),
        (("Копия a.jpg", "longer-than-a.jpg"), "longer-than-a.jpg"),
        (("a - Kopie.jpg", "b.jpg"), "b.jpg"),
        (("photocopy.jpg", "a-much-longer-name.jpg"), "photocopy.jpg"),
        (("b.jpg", "a.jpg"), "b.jpg"),
    ],
)
def test_the_one_of_two_copies_that_is_named_copy_is_removed(names: tuple[str, ...], stays: str) -> None:
    assert best_copy([Photo(f"folder copy/{name}") for name in names]).path == f"folder copy/{stays}"


def test_more_pixels_weigh_more_than_a_name() -> None:
    assert (
        best_copy([Photo("a.jpg", width=10, height=10), Photo("a copy.jpg", width=20, height=20)]).path == "a copy.jpg"
    )
