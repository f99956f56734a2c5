"""The verdict on further photos from the results of several seeds: they help, they hurt, or it cannot be told."""

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
    holm,
    paired,
    power,
    smallest_that,
)
from nameplate.storage import whole_file
from nameplate.types import Doubles, Floats, Metric, Photo

# The results of a seed, which are stored so that an interrupted experiment can be resumed.

SEEDS = "seeds"
"""The subfolder with one file for each complete seed."""


@dataclass(frozen=True, slots=True)
class SeedAnswers:
    """The answers of one model to the evaluation photos, in their order. The field names are keys of the seed files."""

    named: tuple[str, ...]
    """The predicted nameplates."""
    chance: tuple[float, ...]
    """The calibrated probabilities of the true nameplates."""

    @staticmethod
    def of(probabilities: Floats, nameplates: Sequence[str], y_true: Sequence[str]) -> SeedAnswers:
        """Make the answers from probabilities float32 N×C, the C nameplates and the N true nameplates."""
        columns = {name: column for column, name in enumerate(nameplates)}
        chance = probabilities[np.arange(len(y_true)), [columns[name] for name in y_true]]
        return SeedAnswers(tuple(nameplates[i] for i in probabilities.argmax(1)), tuple(chance.tolist()))


@dataclass(frozen=True, slots=True)
class SeedResult:
    """The answers of both models of a seed. The field names are keys of the seed files."""

    seed: int
    without: SeedAnswers
    """The answers of the model that was trained on BASE alone."""
    added: SeedAnswers
    """The answers of the model that was trained on BASE and EXTRA."""


@dataclass(frozen=True, slots=True)
class Material:
    """The photos of an experiment, which are the same for all seeds."""

    train: tuple[Photo, ...]
    """The training photos of BASE."""
    extra: tuple[Photo, ...]
    """The photos of EXTRA after cleaning, under nameplates of BASE."""
    evaluation: tuple[Photo, ...]
    """The photos of BASE that all models are evaluated on; they do not depend on EXTRA."""
    nameplates: tuple[str, ...]
    ids: dict[str, str]
    """Nameplate → its name in BASE."""


def save_seed(folder: Path, result: SeedResult) -> None:
    """Write the file of a complete seed.

    Raises:
        WriteError: the file cannot be written.
    """
    with whole_file(_file(folder, result.seed)) as temporary:
        temporary.write_bytes(msgspec.json.encode(result))


def load_seed(folder: Path, seed: int) -> SeedResult | None:
    """Read the file of a seed; None where it does not exist or is damaged, so that the seed is trained again."""
    try:
        return msgspec.json.decode(_file(folder, seed).read_bytes(), type=SeedResult)
    except (OSError, msgspec.DecodeError):
        return None


def _file(folder: Path, seed: int) -> Path:
    return folder / SEEDS / f"seed-{seed}.json"


Word = Literal["helps", "hurts", "cannot be told"]
LEAST_CHANCE = 1e-12
"""Lower bound of probabilities in the log-loss, as in the other metrics."""
MOST_SEEDS = 10**6
"""Upper bound of `Enough.seeds`."""


@dataclass(frozen=True, slots=True)
class Enough:
    """The sample size with which a difference of the observed size is significant with a probability of 80 %."""

    photos: int
    """Number of evaluation photos."""
    seeds: int
    """Number of seeds."""


@dataclass(frozen=True, slots=True)
class ClassVerdict:
    """The effect on one nameplate. The field names are keys of extra-data.json."""

    nameplate: str
    photos: int
    """Number of its evaluation photos."""
    added: int
    """Number of its photos in EXTRA that trained."""
    difference: Metric
    """The difference of its top-1, with − without; the 95 % interval is not corrected for the number of nameplates."""
    p: float
    """The p-value after Holm's correction over all nameplates with evaluation photos."""
    word: Word


