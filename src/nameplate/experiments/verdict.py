"""What a row of trials says: further photos help, hurt, or it cannot be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from nameplate.evaluate.significance import (
    LEVEL,
    POWER,
    POWER_Z,
    ROUNDING,
    Paired,
    Z,
    chance_to_tell,
    first_that,
    holm,
    paired,
)
from nameplate.storage import whole_file
from nameplate.types import Doubles, Floats, Metric, Photo

# JOINED One seed's two models, with and without the further photos, as they answered; kept so that a job can go on.


SEEDS = "seeds"
"""The folder inside the experiment's that holds a file for each seed that is done."""


@dataclass(frozen=True, slots=True)
class SeedAnswers:
    """What one model says of the photos that judge, in their order."""

    named: tuple[str, ...]
    """The most probable nameplate of each."""
    chance: tuple[float, ...]
    """The calibrated probability of each one's true nameplate."""

    @staticmethod
    def of(probabilities: Floats, nameplates: Sequence[str], y_true: Sequence[str]) -> SeedAnswers:
        """From float32 N×C, the C names and the N true ones."""
        columns = {name: column for column, name in enumerate(nameplates)}
        chance = probabilities[np.arange(len(y_true)), [columns[name] for name in y_true]]
        return SeedAnswers(tuple(nameplates[i] for i in probabilities.argmax(1)), tuple(chance.tolist()))


@dataclass(frozen=True, slots=True)
class SeedResult:
    """One seed: both models, trained with the same draw."""

    seed: int
    without: SeedAnswers
    """Trained on BASE alone."""
    added: SeedAnswers
    """Trained on BASE and EXTRA."""


@dataclass(frozen=True, slots=True)
class Material:
    """What every seed works on."""

    train: tuple[Photo, ...]
    """BASE's training photos."""
    extra: tuple[Photo, ...]
    """The further ones, cleaned, under BASE's nameplates."""
    judging: tuple[Photo, ...]
    """BASE's photos that judge: the same for all seeds, whatever EXTRA is."""
    nameplates: tuple[str, ...]
    ids: dict[str, str]
    """Nameplate → the class as BASE calls it."""


def save_seed(folder: Path, trial: SeedResult) -> None:
    """Keep a seed that is done.

    Raises:
        WriteError: the file cannot be written.
    """
    with whole_file(_file(folder, trial.seed)) as temporary:
        temporary.write_bytes(msgspec.json.encode(trial))


def load_seed(folder: Path, seed: int) -> SeedResult | None:
    """A seed that was done before; None where it was not, or its file is damaged: then it is done again."""
    try:
        return msgspec.json.decode(_file(folder, seed).read_bytes(), type=SeedResult)
    except (OSError, msgspec.DecodeError):
        return None


def _file(folder: Path, seed: int) -> Path:
    return folder / SEEDS / f"seed-{seed}.json"


Word = Literal["helps", "hurts", "cannot be told"]
LEAST_CHANCE = 1e-12
"""A smaller probability counts as this one in the log-loss, as everywhere."""
MOST_SEEDS = 10**6
"""More are not promised to tell anything."""


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
    trials: Sequence[SeedResult],
    y_true: Sequence[str],
    groups: NDArray[np.int64],
    added: dict[str, int],
    nameplates: Sequence[str],
) -> Verdict:
    """Hold the models with further photos against those without.

    Args:
        trials: one a seed, at least two.
        y_true: the nameplate of each photo that judges.
        groups: int64 (N,), copies of one picture count as one.
        added: nameplate → further photos of it.
        nameplates: in their order.
    """
    truth = np.array(y_true)
    without, with_ = (_right([pick(trial) for trial in trials], truth) for pick in (_without, _added))
    loss_without, loss_with = (_losses([pick(trial) for trial in trials]) for pick in (_without, _added))
    found = paired(without, with_, groups)
    return Verdict(
        _word(found.difference.value, found.p),
        tuple(without.mean(1).tolist()),
        tuple(with_.mean(1).tolist()),
        found,
        _enough(without, with_, groups, found),
        paired(loss_without, loss_with, groups),
        float(loss_without.mean()),
        float(loss_with.mean()),
        len(y_true),
        len(np.unique(groups)),
        _per_class(without, with_, truth, groups, added, nameplates),
    )


def _enough(without: Doubles, with_: Doubles, groups: NDArray[np.int64], found: Paired) -> Enough | None:
    """With as many seeds where photos alone would do, else with twice the photos that would do if seeds were alike,
    and as many seeds as are then needed.
    """
    value, seeds = found.difference.value, len(without)
    if abs(value) < ROUNDING:
        return None
    if found.photos_to_tell is not None:
        return Enough(found.photos_to_tell, seeds)
    gains = with_ - without
    alone = paired(np.zeros(gains.shape[1]), gains.mean(0), groups).photos_to_tell or 1  # as if seeds did not differ
    of_seed = float(gains.mean(1).var(ddof=1))
    of_photos = (value / (Z + POWER_Z)) ** 2 / 2

    def told(number: int) -> bool:
        return chance_to_tell(value, (of_photos, 2 * alone), (of_seed / number, number - 1)) >= POWER

    return Enough(2 * alone, first_that(told, seeds, MOST_SEEDS) or MOST_SEEDS)


def _per_class(
    without: Doubles,
    with_: Doubles,
    truth: NDArray[np.str_],
    groups: NDArray[np.int64],
    added: dict[str, int],
    nameplates: Sequence[str],
) -> tuple[ClassVerdict, ...]:
    judged = [name for name in nameplates if (truth == name).any()]
    found = [paired(without[:, truth == name], with_[:, truth == name], groups[truth == name]) for name in judged]
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


def _word(difference: float, p: float) -> Word:
    if p >= LEVEL or abs(difference) < ROUNDING:
        return "cannot be told"
    return "helps" if difference > 0 else "hurts"


def _without(trial: SeedResult) -> SeedAnswers:
    return trial.without


def _added(trial: SeedResult) -> SeedAnswers:
    return trial.added


def _right(answers: Sequence[SeedAnswers], truth: NDArray[np.str_]) -> Doubles:
    """Runs × N: 1 where named rightly."""
    return np.array([np.array(each.named) == truth for each in answers], np.float64)


def _losses(answers: Sequence[SeedAnswers]) -> Doubles:
    """Runs × N."""
    return -np.log(np.maximum([each.chance for each in answers], LEAST_CHANCE))
