"""`choose`: where answers are cut, from photos that did not train the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nameplate.evaluation.calibration import MIN_CALIBRATION
from nameplate.models.verdict import COVERAGE, Thresholds, make_places, make_probabilities, strangeness

Floats = NDArray[np.float32]

KEPT, CARS_KEPT = 0.95, 0.99
"""Shares of known cars that are not called unknown, and not called no car."""


def choose(
    probabilities: Floats,
    truths: NDArray[np.int64],
    makes: Sequence[str],
    distances: tuple[Floats, Floats] | None,
    far: float | None = None,
    no_car: float | None = None,
) -> Thresholds:
    """Thresholds for a model's verdicts.

    Args:
        probabilities: float32 N×C, calibrated, of photos that trained nothing.
        truths: int64 (N,).
        makes: of each of the C nameplates.
        distances: `Known.distances` of these photos; None where there are none.
        far: the threshold of "not a car" where the backbone has one; None: the distance that keeps `CARS_KEPT`.
        no_car: the threshold of the backbone's gate, where it has one.

    Returns:
        None for what fewer than `MIN_CALIBRATION` cannot choose.
    """
    if len(truths) < MIN_CALIBRATION:
        return Thresholds(far=far, no_car=no_car)
    _, of_makes = make_probabilities(probabilities, makes)
    _, place = make_places(tuple(makes))
    found = Thresholds(
        photos=len(truths),
        nameplate=least(probabilities, truths),
        make=least(of_makes, place[truths]),
        far=far,
        no_car=no_car,
    )
    if distances is None:
        return found
    near, cars = distances
    finite = near[np.isfinite(near)]  # a photo that is alone in its class is nowhere near
    low, middle, high = np.quantile(finite, [0.25, 0.5, 0.75])
    found = replace(found, middle=float(middle), spread=max(float(high - low), 1e-6))
    strange = strangeness(near, probabilities, found)
    strange = strange[np.isfinite(strange)]
    return replace(
        found,
        near=float(np.quantile(strange, KEPT)),
        far=far if far is not None else float(np.quantile(cars[np.isfinite(cars)], CARS_KEPT)),
    )


def least(probabilities: Floats, truths: NDArray[np.int64], coverage: float = COVERAGE) -> float:
    """The probability from which a class is in the set, so that the set of a further photo holds its truth.

    Split conformal prediction with the score 1 - p(truth) (M. Sadinle, J. Lei, L. Wasserman, "Least Ambiguous
    Set-Valued Classifiers with Bounded Error Levels", 2019; A. Angelopoulos, S. Bates, 2021, section 1).

    Args:
        probabilities: float32 N×C.
        truths: int64 (N,).
        coverage: share of further photos, alike to these, whose set holds the truth.

    Returns:
        0 where so few photos can promise nothing: every class is in the set then.
    """
    of_truth = np.sort(probabilities[np.arange(len(truths)), truths])[::-1]
    rank = math.ceil((len(of_truth) + 1) * coverage)
    return 0.0 if rank > len(of_truth) else float(of_truth[rank - 1])
