"""Comparisons on the same photos: two models (`compare_models`), and TTA against one view (`evaluate_tta`)."""

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
class ModelComparison:
    """One model compared with another."""

    other: str
    """The name of the other model."""
    photos: int
    """Photos that trained neither model and whose nameplate both know."""
    top1: Metric
    """Top-1 of the model on these photos."""
    other_top1: Metric
    difference: Paired
    """Top-1, model − other."""
    log_loss: float
    other_log_loss: float
    log_loss_difference: Paired
    """Log-loss, model − other: below 0 the model is better."""
    same_nameplates: bool
    """Whether both know the same nameplates. Log-losses are comparable only then: they grow with the nameplates."""


def compare_models(result: EvaluationResult, other: EvaluationResult, name: str) -> ModelComparison:
    """Compare two models photo by photo; copies of a photo count as one (see `paired`).

    Args:
        result: The evaluation of the model.
        other: The evaluation of the other model on the same data.
        name: The name of the other model.

    Raises:
        DataError: No photo was evaluated by both.
    """
    # Each model leaves out its own training photos, so the two sets of photos can differ.
    there = {photo.path: i for i, photo in enumerate(other.photos)}
    mine = np.array([i for i, photo in enumerate(result.photos) if photo.path in there], np.int64)
    if not len(mine):
        raise DataError(
            f"No photo can be judged by both: {len(result.photos):,} by this bundle and {len(other.photos):,} by "
            f"'{name}', none of them the same. Give photos that trained neither, of nameplates that both know."
        )
    theirs = np.array([there[result.photos[i].path] for i in mine], np.int64)
    groups = result.groups[mine]
    right, other_right = result.right[mine], other.right[theirs]
    losses, other_losses = _losses(result, mine), _losses(other, theirs)
    return ModelComparison(
        name,
        len(mine),
        wilson(int(right.sum()), len(mine)),
        wilson(int(other_right.sum()), len(mine)),
        paired(other_right, right, groups),
        float(losses.mean()),
        float(other_losses.mean()),
        paired(other_losses, losses, groups),
        set(result.nameplates) == set(other.nameplates),
    )


def _losses(result: EvaluationResult, indices: NDArray[np.int64]) -> Floats:
    return log_losses(result.probabilities[indices], result.y_true[indices])


def verdict(comparison: ModelComparison) -> str:
    """Say in one or two sentences which model has the better top-1, or that this cannot be told."""
    difference = comparison.difference
    points = f"{100 * difference.difference.value:+.1f} points of top-1"
    interval = f"95 % interval {100 * difference.difference.low:+.1f} to {100 * difference.difference.high:+.1f}"
    if difference.significant:
        word = "better" if difference.difference.value > 0 else "worse"
        return f"This bundle is {word} than '{comparison.other}': {points} ({interval}, p {difference.p:.2g})."
    if difference.better == difference.worse == 0:
        return f"This bundle and '{comparison.other}' are right and wrong on the same {comparison.photos:,} photos."
    more = difference.photos_to_tell
    needed = f" Some {more:,} photos would tell a difference of this size." if more else ""
    return f"Which of this bundle and '{comparison.other}' is better cannot be told: {points} ({interval}).{needed}"


def loss_verdict(comparison: ModelComparison) -> str:
    """Say the same of log-loss in one sentence."""
    found = comparison.log_loss_difference
    figures = f"{comparison.log_loss:.3f} against {comparison.other_log_loss:.3f}"
    interval = (
        f"{found.difference.value:+.3f}, 95 % interval {found.difference.low:+.3f} to {found.difference.high:+.3f}"
    )
    word = (
        ("lower" if found.difference.value < 0 else "higher") if found.significant else "no difference that can be told"
    )
    other = (
        "" if comparison.same_nameplates else " They know different nameplates: among more of them log-loss is larger."
    )
    return f"Log-loss {figures}: {word} ({interval}).{other}"


# Test-time augmentation against one view of each photo.


@dataclass(frozen=True, slots=True)
class TtaResult:
    """Test-time augmentation (TTA) compared with one view of the same photos."""

    name: str
    """The TTA setting, see `nameplate.model.tta`."""
    evaluation: Evaluation
    """With TTA."""
    probabilities: Floats
    """With TTA, float32 N×C; a photo that could not be read again keeps the probabilities of its one view."""
    gain: Paired
    """The difference of top-1, TTA − one view, as a share; photos of one group count as one."""
    log_loss_plain: float
    """Log-loss of one view; `evaluation` has that of TTA."""
    photos_per_second: float
    """Throughput with TTA, decoding included."""

    def as_json(self) -> dict[str, object]:
        """The figures as `--json` prints them."""
        return {
            "name": self.name,
            "gain": self.gain.difference.value,
            "interval": self.gain.difference.interval,
            "p": self.gain.p,
            "told": self.gain.significant,
            "better": self.gain.better,
            "worse": self.gain.worse,
            "log_loss": self.evaluation.log_loss,
            "log_loss_plain": self.log_loss_plain,
            "photos_per_second": self.photos_per_second,
        }

    def sentence(self) -> str:
        """Say in words what TTA gains."""
        gain = self.gain.difference
        worth = "more than noise" if self.gain.significant else "no more than noise"
        return (
            f"--tta {self.name} against one look: top-1 {100 * gain.value:+.2f} points "
            f"({100 * gain.low:+.2f} to {100 * gain.high:+.2f}, p {self.gain.p:.2g}): {worth}. "
            f"{self.gain.better} photos better, {self.gain.worse} worse; log-loss {self.log_loss_plain:.3f} → "
            f"{self.evaluation.log_loss:.3f}; {self.photos_per_second:.1f} photos/s."
        )


def evaluate_with_tta(
    model: Model, result: EvaluationResult, progress: Progress = lambda *_: None
) -> tuple[EvaluationResult, TtaResult | None]:
    """Evaluate the same photos with the model's TTA, and measure the gain; None where the model uses one view."""
    if model.settings.tta == NO_TTA:
        return result, None
    found = evaluate_tta(model, result.photos, result.y_true, result.probabilities, progress, result.groups)
    return replace(result, evaluation=found.evaluation, probabilities=found.probabilities), found


def evaluate_tta(
    model: Model,
    photos: Sequence[Photo],
    y_true: NDArray[np.int64],
    plain: Floats,
    progress: Progress = lambda *_: None,
    groups: NDArray[np.int64] | None = None,
) -> TtaResult:
    """Evaluate photos with the model's TTA (`Settings.tta`), and compare with one view of each.

    Args:
        model: A model with a head.
        photos: The N photos, already evaluated with one view.
        y_true: int64 (N,), their true columns.
        plain: float32 N×C, the probabilities of one view.
        progress: See `Progress`.
        groups: int64 (N,); photos of one group (copies, or one advert) count as one. None: each is its own group.

    Raises:
        DataError: None of the photos can be read any more.
    """
    probs, read = plain.copy(), 0
    begun = time.monotonic()
    for number, outcome in enumerate(model.embedder.rows(photo.path for photo in photos)):
        if isinstance(outcome, EmbeddedPhoto):  # a file may have vanished since the first evaluation
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
