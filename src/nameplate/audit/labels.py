"""Labels held against what heads say of photos that did not train them: likely wrong ones, and classes that cannot
be told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nameplate.evaluate.metrics import mean_of_shares, wilson
from nameplate.model.classifier import class_means
from nameplate.types import Doubles, Floats, Metric

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


def self_confidence(probs: Floats, classes: NDArray[np.int64]) -> Doubles:
    """Out-of-fold probability of each photo's own label, float64 (N,)."""
    return np.asarray(probs[np.arange(len(classes)), classes], np.float64)


def suspicion(probs: Floats, classes: NDArray[np.int64]) -> Doubles:
    """How much more another class is believed than the label: log of the two probabilities' ratio, float64 (N,).

    The logarithm of the normalised margin of C. Northcutt et al., "Confident Learning", 2021, 3.3.
    """
    given = self_confidence(probs, classes)
    others = probs.astype(np.float64)
    others[np.arange(len(classes)), classes] = 0
    return np.asarray(np.log(np.maximum(others.max(1), 1e-12)) - np.log(np.maximum(given, 1e-12)))


def known_to_heads(probs: Floats, classes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether heads surely know both the class of a photo's label and the one that they name, bool (N,).

    That is where the share of the class's *other* photos that they name as they are labelled is surely (the lower end
    of Wilson's interval) at least `KNOWN`. Of few photos nothing is sure, and where heads err often their doubts say
    little of a label.
    """
    named = probs.argmax(1)
    agreed = named == classes
    photos = np.bincount(classes, minlength=probs.shape[1])
    right = np.bincount(classes, agreed, probs.shape[1]).astype(np.int64)

    def surely(of: NDArray[np.int64]) -> NDArray[np.bool_]:
        own = of == classes
        others, agreeing = photos[of] - own, right[of] - (own & agreed)
        lows = [wilson(int(k), int(n)).low if n else 0.0 for k, n in zip(agreeing, others, strict=True)]
        return np.asarray(np.array(lows) >= KNOWN, np.bool_)

    return surely(classes) & surely(named)


def likely_wrong(probs: Floats, classes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Confident learning: photos that another class's probability says are of it, bool (N,).

    A class is believed of a photo where its probability is at least the mean one that the photos labelled with it
    have (C. Northcutt et al., 2021, equations 1 and 2). A label is wrong where the most probable class that is
    believed is another one.
    """
    given = self_confidence(probs, classes)
    counts = np.bincount(classes, minlength=probs.shape[1])
    usual = np.bincount(classes, given, probs.shape[1]) / np.maximum(counts, 1)
    believed = np.where((probs >= usual) & (counts > 0), probs, -1)
    best = believed.argmax(1)
    return np.asarray((believed.max(1) > 0) & (best != classes))


def find_aliases(probs: Floats, classes: NDArray[np.int64], nameplates: Sequence[str]) -> tuple[Alias, ...]:
    """Pairs of classes that cannot be told apart, the worst first; each is judged on the two classes alone."""
    counts = np.bincount(classes, minlength=len(nameplates))
    best_other = probs.copy()
    best_other[np.arange(len(classes)), classes] = -1
    pairs = np.unique(np.sort(np.stack([classes, best_other.argmax(1)], 1), axis=1), axis=0)
    found = []
    for first, second in pairs.tolist():
        if counts[first] + counts[second] < ALIAS_PHOTOS or not counts[first] or not counts[second]:
            continue
        of_both = np.isin(classes, (first, second))
        said = np.where(probs[of_both, first] >= probs[of_both, second], first, second)
        right = said == classes[of_both]
        share = _balanced(right, classes[of_both])
        if share.high < ALIAS_LEVEL:
            found.append(Alias(nameplates[first], nameplates[second], share, int(of_both.sum())))
    return tuple(sorted(found, key=lambda alias: alias.right.value))


def _balanced(right: NDArray[np.bool_], classes: NDArray[np.int64]) -> Metric:
    """Mean of the two classes' shares, so that always naming the larger one gives 0.5."""
    of_each = [right[classes == number] for number in np.unique(classes)]
    return mean_of_shares([int(each.sum()) for each in of_each], [len(each) for each in of_each])


# JOINED `ood_score`: how unlike the rest of a data set each photo is.


OUTLIER_SHRINKAGE = 1.0
"""Variance that is added in every standardised direction: 1,600 of them cannot be known from as many photos."""
STRANGE = 4.0
"""Strangeness from which a photo is named: at most one in a hundred of those that belong (docs/audit.md)."""
UNLIKE_CLASS = 3.0
"""Strangeness beside the photos of its own class from which one is named: an odd side, a detail, a wreck."""


def ood_score(embeddings: Floats, probs: Floats | None = None) -> Doubles:
    """The photo's Mahalanobis distance from the distribution of the data set's other photos, squared; where there are
    heads, plus how little they know what to name it.

    Each photo is held against a distribution that it is no part of, since with about as many photos as numbers each one
    makes the direction that it lies in: with the distance d from that of all n photos it is d / (1 - d/n) (R. Cook,
    S. Weisberg, "Residuals and Influence in Regression", 1982, section 2.2). The first part is told in interquartile
    ranges above the median, the second in nats of entropy: what is no car is far away from all cars, and no nameplate
    suits it (as the "far" outliers of J. Ren et al., "A Simple Fix to Mahalanobis Distance for Improving Near-OOD
    Detection", 2021).

    Args:
        embeddings: float32 N×D.
        probs: float32 N×C, out-of-fold probabilities.
    """
    rows = (embeddings - embeddings.mean(0)).astype(np.float64)
    rows /= np.maximum(rows.std(0), 1e-6)
    covariance = rows.T @ rows / len(rows)
    half = np.linalg.cholesky(covariance + OUTLIER_SHRINKAGE * np.eye(len(covariance)))
    distance = (_solve_lower(half, rows.T) ** 2).sum(0)
    distance /= np.maximum(1 - distance / len(rows), 1e-9)
    low, middle, high = np.quantile(distance, [0.25, 0.5, 0.75])
    strange = (distance - middle) / max(high - low, 1e-9)
    if probs is not None:
        strange -= (probs * np.log(np.maximum(probs, 1e-9))).sum(1)
    return np.asarray(strange)


def unlike_class(embeddings: Floats, classes: NDArray[np.int64]) -> Doubles:
    """`ood_score` of how each photo differs from the mean of the other photos of its class, float64 (N,).

    Args:
        embeddings: float32 N×D.
        classes: int64 (N,); of a class of one photo nothing is known, so it is not strange.
    """
    counts = np.bincount(classes)
    without_itself = (counts / np.maximum(counts - 1, 1))[classes, None].astype(np.float32)
    strange = ood_score((embeddings - class_means(embeddings, classes)[classes]) * without_itself)
    return np.where(counts[classes] > 1, strange, -np.inf)


def _solve_lower(half: Doubles, columns: Doubles) -> Doubles:
    from scipy.linalg import solve_triangular

    return np.asarray(solve_triangular(half, columns, lower=True, overwrite_b=True))
