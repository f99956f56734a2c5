"""Stratified, seeded splits that keep groups together."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nameplate.data.split import folds, hold_out

Table = tuple[list[str], list[str], NDArray[np.int64]]


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Labels, digests and groups; every group is of one class."""
    sizes = draw(
        st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=12), min_size=1, max_size=6)
    )  # class → sizes of its groups
    labels: list[str] = []
    groups: list[int] = []
    for class_, members in enumerate(sizes):
        for size in members:
            groups += [len(labels)] * size
            labels += [f"class {class_}"] * size
    return labels, [f"digest {n}" for n in range(len(labels))], np.array(groups, np.int64)


def _plain(classes: dict[str, int]) -> Table:
    labels = [name for name, count in classes.items() for _ in range(count)]
    return labels, [f"digest {n}" for n in range(len(labels))], np.arange(len(labels))


@settings(max_examples=150)
@given(table=tables(), fraction=st.floats(0, 0.95), seed=st.integers(0, 3))
def test_groups_stay_together_and_every_class_keeps_a_photo_in_training(
    table: Table, fraction: float, seed: int
) -> None:
    labels, _, groups = table
    held = hold_out(*table, fraction, seed)
    assert held.dtype == bool
    for group in set(groups.tolist()):
        assert len(set(held[groups == group].tolist())) == 1
    for label in set(labels):
        of_class = np.array([name == label for name in labels])
        assert not held[of_class].all()
        several = len(set(groups[of_class].tolist())) > 1
        assert held[of_class].any() == (several and fraction > 0)


@settings(max_examples=80)
@given(table=tables(), seed=st.integers(0, 3), shuffle=st.randoms(use_true_random=False))
def test_the_order_of_the_photos_changes_nothing(table: Table, seed: int, shuffle: object) -> None:
    labels, digests, groups = table
    order = np.random.default_rng(shuffle.randrange(2**32)).permutation(len(labels))  # type: ignore[attr-defined]
    renamed = 1000 - groups[order]  # nor do the groups' numbers
    mixed = [labels[n] for n in order], [digests[n] for n in order], renamed
    assert np.array_equal(hold_out(*mixed, 0.3, seed), hold_out(*table, 0.3, seed)[order])
    assert np.array_equal(folds(*mixed, 3, seed), folds(*table, 3, seed)[order])


def test_the_share_of_every_class_is_as_given() -> None:
    table = _plain({"a": 100, "b": 50, "c": 10, "d": 3, "e": 2})
    held = hold_out(*table, 0.2, 0)
    kept_out = Counter(np.array(table[0])[held].tolist())
    assert kept_out == {"a": 20, "b": 10, "c": 2, "d": 1, "e": 1}


def test_one_photo_of_a_class_stays_in_training() -> None:
    assert hold_out(["a"], ["x"], np.array([0]), 0.5, 0).tolist() == [False]


def test_a_class_of_two_large_groups_still_gives_the_smaller() -> None:
    labels, digests = ["a"] * 7, [f"digest {n}" for n in range(7)]
    held = hold_out(labels, digests, np.array([0, 0, 0, 0, 1, 1, 1]), 0.1, 0)
    assert held.tolist() == [False] * 4 + [True] * 3


def test_a_fraction_of_zero_holds_nothing_out() -> None:
    assert not hold_out(*_plain({"a": 100, "b": 2}), 0.0, 0).any()


def test_a_seed_repeats_its_split_and_another_makes_another() -> None:
    table = _plain({"a": 200})
    assert np.array_equal(hold_out(*table, 0.2, 1), hold_out(*table, 0.2, 1))
    assert not np.array_equal(hold_out(*table, 0.2, 1), hold_out(*table, 0.2, 2))
    assert not np.array_equal(folds(*table, 5, 1), folds(*table, 5, 2))


def test_more_photos_leave_most_others_where_they_were() -> None:
    before = hold_out(*_plain({"a": 200}), 0.2, 0)
    after = hold_out(*_plain({"a": 220}), 0.2, 0)[:200]
    assert (before != after).sum() <= 10


def test_a_group_of_two_classes_goes_one_way_whole() -> None:
    labels = ["a", "a", "b", *["a"] * 10, *["b"] * 10]
    groups = np.array([0, 0, 0, *range(1, 21)])
    for seed in range(20):
        held = hold_out(labels, [f"digest {n}" for n in range(23)], groups, 0.3, seed)
        assert len(set(held[:3].tolist())) == 1


def test_a_group_of_two_classes_counts_for_the_same_one_in_any_order() -> None:
    labels, groups = [*"ab" * 10, *"a" * 9], np.array([n // 2 for n in range(20)] + [*range(10, 19)])
    digests = [f"digest {n}" for n in range(29)]
    order = np.array([n ^ 1 for n in range(20)] + [*range(20, 29)])  # each pair the other way round
    for seed in range(5):
        mixed = [labels[n] for n in order], [digests[n] for n in order], groups[order]
        assert np.array_equal(hold_out(*mixed, 0.3, seed), hold_out(labels, digests, groups, 0.3, seed)[order])


@settings(max_examples=100)
@given(table=tables(), count=st.integers(2, 5), seed=st.integers(0, 3))
def test_folds_keep_groups_together_and_classes_even(table: Table, count: int, seed: int) -> None:
    labels, _, groups = table
    fold = folds(*table, count, seed)
    assert fold.dtype == np.int64
    assert set(fold.tolist()) <= set(range(count))
    for group in set(groups.tolist()):
        assert len(set(fold[groups == group].tolist())) == 1
    for label in set(labels):
        of_class = np.array([name == label for name in labels])
        sizes = np.bincount(fold[of_class], minlength=count)
        largest = max(Counter(groups[of_class].tolist()).values())
        assert sizes.max() - sizes.min() <= largest


def test_small_classes_do_not_all_begin_in_one_fold() -> None:
    fold = folds(*_plain({f"class {n}": 1 for n in range(50)}), 5, 0)
    assert np.bincount(fold, minlength=5).tolist() == [10] * 5


@pytest.mark.parametrize("count", [2, 10])
def test_no_photos_have_no_split(count: int) -> None:
    empty: Table = ([], [], np.zeros(0, np.int64))
    assert hold_out(*empty, 0.2, 0).shape == (0,)
    assert folds(*empty, count, 0).shape == (0,)
