"""`choose`: where answers are cut, from photos that did not train the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nameplate.evaluation.calibration import MIN_CALIBRATION
from nameplate.models.verdict import COVERAGE, Thresholds, caught, make_places, make_probabilities, strangeness

Floats = NDArray[np.float32]

KEPT, CARS_KEPT = 0.95, 0.99
"""Shares of known cars that are not called unknown, and not called no car. `KEPT` and `COVERAGE` share out what may go
wrong: a gate may stop 5 % of all known cars, and 5 % of the sets of the others may lack the truth."""
MIN_NEAR = 10
"""Photos that say how far a known car may be: the farthest of ten keeps ten of eleven further ones."""


def choose(
    probabilities: Floats,
    truths: NDArray[np.int64],
    makes: Sequence[str],
    distances: tuple[Floats, Floats] | None,
    far: float | None = None,
    no_car: float | None = None,
    odds: Floats | None = None,
) -> Thresholds:
    """Thresholds for a model's verdicts: first the gates, then the sets of what passes them.

    Args:
        probabilities: float32 N×C, calibrated, of photos that trained nothing.
        truths: int64 (N,).
        makes: of each of the C nameplates.
        distances: `Known.distances` of these photos; None where there are none.
        far: the threshold of "not a car" where the backbone has one; None: the distance that keeps `CARS_KEPT`.
        no_car: the threshold of the backbone's gate, where it has one.
        odds: `Known.no_car_odds` of these photos, where there is a gate.

    Returns:
        None for what too few photos cannot choose: sets need `MIN_CALIBRATION`, `near` needs `MIN_NEAR` that are not
        alone in their class.
    """
    found = choose_gates(probabilities, distances, far, no_car)
    if len(truths) < MIN_CALIBRATION:
        return found
    passed = np.ones(len(truths), np.bool_)
    if distances is not None:
        passed = ~np.logical_or(*caught(probabilities, distances, odds, found))
    _, of_makes = make_probabilities(probabilities, makes)
    _, place = make_places(tuple(makes))
    sets = least_delivered(probabilities, truths, passed), least_delivered(of_makes, place[truths], passed)
    return replace(found, photos=len(truths), nameplate=sets[0], make=sets[1])


def choose_gates(
    probabilities: Floats,
    distances: tuple[Floats, Floats] | None,
    far: float | None = None,
    no_car: float | None = None,
    kept: float = KEPT,
) -> Thresholds:
    """Where unknown cars begin; and cars, where the backbone does not say.

    Args:
        probabilities: float32 N×C.
        distances: two of float32 (N,), or None.
        far: see `choose`.
        no_car: see `choose`.
        kept: share of known cars that shall not be called unknown.
    """
    found = Thresholds(far=far, no_car=no_car)
    if distances is None:
        return found
    near, cars = distances
    there = np.isfinite(near)  # a photo that is alone in its class is nowhere near
    if there.sum() < MIN_NEAR:
        return found
    low, middle, high = np.quantile(near[there], [0.25, 0.5, 0.75])
    found = replace(found, middle=float(middle), spread=max(float(high - low), 1e-6))
    strange = np.sort(strangeness(near[there], probabilities[there], found))
    place = min(len(strange), math.ceil((len(strange) + 1) * kept))  # as in `least`; of fewer than 19 the greatest
    found = replace(found, near=float(strange[place - 1]))
    if found.far is None and there.sum() >= MIN_CALIBRATION:
        found = replace(found, far=float(np.quantile(cars[np.isfinite(cars)], CARS_KEPT)))
    return found


def least_delivered(
    probabilities: Floats, truths: NDArray[np.int64], passed: NDArray[np.bool_], coverage: float = COVERAGE
) -> float:
    """`least` that holds for all photos before the gates, and for those that pass them: the lower of both.

    Sets are handed out for photos that pass alone, so the second is what a caller receives: calibrated on what passed,
    as further photos are chosen in the same way (Y. Jin, Z. Ren, "Confidence on the Focal", 2024). The first keeps it
    from growing where gates stop just the hard photos: on scenes they stop others (docs/verdicts.md).

    Args:
        probabilities: float32 N×C.
        truths: int64 (N,).
        passed: bool (N,), those that no gate stops.
        coverage: see `least`.
    """
    return min(least(probabilities, truths, coverage), least(probabilities[passed], truths[passed], coverage))


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
