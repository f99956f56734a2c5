"""`judge_tta`: whether looking at the photos several times names them better, or only differently."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nameplate.errors import DataError
from nameplate.evaluation.judge import Judged
from nameplate.evaluation.metrics import evaluate
from nameplate.evaluation.significance import Paired, paired
from nameplate.models.collection import Progress
from nameplate.models.head import log_loss
from nameplate.models.model import Model
from nameplate.models.pipeline import EmbeddedPhoto
from nameplate.types import NO_TTA, Evaluation, Photo


@dataclass(frozen=True, slots=True)
class TtaJudged:
    """A way of looking, held against one plain look at the same photos."""

    name: str
    """The way, see `models.tta`."""
    evaluation: Evaluation
    """With it."""
    probabilities: NDArray[np.float32]
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


def look_again(model: Model, judged: Judged, progress: Progress = lambda *_: None) -> tuple[Judged, TtaJudged | None]:
    """What was judged by one look, judged by all that the model makes, and what that gains; None where it makes one."""
    if model.settings.tta == NO_TTA:
        return judged, None
    found = judge_tta(model, judged.photos, judged.truths, judged.probabilities, progress, judged.groups)
    return replace(judged, evaluation=found.evaluation, probabilities=found.probabilities), found


def judge_tta(
    model: Model,
    photos: Sequence[Photo],
    truths: NDArray[np.int64],
    plain: NDArray[np.float32],
    progress: Progress = lambda *_: None,
    groups: NDArray[np.int64] | None = None,
) -> TtaJudged:
    """Look at photos in the model's way (`Settings.tta`), and compare with one plain look at each.

    Args:
        model: with a head.
        photos: N, that have been judged plainly.
        truths: int64 (N,), their true columns.
        plain: float32 N×C, the probabilities of one look.
        progress: see `Progress`.
        groups: int64 (N,), photos of one group (copies, one advert) count as one; None: each is its own.

    Raises:
        DataError: no photo can be read any more.
    """
    chances, read = plain.copy(), 0
    begun = time.monotonic()
    for number, outcome in enumerate(model.looks.rows(photo.path for photo in photos)):
        if isinstance(outcome, EmbeddedPhoto):
            chances[number] = model.chances(outcome)
            read += 1
        progress("look again", number + 1, len(photos))
    seconds = time.monotonic() - begun
    if not read:
        raise DataError(f"None of {len(photos):,} photos can be read any more; the first is '{photos[0].path}'.")
    return TtaJudged(
        model.settings.tta,
        evaluate(chances, truths, model.nameplates, groups),
        chances,
        paired(plain.argmax(1) == truths, chances.argmax(1) == truths, groups),
        log_loss(plain, truths),
        read / max(seconds, 1e-9),
    )
