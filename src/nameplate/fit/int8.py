"""`export_int8`: a bundle → the same in int8, calibrated, held against float32 on photos that trained nothing.

Some photos choose the ranges of the activations, others judge what was lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nameplate.data.dataset import Dataset, digest
from nameplate.errors import BundleError, DataError, NameplateError
from nameplate.evaluate.calibration import MIN_CALIBRATION, calibrate
from nameplate.evaluate.evaluator import EvaluationResult, evaluate_model
from nameplate.evaluate.significance import Paired, paired
from nameplate.fit.benchmark import Throughput, fastest_of, measure_throughput
from nameplate.fit.finalize import BFLOAT16_RUNTIME, Calibrated, HeldOut, RuntimeEmbeddings, calibrate_bundle, finalize
from nameplate.fit.quantize import FILTER_BITS, by_sensitivity, calibration_pictures, quantize, training_and_held
from nameplate.fit.run import versions
from nameplate.model.bundle import BACKBONE, SCHEMA, Bundle, File, refuse_other_folder
from nameplate.model.classifier import log_loss
from nameplate.model.embeddings import Progress
from nameplate.model.model import Model
from nameplate.model.pipeline import Settings
from nameplate.model.runtime_choice import agrees, probe
from nameplate.storage import sha256
from nameplate.types import Photo

# JOINED A bundle quantised, calibrated and held against float32; where it loses too much, again with more in float32.


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
    before: EvaluationResult
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
        judged[runtime] = evaluate_model(model, inputs.dataset, progress=lambda _, a, b, s=step: progress(s, a, b))  # type: ignore[misc]
    calibrated = _calibrated(draft, inputs.before, judged)
    held = tuple(_held(inputs.before, found, calibrated.bundle) for found in judged.values())
    return Attempt(calibrated, held, tuple(in_float))


def _draft(bundle: Bundle, backbone: bytes) -> Bundle:
    """The bundle with another backbone, not yet calibrated."""
    files = {BACKBONE: File(sha256(backbone), len(backbone))}
    manifest = replace(bundle.manifest, schema=SCHEMA, files=files, temperatures={}, bfloat16=None)
    return replace(bundle, manifest=manifest, backbone=backbone, folder=None)


def _calibrated(draft: Bundle, before: EvaluationResult, judged: Mapping[str, EvaluationResult]) -> Calibrated:
    """Temperatures and thresholds chosen again, where there are photos enough; else they stay float32's."""
    truth = judged[REFERENCE]
    enough = len(truth.photos) >= MIN_CALIBRATION
    if enough:
        thresholds = replace(draft.manifest.thresholds, far=_far(draft, before, truth))
        draft = replace(draft, manifest=replace(draft.manifest, thresholds=thresholds))
    everyone = np.arange(len(truth.photos))
    # `working` names REFERENCE first, and the answers of the first runtime choose the thresholds
    embedded = tuple(RuntimeEmbeddings(name, found.embeddings, everyone) for name, found in judged.items())
    return calibrate_bundle(draft, HeldOut(embedded, truth.y_true, truth.groups), thresholds=enough)


def _far(draft: Bundle, before: EvaluationResult, after: EvaluationResult) -> float | None:
    """The threshold of "not a car", moved as the cars themselves have: rounding takes them a little farther out."""
    far, known = draft.manifest.thresholds.far, draft.ood_detector
    if far is None or known is None:
        return far
    was, now = (float(np.median(known.distances(judged.embeddings)[1])) for judged in (before, after))
    return far * now / was


def _held(before: EvaluationResult, after: EvaluationResult, calibrated: Bundle) -> Held:
    """int8's answers against float32's, photo by photo."""
    if [photo.sha256 for photo in before.photos] != [photo.sha256 for photo in after.photos]:
        raise DataError("Photos changed while they were judged. Run the command again.")
    probs = Model(calibrated, Settings()).probabilities(after.embeddings, after.runtime)
    named = probs.argmax(1)
    right = named == after.y_true
    return Held(
        after.runtime,
        len(after.photos),
        float(right.mean()),
        paired(before.right, right, before.groups),
        float((before.named == named).mean()),
        log_loss(probs, after.y_true),
        calibrate(probs.max(1), right, after.groups).ece.value,
    )


