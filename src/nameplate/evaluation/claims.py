"""Where claims are cut, and how often that goes wrong, on adverts made of held-out photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nameplate.evaluation.calibration import MIN_CALIBRATION
from nameplate.evaluation.significance import SEED
from nameplate.models.claim import MOST_PHOTOS, RATES, ClaimThresholds, Lies
from nameplate.models.verdict import make_places, make_probabilities

Floats = NDArray[np.float32]

DRAWS = 4000
"""Adverts drawn of each number of photos, at least."""


@dataclass(frozen=True, slots=True)
class Adverts:
    """Scores of claims on adverts of a number of photos."""

    true: NDArray[np.float64]
    """Of the right claim, (A,)."""
    other: NDArray[np.float64]
    """Of a wrong claim of another make (of any other class, where there are no makes), (A,)."""
    same_make: NDArray[np.float64]
    """Of a wrong claim of the same make; shorter where a make has one nameplate."""
    alike: NDArray[np.float64]
    """Of the wrong claim that the photos of the class are taken for most often, whatever its make, (A,)."""

    @property
    def wrong(self) -> NDArray[np.float64]:
        """Wrong claims, half of them of the same make where there are such."""
        if not len(self.same_make):
            return self.other
        return np.concatenate([self.other, np.resize(self.same_make, len(self.other))])

    @property
    def lies(self) -> dict[Lies, NDArray[np.float64]]:
        """Scores of each kind of wrong claim but the mixed ones."""
        found: dict[Lies, NDArray[np.float64]] = {
            "random": self.other,
            "same-make": self.same_make,
            "alike": self.alike,
        }
        return {kind: scores for kind, scores in found.items() if len(scores)}


def choose_claims(
    probabilities: Floats, truths: NDArray[np.int64], makes: Sequence[str]
) -> tuple[ClaimThresholds | None, ClaimThresholds | None]:
    """Thresholds for claims of nameplates, and for claims of makes; None where nothing can choose them.

    Args:
        probabilities: float32 N×C, calibrated, of photos that trained nothing.
        truths: int64 (N,).
        makes: of each of the C nameplates.
    """
    names, of_makes = make_probabilities(probabilities, makes)
    _, member = make_places(tuple(makes))
    return _choose(probabilities, truths, member), _choose(of_makes, member[truths], np.arange(len(names)))


def _choose(chances: Floats, truths: NDArray[np.int64], makes: NDArray[np.int64]) -> ClaimThresholds | None:
    if len(truths) < MIN_CALIBRATION or chances.shape[1] < 2:
        return None
    accept: list[tuple[float, ...]] = []
    reject: list[tuple[float, ...]] = []
    lies: dict[str, list[tuple[float, ...]]] = {}
    for photos in range(1, MOST_PHOTOS + 1):
        drawn = draw_adverts(chances, truths, makes, photos)
        if drawn is None:  # no class has so many photos
            accept.append(accept[-1])
            reject.append(reject[-1])
            for rows in lies.values():
                rows.append(rows[-1])
            continue
        accept.append(_above(drawn.wrong))
        for kind, scores in drawn.lies.items():
            lies.setdefault(kind, []).append(_above(scores))
        reject.append(tuple(np.quantile(drawn.true, RATES, method="lower").tolist()))
    full = {kind: tuple(rows) for kind, rows in lies.items() if len(rows) == MOST_PHOTOS}
    return ClaimThresholds(len(truths), tuple(accept), tuple(reject), full)


def _above(scores: NDArray[np.float64]) -> tuple[float, ...]:
    """What scores of wrong claims are above at each of `RATES`."""
    return tuple(np.quantile(scores, 1 - np.array(RATES), method="higher").tolist())


def most_alike(chances: Floats, truths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The other class that photos of each class are taken for most: int64 (C,); for a class without photos -1.

    Args:
        chances: float32 N×C.
        truths: int64 (N,).
    """
    found = np.full(chances.shape[1], -1, np.int64)
    for place in np.unique(truths).tolist():
        means = chances[truths == place].mean(0)
        means[place] = -1
        found[place] = means.argmax()
    return found


def draw_adverts(
    chances: Floats, truths: NDArray[np.int64], makes: NDArray[np.int64], photos: int, seed: int = SEED
) -> Adverts | None:
    """Adverts of so many photos of one class each, with a true claim and wrong ones.

    Args:
        chances: float32 N×C.
        truths: int64 (N,).
        makes: int64 (C,), the make of each class.
        photos: of each advert, all different.
        seed: of the draws.

    Returns:
        None where no class has so many photos.
    """
    random = np.random.default_rng(seed)
    pools = {int(c): np.flatnonzero(truths == c) for c in np.unique(truths) if (truths == c).sum() >= photos}
    if not pools or chances.shape[1] < 2:
        return None
    sizes = np.array([len(pool) for pool in pools.values()], np.float64)
    true, other, same, taken_for = [], [], [], []
    nearest = most_alike(chances, truths)
    drawn = random.choice(list(pools), max(DRAWS, len(truths)), p=sizes / sizes.sum())
    for place in drawn.tolist():
        score = chances[random.choice(pools[place], photos, replace=False)].mean(0)
        alike = np.flatnonzero((makes == makes[place]) & (np.arange(len(makes)) != place))
        unlike = np.flatnonzero(makes != makes[place])
        true.append(score[place])
        taken_for.append(score[nearest[place]])
        other.append(score[random.choice(unlike if len(unlike) else alike)])
        if len(alike):
            same.append(score[random.choice(alike)])
    return Adverts(*(np.array(scores, np.float64) for scores in (true, other, same, taken_for)))
