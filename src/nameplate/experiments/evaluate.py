"""One contender trained and judged: a head on a frozen backbone, or a recipe as `nameplate train` trains it.

Importing this module needs the packages that training needs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nameplate.data.dataset import Dataset
from nameplate.errors import DataError, NameplateError
from nameplate.evaluate.metrics import wilson
from nameplate.experiments.candidates import Frozen, Tuned
from nameplate.experiments.paired import PairedAnswers, answers, photo_keys
from nameplate.fit.linear_probe import fit_recipe
from nameplate.fit.run import RUN, load_run
from nameplate.fit.split import Split
from nameplate.model.classifier import log_loss, probabilities
from nameplate.model.embeddings import DatasetEmbeddings, Progress, embed_with, still_readable
from nameplate.model.pipeline import Settings
from nameplate.report.compare import ComparisonRow
from nameplate.train.backbones import find_backbone
from nameplate.train.finetune import Say, Watch, fine_tune, start
from nameplate.train.frozen_network import Cost, TorchRuntime, cost_of, load_network, measure, stand_in_bundle
from nameplate.types import Photo


def judge_frozen(
    candidate: Frozen, parts: Split, threads: int, progress: Progress
) -> tuple[ComparisonRow, PairedAnswers]:
    """Embed photos by a frozen backbone, fit a head on them, judge it on the folds that it did not see.

    Args:
        candidate: what is judged.
        parts: the photos; all of them are judged.
        threads: processors.
        progress: see `Progress`.

    Raises:
        UsageError: the backbone cannot take pictures of that size, or there are no such weights.
        NameplateError: the weights cannot be had, or the photos not be read.
    """
    begun = time.monotonic()
    backbone = find_backbone(candidate.backbone)
    size = candidate.height, candidate.width
    network, weights = load_network(backbone, len(parts.nameplates), size, threads, candidate.weights)
    cost = measure(network, *size)
    bundle, runtime = stand_in_bundle(backbone, weights, network, size), TorchRuntime(network)

    def embed(photos: Sequence[Photo], *, mirror: bool) -> DatasetEmbeddings:
        return embed_with(runtime, photos, bundle, Settings(threads=threads, mirror=mirror), progress)

    plain = embed(parts.photos, mirror=False)
    there = still_readable(parts.photos, plain)
    classes, groups = parts.classes[there], parts.groups[there]
    mirrored = embed(plain.photos, mirror=True) if candidate.head.mirror else None
    head = fit_recipe(plain.photos, plain.embeddings, mirrored, classes, groups, candidate.head, progress)
    if head.out_of_fold is None:
        raise DataError("Most nameplates have photos in one fold alone, so nothing can be cross-validated.")
    probs = probabilities(head.out_of_fold[: len(classes)], head.temperature)
    row = ComparisonRow(
        name=candidate.name,
        backbone=backbone.timm,
        photos=len(classes),
        top1=wilson(int((probs.argmax(1) == classes).sum()), len(classes)),
        log_loss=log_loss(probs, classes),
        licence=backbone.licence,
        seconds=time.monotonic() - begun,
    )
    return with_cost(row, cost), answers(photo_keys(plain.photos), probs, classes, parts.nameplates)


def start_run(candidate: Tuned, parts: Split, run: Path, threads: int, progress: Progress) -> None:
    """Write a run's folder, where there is none yet.

    Args:
        candidate: what is trained.
        parts: the photos, each in its part; every run takes them so.
        run: the run's folder.
        threads: processors.
        progress: see `Progress`.

    Raises:
        NameplateError: see `training.fine_tune.start`.
    """
    if (run / RUN).is_file():
        return
    dataset = Dataset(
        tuple(photo.with_(group=str(group)) for photo, group in zip(parts.photos, parts.groups, strict=True)),
        parts.nameplates,
        dict(zip(parts.nameplates, parts.ids, strict=True)),
    )
    start(lambda: dataset, run, candidate.recipe, threads=threads, progress=progress)


def judge_tuned(
    candidate: Tuned, parts: Split, run: Path, *, watch: Watch, say: Say
) -> tuple[ComparisonRow, PairedAnswers]:
    """Train a run to its end, or what is left of it, and judge it on the held-out photos.

    Args:
        candidate: what is trained.
        parts: the photos of the comparison.
        run: a folder that `start_run` wrote.
        watch: called after each step.
        say: called with what is being done when no step is.

    Raises:
        NameplateError: see `training.fine_tune.fine_tune`.
    """
    made = fine_tune(run, watch=watch, say=say)
    if made is None or made.finished.evaluation is None:
        raise NameplateError("No held-out photo could be judged.")
    places, judged = made.finished.places, made.finished.evaluation
    backbone = find_backbone(candidate.recipe.backbone)
    row = ComparisonRow(
        name=candidate.name,
        backbone=backbone.timm,
        photos=judged.photos,
        top1=judged.top1,
        log_loss=judged.log_loss,
        licence=backbone.licence,
        seconds=made.state.seconds,
    )
    keys = np.array(photo_keys(made.parts.photos))[places]
    found = answers(keys.tolist(), made.finished.probabilities, made.parts.classes[places], parts.nameplates)
    last = candidate.recipe.stages[-1]  # the cost is of photos as the last stage sees them
    cost = cost_of(backbone, len(parts.nameplates), (last.height, last.width), load_run(run).threads)
    return with_cost(row, cost), found


def with_cost(row: ComparisonRow, cost: Cost) -> ComparisonRow:
    """A row with what its network costs."""
    return replace(
        row,
        parameters=cost.parameters,
        gmacs=cost.gmacs,
        photos_per_second=cost.photos_per_second,
        megabytes=cost.megabytes,
    )
