"""`hold_against`: two models on the same photos."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nameplate.defaults import NO_TTA
from nameplate.errors import DataError
from nameplate.evaluate.evaluator import EvaluationResult
from nameplate.evaluate.metrics import evaluate, wilson
from nameplate.evaluate.significance import Paired, paired
from nameplate.model.classifier import log_loss, log_losses
from nameplate.model.embeddings import Progress
from nameplate.model.model import Model
from nameplate.model.pipeline import EmbeddedPhoto
from nameplate.types import Evaluation, Floats, Metric, Photo


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


def hold_against(judged: EvaluationResult, other: EvaluationResult, name: str) -> Against:
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


def _losses(judged: EvaluationResult, places: NDArray[np.int64]) -> Floats:
    return log_losses(judged.probabilities[places], judged.y_true[places])


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


# JOINED `evaluate_tta`: whether looking at the photos several times names them better, or only differently.


@dataclass(frozen=True, slots=True)
class TtaResult:
    """A way of looking, held against one plain look at the same photos."""

    name: str
    """The way, see `models.tta`."""
    evaluation: Evaluation
    """With it."""
    probabilities: Floats
    """With it, N×C; of a photo that could not be read again those of the plain look."""
    gain: Paired
    """Of top-1, as a share; photos of one group count as one."""
    log_loss_plain: float
    """Of the plain look; the other stands in `evaluation`."""
    photos_per_second: float
    """Looked at this way, decoding and all."""

    def as_json(self) -> dict[str, object]:
        """As `--json` shows it."""
        return {
            "name": self.name,
            "gain": self.gain.difference.value,
            "interval": self.gain.difference.interval,
            "p": self.gain.p,
            "told": self.gain.told,
            "better": self.gain.better,
            "worse": self.gain.worse,
            "log_loss": self.evaluation.log_loss,
            "log_loss_plain": self.log_loss_plain,
            "photos_per_second": self.photos_per_second,
        }

    def sentence(self) -> str:
        """What it is worth, in words."""
        gain = self.gain.difference
        worth = "more than noise" if self.gain.told else "no more than noise"
        return (
            f"--tta {self.name} against one look: top-1 {100 * gain.value:+.2f} points "
            f"({100 * gain.low:+.2f} to {100 * gain.high:+.2f}, p {self.gain.p:.2g}): {worth}. "
            f"{self.gain.better} photos better, {self.gain.worse} worse; log-loss {self.log_loss_plain:.3f} → "
            f"{self.evaluation.log_loss:.3f}; {self.photos_per_second:.1f} photos/s."
        )


def look_again(
    model: Model, judged: EvaluationResult, progress: Progress = lambda *_: None
) -> tuple[EvaluationResult, TtaResult | None]:
    """What was judged by one look, judged by all that the model makes, and what that gains; None where it makes one."""
    if model.settings.tta == NO_TTA:
        return judged, None
    found = evaluate_tta(model, judged.photos, judged.y_true, judged.probabilities, progress, judged.groups)
    return replace(judged, evaluation=found.evaluation, probabilities=found.probabilities), found


def evaluate_tta(
    model: Model,
    photos: Sequence[Photo],
    y_true: NDArray[np.int64],
    plain: Floats,
    progress: Progress = lambda *_: None,
    groups: NDArray[np.int64] | None = None,
) -> TtaResult:
    """Look at photos in the model's way (`Settings.tta`), and compare with one plain look at each.

    Args:
        model: with a head.
        photos: N, that have been judged plainly.
        y_true: int64 (N,), their true columns.
        plain: float32 N×C, the probabilities of one look.
        progress: see `Progress`.
        groups: int64 (N,), photos of one group (copies, one advert) count as one; None: each is its own.

    Raises:
        DataError: no photo can be read any more.
    """
    probs, read = plain.copy(), 0
    begun = time.monotonic()
    for number, outcome in enumerate(model.embedder.rows(photo.path for photo in photos)):
        if isinstance(outcome, EmbeddedPhoto):
            probs[number] = model.probs(outcome)
            read += 1
        progress("look again", number + 1, len(photos))
    seconds = time.monotonic() - begun
    if not read:
        raise DataError(f"None of {len(photos):,} photos can be read any more; the first is '{photos[0].path}'.")
    return TtaResult(
        model.settings.tta,
        evaluate(probs, y_true, model.nameplates, groups),
        probs,
        paired(plain.argmax(1) == y_true, probs.argmax(1) == y_true, groups),
        log_loss(plain, y_true),
        read / max(seconds, 1e-9),
    )
