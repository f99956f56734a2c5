"""Top-1, top-5, macro-F1 and log-loss with 95 % intervals (`evaluate`), and the same by make (`by_make`).

Arrays go in, numbers come out; nothing here reads a photo or a model. docs/statistics.md says which interval is used
for which figure and how often it holds in simulations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nameplate.data.labels import makes_of
from nameplate.evaluate.significance import Z
from nameplate.model.classifier import log_loss
from nameplate.model.verdict import make_indices
from nameplate.types import ClassResult, Confusion, Doubles, Evaluation, Floats, Metric

PRIOR = 0.5
"""The weight of the assumed variance beside the measured one, in mistakes: see `effective_wilson`."""


def evaluate(
    probabilities: Floats,
    y_true: NDArray[np.int64],
    nameplates: Sequence[str],
    groups: NDArray[np.int64] | None = None,
) -> Evaluation:
    """Compute the metrics of probabilities against the true classes.

    Args:
        probabilities: float32 N×C.
        y_true: int64 (N,), the true classes, 0 … C-1.
        nameplates: The C names.
        groups: int64 (N,); photos of one group are copies and count as one. None: each photo is its own group.

    Returns:
        Top-1, top-5 and macro-F1 (over the classes that have photos) with Wilson's intervals, log-loss, per-class
        results and confusions.

    Raises:
        ValueError: There are no photos.
    """
    if len(y_true) == 0:
        raise ValueError("no photos to evaluate")
    order = np.argsort(-probabilities, axis=1, kind="stable")  # stable: equal probabilities keep their column order
    y_pred = order[:, 0]
    among5 = (order[:, :5] == y_true[:, None]).any(1)
    return Evaluation(
        photos=len(y_true),
        top1=share(y_pred == y_true, groups),
        top5=share(among5, groups),
        macro_f1=_macro_f1(y_true, y_pred, len(nameplates), groups),
        log_loss=log_loss(probabilities, y_true),
        classes=_per_class(y_true, y_pred, nameplates),
        confusions=_confusions(y_true, y_pred, nameplates),
    )


def as_json(evaluation: Evaluation) -> dict[str, object]:
    """An evaluation as plain data, for JSON."""
    return {
        "photos": evaluation.photos,
        "top1": evaluation.top1.value,
        "top1_interval": evaluation.top1.interval,
        "top5": evaluation.top5.value,
        "top5_interval": evaluation.top5.interval,
        "macro_f1": evaluation.macro_f1.value,
        "macro_f1_interval": evaluation.macro_f1.interval,
        "log_loss": evaluation.log_loss,
        "classes": evaluation.classes,
        "confusions": evaluation.confusions,
    }


def wilson(hits: float, photos: float) -> Metric:
    """A proportion with its 95 % score interval (E. B. Wilson, JASA 22, 1927).

    >>> wilson(90, 100)  # doctest: +ELLIPSIS
    Metric(value=0.9, low=0.8256..., high=0.9447...)
    """
    share = hits / photos
    centre = (share + Z * Z / (2 * photos)) / (1 + Z * Z / photos)
    half = Z / (1 + Z * Z / photos) * np.sqrt(share * (1 - share) / photos + Z * Z / (4 * photos * photos))
    return Metric(share, max(0.0, float(centre - half)), min(1.0, float(centre + half)))


def share(right: NDArray[np.bool_], groups: NDArray[np.int64] | None = None) -> Metric:
    """The share of photos that are right; copies of a photo count as one in its interval.

    Args:
        right: bool (N,).
        groups: int64 (N,); photos of one group are copies and count as one. None: each photo is its own group.
    """
    photos, hits = len(right), int(right.sum())
    if groups is None:
        return wilson(hits, photos)
    variance = float((group_sums(right - hits / photos, groups) ** 2).sum()) / photos**2
    return effective_wilson(hits / photos, variance, photos, photos / mean_copies(groups))


def effective_wilson(value: float, variance: float, photos: float, assumed: float) -> Metric:
    """Wilson's interval of a figure between 0 and 1 that is not a plain proportion, with its effective sample size.

    The effective sample size is the number of photos of which a plain proportion would have the same variance
    (E. Korn and B. Graubard, Survey Methodology 24, 1998). C. Franco et al. (Journal of Survey Statistics and
    Methodology 7, 2019) compared many intervals and found this one best. It stays within 0–1, and it keeps a width
    where no mistake was seen.

    Args:
        value: The figure.
        variance: Its estimated variance.
        photos: The number of photos behind it.
        assumed: The effective sample size to assume where there are no mistakes that would show the variance.
    """
    spread = value * (1 - value)
    # With no mistakes both spread and variance are 0, and PRIOR alone makes the ratio `assumed`.
    effective = (spread * photos + PRIOR) / (variance * photos + PRIOR / assumed)
    found = wilson(value * effective, effective)
    return Metric(value, min(value, found.low), max(value, found.high))


def mean_of_shares(hits: Sequence[int], photos: Sequence[int]) -> Metric:
    """The mean of several proportions, each of its own photos, with a 95 % interval.

    The distance of each proportion to an end of its Wilson interval serves as its error, and the errors add in
    quadrature (R. G. Newcombe's method 10, Statistics in Medicine 17, 1998, for sums: G. Zou and A. Donner, 2008).

    >>> mean_of_shares([5, 50], [10, 100])  # doctest: +ELLIPSIS
    Metric(value=0.5, low=0.3597..., high=0.6402...)
    """
    each = [wilson(*pair) for pair in zip(hits, photos, strict=True)]
    value = float(np.mean([one.value for one in each]))
    down, up = (
        float(np.sqrt(np.sum(np.square(ends)))) / len(each)
        for ends in ([one.value - one.low for one in each], [one.high - one.value for one in each])
    )
    return Metric(value, max(0.0, value - down), min(1.0, value + up))


def skewed_mean(values: Doubles, groups: NDArray[np.int64] | None = None) -> Metric:
    """The mean of a skewed distribution, of which few values are very large, with a 95 % interval.

    The interval is a t interval on a scale without skewness, transformed back (P. Hall, "On the removal of skewness
    by transformation", JRSS B 54, 1992). It reaches further up than down.

    Args:
        values: float64 (N,), 0 or more.
        groups: int64 (N,); photos of one group are copies and count as one. None: each photo is its own group.
    """
    from scipy.stats import t

    value = float(values.mean())
    sums = group_sums(values - value, np.arange(len(values)) if groups is None else groups)
    count = len(sums)
    away = sums * count / len(values)
    spread = float(away.std(ddof=1)) if count > 1 else 0.0
    deviation = spread or value  # one group shows no spread; then it is assumed to equal the mean
    skewness = float((away**3).mean()) / spread**3 if spread else 0.0
    point = float(t.ppf(0.975, max(1, count - 1))) / count**0.5
    low, high = (value - deviation * _unskewed(end - skewness / (6 * count), skewness) for end in (point, -point))
    return Metric(value, max(0.0, low), high)


def _unskewed(y: float, skewness: float) -> float:
    """The inverse of Hall's transformation g."""
    if abs(skewness) < 1e-6:  # the limit, which the formula below cannot give
        return y
    return float(3 / skewness * (np.cbrt(1 + skewness * y) - 1))


def group_sums(values: NDArray[np.floating], groups: NDArray[np.int64]) -> Doubles:
    """The sum of the values of each group, float64 (G,) for G groups."""
    return np.bincount(np.unique(groups, return_inverse=True)[1], values).astype(np.float64)


def mean_copies(groups: NDArray[np.int64] | None) -> float:
    """The mean over photos of the size of the photo's group: 1 where there are no copies."""
    if groups is None or len(groups) == 0:
        return 1.0
    sizes = np.unique(groups, return_counts=True)[1]
    return float((sizes**2).sum() / sizes.sum())


def confusion_matrix(y_true: NDArray[np.int64], y_pred: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Count the answers, int64 C×C: rows are true classes, columns predicted ones."""
    return np.bincount(y_true * classes + y_pred, minlength=classes * classes).reshape(classes, classes)


def precision_recall_f1(
    matrix: NDArray[np.int64],
) -> tuple[Doubles, Doubles, Doubles]:
    """Precision, recall and F1 of each class, float64 (C,) each; 0 where undefined."""
    right = np.diag(matrix).astype(np.float64)
    precision = right / np.maximum(matrix.sum(0), 1)
    recall = right / np.maximum(matrix.sum(1), 1)
    f1 = 2 * right / np.maximum(matrix.sum(0) + matrix.sum(1), 1)
    return precision, recall, f1


def centred(value: float, draws: Sequence[float]) -> Metric:
    """A figure with the 95 % range of its bootstrap resamples, centred on the figure itself and within 0–1.

    The range is moved because resamples miss classes and repeat photos, which shifts their mean.
    """
    low, high = value - np.mean(draws) + np.quantile(draws, [0.025, 0.975])
    return Metric(value, max(0.0, float(low)), min(1.0, float(high)))


def _macro_f1(
    y_true: NDArray[np.int64], y_pred: NDArray[np.int64], classes: int, groups: NDArray[np.int64] | None
) -> Metric:
    """The mean F1 of the classes that have photos, with an interval from its linear approximation.

    A right photo adds 2 − F1 of its class to the mean, a wrong one adds −F1 of the predicted class, each divided by
    the number of true and predicted photos of that class (K. Takahashi et al., "Confidence interval for
    micro-averaged F1 and macro-averaged F1 scores", Applied Intelligence 52, 2022). The variance is taken within the
    true classes, because the number of photos of each class is given. One pseudo-photo of average accuracy is added
    to each class, so that a class of few photos, all right, does not have the variance 0.
    """
    matrix = confusion_matrix(y_true, y_pred, classes)
    counts, f1 = matrix.sum(1), precision_recall_f1(matrix)[2]
    there = counts > 0
    value, number = float(f1[there].mean()), int(there.sum())
    each = number * np.maximum(matrix.sum(0) + counts, 1)
    if_right, if_named = (2 - f1) / each, np.where(there, -f1 / each, 0.0)
    right = y_true == y_pred
    adds = np.where(right, if_right[y_true], if_named[y_pred])
    usual = (right.sum() + 0.5) / (len(y_true) + 1)
    wrong = float(adds[~right].mean()) if not right.all() else -float((1 / each[there]).mean())
    first = (np.bincount(y_true, adds, classes) + usual * if_right + (1 - usual) * wrong) / (counts + 1)
    second = (np.bincount(y_true, adds**2, classes) + usual * if_right**2 + (1 - usual) * wrong**2) / (counts + 1)
    variance = float((second - first**2)[there] @ (counts + 1)[there])
    if groups is not None:  # the design effect: how much larger the variance of whole groups is
        away = adds - (np.bincount(y_true, adds, classes) / np.maximum(counts, 1))[y_true]
        own = float((away**2).sum())
        variance *= max(1.0, float((group_sums(away, groups) ** 2).sum()) / own) if own else mean_copies(groups)
    assumed = number**2 / float((1 / counts[there]).sum()) / mean_copies(groups)
    return effective_wilson(value, variance, len(y_true), assumed)


def _per_class(
    y_true: NDArray[np.int64], y_pred: NDArray[np.int64], nameplates: Sequence[str]
) -> tuple[ClassResult, ...]:
    matrix = confusion_matrix(y_true, y_pred, len(nameplates))
    figures = zip(
        nameplates, matrix.sum(1).tolist(), *(part.tolist() for part in precision_recall_f1(matrix)), strict=True
    )
    return tuple(ClassResult(*row) for row in figures if row[1] > 0)


def _confusions(
    y_true: NDArray[np.int64], y_pred: NDArray[np.int64], nameplates: Sequence[str]
) -> tuple[Confusion, ...]:
    wrong = y_true != y_pred
    pairs, counts = np.unique(np.stack([y_true[wrong], y_pred[wrong]]), axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return tuple(Confusion(nameplates[pairs[0, i]], nameplates[pairs[1, i]], int(counts[i])) for i in order)


# Results by make: an answer counts as right where its nameplate is of the true make.


@dataclass(frozen=True, slots=True)
class MakeResult:
    """The figures of one make."""

    make: str
    photos: int
    nameplates: int
    """The number of its nameplates that have photos."""
    top1: Metric
    """The share of its photos whose nameplate is right."""
    precision: float
    """Precision, recall and F1 are of the make: a predicted nameplate counts as right where it is of the true make."""
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class Makes:
    """The figures of all makes."""

    top1: Metric
    """The share of photos whose make is right."""
    results: tuple[MakeResult, ...]
    """The makes that have photos, in descending order of their number."""
    names: tuple[str, ...]
    """All makes, in the order of the matrix."""
    matrix: NDArray[np.int64]
    """int64 M×M: rows are true makes, columns predicted ones."""


def by_make(y_true: NDArray[np.int64], y_pred: NDArray[np.int64], nameplates: Sequence[str]) -> Makes:
    """Compute the figures by make.

    Args:
        y_true: int64 (N,), the true classes.
        y_pred: int64 (N,), the predicted classes.
        nameplates: The names of the classes; they say the makes (`nameplate.data.labels.makes_of`).
    """
    names, make = make_indices(makes_of(nameplates))
    matrix = confusion_matrix(make[y_true], make[y_pred], len(names))
    figures = np.stack(precision_recall_f1(matrix), axis=1)
    results = []
    for number in np.argsort(-matrix.sum(1), kind="stable"):
        here = make[y_true] == number
        if not here.any():
            continue
        right = wilson(int((y_true == y_pred)[here].sum()), int(here.sum()))
        classes = len(np.unique(y_true[here]))
        results.append(MakeResult(names[number], int(here.sum()), classes, right, *figures[number].tolist()))
    return Makes(wilson(int(np.trace(matrix)), len(y_true)), tuple(results), names, matrix)
