"""Trains and evaluates one candidate of a comparison. This module imports torch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nameplate.data.dataset import Dataset
from nameplate.errors import NameplateError
from nameplate.experiments.candidates import Frozen, Tuned
from nameplate.experiments.cross_validation import cross_validate
from nameplate.experiments.paired import PairedAnswers, answers, photo_keys
from nameplate.fit.run import RUN, load_run
from nameplate.fit.split import Split
from nameplate.model.embeddings import DatasetEmbeddings, Progress, embed_with
from nameplate.model.pipeline import Settings
from nameplate.report.compare import ComparisonRow
from nameplate.train.backbones import find_backbone
from nameplate.train.finetune import Say, fine_tune, start
from nameplate.train.frozen_network import (
    Cost,
    TorchRuntime,
    cost_of,
    interpolation_of,
    load_network,
    measure,
    stand_in_bundle,
)
from nameplate.train.loop import OnStep
from nameplate.types import Photo, Preprocess


def evaluate_frozen(
    candidate: Frozen, split: Split, threads: int, progress: Progress
) -> tuple[ComparisonRow, PairedAnswers]:
    """Embed photos with a frozen backbone, and cross-validate a linear classifier on the embeddings.

    Args:
        candidate: the candidate to evaluate.
        split: the photos; all of them are evaluated.
        threads: number of processors.
        progress: see `Progress`.

    Raises:
        DataError: cross-validation is not possible.
        UsageError: the backbone does not accept the input size, or there are no such weights.
        NameplateError: the weights cannot be loaded, or no photo can be read.
    """
    begun = time.monotonic()
    backbone = find_backbone(candidate.backbone)
    size = candidate.height, candidate.width
    network, weights = load_network(backbone, len(split.nameplates), size, threads, candidate.weights)
    cost = measure(network, *size)
    preprocess = Preprocess(*size, "squash", interpolation_of(backbone), candidate.locate)
    bundle, runtime = stand_in_bundle(backbone, weights, network, preprocess), TorchRuntime(network)

    def embed(photos: Sequence[Photo], *, mirror: bool = False, also_mirrored: bool = False) -> DatasetEmbeddings:
        settings = Settings(threads=threads, mirror=mirror)
        return embed_with(runtime, photos, bundle, settings, progress, also_mirrored=also_mirrored)

    row, found = cross_validate(candidate, split, embed, begun, progress)
    return with_cost(replace(row, backbone=backbone.timm, licence=backbone.licence), cost), found


def start_run(candidate: Tuned, split: Split, run: Path, threads: int, progress: Progress) -> None:
    """Write the folder of a run, unless it is there already.

    Args:
        candidate: the candidate to train.
        split: the photos and their parts, which all runs of the comparison share.
        run: the folder of the run.
        threads: number of processors.
        progress: see `Progress`.

    Raises:
        NameplateError: see `finetune.start`.
    """
    if (run / RUN).is_file():
        return
    dataset = Dataset(
        tuple(photo.with_(group=str(group)) for photo, group in zip(split.photos, split.groups, strict=True)),
        split.nameplates,
        dict(zip(split.nameplates, split.ids, strict=True)),
    )
    start(lambda: dataset, run, candidate.recipe, threads=threads, progress=progress)


def evaluate_tuned(
    candidate: Tuned, split: Split, run: Path, *, watch: OnStep, say: Say
) -> tuple[ComparisonRow, PairedAnswers]:
    """Train a run to its end, from its last checkpoint on, and evaluate it on the held-out photos.

    Args:
        candidate: the candidate to train.
        split: the photos of the comparison and their parts.
        run: the folder of the run, from `start_run`.
        watch: called after each step.
        say: called with a short text at everything that is not a training step.

    Raises:
        NameplateError: see `finetune.fine_tune`.
    """
    made = fine_tune(run, watch=watch, say=say)
    if made is None or made.finished.evaluation is None:
        raise NameplateError("No held-out photo could be evaluated.")
    indices, evaluation = made.finished.indices, made.finished.evaluation
    backbone = find_backbone(candidate.recipe.backbone)
    row = ComparisonRow(
        name=candidate.name,
        backbone=backbone.timm,
        photos=evaluation.photos,
        top1=evaluation.top1,
        log_loss=evaluation.log_loss,
        licence=backbone.licence,
        seconds=made.state.seconds,
    )
    keys = np.array(photo_keys(made.split.photos))[indices]
    found = answers(keys.tolist(), made.finished.probabilities, made.split.classes[indices], split.nameplates)
    last = candidate.recipe.stages[-1]  # the cost is measured at the input size of the last stage
    cost = cost_of(backbone, len(split.nameplates), (last.height, last.width), load_run(run).threads)
    return with_cost(row, cost), found


def with_cost(row: ComparisonRow, cost: Cost) -> ComparisonRow:
    """A row with the cost of its network."""
    return replace(
        row,
        parameters=cost.parameters,
        gmacs=cost.gmacs,
        photos_per_second=cost.photos_per_second,
        megabytes=cost.megabytes,
    )
