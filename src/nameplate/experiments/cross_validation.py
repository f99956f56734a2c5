"""Cross-validates a linear classifier on frozen embeddings, whoever computes them. Without torch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from nameplate.errors import DataError
from nameplate.evaluate.metrics import wilson
from nameplate.experiments.candidates import Frozen
from nameplate.experiments.paired import PairedAnswers, answers, photo_keys
from nameplate.fit.linear_probe import fit_recipe
from nameplate.fit.split import Split
from nameplate.model.classifier import log_loss, probabilities
from nameplate.model.embeddings import DatasetEmbeddings, Progress, still_readable
from nameplate.report.compare import ComparisonRow
from nameplate.types import Photo


class Embed(Protocol):
    """Embeds photos; the arguments are those of `embed_photos`."""

    def __call__(
        self, photos: Sequence[Photo], *, mirror: bool = False, also_mirrored: bool = False
    ) -> DatasetEmbeddings: ...


def cross_validate(
    candidate: Frozen, split: Split, embed: Embed, begun: float, progress: Progress
) -> tuple[ComparisonRow, PairedAnswers]:
    """Cross-validate the candidate's head on the embeddings of all photos.

    Args:
        candidate: gives the name and the recipe of the head.
        split: the photos; all of them are evaluated.
        embed: computes the embeddings.
        begun: when the candidate's turn began, by `time.monotonic`.
        progress: see `Progress`.

    Returns:
        The row, without what the network costs and its licence, and the answers.

    Raises:
        DataError: cross-validation is not possible.
    """
    plain = embed(split.photos, also_mirrored=candidate.head.mirror)
    there = still_readable(split.photos, plain)
    classes, groups = split.classes[there], split.groups[there]
    mirrored = embed(plain.photos, mirror=True) if candidate.head.mirror else None
    head = fit_recipe(plain.photos, plain.embeddings, mirrored, classes, groups, candidate.head, progress)
    if head.out_of_fold is None:
        raise DataError("Most nameplates have photos in one fold alone, so nothing can be cross-validated.")
    # The rows of the mirrored photos follow those of the photos, and are not evaluated.
    probs = probabilities(head.out_of_fold[: len(classes)], head.temperature)
    row = ComparisonRow(
        name=candidate.name,
        backbone=candidate.backbone,
        photos=len(classes),
        top1=wilson(int((probs.argmax(1) == classes).sum()), len(classes)),
        log_loss=log_loss(probs, classes),
        seconds=time.monotonic() - begun,
    )
    return row, answers(photo_keys(plain.photos), probs, classes, split.nameplates)
