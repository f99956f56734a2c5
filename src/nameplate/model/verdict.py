"""Verdicts: what a user may do with a prediction, by its probabilities, its distances and the bundle's thresholds.

not a car     no whole car: an interior, a wheel, a house (`car_margin` is the only place where this is decided)
unknown car   probably a car of a nameplate that the model does not know (`ood_score`)
answer        the prediction set holds one nameplate; it holds the true one as often as `coverage` says
unsure        the prediction set holds several nameplates; their make may still be certain
poor photo    it looks like an unknown car, but the photo is too small, too dark or too blurred to tell
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nameplate.types import Fields, Flaw, Floats, Prediction

ALWAYS_A_CAR = 1.0
"""A photo whose distance to the nearest nameplate is below the median plus so many interquartile ranges is a car,
whatever the gate says. Otherwise a model trained on lorries would call lorries `not a car`."""
PART = 0.7
"""A photo that is `not a car` shows a part of a car where the car detector's box covers more of it: interiors and
details come out as one box of nearly all of the photo (docs/detector.md)."""
COVERAGE = 0.95
"""Share of known cars whose prediction set shall hold the true nameplate. It is reached on all of them, and again on
those that are neither `not a car` nor `unknown car`."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The thresholds of a model's verdicts, chosen on photos that did not train it.

    The fields are keys in bundle.json, so their names stay: `near` is the threshold of `unknown car`, and `far` and
    `no_car` are those of `not a car`.
    """

    photos: int = 0
    """Number of photos that they were chosen on."""
    nameplate: float | None = None
    """Conformal threshold: a nameplate at least this probable is in the prediction set (least ambiguous sets: M.
    Sadinle, J. Lei, L. Wasserman, JASA 114, 2019). None where there were no photos to choose it on: then a set holds
    the most probable nameplates that make up `COVERAGE`."""
    make: float | None = None
    """The same for makes; a make's probability is the sum over its nameplates."""
    coverage: float = COVERAGE
    """The share of known cars that `nameplate` and `make` were chosen for."""
    middle: float = 1.0
    """Median of these photos' distance to the nearest nameplate."""
    spread: float = 1.0
    """Its interquartile range."""
    near: float | None = None
    """A photo with a higher `ood_score` is an `unknown car`; None where this cannot be decided."""
    far: float | None = None
    """A photo farther from the nearest car is `not a car`; None where this cannot be decided. Used without a gate."""
    no_car: float | None = None
    """A photo with higher `MahalanobisDetector.non_car_log_odds` is `not a car`; None where the bundle has no gate."""

    @property
    def usable(self) -> bool:
        """Whether every number is finite and within its range."""
        numbers = [self.middle, self.spread, *(v for v in (self.near, self.far, self.no_car) if v is not None)]
        shares = (self.coverage, self.nameplate or 0.0, self.make or 0.0)
        return self.spread > 0 and bool(np.isfinite(numbers).all()) and all(0 <= share <= 1 for share in shares)


def ood_score(distances: Floats, probabilities: Floats, thresholds: Thresholds) -> Floats:
    """How much photos differ from the known nameplates: scaled distance plus the entropy of the probabilities.

    The distance is scaled to interquartile ranges above the median. The sum separates cars of unknown nameplates
    better than either term (docs/experiments.md, 2026-11-23).

    Args:
        distances: float32 (N,), to the nearest nameplate.
        probabilities: float32 N×C.
        thresholds: contain the median and the interquartile range.

    Returns:
        float32 (N,).
    """
    found: Floats = (distances - thresholds.middle) / thresholds.spread + entropy(probabilities)
    return found


def car_margin(distances: tuple[Floats, Floats], odds: Floats | None, thresholds: Thresholds) -> Floats | None:
    """How far photos are beyond the threshold of `not a car`: above 0 they show no whole car.

    `identify`, `predict`, `verify`, the server, `audit`, `extra-data` and `evaluate` all call this function.

    Args:
        distances: `MahalanobisDetector.distances`, two arrays float32 (N,).
        odds: `MahalanobisDetector.non_car_log_odds`, float32 (N,); None where the bundle has no gate.
        thresholds: the model's.

    Returns:
        float32 (N,); None where the bundle has no threshold for it.
    """
    near, cars = distances
    if odds is None or thresholds.no_car is None:
        return None if thresholds.far is None else np.asarray(cars - np.float32(thresholds.far), np.float32)
    margin = odds - np.float32(thresholds.no_car)
    if thresholds.near is not None:  # only then `middle` and `spread` were chosen on photos
        beyond = (near - thresholds.middle) / thresholds.spread - ALWAYS_A_CAR
        margin = np.minimum(margin, beyond)
    return np.asarray(margin, np.float32)


