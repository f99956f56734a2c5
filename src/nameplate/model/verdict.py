"""Verdicts: what may be done with an answer. From probabilities and distances, by thresholds that the bundle carries.

not a car     no whole car: an interior, a wheel, a house (`car_margin`, the one place where that is judged)
unknown car   so far from the model's own nameplates, and so undecided between them, that it is likely another one
answer        one nameplate is left in the set that holds the truth as often as `coverage` says
unsure        several are left; their make may still be sure
poor photo    it looks like an unknown car, but is too small, too dark or too blurred to judge: a better photo may tell
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nameplate.types import Flaw, Floats, Prediction

KIN = 1.0
"""What is nearer to one of the model's own nameplates than the median and so many interquartile ranges is a car to it
whatever the gate says, so that a model of lorries names lorries."""
COVERAGE = 0.95
"""Share of known cars whose set of nameplates shall hold the truth: of all before the gates of `not a car` and `unknown
car`, and of those that pass them."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where a model's answers are cut, chosen on photos that did not train it."""

    photos: int = 0
    """How many chose them."""
    nameplate: float | None = None
    """A nameplate at least this probable is in the set (least ambiguous sets: M. Sadinle, J. Lei, L. Wasserman, JASA
    114, 2019); None where nothing chose it: then a set is as large as its own probabilities ask for."""
    make: float | None = None
    """The same for makes, whose probability is the sum over their nameplates."""
    coverage: float = COVERAGE
    """What `nameplate` and `make` were chosen for."""
    middle: float = 1.0
    """Median of the photos' distance to the nearest nameplate."""
    spread: float = 1.0
    """Its interquartile range."""
    near: float | None = None
    """`ood_score` above it: an unknown car; None where that cannot be told."""
    far: float | None = None
    """Distance to the nearest car above it: not a car; None where that cannot be told. Used where there is no gate."""
    no_car: float | None = None
    """`MahalanobisDetector.no_car_odds` above it: not a car; None where the bundle has no gate."""

    @property
    def usable(self) -> bool:
        """Whether every number is one that can be."""
        numbers = [self.middle, self.spread, *(v for v in (self.near, self.far, self.no_car) if v is not None)]
        shares = (self.coverage, self.nameplate or 0.0, self.make or 0.0)
        return self.spread > 0 and bool(np.isfinite(numbers).all()) and all(0 <= share <= 1 for share in shares)


def ood_score(distances: Floats, probabilities: Floats, thresholds: Thresholds) -> Floats:
    """How unlike the known nameplates photos are: distance in interquartile ranges above the median, plus entropy.

    The sum tells cars of other nameplates better than either part (docs/experiments.md, 2026-11-23).

    Args:
        distances: float32 (N,), to the nearest nameplate.
        probabilities: float32 N×C.
        thresholds: give median and range.

    Returns:
        float32 (N,).
    """
    found: Floats = (distances - thresholds.middle) / thresholds.spread + entropy(probabilities)
    return found


def car_margin(distances: tuple[Floats, Floats], odds: Floats | None, thresholds: Thresholds) -> Floats | None:
    """How far photos are beyond what passes for a whole car: above 0 they are `not a car`.

    `identify`, `predict`, `verify`, the server, `audit`, `extra-data` and `evaluate` all ask here.

    Args:
        distances: `MahalanobisDetector.distances`, two of float32 (N,).
        odds: `MahalanobisDetector.no_car_odds`, float32 (N,); None where the bundle has no gate.
        thresholds: the model's.

    Returns:
        float32 (N,); None where the bundle cannot tell.
    """
    near, cars = distances
    if odds is None or thresholds.no_car is None:
        return None if thresholds.far is None else np.asarray(cars - np.float32(thresholds.far), np.float32)
    margin = odds - np.float32(thresholds.no_car)
    if thresholds.near is not None:  # then median and range were chosen
        kin = (near - thresholds.middle) / thresholds.spread - KIN
        margin = np.minimum(margin, kin)
    return np.asarray(margin, np.float32)


