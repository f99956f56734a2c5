"""What fits into a time limit: the limit in words, the measured speed of this machine, and the plans to choose from."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from nameplate.errors import UsageError
from nameplate.fit.adjust import adjusted
from nameplate.fit.recipe import Recipe

Preset = Literal["fast", "good", "best"]
PRESETS = get_args(Preset)
UNITS = {"": 1, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}
"""The units of a time limit, in seconds."""
MOST_SECONDS = 30 * 24 * 3600
"""Longest time limit: a month."""
FOLDS = 5
"""Number of folds; where the time allows fewer networks, each still sees four fifths of the photos."""
MANY = 3_000
"""With more training photos, recipe `few` would take small steps through too many photos; `fast` is for them."""
FORWARD = 0.6
"""Time that a photo takes through a network in float32, as a share of the time that it takes to train on it."""
PASSES = 5
"""How often a held-out photo is evaluated in the end: by torch, by each runtime, and by the ensemble."""
WHITENED = 6_000
"""Largest number of training photos that are embedded in the end, as `train/finish.py` has it."""


def parse_time(text: str) -> float:
    """Seconds of a time limit.

    >>> parse_time("20m"), parse_time("1h30m"), parse_time("90"), parse_time("1.5 h")
    (1200.0, 5400.0, 90.0, 5400.0)

    Raises:
        UsageError: it is no time, or none from a second to a month.
    """
    found = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    whole = re.fullmatch(r"(\d+(\.\d+)?\s*[a-z]*\s*)+", text.strip().lower())
    if not whole or any(unit not in UNITS for _, unit in found):
        raise UsageError(
            f"--time-limit {text!r} is no time. Write seconds, minutes or hours, such as 90s, 20m or 1h30m."
        )
    seconds = sum(float(number) * UNITS[unit] for number, unit in found)
    if not 1 <= seconds <= MOST_SECONDS:
        raise UsageError(f"--time-limit {text!r}: give a time from one second to 30 days, such as 20m.")
    return seconds


def in_words(seconds: float) -> str:
    """A duration.

    >>> in_words(45), in_words(754), in_words(8040)
    ('45 s', '12 min 34 s', '2 h 14 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


@dataclass(frozen=True, slots=True)
class Option:
    """A way to train networks, relative to a recipe."""

    folds: int
    """Number of networks, 1 … `FOLDS`."""
    length: float
    """Number of epochs as a multiple of the recipe's."""
    side: float = 1.0
    """Sides of the photos as a multiple of the base size."""


GOOD = (
    *(Option(5, 2), Option(5, 1.5), Option(3, 2), Option(5, 1), Option(3, 1.5), Option(2, 2), Option(3, 1)),
    *(Option(2, 1.5), Option(2, 1), Option(1, 2), Option(1, 1.5), Option(1, 1.25), Option(1, 1), Option(1, 0.75)),
    *(Option(1, 0.6), Option(1, 1, 5 / 6), Option(1, 0.75, 5 / 6), Option(1, 0.6, 5 / 6), Option(1, 0.6, 2 / 3)),
)
"""What `good` chooses from: the first that fits is taken. Photos of the base size let heads and networks be one
ensemble, so that smaller ones come last."""
BEST = (
    *(Option(5, 3, 4 / 3), Option(5, 2, 4 / 3), Option(5, 3, 7 / 6), Option(3, 3, 4 / 3), Option(5, 2, 7 / 6)),
    *(Option(3, 2, 4 / 3), Option(3, 2, 7 / 6), Option(2, 2, 4 / 3), Option(2, 2, 7 / 6), Option(1, 3, 4 / 3)),
    *(Option(1, 2, 4 / 3), Option(1, 2, 7 / 6), Option(1, 1.5, 7 / 6)),
    *GOOD,
)
"""What `best` chooses from: larger photos and more epochs, then what `good` has."""
LADDERS: dict[Preset, tuple[Option, ...]] = {"fast": (), "good": GOOD, "best": BEST}
BASE_SIZE = (192, 288)
"""Height and width of the photos of the bundle that ships, and of recipe `few`."""


@dataclass(frozen=True, slots=True)
class Speed:
    """What a trial training took on this machine, on the photos themselves."""

    fixed: float
    """Seconds that a network takes apart from its photos: loading, choosing the precision, export, checks."""
    per_pixel: tuple[float, ...]
    """Seconds that a pixel of a training photo takes, of each stage of the recipe."""

    def per_photo(self, recipe: Recipe, stage: int) -> float:
        """Seconds that a training photo takes in a stage of a recipe, counted from 0."""
        wanted = recipe.stages[stage]
        return self.per_pixel[stage] * wanted.height * wanted.width


@dataclass(frozen=True, slots=True)
class Photos:
    """Number of photos that cost time."""

    train: int
    """Training photos of a fold."""
    held_out: int
    """Photos of a fold that its network does not see."""
    apart: int
    """Photos apart from all folds, which the result is judged on."""


def fold_seconds(recipe: Recipe, photos: Photos, speed: Speed) -> float:
    """Estimated seconds of one fold, from its photos to its bundle and its answers on its held-out photos."""
    whole = speed.fixed
    for number, stage in enumerate(recipe.stages):
        whole += stage.epochs * speed.per_photo(recipe, number) * (photos.train + FORWARD * photos.held_out)
    evaluated = min(photos.train, WHITENED) + PASSES * photos.held_out
    return whole + FORWARD * evaluated * speed.per_photo(recipe, len(recipe.stages) - 1)


def end_seconds(recipe: Recipe, folds: int, photos: Photos, speed: Speed) -> float:
    """Estimated seconds from the last fold to the end: the ensembles, and judging on the photos apart."""
    forward = FORWARD * speed.per_photo(recipe, len(recipe.stages) - 1)
    # Joining and checking bundles is work of the same kind as the fixed part of a network.
    return speed.fixed * (0.5 + 0.2 * folds) + folds * photos.apart * forward


def recipe_of(base: Recipe, option: Option) -> Recipe:
    """The recipe that an option means."""
    epochs = sum(stage.epochs for stage in base.stages)
    wanted = max(len(base.stages), math.floor(epochs * option.length + 0.5))
    height, width = (round(side * option.side / 16) * 16 for side in BASE_SIZE)
    return replace(adjusted(base, epochs=wanted, size=(height, width)), keep_best=False, holdout=0.0)


def choose(
    options: Sequence[Option], base: Recipe, photos: Photos, speed: Speed, left: float
) -> tuple[Option, float] | None:
    """The first option that fits.

    Args:
        options: the best first.
        base: the recipe that they are relative to.
        photos: number of photos.
        speed: of this machine.
        left: seconds that are left.

    Returns:
        The option and its estimated seconds; None where nothing fits.
    """
    for option in options:
        recipe = recipe_of(base, option)
        needed = option.folds * fold_seconds(recipe, photos, speed) + end_seconds(recipe, option.folds, photos, speed)
        if needed <= left:
            return option, needed
    return None
