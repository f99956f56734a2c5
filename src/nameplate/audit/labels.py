"""Doubted labels, classes that cannot be told apart, and outliers, from out-of-fold probabilities and embeddings.

Throughout, `probs` are float32 N×C: what linear heads predict for photos that did not train them. `classes` are the
labels, int64 (N,).
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
"""Two classes cannot be told apart where the upper end of the interval of their balanced accuracy is below this.
Guessing gives 0.5."""
KNOWN = 0.5
"""Heads know a class where the lower end of the interval of its recall is at least this."""
ALIAS_PHOTOS = 10
"""The number of photos that two classes must have together to be compared."""


@dataclass(frozen=True, slots=True)
class Alias:
    """Two classes that cannot be told apart."""

    first: str
    second: str
    right: Metric
    """The balanced accuracy of heads that choose between the two."""
    photos: int
    """The number of photos of both."""


def self_confidence(probs: Floats, classes: NDArray[np.int64]) -> Doubles:
    """The out-of-fold probability of each photo's label, float64 (N,)."""
    return np.asarray(probs[np.arange(len(classes)), classes], np.float64)


def suspicion(probs: Floats, classes: NDArray[np.int64]) -> Doubles:
    """How much more probable another class is than the label: the log of the ratio, float64 (N,).

    It is the logarithm of the normalised margin of C. Northcutt et al., "Confident Learning", 2021, 3.3.
    """
    given = self_confidence(probs, classes)
    others = probs.astype(np.float64)
    others[np.arange(len(classes)), classes] = 0
    return np.asarray(np.log(np.maximum(others.max(1), 1e-12)) - np.log(np.maximum(given, 1e-12)))


