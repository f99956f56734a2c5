"""Weights of an ensemble's members: fitted on photos that trained none of them, if that is more than noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nameplate.data.split import folds as assign_folds
from nameplate.evaluate.calibration import MIN_CALIBRATION, fit_temperatures
from nameplate.evaluate.significance import Paired, paired
from nameplate.fit.held_out import HeldOutPredictions
from nameplate.model.classifier import log_losses, probabilities
from nameplate.storage import counted
from nameplate.types import Floats

LEAST_SHARE = 0.1
"""A member whose fitted weight is below this share of an equal one is left out: it costs as much time as the others."""
CROSS_FOLDS = 5
"""Folds of the photos over which fitted weights are judged."""


@dataclass(frozen=True, slots=True)
class Weighing:
    """How the weights of the members were chosen."""

    weights: tuple[float, ...]
    """They add up to 1; a member of weight 0 is left out."""
    fitted: bool
    """Whether they are fitted; otherwise they are equal."""
    gain: Paired | None
    """The log-loss that fitted weights save over equal ones, on photos that did not fit them; None where they were not
    fitted because there are too few photos."""
    reason: str
    """The choice in words."""


def averaged(members: Sequence[HeldOutPredictions], weights: Sequence[float]) -> HeldOutPredictions:
    """The weighted mean of calibrated logits; distances are those of the first member that has a weight."""
    logits = np.einsum("m,mnc->nc", np.asarray(weights, np.float32), np.stack([each.logits for each in members]))
    first = next(each for each, weight in zip(members, weights, strict=True) if weight > 0)
    return replace(first, logits=np.asarray(logits, np.float32), folds=None)


def choose_weights(members: Sequence[HeldOutPredictions]) -> Weighing:
    """Fit weights, and keep them if they are better than equal ones by more than noise on photos that did not fit them.

    Args:
        members: calibrated predictions of the same photos, in the same order.
    """
    y_true, groups = members[0].classes, members[0].groups
    equal = equal_weights(len(members), len(y_true))
    if len(y_true) < MIN_CALIBRATION:
        return equal
    plain = averaged(members, equal.weights)
    temperature = fit_temperatures({"": (plain.logits, y_true)}).get("", 1.0)
    of_equal = -log_losses(probabilities(plain.logits, temperature), y_true)
    gain = paired(of_equal, -log_losses(cross_weighted(members), y_true), groups)
    if not (gain.significant and gain.difference.value > 0):
        why = f"fitted ones are not better by more than noise on {counted(len(y_true), 'photo')} that trained no member"
        return replace(equal, gain=gain, reason=f"equal: {why}")
    factors = fit_weights(np.stack([each.logits for each in members]), y_true)
    weights = factors / factors.sum()
    weights = np.where(weights < LEAST_SHARE / len(members), 0, weights)
    found = tuple((weights / weights.sum()).tolist())
    why = f"they save {gain.difference.value:.4f} of log-loss, more than noise ({counted(len(y_true), 'photo')})"
    return Weighing(found, True, gain, f"fitted: {why}")


def equal_weights(members: int, photos: int | None) -> Weighing:
    """Equal weights, because there are too few photos to fit others on."""
    few = "no photo trained none of the members" if not photos else f"only {counted(photos, 'photo')} trained no member"
    return Weighing((1 / members,) * members, False, None, f"equal: {few}, too few to fit weights on")


def cross_weighted(members: Sequence[HeldOutPredictions]) -> Floats:
    """Probabilities by fitted weights, where each photo is weighted by the weights that the others fit; float32 N×C."""
    first = members[0]
    labels, digests = [str(each) for each in first.classes], [str(photo.sha256) for photo in first.photos]
    folds = assign_folds(labels, digests, first.groups, CROSS_FOLDS, 0)
    logits = np.stack([each.logits for each in members])
    found = np.zeros_like(first.logits)
    for fold in np.unique(folds):
        here = folds == fold
        factors = fit_weights(logits[:, ~here], first.classes[~here])
        found[here] = probabilities(np.einsum("m,mnc->nc", factors.astype(np.float32), logits[:, here]), 1.0)
    return found


def fit_weights(logits: Floats, classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """The factors of the members' logits, 0 or more, whose sum has the least log-loss: convex, so that there is one.

    Args:
        logits: float32 M×N×C.
        classes: int64 (N,).

    Returns:
        float64 (M,): the weights, divided by the temperature.
    """
    from scipy.optimize import minimize

    members, photos = len(logits), len(classes)
    rows = np.arange(photos)
    of_truth = logits[:, rows, classes].astype(np.float64)

    def objective(factors: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        mean = np.einsum("m,mnc->nc", factors, logits)
        mean -= mean.max(1, keepdims=True)
        probs = np.exp(mean)
        total = probs.sum(1)
        loss = float((np.log(total) - mean[rows, classes]).mean())
        probs /= total[:, None]
        slope = np.einsum("nc,mnc->m", probs, logits) - of_truth.sum(1)
        # The prior is that of `fit_temperature`, so that a few photos, all right, do not make the sum endless.
        size = max(float(factors.sum()), 1e-6)
        prior = 2.0 * np.log(size) ** 2 / photos
        return loss + prior, slope / photos + 4.0 * np.log(size) / size / photos

    begin = np.full(members, 1 / members)
    found = minimize(objective, begin, jac=True, method="L-BFGS-B", bounds=[(0, 20)] * members)
    factors: NDArray[np.float64] = np.maximum(found.x, 0)
    return factors if factors.sum() > 0 else begin