FLOAT32, INT8 = "float32", "int8"
METHOD = "ONNX Runtime static, QDQ; filters int8, a scale for each channel; activations uint8, least to greatest"


@dataclass(frozen=True, slots=True)
class Gates:
    """What an int8 bundle has to pass to be written."""

    photos: int = 1000
    """Held-out photos to judge on at least."""
    loss: float = 0.3
    """Points of top-1 that it may lose, by any runtime."""
    speedup: float = 1.0
    """How many times as fast as float32 it must be, each by its fastest runtime without bfloat16."""


@dataclass(frozen=True, slots=True)
class Int8Recipe:
    """How to quantise, and when to keep the result."""

    gates: Gates = Gates()
    """What int8 must pass."""
    bits: int = FILTER_BITS
    """Of the filters, see `quantize`."""
    keep: bool = False
    """Write the bundle even where it fails a gate."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What `export_int8` found."""

    bundle: Bundle | None
    """As written; None where a gate failed and it was not to be kept."""
    failed: tuple[str, ...]
    """The gates that it did not pass, with figures."""
    calibrated: int
    """Photos that calibrated."""
    top1: float
    """Of float32."""
    log_loss: float
    ece: float
    held: tuple[Held, ...]
    """A runtime each."""
    in_float: tuple[str, ...]
    """Convolutions that stayed in float32."""
    throughputs: tuple[Throughput, ...]
    bytes: tuple[int, int]
    """Of the backbone, before and after."""
    unreadable: tuple[tuple[str, str], ...]

    @property
    def speedup(self) -> float:
        """int8 against float32, each by its fastest runtime without bfloat16."""
        plain = [pace for pace in self.throughputs if pace.runtime != BFLOAT16_RUNTIME]
        return fastest_of(plain, INT8).over(fastest_of(plain, FLOAT32))


def export_int8(
    bundle: Bundle,
    dataset: Dataset,
    target: Path,
    *,
    settings: Settings,
    recipe: Int8Recipe | None = None,
    overwrite: bool = False,
    progress: Progress = lambda *_: None,
) -> Exported:
    """Quantise, judge, calibrate, time, write.

    Args:
        bundle: float32, with a head.
        dataset: labelled photos: those that trained the bundle calibrate, the others judge.
        target: folder of the bundle to write.
        settings: threads and limits; the runtimes are all that can be had.
        recipe: how to quantise, and what int8 must pass.
        overwrite: replace a bundle that is there.
        progress: see `Progress`.

    Raises:
        DataError: too few photos to judge on, or none to calibrate on.
        BundleError: the bundle has no head, or is in int8 already.
        NameplateError: `target` is there already, or the speed cannot be measured.
    """
    recipe = recipe or Int8Recipe()
    _refuse(bundle, target, overwrite)
    plain = Model(bundle, replace(settings, runtime=REFERENCE))
    plain.require_head()
    train, held, unreadable = training_and_held(dataset, bundle, settings, progress)
    _refuse_few(held, recipe.gates)
    pictures, calibration = calibration_pictures(train, bundle, settings)
    to_judge = replace(dataset, photos=held)
    before = evaluate_model(plain, to_judge, progress=lambda _, a, b: progress(FLOAT32, a, b))
    inputs = AttemptInput(bundle, pictures, before, to_judge, settings, recipe.bits, progress)
    best = best_attempt(inputs, recipe.gates.loss)
    progress("time", 0, 1)
    found = replace(_found(inputs, best), unreadable=unreadable)
    progress("time", 1, 1)
    found = replace(found, failed=tuple(_failures(found, recipe.gates)))
    if found.failed and not recipe.keep:
        return found
    made = best.calibrated.bundle
    named = replace(best.calibrated, bundle=replace(made, manifest=replace(made.manifest, name=target.name)))
    provenance = _provenance(bundle, calibration, held, found, recipe)
    saved = finalize(target, named, provenance, index=bundle.index_bytes(), overwrite=overwrite)
    return replace(found, bundle=saved)


