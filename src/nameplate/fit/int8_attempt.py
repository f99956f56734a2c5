"""A bundle quantised, calibrated and held against float32; where it loses too much, again with more in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nameplate.datasets.sources import Dataset
from nameplate.errors import DataError
from nameplate.evaluation.calibration import MIN_CALIBRATION, calibrate
from nameplate.evaluation.judge import Judged, judge
from nameplate.evaluation.significance import Paired, paired
from nameplate.fit.finalize import BFLOAT16_RUNTIME, Calibrated, HeldOut, RuntimeEmbeddings, calibrate_bundle
from nameplate.fit.quantize import by_sensitivity, quantize
from nameplate.models.bundle import BACKBONE, SCHEMA, Bundle, File
from nameplate.models.collection import Progress
from nameplate.models.head import log_loss
from nameplate.models.model import Model
from nameplate.models.pipeline import Settings
from nameplate.models.runtime import agrees, probe
from nameplate.storage import sha256

LEFT_IN_FLOAT = (0, 3, 8)
"""Convolutions, the most sensitive first, that stay in float32 at the first attempt and at each further one, which is
made where the one before lost too much. Three attempts, so that none passes by luck."""
REFERENCE = "onnxruntime"
"""What computes the float32 answers that int8 is held against."""

Pictures = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Held:
    """What int8 answers by one runtime, held against float32 on the same photos."""

    runtime: str
    photos: int
    top1: float
    change: Paired
    """Of top-1, int8 − float32, a share of the photos."""
    same: float
    """Share of photos with the same most probable nameplate."""
    log_loss: float
    """At the temperature fitted for this runtime."""
    ece: float

    @property
    def lost(self) -> float:
        """Points of top-1."""
        return -100 * self.change.difference.value


@dataclass(frozen=True, slots=True, eq=False)
class AttemptInput:
    """What all attempts at one bundle share."""

    bundle: Bundle
    """In float32."""
    pictures: Pictures
    """Prepared photos to calibrate on, uint8 N×H×W×3."""
    before: Judged
    """The float32 answers to the photos that judge."""
    dataset: Dataset
    """The photos that judge."""
    settings: Settings
    """Threads and limits."""
    bits: int
    """Of the filters, see `quantize`."""
    progress: Progress


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way of quantising, judged."""

    calibrated: Calibrated
    """By `REFERENCE`; the bundle is in memory."""
    held: tuple[Held, ...]
    """A runtime each."""
    in_float: tuple[str, ...]
    """Convolutions that stayed in float32."""

    @property
    def lost(self) -> float:
        """Points of top-1, by the worst runtime; bfloat16, which has a check of its own, left out."""
        return max(held.lost for held in self.held if held.runtime != BFLOAT16_RUNTIME)


def best_attempt(inputs: AttemptInput, max_loss: float) -> Attempt:
    """Quantise, leaving more and more in float32 until no more is lost than may be.

    Args:
        inputs: see `AttemptInput`.
        max_loss: points of top-1.

    Returns:
        The first attempt that loses no more, or else the one that loses least.
    """
    order: list[str] = []
    made: list[Attempt] = []
    for count in LEFT_IN_FLOAT:
        if count and not order:
            order = by_sensitivity(
                inputs.bundle.backbone, inputs.pictures, lambda a, b: inputs.progress("sensitivity", a, b)
            )
        if count and count >= len(order):
            break
        made.append(_attempt(inputs, order[:count]))
        if made[-1].lost <= max_loss:
            break
    return min(made, key=lambda attempt: attempt.lost)


def working(bundle: Bundle, threads: int) -> list[str]:
    """Runtimes that run a backbone here and agree on what it says; ONNX Runtime first."""
    trials = probe(bundle, threads)
    return list(dict.fromkeys([REFERENCE, *(trial.runtime for trial in trials if agrees(trial, bundle))]))


def _attempt(inputs: AttemptInput, in_float: Sequence[str]) -> Attempt:
    """Quantise with some convolutions left in float32, and hold the result against float32 by every runtime."""
    progress = inputs.progress
    progress("quantise", 0, 1)
    draft = _draft(inputs.bundle, quantize(inputs.bundle.backbone, inputs.pictures, in_float, inputs.bits))
    progress("quantise", 1, 1)
    judged = {}
    for runtime in working(draft, inputs.settings.threads):
        model = Model(draft, replace(inputs.settings, runtime=runtime))
        step = f"int8 {runtime}"
        judged[runtime] = judge(model, inputs.dataset, progress=lambda _, a, b, s=step: progress(s, a, b))  # type: ignore[misc]
    calibrated = _calibrated(draft, inputs.before, judged)
    held = tuple(_held(inputs.before, found, calibrated.bundle) for found in judged.values())
    return Attempt(calibrated, held, tuple(in_float))


def _draft(bundle: Bundle, backbone: bytes) -> Bundle:
    """The bundle with another backbone, not yet calibrated."""
    files = {BACKBONE: File(sha256(backbone), len(backbone))}
    manifest = replace(bundle.manifest, schema=SCHEMA, files=files, temperatures={}, bfloat16=None)
    return replace(bundle, manifest=manifest, backbone=backbone, folder=None)


def _calibrated(draft: Bundle, before: Judged, judged: Mapping[str, Judged]) -> Calibrated:
    """Temperatures and thresholds chosen again, where there are photos enough; else they stay float32's."""
    truth = judged[REFERENCE]
    enough = len(truth.photos) >= MIN_CALIBRATION
    if enough:
        thresholds = replace(draft.manifest.thresholds, far=_far(draft, before, truth))
        draft = replace(draft, manifest=replace(draft.manifest, thresholds=thresholds))
    everyone = np.arange(len(truth.photos))
    # `working` names REFERENCE first, and the answers of the first runtime choose the thresholds
    embedded = tuple(RuntimeEmbeddings(name, found.embeddings, everyone) for name, found in judged.items())
    return calibrate_bundle(draft, HeldOut(embedded, truth.truths, truth.groups), thresholds=enough)


def _far(draft: Bundle, before: Judged, after: Judged) -> float | None:
    """The threshold of "not a car", moved as the cars themselves have: rounding takes them a little farther out."""
    far, known = draft.manifest.thresholds.far, draft.known
    if far is None or known is None:
        return far
    was, now = (float(np.median(known.distances(judged.embeddings)[1])) for judged in (before, after))
    return far * now / was


def _held(before: Judged, after: Judged, calibrated: Bundle) -> Held:
    """int8's answers against float32's, photo by photo."""
    if [photo.sha256 for photo in before.photos] != [photo.sha256 for photo in after.photos]:
        raise DataError("Photos changed while they were judged. Run the command again.")
    chances = Model(calibrated, Settings()).probabilities(after.embeddings, after.runtime)
    named = chances.argmax(1)
    right = named == after.truths
    return Held(
        after.runtime,
        len(after.photos),
        float(right.mean()),
        paired(before.right, right, before.groups),
        float((before.named == named).mean()),
        log_loss(chances, after.truths),
        calibrate(chances.max(1), right, after.groups).ece.value,
    )
