"""Metrics with 95 % intervals: numpy in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nameplate.evaluation.significance import resamples
from nameplate.models.head import log_loss
from nameplate.types import ClassResult, Confusion, Evaluation, Metric

Z = 1.959964
"""The 97.5 % point of the normal distribution."""


def evaluate(
    probabilities: NDArray[np.float32],
    truths: NDArray[np.int64],
    nameplates: Sequence[str],
    groups: NDArray[np.int64] | None = None,
) -> Evaluation:
    """Hold answers against the truth.

    Args:
        probabilities: float32 N×C.
        truths: int64 (N,), the true classes, 0 … C-1.
        nameplates: the C names.
        groups: int64 (N,), photos of one group are copies and drawn together; None: each is its own.

    Returns:
        Top-1 and top-5 with Wilson intervals, macro-F1 (over the classes that have photos) with a
        bootstrap interval, log-loss, per-class results and confusions.

    Raises:
        ValueError: no photos.
    """
    if len(truths) == 0:
        raise ValueError("no photos to evaluate")
    order = np.argsort(-probabilities, axis=1, kind="stable")
    named = order[:, 0]
    hits5 = int((order[:, :5] == truths[:, None]).any(1).sum())
    return Evaluation(
        photos=len(truths),
        top1=wilson(int((named == truths).sum()), len(truths)),
        top5=wilson(hits5, len(truths)),
        macro_f1=_macro_f1(truths, named, len(nameplates), groups),
        log_loss=log_loss(probabilities, truths),
        classes=_per_class(truths, named, nameplates),
        confusions=_confusions(truths, named, nameplates),
    )


def as_json(evaluation: Evaluation) -> dict[str, object]:
    """An evaluation as plain data."""
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


def wilson(hits: int, photos: int) -> Metric:
    """A share with its 95 % score interval (E. B. Wilson, JASA 22, 1927).

    >>> wilson(90, 100)  # doctest: +ELLIPSIS
    Metric(value=0.9, low=0.8256..., high=0.9447...)
    """
    share = hits / photos
    centre = (share + Z * Z / (2 * photos)) / (1 + Z * Z / photos)
    half = Z / (1 + Z * Z / photos) * np.sqrt(share * (1 - share) / photos + Z * Z / (4 * photos * photos))
    return Metric(share, max(0.0, float(centre - half)), min(1.0, float(centre + half)))


def confusion_matrix(truths: NDArray[np.int64], named: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """int64 C×C, row the truth, column the answer."""
    return np.bincount(truths * classes + named, minlength=classes * classes).reshape(classes, classes)


def precision_recall_f1(
    matrix: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Precision, recall and F1 of each class; 0 where undefined."""
    right = np.diag(matrix).astype(np.float64)
    precision = right / np.maximum(matrix.sum(0), 1)
    recall = right / np.maximum(matrix.sum(1), 1)
    f1 = 2 * right / np.maximum(matrix.sum(0) + matrix.sum(1), 1)
    return precision, recall, f1


def centred(value: float, draws: Sequence[float]) -> Metric:
    """A figure with the spread of its resamples about it, within 0–1.

    Moved to the figure itself because resamples miss classes, or repeat photos, which shifts their mean.
    """
    low, high = value - np.mean(draws) + np.quantile(draws, [0.025, 0.975])
    return Metric(value, max(0.0, float(low)), min(1.0, float(high)))


def _macro_f1(
    truths: NDArray[np.int64], named: NDArray[np.int64], classes: int, groups: NDArray[np.int64] | None
) -> Metric:
    def figure(rows: NDArray[np.int64] | slice) -> float:
        matrix = confusion_matrix(truths[rows], named[rows], classes)
        there = matrix.sum(1) > 0
        return float(precision_recall_f1(matrix)[2][there].mean())

    return centred(figure(slice(None)), [figure(rows) for rows in resamples(len(truths), groups)])


def _per_class(
    truths: NDArray[np.int64], named: NDArray[np.int64], nameplates: Sequence[str]
) -> tuple[ClassResult, ...]:
    matrix = confusion_matrix(truths, named, len(nameplates))
    figures = zip(
        nameplates, matrix.sum(1).tolist(), *(part.tolist() for part in precision_recall_f1(matrix)), strict=True
    )
    return tuple(ClassResult(*row) for row in figures if row[1] > 0)


def _confusions(
    truths: NDArray[np.int64], named: NDArray[np.int64], nameplates: Sequence[str]
) -> tuple[Confusion, ...]:
    wrong = truths != named
    pairs, counts = np.unique(np.stack([truths[wrong], named[wrong]]), axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return tuple(Confusion(nameplates[pairs[0, i]], nameplates[pairs[1, i]], int(counts[i])) for i in order)