def known_to_heads(probs: Floats, classes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether heads know both the class of a photo's label and the class that they predict, bool (N,).

    Heads know a class where the recall on its *other* photos is at least `KNOWN`, by the lower end of Wilson's
    interval. Few photos make no recall certain, and where heads err often, their doubts say little about a label.
    """
    y_pred = probs.argmax(1)
    agreed = y_pred == classes
    photos = np.bincount(classes, minlength=probs.shape[1])
    right = np.bincount(classes, agreed, probs.shape[1]).astype(np.int64)

    def surely(of: NDArray[np.int64]) -> NDArray[np.bool_]:
        own = of == classes  # the photo itself does not count as evidence for its own label
        others, agreeing = photos[of] - own, right[of] - (own & agreed)
        lows = [wilson(int(k), int(n)).low if n else 0.0 for k, n in zip(agreeing, others, strict=True)]
        return np.asarray(np.array(lows) >= KNOWN, np.bool_)

    return surely(classes) & surely(y_pred)


def likely_wrong(probs: Floats, classes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Confident learning: whether a photo is confidently of another class than its label, bool (N,).

    A photo is confidently of a class where the class's probability is at least the mean one of the photos labelled
    with it (C. Northcutt et al., 2021, equations 1 and 2). Of several such classes the most probable one counts.
    """
    given = self_confidence(probs, classes)
    counts = np.bincount(classes, minlength=probs.shape[1])
    # Classes that heads predict with low confidence in general get a lower threshold.
    threshold = np.bincount(classes, given, probs.shape[1]) / np.maximum(counts, 1)
    believed = np.where((probs >= threshold) & (counts > 0), probs, -1)
    best = believed.argmax(1)
    return np.asarray((believed.max(1) > 0) & (best != classes))


def find_aliases(probs: Floats, classes: NDArray[np.int64], nameplates: Sequence[str]) -> tuple[Alias, ...]:
    """Find pairs of classes that cannot be told apart, the worst first; only the two classes of a pair compete."""
    counts = np.bincount(classes, minlength=len(nameplates))
    best_other = probs.copy()
    best_other[np.arange(len(classes)), classes] = -1
    # Only pairs of a label and its strongest rival are tried, not all C²/2.
    pairs = np.unique(np.sort(np.stack([classes, best_other.argmax(1)], 1), axis=1), axis=0)
    found = []
    for first, second in pairs.tolist():
        if counts[first] + counts[second] < ALIAS_PHOTOS or not counts[first] or not counts[second]:
            continue
        of_both = np.isin(classes, (first, second))
        # Only the two classes compete, so that a third one cannot hide that they are confused.
        said = np.where(probs[of_both, first] >= probs[of_both, second], first, second)
        right = said == classes[of_both]
        share = _balanced(right, classes[of_both])
        if share.high < ALIAS_LEVEL:
            found.append(Alias(nameplates[first], nameplates[second], share, int(of_both.sum())))
    return tuple(sorted(found, key=lambda alias: alias.right.value))


def _balanced(right: NDArray[np.bool_], classes: NDArray[np.int64]) -> Metric:
    """The mean of the two classes' recalls (balanced accuracy), so that always predicting the larger one gives 0.5."""
    of_each = [right[classes == number] for number in np.unique(classes)]
    return mean_of_shares([int(each.sum()) for each in of_each], [len(each) for each in of_each])


# Outliers: photos unlike the rest of the data set, or unlike the rest of their class.

OUTLIER_SHRINKAGE = 1.0
"""The variance that is added in every standardised direction: a covariance of 1,600 numbers cannot be estimated from
about as many photos."""
OUTLIER_SCORE = 4.0
"""The `ood_score` from which a photo is an outlier; at most one in a hundred normal photos has it (docs/audit.md)."""
CLASS_OUTLIER_SCORE = 3.0
"""The `unlike_class` score from which a photo is an outlier of its class: a rare side, a detail, a wreck."""


def ood_score(embeddings: Floats, probs: Floats | None = None) -> Doubles:
    """How unlike the other photos of the data set each photo is, float64 (N,).

    The score is the squared Mahalanobis distance from the distribution of the other photos, in interquartile ranges
    above the median, plus the entropy of the probabilities in nats where there are any: a photo without a car is far
    from all cars, and no nameplate suits it (as the "far" outliers of J. Ren et al., "A Simple Fix to Mahalanobis
    Distance for Improving Near-OOD Detection", 2021).

    The photo itself must not be part of the distribution: with about as many photos as dimensions, each photo makes
    the direction in which it lies normal. Leaving it out turns the distance d to all n photos into d / (1 - d/n)
    (R. Cook, S. Weisberg, "Residuals and Influence in Regression", 1982, section 2.2).

    Args:
        embeddings: float32 N×D.
        probs: float32 N×C, out-of-fold probabilities; None where there are no heads.
    """
    rows = (embeddings - embeddings.mean(0)).astype(np.float64)
    rows /= np.maximum(rows.std(0), 1e-6)
    covariance = rows.T @ rows / len(rows)
    half = np.linalg.cholesky(covariance + OUTLIER_SHRINKAGE * np.eye(len(covariance)))
    distance = (_solve_lower(half, rows.T) ** 2).sum(0)
    distance /= np.maximum(1 - distance / len(rows), 1e-9)
    low, middle, high = np.quantile(distance, [0.25, 0.5, 0.75])
    score = (distance - middle) / max(high - low, 1e-9)
    if probs is not None:
        score -= (probs * np.log(np.maximum(probs, 1e-9))).sum(1)
    return np.asarray(score)


def unlike_class(embeddings: Floats, classes: NDArray[np.int64]) -> Doubles:
    """The `ood_score` of the difference between each photo and the mean of its class's other photos, float64 (N,).

    Args:
        embeddings: float32 N×D.
        classes: int64 (N,). A photo that is alone in its class cannot be compared; its score is minus infinity.
    """
    counts = np.bincount(classes)
    # x − mean of the others = (x − mean of all) · n / (n − 1)
    without_itself = (counts / np.maximum(counts - 1, 1))[classes, None].astype(np.float32)
    score = ood_score((embeddings - class_means(embeddings, classes)[classes]) * without_itself)
    return np.where(counts[classes] > 1, score, -np.inf)


def _solve_lower(half: Doubles, columns: Doubles) -> Doubles:
    from scipy.linalg import solve_triangular

    return np.asarray(solve_triangular(half, columns, lower=True, overwrite_b=True))
