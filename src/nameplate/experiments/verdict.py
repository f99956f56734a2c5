"""What a row of trials says: further photos help, hurt, or it cannot be told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nameplate.evaluation.metrics import Z
from nameplate.evaluation.significance import LEVEL, POWER_Z, Paired, holm, paired
from nameplate.experiments.trial import Answers, Trial
from nameplate.types import Metric

Word = Literal["helps", "hurts", "cannot be told"]
LEAST_CHANCE = 1e-12
"""A smaller probability counts as this one in the log-loss, as everywhere."""
ROUNDING = 1e-9
"""A smaller difference is none: shares of a few thousand photos lie further apart."""
AGAINST = np.array([1.0, -1.0]) / np.sqrt(2)
"""Two photos more for each nameplate, which pull against each other as Agresti's and Min's half photos do."""


@dataclass(frozen=True, slots=True)
class Enough:
    """With what a difference of the size seen would be told four times in five."""

    photos: int
    """That judge."""
    seeds: int


@dataclass(frozen=True, slots=True)
class ClassVerdict:
    """What further photos do to one nameplate."""

    nameplate: str
    photos: int
    """Of it that judge."""
    added: int
    """Further photos of it that trained."""
    difference: Metric
    """Of the share of them named rightly, with − without; its 95 % interval is of this nameplate alone."""
    p: float
    """After Holm, over all nameplates that judge."""
    word: Word


@dataclass(frozen=True, slots=True)
class Verdict:
    """What further photos do."""

    word: Word
    without: tuple[float, ...]
    """Top-1 of each seed, trained without them."""
    added: tuple[float, ...]
    """Top-1 of each seed, trained with them."""
    top1: Paired
    """Top-1, with − without."""
    enough: Enough | None
    """None where both ways name as many photos rightly."""
    log_loss: Paired
    """Log-loss, with − without: below 0 is better."""
    log_loss_without: float
    log_loss_added: float
    photos: int
    """Photos that judge."""
    pictures: int
    """The same, copies of one picture counted once."""
    per_class: tuple[ClassVerdict, ...]
    """In the order of the nameplates, those that judge."""


def give_verdict(
    trials: Sequence[Trial],
    truths: Sequence[str],
    groups: NDArray[np.int64],
    added: dict[str, int],
    nameplates: Sequence[str],
) -> Verdict:
    """Hold the models with further photos against those without.

    Args:
        trials: one a seed, at least two.
        truths: the nameplate of each photo that judges.
        groups: int64 (N,), copies of one picture count as one.
        added: nameplate → further photos of it.
        nameplates: in their order.
    """
    truth = np.array(truths)
    without, with_ = (_right([pick(trial) for trial in trials], truth) for pick in (_without, _added))
    loss_without, loss_with = (_losses([pick(trial) for trial in trials]) for pick in (_without, _added))
    found = compare(without, with_, groups)
    return Verdict(
        _word(found.difference.value, found.p),
        tuple(without.mean(1).tolist()),
        tuple(with_.mean(1).tolist()),
        found,
        _enough(without, with_, groups, found),
        compare(loss_without, loss_with, groups),
        float(loss_without.mean()),
        float(loss_with.mean()),
        len(truths),
        len(np.unique(groups)),
        _per_class(without, with_, truth, groups, added, nameplates),
    )


def compare(first: NDArray[np.float64], second: NDArray[np.float64], groups: NDArray[np.int64]) -> Paired:
    """`paired`, with a p that so few photos can give.

    If nothing differed, each picture whose score changed could as well have changed the other way: m of them cannot
    give a two-sided p below 2^(1 - m) (R. A. Fisher's sign-flip test, "The Design of Experiments", 1935, section 21).
    """
    found = paired(first, second, groups)
    sums = np.bincount(np.unique(groups, return_inverse=True)[1], (second - first).mean(0))
    changed = int(np.count_nonzero(np.abs(sums) > ROUNDING))
    return replace(found, p=max(found.p, min(1.0, 2.0 ** (1 - changed))))


def _enough(
    without: NDArray[np.float64], with_: NDArray[np.float64], groups: NDArray[np.int64], found: Paired
) -> Enough | None:
    """With as many seeds where photos alone would do, else with half of the variance that may be left to each."""
    value, seeds = found.difference.value, len(without)
    if abs(value) < ROUNDING:
        return None
    if found.photos_to_tell is not None:
        return Enough(found.photos_to_tell, seeds)
    alone = paired(without.mean(0), with_.mean(0), groups).photos_to_tell or 1  # as if seeds did not differ
    wanted = (value / (Z + POWER_Z)) ** 2  # as in `paired`
    return Enough(2 * alone, max(seeds + 1, math.ceil(2 * (with_ - without).mean(1).var(ddof=1) / wanted)))


def _per_class(
    without: NDArray[np.float64],
    with_: NDArray[np.float64],
    truth: NDArray[np.str_],
    groups: NDArray[np.int64],
    added: dict[str, int],
    nameplates: Sequence[str],
) -> tuple[ClassVerdict, ...]:
    judged = [name for name in nameplates if (truth == name).any()]
    found = [_of_class(without[:, truth == name], with_[:, truth == name], groups[truth == name]) for name in judged]
    raised = holm([each.p for each in found])
    return tuple(
        ClassVerdict(
            name,
            int((truth == name).sum()),
            added.get(name, 0),
            each.difference,
            float(p),
            _word(each.difference.value, float(p)),
        )
        for name, each, p in zip(judged, found, raised, strict=True)
    )


def _of_class(without: NDArray[np.float64], with_: NDArray[np.float64], groups: NDArray[np.int64]) -> Paired:
    """One nameplate has few photos, and where all fare alike they have no spread at all: so two photos more, one for
    and one against (A. Agresti and Y. Min, "Simple improved confidence intervals for comparing matched proportions",
    2005). The difference itself stays that of the photos.
    """
    runs, new = len(without), groups.max() + 1
    plus = np.tile(AGAINST, (runs, 1))
    found = compare(
        np.hstack([without, np.zeros_like(plus)]),
        np.hstack([with_, plus]),
        np.r_[groups, new, new + 1].astype(np.int64),
    )
    difference = float((with_ - without).mean())
    low, high = min(found.difference.low, difference), max(found.difference.high, difference)
    sure = compare(without, with_, groups).p  # the two photos more must not count among those that changed
    return replace(found, difference=Metric(difference, max(-1.0, low), min(1.0, high)), p=max(found.p, sure))


def _word(difference: float, p: float) -> Word:
    if p >= LEVEL or abs(difference) < ROUNDING:
        return "cannot be told"
    return "helps" if difference > 0 else "hurts"


def _without(trial: Trial) -> Answers:
    return trial.without


def _added(trial: Trial) -> Answers:
    return trial.added


def _right(answers: Sequence[Answers], truth: NDArray[np.str_]) -> NDArray[np.float64]:
    """Runs × N: 1 where named rightly."""
    return np.array([np.array(each.named) == truth for each in answers], np.float64)


def _losses(answers: Sequence[Answers]) -> NDArray[np.float64]:
    """Runs × N."""
    return -np.log(np.maximum([each.chance for each in answers], LEAST_CHANCE))
