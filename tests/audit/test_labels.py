"""Wrong labels, compared with out-of-fold answers."""

from __future__ import annotations

import numpy as np
import pytest

from nameplate.audit.labels import find_aliases, known_to_heads, likely_wrong, suspicion
from nameplate.evaluate.metrics import wilson


def test_suspicion_is_the_log_of_how_much_likelier_another_class_is() -> None:
    probs = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]], np.float32)
    assert suspicion(probs, np.array([0, 0])) == pytest.approx([np.log(0.1 / 0.8), np.log(0.8 / 0.1)], abs=1e-5)


def test_swapped_labels_are_named_and_a_class_that_is_never_sure_is_not_blamed() -> None:
    random = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], 40)
    logits = random.standard_normal((120, 3)) + 4 * np.eye(3)[truth]
    logits[truth == 2] /= 4  # of which heads are never sure
    probs = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)
    labels = truth.copy()
    labels[:4], labels[40:44] = 1, 0
    wrong = likely_wrong(probs, labels)
    assert wrong[[0, 1, 2, 3, 40, 41, 42, 43]].sum() >= 6
    assert wrong[labels == truth].mean() < 0.1


def test_two_names_of_one_class_are_aliases_and_others_are_not() -> None:
    random = np.random.default_rng(1)
    classes = np.repeat([0, 1, 2], 50)
    like = np.array([0, 0, 1])[classes]  # the first two look alike
    logits = np.stack([like == 0, like == 0, like == 1], 1) * 4 + 0.1 * random.standard_normal((150, 3))
    probs = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)
    (alias,) = find_aliases(probs, classes, ["Lada Priora", "Lada Priora I", "Opel Astra"])
    assert (alias.first, alias.second, alias.photos) == ("Lada Priora", "Lada Priora I", 100)
    assert alias.right.value == pytest.approx(0.5, abs=0.15)


def test_a_large_class_does_not_hide_that_a_small_one_is_like_it() -> None:
    classes = np.repeat([0, 1], [190, 10])
    probs = np.tile(np.array([0.9, 0.1], np.float32), (200, 1))  # always the larger one: right on 95 %
    (alias,) = find_aliases(probs, classes, ["a", "b"])
    assert alias.right.value == pytest.approx(0.5)


def test_few_photos_of_a_class_give_it_a_wide_interval() -> None:
    """Of five photos two right, of 400 all: 0.7, and the five decide how surely; not as if there were 405."""
    classes = np.repeat([0, 1], [400, 5])
    probs = np.tile(np.array([0.9, 0.1], np.float32), (405, 1))
    probs[400:402] = [0.1, 0.9]
    assert find_aliases(probs, classes, ["a", "b"]) == ()
    probs[400:402] = [0.9, 0.1]
    (alias,) = find_aliases(probs, classes, ["a", "b"])
    assert alias.right.value == pytest.approx(0.5)
    assert alias.right.high == pytest.approx(0.5 + wilson(0, 5).high / 2, abs=1e-3)


def test_heads_that_know_few_photos_or_err_often_are_not_relied_on() -> None:
    def labelled(photos: int, wrong: int) -> tuple[np.ndarray, np.ndarray]:
        classes = np.repeat([0, 1], photos)
        probs = np.eye(2, dtype=np.float32)[classes] * 0.9 + 0.05
        probs[:wrong] = probs[:wrong, ::-1]
        return probs, classes

    assert not known_to_heads(*labelled(4, 1))[0]  # three others, all right: too few to be sure
    assert known_to_heads(*labelled(20, 1)).all()
    assert not known_to_heads(*labelled(20, 12))[0]
