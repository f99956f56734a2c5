"""One seed's two models, with and without the further photos, as they answered; kept so that a job can go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from nameplate.storage import whole_file
from nameplate.types import Photo

SEEDS = "seeds"
"""The folder inside the experiment's that holds a file for each seed that is done."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What one model says of the photos that judge, in their order."""

    named: tuple[str, ...]
    """The most probable nameplate of each."""
    chance: tuple[float, ...]
    """The calibrated probability of each one's true nameplate."""

    @staticmethod
    def of(probabilities: NDArray[np.float32], nameplates: Sequence[str], truths: Sequence[str]) -> Answers:
        """From float32 N×C, the C names and the N true ones."""
        columns = {name: column for column, name in enumerate(nameplates)}
        chance = probabilities[np.arange(len(truths)), [columns[name] for name in truths]]
        return Answers(tuple(nameplates[i] for i in probabilities.argmax(1)), tuple(chance.tolist()))


@dataclass(frozen=True, slots=True)
class Trial:
    """One seed: both models, trained with the same draw."""

    seed: int
    without: Answers
    """Trained on BASE alone."""
    added: Answers
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


def save_trial(folder: Path, trial: Trial) -> None:
    """Keep a seed that is done.

    Raises:
        WriteError: the file cannot be written.
    """
    with whole_file(_file(folder, trial.seed)) as temporary:
        temporary.write_bytes(msgspec.json.encode(trial))


def load_trial(folder: Path, seed: int) -> Trial | None:
    """A seed that was done before; None where it was not, or its file is damaged: then it is done again."""
    try:
        return msgspec.json.decode(_file(folder, seed).read_bytes(), type=Trial)
    except (OSError, msgspec.DecodeError):
        return None


def _file(folder: Path, seed: int) -> Path:
    return folder / SEEDS / f"seed-{seed}.json"
