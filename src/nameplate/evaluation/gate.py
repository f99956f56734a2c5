"""`fit_gate`: what tells photos of whole cars from photos of other things, and where it is cut."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nameplate.models.head import fit_head

Floats = NDArray[np.float32]

OTHERS_PASSED = 0.03
"""Share of photos of other things that may pass for cars."""
FOLDS = 5


def chooses(sha256: str | None) -> bool:
    """Whether a photo is of the half that gates and thresholds are chosen on; the other half judges them."""
    return int(str(sha256)[-1], 16) % 2 == 0


def fit_gate(cars: Floats, others: Floats, groups: tuple[NDArray[np.int64], NDArray[np.int64]]) -> tuple[Floats, float]:
    """Fit a gate: a logistic regression of two classes, each weighing alike (`fit_head`).

    Args:
        cars: float32 N×D, embeddings of photos of whole cars.
        others: float32 M×D, of interiors, details and whatever else is no whole car.
        groups: int64 (N,) and (M,); what is made from one photo has one number, and lies in one fold.

    Returns:
        Weights and bias, float32 (D+1,), for `Known.gate`; and the log-odds below which `OTHERS_PASSED` of the other
        things lie, judged by folds that did not see them, for `Thresholds.no_car`.

    Raises:
        ValueError: one of the two is empty.
    """
    if not len(cars) or not len(others):
        raise ValueError(f"a gate needs both: here are {len(cars)} photos of cars and {len(others)} of other things")
    classes = np.repeat(np.array([0, 1], np.int64), [len(cars), len(others)])
    folds = np.concatenate(groups) % FOLDS
    head = fit_head(np.concatenate([cars, others]), classes, folds, balanced=True)
    logits = head.out_of_fold if head.out_of_fold is not None else np.zeros((len(classes), 2), np.float32)
    weight, bias = head.weight[:, 1] - head.weight[:, 0], head.bias[1] - head.bias[0]
    gate = (np.append(weight, bias) / head.temperature).astype(np.float32)
    odds = (logits[:, 1] - logits[:, 0])[classes == 1] / head.temperature
    return gate, float(np.quantile(odds, OTHERS_PASSED))
