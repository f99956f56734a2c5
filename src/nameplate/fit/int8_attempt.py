"""A bundle quantised, calibrated and held against float32; where it loses too much, again with more in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nameplate.datasets.sources import Dataset
from nameplate.errors import DataError
from nameplate.evaluation.calibration import MIN_CALIBRATION, calibrate, fit_temperatures
from nameplate.evaluation.judge import Judged, judge
from nameplate.evaluation.metrics import evaluate
from nameplate.evaluation.significance import Paired, paired
from nameplate.evaluation.verdicts import with_verdicts
from nameplate.fit.quantize import by_sensitivity, quantize
from nameplate.models.bundle import BACKBONE, SCHEMA, Bfloat16Check, Bundle, File, Manifest
from nameplate.models.collection import Progress
from nameplate.models.embedding import Settings
from nameplate.models.head import log_loss, probabilities
from nameplate.models.model import Model
from nameplate.models.runtime import agrees, probe
from nameplate.storage import sha256
from nameplate.types import Evaluation

LEFT_IN_FLOAT = (0, 3, 8)
"""Convolutions, the most sensitive first, that stay in float32 at the first attempt and at each further one, which is
made where the one before lost too much. Three attempts, so that none passes by luck."""
REFERENCE = "onnxruntime"
"""What computes the float32 answers that int8 is held against."""
BFLOAT16 = "openvino-bf16"

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


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way of quantising, judged."""

    bundle: Bundle
    """In memory, calibrated."""
    evaluation: Evaluation
    """By `REFERENCE`."""
    held: tuple[Held, ...]
    """A runtime each."""
    in_float: tuple[str, ...]
    """Convolutions that stayed in float32."""

    @property
    def lost(self) -> float:
        """Points of top-1, by the worst runtime; bfloat16, which has a check of its own, left out."""
        return max(held.lost for held in self.held if held.runtime != BFLOAT16)


def best_attempt(
    bundle: Bundle,
    pictures: Pictures,
    before: Judged,
    dataset: Dataset,
    settings: Settings,
    max_loss: float,
    bits: int,
    progress: Progress,
) -> Attempt:
    """Quantise, leaving more and more in float32 until no more is lost than may be.

    Args:
        bundle: float32.
        pictures: to calibrate on, uint8 N×H×W×3.
        before: its answers.
        dataset: the photos that judge.
        settings: threads and limits.
        max_loss: points of top-1.
        bits: of the filters, see `quantize`.
        progress: see `Progress`.

    Returns:
        The first attempt that loses no more, or else the one that loses least.
    """
    order: list[str] = []
    made: list[Attempt] = []
    for count in LEFT_IN_FLOAT:
        if count and not order:
            order = by_sensitivity(bundle.backbone, pictures, lambda a, b: progress("sensitivity", a, b))
        if count and count >= len(order):
            break
        made.append(_attempt(bundle, order[:count], bits, pictures, before, dataset, settings, progress))
        if made[-1].lost <= max_loss:
            break
    return min(made, key=lambda attempt: attempt.lost)


def working(bundle: Bundle, threads: int) -> list[str]:
    """Runtimes that run a backbone here and agree on what it says; ONNX Runtime first."""
    trials = probe(bundle, threads)
    return list(dict.fromkeys([REFERENCE, *(trial.runtime for trial in trials if agrees(trial, bundle))]))


def _attempt(
    bundle: Bundle,
    in_float: Sequence[str],
    bits: int,
    pictures: Pictures,
    before: Judged,
    dataset: Dataset,
    settings: Settings,
    progress: Progress,
) -> Attempt:
    progress("quantise", 0, 1)
    draft = _draft(bundle, quantize(bundle.backbone, pictures, in_float, bits))
    progress("quantise", 1, 1)
    judged = {}
    for runtime in working(draft, settings.threads):
        model = Model(draft, replace(settings, runtime=runtime))
        judged[runtime] = judge(model, dataset, progress=lambda _, a, b, r=runtime: progress(f"int8 {r}", a, b))  # type: ignore[misc]
    calibrated = replace(draft, manifest=_calibrated(draft, before, judged))
    held = tuple(_held(before, found, calibrated) for found in judged.values())
    truth = judged[REFERENCE]
    chances = Model(calibrated, settings).probabilities(truth.embeddings, REFERENCE)
    evaluation = evaluate(chances, truth.truths, truth.nameplates, truth.groups)
    return Attempt(calibrated, evaluation, held, tuple(in_float))


def _draft(bundle: Bundle, backbone: bytes) -> Bundle:
    """The bundle with another backbone, not yet calibrated."""
    files = {BACKBONE: File(sha256(backbone), len(backbone))}
    manifest = replace(bundle.manifest, schema=SCHEMA, files=files, temperatures={}, bfloat16=None)
    return replace(bundle, manifest=manifest, backbone=backbone, folder=None)


def _calibrated(draft: Bundle, before: Judged, judged: Mapping[str, Judged]) -> Manifest:
    """Temperatures and thresholds chosen again, where there are photos enough; else they stay float32's."""
    model, truth = Model(draft, Settings()), judged[REFERENCE]
    logits = {runtime: model.logits(found.embeddings) for runtime, found in judged.items()}
    temperatures = fit_temperatures({runtime: (logits[runtime], found.truths) for runtime, found in judged.items()})
    temperature = temperatures.get(REFERENCE, draft.manifest.temperature)
    check = None
    if BFLOAT16 in judged:
        right = truth.evaluation.top1.value, judged[BFLOAT16].evaluation.top1.value
        check = Bfloat16Check(len(truth.photos), *right)
    manifest = replace(draft.manifest, temperatures=temperatures, temperature=temperature, bfloat16=check)
    if len(truth.photos) < MIN_CALIBRATION:
        return manifest
    distances = None if draft.known is None else draft.known.distances(truth.embeddings)
    odds = None if draft.known is None else draft.known.no_car_odds(truth.embeddings)
    chances = probabilities(logits[REFERENCE], temperature)
    far, no_car = _far(draft, before, truth), draft.manifest.thresholds.no_car
    return with_verdicts(manifest, chances, truth.truths, distances, far, no_car, odds)


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
