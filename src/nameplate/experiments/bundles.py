"""Evaluates bundles beside other candidates: the backbone with a new head, or the bundle as it is. Without torch."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

import numpy as np

from nameplate.errors import DataError
from nameplate.evaluate.evaluator import trained_digests
from nameplate.experiments.candidates import Frozen
from nameplate.experiments.cross_validation import cross_validate
from nameplate.experiments.paired import PairedAnswers
from nameplate.fit.run import EVALUATION_RUNTIME
from nameplate.fit.split import Split
from nameplate.model.embeddings import Progress, embed_photos
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
    embed = partial(embed_photos, model=model, progress=progress)
    row, found = cross_validate(candidate, split, embed, begun, progress)
    return with_bundle_cost(replace(row, licence="its card"), model), found


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