def caught(
    probabilities: Floats, distances: tuple[Floats, Floats], odds: Floats | None, thresholds: Thresholds
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which photos the gates stop, so that they get no set of nameplates.

    Args:
        probabilities: float32 N×C.
        distances: `MahalanobisDetector.distances`, two of float32 (N,).
        odds: `MahalanobisDetector.no_car_odds`, float32 (N,); None where the bundle has no gate.
        thresholds: the model's.

    Returns:
        Two of bool (N,): those that are `not a car`, and those of the others that are an `unknown car`.
    """
    nothing = np.zeros(len(probabilities), np.bool_)
    margin = car_margin(distances, odds, thresholds)
    no_car = nothing if margin is None else np.asarray(margin > 0)
    if thresholds.near is None:
        return no_car, nothing
    strange = ood_score(distances[0], probabilities, thresholds) > thresholds.near
    return no_car, np.asarray(strange & ~no_car)


def entropy(probabilities: Floats) -> Floats:
    """Of each row, in nats; float32 (N,)."""
    found: Floats = -(probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(1)
    return found


def make_probabilities(probabilities: Floats, makes: Sequence[str]) -> tuple[list[str], Floats]:
    """Probabilities of makes: their names in order of first appearance, and float32 N×M.

    >>> names, probs = make_probabilities(np.float32([[0.5, 0.2, 0.3]]), ["BMW", "Audi", "BMW"])
    >>> names, probs.round(2).tolist()
    (['BMW', 'Audi'], [[0.800000011920929, 0.20000000298023224]])
    """
    names, order, starts = _grouped(tuple(makes))
    return list(names), np.add.reduceat(probabilities[:, order], starts, axis=1)


@lru_cache(maxsize=8)
def make_places(makes: tuple[str, ...]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Makes in order of first appearance, and which of them each nameplate's is, int64 (C,)."""
    numbers = {make: number for number, make in enumerate(dict.fromkeys(makes))}
    return tuple(numbers), np.array([numbers[make] for make in makes], np.int64)


@lru_cache(maxsize=8)
def _grouped(makes: tuple[str, ...]) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.int64]]:
    """Makes, an order of the nameplates in which those of one make stand together, and where each make begins."""
    names, places = make_places(makes)
    order = np.argsort(places, kind="stable")
    return names, order, np.searchsorted(places[order], np.arange(len(names)))


def judged(
    prediction: Prediction,
    probabilities: Floats,
    nameplates: Sequence[str],
    makes: Sequence[str],
    thresholds: Thresholds,
    distances: tuple[Floats, Floats] | None,
    odds: Floats | None = None,
) -> Prediction:
    """A prediction with its verdict.

    Args:
        prediction: of a photo that could be read.
        probabilities: float32 (C,).
        nameplates: the C names.
        makes: of each of them.
        thresholds: the model's.
        distances: `MahalanobisDetector.distances` of the photo, two of float32 (1,); None where they are not known.
        odds: `MahalanobisDetector.no_car_odds` of the photo, float32 (1,); None where there is no gate.
    """
    candidates = prediction_set(probabilities, thresholds.nameplate)
    names, probs = make_probabilities(probabilities[None], makes)
    best = int(probs[0].argmax())
    found = replace(prediction, make=names[best], make_confidence=float(probs[0, best]))
    if distances is not None:
        no_car, unknown = caught(probabilities[None], distances, odds, thresholds)
        if no_car[0]:
            return replace(found, verdict="not a car", make=None, make_confidence=None)
        if unknown[0]:
            return replace(found, verdict="unknown car", make=None, make_confidence=None)
    if len(candidates) == 1:
        make = makes[candidates[0]]
        chance = float(probs[0, names.index(make)])
        return replace(
            found, verdict="answer", candidates=(nameplates[candidates[0]],), make=make, make_confidence=chance
        )
    if len(prediction_set(probs[0], thresholds.make)) > 1:
        found = replace(found, make=None, make_confidence=None)
    return replace(found, verdict="unsure", candidates=tuple(nameplates[i] for i in candidates))


def with_flaws(prediction: Prediction, flaws: tuple[Flaw, ...]) -> Prediction:
    """A prediction with its verdict, and with what is wrong with the photo itself.

    A flawed photo that would be an `unknown car` is a `poor photo`: the distance reacts to quality as to another
    nameplate, and takes most known cars for unknown ones when they are blurred. The gate of `not a car` was learned on
    degraded photos too and is seldom wrong on them, and so are answers and sets of candidates: these verdicts stand,
    and the flaws beside them say that a better photo may tell more (docs/decisions/0012-poor-photo.md).

    Args:
        prediction: as `judged` gives it.
        flaws: of the photo, as `photos.quality.flaws` gives them.
    """
    if not flaws:
        return prediction
    poor = prediction.verdict == "unknown car"
    return replace(prediction, verdict="poor photo" if poor else prediction.verdict, flaws=flaws)


def prediction_set(probabilities: Floats, least: float | None) -> list[int]:
    """The classes of a photo's set, most probable first; never empty.

    Args:
        probabilities: float32 (C,).
        least: probability from which a class is in it; None: as many as make up `COVERAGE` of the probability.
    """
    order = np.argsort(-probabilities, kind="stable")
    if least is None:
        count = int(np.searchsorted(probabilities[order].cumsum(), COVERAGE)) + 1
    else:
        count = int((probabilities >= np.float32(least)).sum())
    return [int(i) for i in order[: max(1, count)]]