def _found(inputs: AttemptInput, best: Attempt) -> Exported:
    """The figures of the best attempt, its speed measured; no gate judged yet."""
    bundle, before, quantised = inputs.bundle, inputs.before, best.calibrated.bundle.backbone
    threads = inputs.settings.threads
    runtimes = dict.fromkeys([*(each.runtime for each in best.held), *working(bundle, threads)])
    backbones = {FLOAT32: bundle.backbone, INT8: quantised}
    return Exported(
        bundle=None,
        failed=(),
        calibrated=len(inputs.pictures),
        top1=before.evaluation.top1.value,
        log_loss=before.evaluation.log_loss,
        ece=calibrate(before.confidence, before.right, before.groups).ece.value,
        held=best.held,
        in_float=best.in_float,
        throughputs=measure_throughput(backbones, inputs.pictures, list(runtimes), threads),
        bytes=(len(bundle.backbone), len(quantised)),
        unreadable=(),
    )


def _refuse_few(held: Sequence[Photo], gates: Gates) -> None:
    if len(held) < max(1, gates.photos):
        raise DataError(
            f"Only {len(held):,} photos of the data can judge: they have nameplates that the model knows and did not "
            f"train it. {gates.photos:,} are needed to tell a loss of {gates.loss} points; --min-photos asks for fewer."
        )


def _refuse(bundle: Bundle, target: Path, overwrite: bool) -> None:
    """Before any work, what would fail at its end."""
    refuse_other_folder(target)
    if target.exists() and not overwrite:
        raise NameplateError(f"'{target}' is there already. Choose another name, or pass --overwrite.")
    if bundle.int8:
        name = bundle.manifest.name
        raise BundleError(f"'{name}' is in int8 already. Give the float32 bundle that it was made from.")


def _failures(found: Exported, gates: Gates) -> list[str]:
    """The gates that were not passed, in words."""
    failed = []
    for held in found.held:
        if held.photos < gates.photos:
            failed.append(f"{held.photos:,} photos could be judged by {held.runtime}, fewer than {gates.photos:,}")
        if held.lost > gates.loss and held.runtime != BFLOAT16_RUNTIME:  # it is not used where its check fails
            failed.append(f"by {held.runtime} {held.lost:.2f} points of top-1 are lost, more than {gates.loss}")
    if not found.speedup >= gates.speedup:
        failed.append(f"it is {found.speedup:.2f} times as fast as float32, less than {gates.speedup}")
    return failed


def _provenance(
    bundle: Bundle,
    calibration: Sequence[Photo],
    held: Sequence[Photo],
    found: Exported,
    recipe: Int8Recipe,
) -> dict[str, object]:
    """What the float32 bundle says of its making, and how it became int8."""
    parent = bundle.manifest
    return parent.provenance | {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "metrics": None,
        "int8": {
            "from": {"name": parent.name, "backbone": bundle.digest, "metrics": parent.provenance.get("metrics")},
            "method": METHOD,
            "filter_bits": recipe.bits,
            "in_float": found.in_float,
            "calibration": {"photos": len(calibration), "sha256": digest(calibration)},
            "judged": {"photos": len(held), "sha256": digest(held)},
            "gates": asdict(recipe.gates),
            "failed": found.failed,
            "top1_float32": found.top1,
            "log_loss_float32": found.log_loss,
            "held": [asdict(each) for each in found.held],
            "photos_per_second": {
                f"{p.backbone} {p.runtime}": round(p.photos_per_second, 1) for p in found.throughputs
            },
            "speedup": round(found.speedup, 3),
            "versions": versions("onnx", "onnxruntime"),
        },
    }
