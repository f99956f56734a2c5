"""`hold_against`: two models on the same photos."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nameplate.errors import DataError
from nameplate.evaluation.judge import Judged
from nameplate.evaluation.metrics import wilson
from nameplate.evaluation.significance import Paired, paired
from nameplate.models.head import log_losses
from nameplate.types import Metric


@dataclass(frozen=True, slots=True)
class Against:
    """One model held against another."""

    other: str
    """What the other is called."""
    photos: int
    """Those that trained neither, and whose nameplate both know."""
    top1: Metric
    """Of the model, on these photos."""
    other_top1: Metric
    difference: Paired
    """Of top-1, model − other."""
    log_loss: float
    other_log_loss: float
    log_loss_difference: Paired
    """Model − other: below 0 the model does better."""
    same_nameplates: bool
    """Whether both know the same nameplates; log-losses among more of them are larger."""


def hold_against(judged: Judged, other: Judged, name: str) -> Against:
    """Compare two models photo by photo, copies of one picture counted as one (see `paired`).

    Args:
        judged: what the model said.
        other: what the other said of the same data.
        name: what the other is called.

    Raises:
        DataError: no photo was judged by both.
    """
    there = {photo.path: place for place, photo in enumerate(other.photos)}
    mine = np.array([place for place, photo in enumerate(judged.photos) if photo.path in there], np.int64)
    if not len(mine):
        raise DataError(
            f"No photo can be judged by both: {len(judged.photos):,} by this bundle and {len(other.photos):,} by "
            f"'{name}', none of them the same. Give photos that trained neither, of nameplates that both know."
        )
    theirs = np.array([there[judged.photos[place].path] for place in mine], np.int64)
    groups = judged.groups[mine]
    right, other_right = judged.right[mine], other.right[theirs]
    losses, other_losses = _losses(judged, mine), _losses(other, theirs)
    return Against(
        name,
        len(mine),
        wilson(int(right.sum()), len(mine)),
        wilson(int(other_right.sum()), len(mine)),
        paired(other_right, right, groups),
        float(losses.mean()),
        float(other_losses.mean()),
        paired(other_losses, losses, groups),
        set(judged.nameplates) == set(other.nameplates),
    )


def _losses(judged: Judged, places: NDArray[np.int64]) -> NDArray[np.float32]:
    return log_losses(judged.probabilities[places], judged.truths[places])


def verdict(against: Against) -> str:
    """What the comparison says, in a sentence or two."""
    difference = against.difference
    points = f"{100 * difference.difference.value:+.1f} points of top-1"
    interval = f"95 % interval {100 * difference.difference.low:+.1f} to {100 * difference.difference.high:+.1f}"
    if difference.told:
        word = "better" if difference.difference.value > 0 else "worse"
        return f"This bundle is {word} than '{against.other}': {points} ({interval}, p {difference.p:.2g})."
    if difference.better == difference.worse == 0:
        return f"This bundle and '{against.other}' are right and wrong on the same {against.photos:,} photos."
    more = difference.photos_to_tell
    needed = f" Some {more:,} photos would tell a difference of this size." if more else ""
    return f"Which of this bundle and '{against.other}' is better cannot be told: {points} ({interval}).{needed}"


def loss_verdict(against: Against) -> str:
    """The same of log-loss."""
    found = against.log_loss_difference
    figures = f"{against.log_loss:.3f} against {against.other_log_loss:.3f}"
    interval = (
        f"{found.difference.value:+.3f}, 95 % interval {found.difference.low:+.3f} to {found.difference.high:+.3f}"
    )
    word = ("lower" if found.difference.value < 0 else "higher") if found.told else "no difference that can be told"
    other = "" if against.same_nameplates else " They know different nameplates: among more of them log-loss is larger."
    return f"Log-loss {figures}: {word} ({interval}).{other}"