def gated(
    probabilities: Floats, distances: tuple[Floats, Floats], odds: Floats | None, thresholds: Thresholds
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which photos are out of distribution, so that they get no prediction set.

    Args:
        probabilities: float32 N×C.
        distances: `MahalanobisDetector.distances`, two arrays float32 (N,).
        odds: `MahalanobisDetector.non_car_log_odds`, float32 (N,); None where the bundle has no gate.
        thresholds: the model's.

    Returns:
        Two arrays bool (N,): the photos that are `not a car`, and those of the others that are an `unknown car`.
    """
    nothing = np.zeros(len(probabilities), np.bool_)
    margin = car_margin(distances, odds, thresholds)
    no_car = nothing if margin is None else np.asarray(margin > 0)
    if thresholds.near is None:
        return no_car, nothing
    unknown = ood_score(distances[0], probabilities, thresholds) > thresholds.near
    return no_car, np.asarray(unknown & ~no_car)


def entropy(probabilities: Floats) -> Floats:
    """Entropy of each row in nats: float32 N×C → float32 (N,)."""
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
def make_indices(makes: tuple[str, ...]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Makes in order of first appearance, and for each nameplate the index of its make, int64 (C,)."""
    numbers = {make: number for number, make in enumerate(dict.fromkeys(makes))}
    return tuple(numbers), np.array([numbers[make] for make in makes], np.int64)


@lru_cache(maxsize=8)
def _grouped(makes: tuple[str, ...]) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.int64]]:
    """Makes, an order of the nameplates that puts those of one make together, and where each make begins in it."""
    names, indices = make_indices(makes)
    order = np.argsort(indices, kind="stable")
    return names, order, np.searchsorted(indices[order], np.arange(len(names)))


def with_verdict(
    prediction: Prediction,
    probabilities: Floats,
    nameplates: Sequence[str],
    makes: Sequence[str],
    thresholds: Thresholds,
    distances: tuple[Floats, Floats] | None,
    odds: Floats | None = None,
) -> Prediction:
    """Add the verdict to a prediction, with the candidates and the make that it allows.

    Args:
        prediction: of a photo that could be read.
        probabilities: float32 (C,).
        nameplates: the C names.
        makes: the make of each of them.
        thresholds: the model's.
        distances: `MahalanobisDetector.distances` of the photo, two arrays float32 (1,); None where the bundle has no
            detector.
        odds: `MahalanobisDetector.non_car_log_odds` of the photo, float32 (1,); None where there is no gate.
    """
    candidates = prediction_set(probabilities, thresholds.nameplate)
    names, probs = make_probabilities(probabilities[None], makes)
    best = int(probs[0].argmax())
    found = replace(prediction, make=names[best], make_confidence=float(probs[0, best]))
    # Out of distribution is decided first: a prediction set presumes that the photo shows a known car.
    if distances is not None:
        no_car, unknown = gated(probabilities[None], distances, odds, thresholds)
        if no_car[0]:
            return replace(found, verdict="not a car", make=None, make_confidence=None)
        if unknown[0]:
            return replace(found, verdict="unknown car", make=None, make_confidence=None)
    if len(candidates) == 1:
        # The make follows from the nameplate here, even where another make has a higher sum.
        make = makes[candidates[0]]
        make_probability = float(probs[0, names.index(make)])
        found = replace(found, verdict="answer", make=make, make_confidence=make_probability)
        return replace(found, candidates=(nameplates[candidates[0]],))
    if len(prediction_set(probs[0], thresholds.make)) > 1:  # several makes are left as well
        found = replace(found, make=None, make_confidence=None)
    return replace(found, verdict="unsure", candidates=tuple(nameplates[i] for i in candidates))


