"""Exports a bundle to int8: quantises the backbone, calibrates again, and compares it with float32.

Photos that trained the bundle set the ranges of the activations. The comparison with float32 uses photos that did not
train it. Where int8 loses too much accuracy, the most sensitive convolutions stay in float32 (`best_attempt`).
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
from nameplate.fit.quantize import FILTER_BITS, by_sensitivity, calibration_inputs, quantize, training_and_holdout
from nameplate.fit.run import versions
from nameplate.model.bundle import BACKBONE, SCHEMA, Bundle, File, refuse_other_folder
from nameplate.model.classifier import log_loss
from nameplate.model.embeddings import Progress
from nameplate.model.model import Model
from nameplate.model.pipeline import Settings
from nameplate.model.runtime_choice import agrees, probe
from nameplate.storage import sha256
from nameplate.types import Photo

LEFT_IN_FLOAT = (0, 3, 8)
"""How many of the most sensitive convolutions stay in float32 in each attempt; the next attempt is only made if the one
before lost too much. There are only three, because one of many attempts would pass by chance."""
REFERENCE = "onnxruntime"
"""The runtime whose float32 answers are the reference."""

ModelInputs = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class RuntimeComparison:
    """int8 in one runtime, compared with float32 on the same photos; the field names are keys of bundle.json."""

    runtime: str
    photos: int
    top1: float
    change: Paired
    """The difference of top-1, int8 − float32, as a share of the photos."""
    same: float
    """Share of photos with the same most probable nameplate, 0–1."""
    log_loss: float
    """Log-loss with the temperature that was fitted for this runtime."""
    ece: float
    """Expected calibration error, 0–1."""

    @property
    def points_lost(self) -> float:
        """The loss of top-1 in percentage points."""
        return -100 * self.change.difference.value


@dataclass(frozen=True, slots=True, eq=False)
class AttemptInputs:
    """What all attempts at one bundle have in common."""

    bundle: Bundle
    """The float32 bundle."""
    model_inputs: ModelInputs
    """Model inputs to calibrate on, uint8 N×H×W×3."""
    before: EvaluationResult
    """The float32 answers to the held-out photos."""
    dataset: Dataset
    """The held-out photos."""
    settings: Settings
    """Threads and limits."""
    bits: int
    """Number of bits of the weights, see `quantize`."""
    progress: Progress


@dataclass(frozen=True, slots=True)
class Attempt:
    """One quantised bundle and its comparison with float32."""

    calibrated: Calibrated
    """Calibrated on the answers of `REFERENCE`; the bundle is in memory."""
    comparisons: tuple[RuntimeComparison, ...]
    """One for each runtime."""
    in_float: tuple[str, ...]
    """Names of the convolutions that stayed in float32."""

    @property
    def lost(self) -> float:
        """The loss of top-1 in percentage points, in the worst runtime. bfloat16 is left out: it has its own check."""
        return max(each.points_lost for each in self.comparisons if each.runtime != BFLOAT16_RUNTIME)


def best_attempt(inputs: AttemptInputs, max_loss: float) -> Attempt:
    """Quantise, with more and more convolutions in float32, until the loss of top-1 is small enough.

    Args:
        inputs: what all attempts have in common.
        max_loss: largest permitted loss of top-1 in percentage points.

    Returns:
        The first attempt within `max_loss`; if there is none, the one with the smallest loss.
    """
    order: list[str] = []
    made: list[Attempt] = []
    for count in LEFT_IN_FLOAT:
        if count and not order:  # ranking takes one quantisation for each convolution: only where it is needed
            order = by_sensitivity(
                inputs.bundle.backbone, inputs.model_inputs, lambda a, b: inputs.progress("sensitivity", a, b)
            )
        # With every convolution in float32 nothing would be quantised.
        if count and count >= len(order):
            break
        made.append(_attempt(inputs, order[:count]))
        if made[-1].lost <= max_loss:
            break
    return min(made, key=lambda attempt: attempt.lost)


def working(bundle: Bundle, threads: int) -> list[str]:
    """Runtimes that run the backbone on this machine and agree on its output; `REFERENCE` is the first."""
    trials = probe(bundle, threads)
    return list(dict.fromkeys([REFERENCE, *(trial.runtime for trial in trials if agrees(trial, bundle))]))


def _attempt(inputs: AttemptInputs, in_float: Sequence[str]) -> Attempt:
    """Quantise with some convolutions in float32, and compare the result with float32 in every runtime."""
    progress = inputs.progress
    progress("quantise", 0, 1)
    draft = _draft(inputs.bundle, quantize(inputs.bundle.backbone, inputs.model_inputs, in_float, inputs.bits))
    progress("quantise", 1, 1)
    results = {}
    for runtime in working(draft, inputs.settings.threads):
        model = Model(draft, replace(inputs.settings, runtime=runtime))
        step = f"int8 {runtime}"
        results[runtime] = evaluate_model(model, inputs.dataset, progress=lambda _, a, b, s=step: progress(s, a, b))  # type: ignore[misc]
    calibrated = _calibrated(draft, inputs.before, results)
    comparisons = tuple(_compared(inputs.before, found, calibrated.bundle) for found in results.values())
    return Attempt(calibrated, comparisons, tuple(in_float))


def _draft(bundle: Bundle, backbone: bytes) -> Bundle:
    """The bundle with another backbone, before calibration."""
    # Temperatures and the check of bfloat16 belong to the float32 backbone, so they are removed.
    files = {BACKBONE: File(sha256(backbone), len(backbone))}
    manifest = replace(bundle.manifest, schema=SCHEMA, files=files, temperatures={}, bfloat16=None)
    return replace(bundle, manifest=manifest, backbone=backbone, folder=None)


def _calibrated(draft: Bundle, before: EvaluationResult, results: Mapping[str, EvaluationResult]) -> Calibrated:
    """Fit temperatures and thresholds again; where there are too few photos, those of float32 stay."""
    reference = results[REFERENCE]
    enough = len(reference.photos) >= MIN_CALIBRATION
    if enough:
        thresholds = replace(draft.manifest.thresholds, far=_moved_non_car_threshold(draft, before, reference))
        draft = replace(draft, manifest=replace(draft.manifest, thresholds=thresholds))
    everyone = np.arange(len(reference.photos))
    # REFERENCE is the first in `results`, and `calibrate_bundle` chooses the thresholds by the first runtime.
    embedded = tuple(RuntimeEmbeddings(name, found.embeddings, everyone) for name, found in results.items())
    return calibrate_bundle(draft, HeldOut(embedded, reference.y_true, reference.groups), thresholds=enough)


def _moved_non_car_threshold(draft: Bundle, before: EvaluationResult, after: EvaluationResult) -> float | None:
    """The threshold of "not a car", scaled like the median distance of the cars, which rounding increases a little."""
    far, known = draft.manifest.thresholds.far, draft.ood_detector
    if far is None or known is None:
        return far
    was, now = (float(np.median(known.distances(each.embeddings)[1])) for each in (before, after))
    # There are no photos of other things here, so the threshold cannot be chosen anew.
    return far * now / was


def _compared(before: EvaluationResult, after: EvaluationResult, calibrated: Bundle) -> RuntimeComparison:
    """Compare the answers of int8 and float32 photo by photo.

    Raises:
        DataError: a photo was changed between the two evaluations.
    """
    if [photo.sha256 for photo in before.photos] != [photo.sha256 for photo in after.photos]:
        raise DataError("Photos changed during the evaluation. Run the command again.")
    probs = Model(calibrated, Settings()).probabilities(after.embeddings, after.runtime)
    y_pred = probs.argmax(1)
    right = y_pred == after.y_true
    return RuntimeComparison(
        after.runtime,
        len(after.photos),
        float(right.mean()),
        paired(before.right, right, before.groups),
        float((before.y_pred == y_pred).mean()),
        log_loss(probs, after.y_true),
        calibrate(probs.max(1), right, after.groups).ece.value,
    )


FLOAT32, INT8 = "float32", "int8"
METHOD = "ONNX Runtime static, QDQ; filters int8, a scale for each channel; activations uint8, least to greatest"


@dataclass(frozen=True, slots=True)
class Gates:
    """The conditions under which an int8 bundle is written; the field names are keys of bundle.json."""

    photos: int = 1000
    """Smallest number of held-out photos."""
    loss: float = 0.3
    """Largest loss of top-1 in percentage points, in any runtime."""
    speedup: float = 1.0
    """Smallest speed-up over float32; each of the two in its fastest runtime without bfloat16."""


@dataclass(frozen=True, slots=True)
class Int8Recipe:
    """How to quantise, and when to write the result."""

    gates: Gates = Gates()
    """The conditions that int8 must meet."""
    bits: int = FILTER_BITS
    """Number of bits of the weights, see `quantize`."""
    keep: bool = False
    """Whether to write the bundle even if it fails a gate."""


@dataclass(frozen=True, slots=True)
class Int8Export:
    """The result of `export_int8`."""

    bundle: Bundle | None
    """The bundle as written; None where a gate failed and `Int8Recipe.keep` is false."""
    failed: tuple[str, ...]
    """A sentence for each gate that failed, with figures."""
    calibrated: int
    """Number of calibration photos."""
    top1: float
    """Top-1 of float32, 0–1."""
    log_loss: float
    """Log-loss of float32."""
    ece: float
    """Expected calibration error of float32, 0–1."""
    comparisons: tuple[RuntimeComparison, ...]
    """int8 against float32, one for each runtime."""
    in_float: tuple[str, ...]
    """Names of the convolutions that stayed in float32."""
    throughputs: tuple[Throughput, ...]
    bytes: tuple[int, int]
    """Size of the backbone in bytes, before and after."""
    unreadable: tuple[tuple[str, str], ...]
    """Path and reason of each photo that could not be read."""

    @property
    def speedup(self) -> float:
        """The speed-up of int8 over float32, each in its fastest runtime without bfloat16."""
        plain = [each for each in self.throughputs if each.runtime != BFLOAT16_RUNTIME]
        # A runtime that computes otherwise in int8 is not compared, and will not run the bundle, however fast it is.
        compared = {each.runtime for each in self.comparisons}
        usable = [each for each in plain if each.backbone == FLOAT32 or each.runtime in compared]
        return fastest_of(usable, INT8).over(fastest_of(usable, FLOAT32))


def export_int8(
    bundle: Bundle,
    dataset: Dataset,
    target: Path,
    *,
    settings: Settings,
    recipe: Int8Recipe | None = None,
    overwrite: bool = False,
    progress: Progress = lambda *_: None,
) -> Int8Export:
    """Quantise a bundle, calibrate and evaluate it, measure its speed, and write it.

    Args:
        bundle: a float32 bundle with a classifier.
        dataset: labelled photos: those that trained the bundle calibrate, the others evaluate.
        target: folder of the bundle to write.
        settings: threads and limits; its runtime is not used, since all available runtimes are compared.
        recipe: how to quantise, and the gates; None takes the defaults.
        overwrite: whether to replace a bundle that is at `target`.
        progress: see `Progress`.

    Raises:
        DataError: there are too few photos to evaluate on, or none to calibrate on.
        BundleError: the bundle has no classifier, or is in int8 already.
        NameplateError: `target` exists and `overwrite` is false, or the speed cannot be measured.
    """
    recipe = recipe or Int8Recipe()
    _refuse(bundle, target, overwrite)
    plain = Model(bundle, replace(settings, runtime=REFERENCE))
    plain.require_head()
    train, holdout, unreadable = training_and_holdout(dataset, bundle, settings, progress)
    _refuse_few(holdout, recipe.gates)
    model_inputs, calibration = calibration_inputs(train, bundle, settings)
    to_evaluate = replace(dataset, photos=holdout)
    before = evaluate_model(plain, to_evaluate, progress=lambda _, a, b: progress(FLOAT32, a, b))
    inputs = AttemptInputs(bundle, model_inputs, before, to_evaluate, settings, recipe.bits, progress)
    best = best_attempt(inputs, recipe.gates.loss)
    progress("time", 0, 1)
    # Speed is measured last and for the best attempt alone, since each measurement takes a while.
    found = replace(_found(inputs, best), unreadable=unreadable)
    progress("time", 1, 1)
    found = replace(found, failed=tuple(_failures(found, recipe.gates)))
    if found.failed and not recipe.keep:
        return found
    made = best.calibrated.bundle
    renamed = replace(best.calibrated, bundle=replace(made, manifest=replace(made.manifest, name=target.name)))
    provenance = _provenance(bundle, calibration, holdout, found, recipe)
    saved = finalize(target, renamed, provenance, index=bundle.index_bytes(), overwrite=overwrite)
    return replace(found, bundle=saved)


def _found(inputs: AttemptInputs, best: Attempt) -> Int8Export:
    """The figures of the best attempt with its speed, before the gates are checked."""
    bundle, before, quantised = inputs.bundle, inputs.before, best.calibrated.bundle.backbone
    threads = inputs.settings.threads
    runtimes = dict.fromkeys([*(each.runtime for each in best.comparisons), *working(bundle, threads)])
    backbones = {FLOAT32: bundle.backbone, INT8: quantised}
    return Int8Export(
        bundle=None,
        failed=(),
        calibrated=len(inputs.model_inputs),
        top1=before.evaluation.top1.value,
        log_loss=before.evaluation.log_loss,
        ece=calibrate(before.confidence, before.right, before.groups).ece.value,
        comparisons=best.comparisons,
        in_float=best.in_float,
        throughputs=measure_throughput(backbones, inputs.model_inputs, list(runtimes), threads),
        bytes=(len(bundle.backbone), len(quantised)),
        unreadable=(),
    )


def _refuse_few(holdout: Sequence[Photo], gates: Gates) -> None:
    """Refuse a data set that could not pass the first gate, before anything is computed."""
    if len(holdout) < max(1, gates.photos):
        raise DataError(
            f"Only {len(holdout):,} photos of the data can evaluate the model: photos of its nameplates that did not "
            f"train it. {gates.photos:,} are needed to detect a loss of {gates.loss} points; "
            "--min-photos accepts fewer."
        )


def _refuse(bundle: Bundle, target: Path, overwrite: bool) -> None:
    """Check first what would otherwise fail only after all the work is done."""
    refuse_other_folder(target)
    if target.exists() and not overwrite:
        raise NameplateError(f"'{target}' is there already. Choose another name, or pass --overwrite.")
    if bundle.int8:
        name = bundle.manifest.name
        raise BundleError(f"'{name}' is in int8 already. Give the float32 bundle that it was made from.")


def _failures(found: Int8Export, gates: Gates) -> list[str]:
    """A sentence for each gate that failed."""
    failed = []
    for each in found.comparisons:
        if each.photos < gates.photos:
            failed.append(f"{each.runtime} evaluated {each.photos:,} photos, fewer than {gates.photos:,}")
        # A bundle whose bfloat16 check fails does not run in bfloat16, so its loss needs no gate.
        if each.points_lost > gates.loss and each.runtime != BFLOAT16_RUNTIME:
            failed.append(f"{each.runtime} loses {each.points_lost:.2f} points of top-1, more than {gates.loss}")
    if not found.speedup >= gates.speedup:  # written so that NaN fails
        failed.append(f"it is {found.speedup:.2f} times as fast as float32, less than {gates.speedup}")
    return failed


def _provenance(
    bundle: Bundle,
    calibration: Sequence[Photo],
    holdout: Sequence[Photo],
    found: Int8Export,
    recipe: Int8Recipe,
) -> dict[str, object]:
    """The provenance of the float32 bundle, and how it was quantised. The keys are in bundle.json: keep them."""
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
            "judged": {"photos": len(holdout), "sha256": digest(holdout)},
            "gates": asdict(recipe.gates),
            "failed": found.failed,
            "top1_float32": found.top1,
            "log_loss_float32": found.log_loss,
            "held": [asdict(each) for each in found.comparisons],
            "photos_per_second": {
                f"{p.backbone} {p.runtime}": round(p.photos_per_second, 1) for p in found.throughputs
            },
            "speedup": round(found.speedup, 3),
            "versions": versions("onnx", "onnxruntime"),
        },
    }
