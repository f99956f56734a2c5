"""Evaluates bundles beside other candidates: the backbone with a new head, or the bundle as it is. Without torch."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from nameplate.errors import DataError
from nameplate.evaluate.evaluator import trained_digests
from nameplate.evaluate.metrics import wilson
from nameplate.experiments.candidates import Frozen
from nameplate.experiments.paired import PairedAnswers, answers, photo_keys
from nameplate.fit.linear_probe import fit_recipe
from nameplate.fit.run import EVALUATION_RUNTIME
from nameplate.fit.split import Split
from nameplate.model.classifier import log_loss, probabilities
from nameplate.model.embeddings import Progress, embed_photos, still_readable
from nameplate.model.model import Model
from nameplate.report.compare import ComparisonRow
from nameplate.runtime.base import BATCH, Runtime
from nameplate.runtime.select import make_runtime
from nameplate.types import Cars

WARM_UP, LEAST_BATCHES, SPEED_SECONDS = 3, 10, 2.0
"""Number of warm-up batches, and the least number of timed batches and seconds; as for networks of torch."""


def evaluate_bundle(
    candidate: Frozen, split: Split, threads: int, progress: Progress
) -> tuple[ComparisonRow, PairedAnswers]:
    """Embed photos with the backbone of a bundle, and cross-validate a linear classifier on the embeddings.

    Args:
        candidate: names the bundle.
        split: the photos; all of them are evaluated.
        threads: number of processors.
        progress: see `Progress`.

    Raises:
        BundleError: see `Model.load`.
        DataError: photos, or copies of photos, trained the bundle, or cross-validation is not possible.
    """
    begun = time.monotonic()
    cars: Cars = "whole" if candidate.locate == "none" else "main"
    model = Model.load(candidate.bundle, runtime=EVALUATION_RUNTIME, threads=threads, cars=cars)
    refuse_trained(model, split, candidate.name)
    plain = embed_photos(split.photos, model, progress, also_mirrored=candidate.head.mirror)
    there = still_readable(split.photos, plain)
    classes, groups = split.classes[there], split.groups[there]
    mirrored = embed_photos(plain.photos, model, progress, mirror=True) if candidate.head.mirror else None
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
        licence="its card",
        seconds=time.monotonic() - begun,
    )
    return with_bundle_cost(row, model), answers(photo_keys(plain.photos), probs, classes, split.nameplates)


def refuse_trained(model: Model, split: Split, name: str) -> None:
    """Refuse to evaluate a backbone on photos that trained it: it knows them, whatever head is fitted.

    Raises:
        DataError: photos of the split, or copies of such photos, trained the bundle.
    """
    digests = trained_digests(model.bundle)
    trained = np.array([photo.sha256 in digests for photo in split.photos])
    copies = np.isin(split.groups, split.groups[trained])
    if copies.any():
        raise DataError(
            f"{int(copies.sum()):,} of the {len(split.photos):,} photos, or copies of them, trained '{name}', which "
            "would flatter it. Compare on photos that did not train it."
        )


def with_bundle_cost(row: ComparisonRow, model: Model) -> ComparisonRow:
    """A row with the size of a bundle's backbone, and its throughput."""
    size = model.bundle.manifest.preprocess
    runtime = make_runtime(EVALUATION_RUNTIME, model.bundle.backbone, model.settings.threads)
    speed = photos_per_second(runtime, size.height, size.width)
    return replace(row, megabytes=len(model.bundle.backbone) / 1e6, photos_per_second=speed)


def photos_per_second(runtime: Runtime, height: int, width: int) -> float:
    """Photos per second in the fastest batch; other load on the machine can only make a batch slower."""
    photos = np.zeros((BATCH, height, width, 3), np.uint8)
    seconds: list[float] = []
    for _ in range(WARM_UP):
        list(runtime.embed([photos]))
    while len(seconds) < LEAST_BATCHES or sum(seconds) < SPEED_SECONDS:
        begun = time.perf_counter()
        list(runtime.embed([photos]))
        seconds.append(time.perf_counter() - begun)
    return BATCH / min(seconds)