def with_model(
    prediction: Prediction,
    probabilities: Floats,
    nameplates: Sequence[str],
    makes: Sequence[str],
    fields: Sequence[Fields],
    models: NDArray[np.int64],
) -> Prediction:
    """Add the model, body and years that all candidates agree on.

    A model is as certain as the prediction set: that holds the true nameplate as often as the thresholds' `coverage`
    says.

    Args:
        prediction: a result of `with_verdict`.
        probabilities: float32 (C,).
        nameplates: the C names.
        makes: the make of each of them.
        fields: what each of them says; empty for bundles that do not say models.
        models: `model_indices` of them.
    """
    places = [nameplates.index(name) for name in prediction.candidates] if fields else []
    numbers = {int(models[place]) for place in places}
    if len(numbers) != 1:
        return prediction
    mine = models == numbers.pop()
    first = int(mine.argmax())  # a model that is written in several ways is spelled as in its first nameplate
    model = fields[first].model
    if model is None or prediction.make != makes[first]:  # the make has a threshold of its own, perhaps not reached
        return prediction
    bodies, years = ({getattr(fields[place], name) for place in places} for name in ("body", "years"))
    return replace(
        prediction,
        model=model,
        model_confidence=float(probabilities[mine].sum()),
        body=bodies.pop() if len(bodies) == 1 else None,
        years=years.pop() if len(years) == 1 else None,
    )


def model_indices(makes: Sequence[str], fields: Sequence[Fields]) -> NDArray[np.int64]:
    """For each nameplate the index of its car model, int64 (C,).

    Nameplates of other bodies and years, or of other sources, that say one make and model, share it.

    >>> model_indices(["Audi"] * 4, [Fields("S4", "Sedan"), Fields("S4", "Coupe"), Fields("s4"), Fields("TT")]).tolist()
    [0, 0, 0, 1]
    """
    keys = [f"{make}\n{each.model or ''}".casefold() for make, each in zip(makes, fields, strict=bool(fields))]
    return make_indices(tuple(keys))[1]


def with_flaws(prediction: Prediction, flaws: tuple[Flaw, ...]) -> Prediction:
    """Add the photo's own flaws to a prediction, and turn `unknown car` into `poor photo` where there are any.

    Bad quality increases the distance just as an unknown nameplate does: most known cars are taken for unknown ones
    when they are blurred. The other verdicts stay. The gate of `not a car` was trained on degraded photos too, and it
    is seldom wrong on them; so are answers and candidates. For these the flaws only say that a better photo may tell
    more (docs/decisions/0012-poor-photo.md).

    Args:
        prediction: a result of `with_verdict`.
        flaws: the photo's, from `images.quality.flaws`.
    """
    if not flaws:
        return prediction
    poor = prediction.verdict == "unknown car"
    return replace(prediction, verdict="poor photo" if poor else prediction.verdict, flaws=flaws)


def with_reason(prediction: Prediction, covered: float | None) -> Prediction:
    """Say why a photo shows no known car, where the car detector knows it; the verdict stays.

    Args:
        prediction: a result of `with_verdict`.
        covered: share of the photo that the box of the main car covers, 0 where no car was found; None where none was
            sought.
    """
    if covered == 0 and prediction.verdict in ("not a car", "unknown car"):
        return replace(prediction, why="no car found")
    if covered is not None and covered > PART and prediction.verdict == "not a car":
        return replace(prediction, why="a part of a car")
    return prediction


def prediction_set(probabilities: Floats, conformal_threshold: float | None) -> list[int]:
    """The classes in a photo's prediction set, most probable first; never empty.

    Args:
        probabilities: float32 (C,).
        conformal_threshold: least probability of a class in the set; None: the most probable classes that together
            make up `COVERAGE`.
    """
    order = np.argsort(-probabilities, kind="stable")
    if conformal_threshold is None:
        count = int(np.searchsorted(probabilities[order].cumsum(), COVERAGE)) + 1
    else:
        # In float32, so that the very probability that the threshold was taken from is in the set.
        count = int((probabilities >= np.float32(conformal_threshold)).sum())
    # The most probable class is always in the set: an empty set would be no use to anybody.
    return [int(i) for i in order[: max(1, count)]]
