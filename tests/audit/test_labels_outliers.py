"""Outliers."""

from __future__ import annotations

import numpy as np

from nameplate.audit.labels import CLASS_OUTLIER_SCORE, OUTLIER_SCORE, ood_score, unlike_class

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.standard_normal((600, 40)).astype(np.float32) @ RANDOM.standard_normal((40, 40)).astype(np.float32)


def test_off_the_data_an_outlier_scores_higher_than_as_far_along_it() -> None:
    flat = ROWS.copy()
    flat[:, 1:10] = flat[:, :1]  # ten directions that go together
    far = 2.5 * flat[:, 0].std() * np.ones(10, np.float32)
    flat[6, :10] += far
    flat[5, :10] += far * np.resize([1, -1], 10)  # in one photo they do not
    strange = ood_score(flat)
    assert strange.argmax() == 5
    assert strange[5] > OUTLIER_SCORE > strange[6]


def test_a_photo_of_no_class_is_more_of_an_outlier_than_a_known_one() -> None:
    probs = np.eye(4, dtype=np.float32)[np.arange(600) % 4]
    probs[9] = 0.25
    with_names, without = ood_score(ROWS, probs), ood_score(ROWS)
    assert np.isclose(with_names[9] - without[9], np.log(4))
    assert np.allclose(np.delete(with_names - without, 9), 0, atol=1e-5)


def test_a_photo_of_another_class_is_unlike_its_own_and_one_alone_is_like_nothing() -> None:
    classes = np.arange(600) % 3
    rows = RANDOM.standard_normal((600, 40)).astype(np.float32) + 6 * np.eye(3, 40, dtype=np.float32)[classes]
    classes[0], classes[599] = 1, 3
    strange = unlike_class(rows, classes)
    assert strange.argmax() == 0
    assert strange[0] > CLASS_OUTLIER_SCORE
    assert strange[599] == -np.inf


def test_each_photo_is_compared_with_the_others_alone() -> None:
    few = ROWS[:60].copy()  # hardly more photos than numbers: each makes the direction that it lies in
    few[7] += 20 * np.random.default_rng(1).standard_normal(40).astype(np.float32)
    rows = (few - few.mean(0)).astype(np.float64)
    rows /= rows.std(0)
    own = np.delete(rows, 7, 0)
    inverse = np.linalg.inv(own.T @ own / len(rows) + np.eye(40))
    distance = rows[7] @ inverse @ rows[7]
    whole = np.linalg.inv(rows.T @ rows / len(rows) + np.eye(40))
    inside = np.einsum("ij,jk,ik->i", rows, whole, rows)
    outside = inside / (1 - inside / len(rows))
    assert np.isclose(outside[7], distance)
    low, middle, high = np.quantile(outside, [0.25, 0.5, 0.75])
    assert np.isclose(ood_score(few)[7], (distance - middle) / (high - low))
    assert ood_score(few).argmax() == 7
    assert ood_score(few)[7] > OUTLIER_SCORE
