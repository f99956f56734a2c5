"""Results by make: whether at least the make is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nameplate.datasets.names import makes_of
from nameplate.evaluation.metrics import confusion_matrix, precision_recall_f1, wilson
from nameplate.models.verdict import make_places
from nameplate.types import Metric


@dataclass(frozen=True, slots=True)
class MakeResult:
    """How one make's photos fared."""

    make: str
    photos: int
    nameplates: int
    """That have photos."""
    top1: Metric
    """Share whose nameplate was named rightly."""
    precision: float
    """Of the make: an answer is right where the nameplate that it names is of the true make."""
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class Makes:
    """All makes."""

    top1: Metric
    """Share of photos whose make was named rightly."""
    results: tuple[MakeResult, ...]
    """Of those that have photos, most photos first."""
    names: tuple[str, ...]
    """Of all makes, in the order of the matrix."""
    matrix: NDArray[np.int64]
    """Row the true make, column the named one."""


def by_make(truths: NDArray[np.int64], named: NDArray[np.int64], nameplates: Sequence[str]) -> Makes:
    """Judge answers by make.

    Args:
        truths: int64 (N,), the true classes.
        named: int64 (N,), the classes named.
        nameplates: of the classes.
    """
    names, make = make_places(makes_of(nameplates))
    matrix = confusion_matrix(make[truths], make[named], len(names))
    figures = np.stack(precision_recall_f1(matrix), axis=1)
    results = []
    for number in np.argsort(-matrix.sum(1), kind="stable"):
        here = make[truths] == number
        if not here.any():
            continue
        right = wilson(int((truths == named)[here].sum()), int(here.sum()))
        classes = len(np.unique(truths[here]))
        results.append(MakeResult(names[number], int(here.sum()), classes, right, *figures[number].tolist()))
    return Makes(wilson(int(np.trace(matrix)), len(truths)), tuple(results), names, matrix)
