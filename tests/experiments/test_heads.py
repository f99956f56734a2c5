from __future__ import annotations

import numpy as np

from nameplate.experiments.heads import LEFT_OUT, draw


def test_a_tenth_is_left_out_and_never_a_whole_class() -> None:
    classes, groups = np.r_[np.zeros(400, np.int64), 1, 2, 2], np.arange(403)
    shares = []
    for seed in range(40):
        drawn = draw(np.arange(403), classes, groups, np.random.default_rng(seed))
        assert len(np.unique(drawn)) == len(drawn)
        assert set(classes[drawn]) == {0, 1, 2}
        shares.append(float((drawn < 400).sum() / 400))
    assert abs(np.mean(shares) - (1 - LEFT_OUT)) < 0.01
    assert len(set(shares)) > 5


def test_copies_stay_or_go_together() -> None:
    groups = np.arange(300) // 3
    drawn = draw(np.arange(300), np.zeros(300, np.int64), groups, np.random.default_rng(0))
    assert set(np.bincount(groups[drawn], minlength=100)) == {0, 3}


def test_only_the_given_indices_are_drawn_and_the_seed_alone_decides() -> None:
    classes = np.arange(200) % 4
    first, second = (draw(np.arange(100, 200), classes, np.arange(200), np.random.default_rng(3)) for _ in range(2))
    assert first.min() >= 100
    assert np.array_equal(first, second)
    assert len(draw(np.zeros(0, np.int64), classes, classes, np.random.default_rng(3))) == 0