@dataclass(frozen=True, slots=True)
class ExtraDataVerdict:
    """The effect of further photos."""

    word: Word
    without: tuple[float, ...]
    """Top-1 of each seed without them, 0–1."""
    added: tuple[float, ...]
    """Top-1 of each seed with them, 0–1."""
    top1: Paired
    """The test of the difference in top-1, with − without."""
    enough: Enough | None
    """The sample size for a significant result; None where there is no difference."""
    log_loss: Paired
    """The test of the difference in log-loss, with − without; below 0 is better."""
    log_loss_without: float
    log_loss_added: float
    photos: int
    """Number of evaluation photos."""
    pictures: int
    """The same number, with all copies of one image counted once."""
    per_class: tuple[ClassVerdict, ...]
    """The nameplates that have evaluation photos, in their order."""


def give_verdict(
    results: Sequence[SeedResult],
    y_true: Sequence[str],
    groups: NDArray[np.int64],
    added: dict[str, int],
    nameplates: Sequence[str],
) -> ExtraDataVerdict:
    """Compare the models with further photos to those without.

    Args:
        results: one for each seed, at least two.
        y_true: the true nameplate of each evaluation photo.
        groups: int64 (N,), copies of one image count as one.
        added: nameplate → number of its photos in EXTRA.
        nameplates: all nameplates in their order.
    """
    truth = np.array(y_true)
    without, with_ = (_right([pick(result) for result in results], truth) for pick in (_without, _added))
    loss_without, loss_with = (_losses([pick(result) for result in results]) for pick in (_without, _added))
    found = paired(without, with_, groups)
    return ExtraDataVerdict(
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
    """The sample size for a significant result; None without a difference.

    Where more photos suffice, the number of seeds stays. Otherwise it is twice the number of photos that would suffice
    if all seeds were alike, and the number of seeds that is then needed: half of the permitted variance each.
    """
    value, seeds = found.difference.value, len(without)
    if abs(value) < ROUNDING:
        return None
    if found.photos_to_tell is not None:
        return Enough(found.photos_to_tell, seeds)
    gains = with_ - without
    alone = paired(np.zeros(gains.shape[1]), gains.mean(0), groups).photos_to_tell or 1  # as if seeds did not differ
    of_seed = float(gains.mean(1).var(ddof=1))
    # The standard error that gives the wanted power is value / (Z + POWER_Z); photos and seeds get half of its square
    # each.
    of_photos = (value / (Z + POWER_Z)) ** 2 / 2

    def significant(number: int) -> bool:
        return power(value, (of_photos, 2 * alone), (of_seed / number, number - 1)) >= POWER

    return Enough(2 * alone, smallest_that(significant, seeds, MOST_SEEDS) or MOST_SEEDS)


def _per_class(
    without: Doubles,
    with_: Doubles,
    truth: NDArray[np.str_],
    groups: NDArray[np.int64],
    added: dict[str, int],
    nameplates: Sequence[str],
) -> tuple[ClassVerdict, ...]:
    evaluated = [name for name in nameplates if (truth == name).any()]
    found = [paired(without[:, truth == name], with_[:, truth == name], groups[truth == name]) for name in evaluated]
    # With 196 nameplates some p are below 5 % by chance.
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
        for name, each, p in zip(evaluated, found, raised, strict=True)
    )


def _word(difference: float, p: float) -> Word:
    # A difference within rounding errors has no sign, even where p is small.
    if p >= LEVEL or abs(difference) < ROUNDING:
        return "cannot be told"
    return "helps" if difference > 0 else "hurts"


def _without(result: SeedResult) -> SeedAnswers:
    return result.without


def _added(result: SeedResult) -> SeedAnswers:
    return result.added


def _right(answers: Sequence[SeedAnswers], truth: NDArray[np.str_]) -> Doubles:
    """float64 seeds × N: 1 where the prediction is right, otherwise 0."""
    return np.array([np.array(each.named) == truth for each in answers], np.float64)


def _losses(answers: Sequence[SeedAnswers]) -> Doubles:
    """float64 seeds × N: the log-loss of each photo."""
    return -np.log(np.maximum([each.chance for each in answers], LEAST_CHANCE))
