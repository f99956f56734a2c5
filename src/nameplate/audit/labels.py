"""Labels held against what heads say of photos that did not train them: likely wrong ones, and classes that cannot
be told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nameplate.evaluation.metrics import mean_of_shares, wilson
from nameplate.types import Metric

ALIAS_LEVEL = 0.75
"""Two classes cannot be told apart where the share of their photos put right is surely below this; guessing
gives 0.5."""
KNOWN = 0.5
"""Heads know a class where they surely name this share of its photos as they are labelled, or more."""
ALIAS_PHOTOS = 10
"""Photos that two classes must have together before they are judged."""


@dataclass(frozen=True, slots=True)
class Alias:
    """Two classes that cannot be told apart."""

    first: str
    second: str
    right: Metric
    """Share of their photos that are put into the right one of the two."""
    photos: int
    """Of both."""


def self_confidence(chances: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Out-of-fold probability of each photo's own label, float64 (N,)."""
    return np.asarray(chances[np.arange(len(classes)), classes], np.float64)


def suspicion(chances: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """How much more another class is believed than the label: log of the two probabilities' ratio, float64 (N,).

    The logarithm of the normalised margin of C. Northcutt et al., "Confident Learning", 2021, 3.3.
    """
    given = self_confidence(chances, classes)
    others = chances.astype(np.float64)
    others[np.arange(len(classes)), classes] = 0
    return np.asarray(np.log(np.maximum(others.max(1), 1e-12)) - np.log(np.maximum(given, 1e-12)))


def known_to_heads(chances: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether heads surely know both the class of a photo's label and the one that they name, bool (N,).

    That is where the share of the class's *other* photos that they name as they are labelled is surely (the lower end
    of Wilson's interval) at least `KNOWN`. Of few photos nothing is sure, and where heads err often their doubts say
    little of a label.
    """
    named = chances.argmax(1)
    agreed = named == classes
    photos = np.bincount(classes, minlength=chances.shape[1])
    right = np.bincount(classes, agreed, chances.shape[1]).astype(np.int64)

    def surely(of: NDArray[np.int64]) -> NDArray[np.bool_]:
        own = of == classes
        others, agreeing = photos[of] - own, right[of] - (own & agreed)
        lows = [wilson(int(k), int(n)).low if n else 0.0 for k, n in zip(agreeing, others, strict=True)]
        return np.asarray(np.array(lows) >= KNOWN, np.bool_)

    return surely(classes) & surely(named)


def likely_wrong(chances: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Confident learning: photos that another class's probability says are of it, bool (N,).

    A class is believed of a photo where its probability is at least the mean one that the photos labelled with it
    have (C. Northcutt et al., 2021, equations 1 and 2). A label is wrong where the most probable class that is
    believed is another one.
    """
    given = self_confidence(chances, classes)
    counts = np.bincount(classes, minlength=chances.shape[1])
    usual = np.bincount(classes, given, chances.shape[1]) / np.maximum(counts, 1)
    believed = np.where((chances >= usual) & (counts > 0), chances, -1)
    best = believed.argmax(1)
    return np.asarray((believed.max(1) > 0) & (best != classes))


def find_aliases(
    chances: NDArray[np.float32], classes: NDArray[np.int64], nameplates: Sequence[str]
) -> tuple[Alias, ...]:
    """Pairs of classes that cannot be told apart, the worst first; each is judged on the two classes alone."""
    counts = np.bincount(classes, minlength=len(nameplates))
    best_other = chances.copy()
    best_other[np.arange(len(classes)), classes] = -1
    pairs = np.unique(np.sort(np.stack([classes, best_other.argmax(1)], 1), axis=1), axis=0)
    found = []
    for first, second in pairs.tolist():
        if counts[first] + counts[second] < ALIAS_PHOTOS or not counts[first] or not counts[second]:
            continue
        of_both = np.isin(classes, (first, second))
        said = np.where(chances[of_both, first] >= chances[of_both, second], first, second)
        right = said == classes[of_both]
        share = _balanced(right, classes[of_both])
        if share.high < ALIAS_LEVEL:
            found.append(Alias(nameplates[first], nameplates[second], share, int(of_both.sum())))
    return tuple(sorted(found, key=lambda alias: alias.right.value))


def _balanced(right: NDArray[np.bool_], classes: NDArray[np.int64]) -> Metric:
    """Mean of the two classes' shares, so that always naming the larger one gives 0.5."""
    of_each = [right[classes == number] for number in np.unique(classes)]
    return mean_of_shares([int(each.sum()) for each in of_each], [len(each) for each in of_each])
