"""`calibrate_bundle` and `finalize`: the one way that a backbone and a head become a bundle on disk.

Every way of making a bundle ends here: a linear probe on frozen embeddings, fine-tuning, and quantisation to int8. Each
hands over a draft (a bundle in memory, not yet calibrated) and the embeddings of photos that it did not train on.

`calibrate_bundle` measures what bfloat16 costs, fits a temperature for each runtime, chooses the thresholds of the
verdicts, and evaluates. `finalize` adds what the finished model says of the reference image, and writes the folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nameplate.evaluate.calibration import MIN_CALIBRATION, fit_temperatures
from nameplate.evaluate.metrics import evaluate
from nameplate.evaluate.thresholds import with_reference, with_verdicts
from nameplate.fit.run import metrics_record
from nameplate.model.bundle import Bfloat16Check, Bundle, Manifest, save_bundle
from nameplate.model.classifier import probabilities
from nameplate.model.ood import leave_one_out_distances
from nameplate.types import Evaluation, Floats

FLOAT32_RUNTIMES = ("onnxruntime", "openvino")
"""Runtimes that bfloat16 may be compared with, the preferred one first."""
BFLOAT16_RUNTIME = "openvino-bf16"
"""The only runtime that computes in bfloat16."""


@dataclass(frozen=True, slots=True, eq=False)
class RuntimeEmbeddings:
    """Held-out photos, as one runtime embeds them."""

    runtime: str
    embeddings: Floats
    """float32 N×D."""
    indices: NDArray[np.int64]
    """int64 (N,), ascending: the index in the data set of each row's photo."""


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Photos that the model was not trained on, by each runtime that embedded them."""

    embedded: tuple[RuntimeEmbeddings, ...]
    """The answers of the first runtime give the metrics and the thresholds; its N is 0 where no photos are held out."""
    classes: NDArray[np.int64]
    """int64 (P,): the true class of each of the data set's P photos."""
    groups: NDArray[np.int64] | None = None
    """int64 (P,): photos of one group are resampled together for the intervals; None: each photo is its own group."""


@dataclass(frozen=True, slots=True, eq=False)
class OutOfFold:
    """Training photos with the logits of the cross-validation models that did not see them."""

    embeddings: Floats
    """float32 N×D."""
    logits: Floats
    """float32 N×C."""
    classes: NDArray[np.int64]
    """int64 (N,): the true classes."""


@dataclass(frozen=True, slots=True, eq=False)
class Calibrated:
    """A bundle that is complete but for its provenance and reference image."""

    bundle: Bundle
    """In memory."""
    evaluation: Evaluation | None
    """On the held-out photos; None where there were none."""
    probs: Floats
    """float32 N×C: calibrated probabilities of the held-out photos, by the first runtime."""


def calibrate_bundle(
    draft: Bundle, held_out: HeldOut, out_of_fold: OutOfFold | None = None, *, thresholds: bool = True
) -> Calibrated:
    """Fit temperatures, choose thresholds, evaluate.

    Args:
        draft: a bundle with a classifier. Its own temperature and bfloat16 check are kept where there are too few
            held-out photos to measure them; the `far` and `no_car` of its thresholds are kept as those of the backbone.
        held_out: photos that the draft was not trained on.
        out_of_fold: training photos that help to choose thresholds where fewer than `MIN_CALIBRATION` are held out.
        thresholds: whether to choose thresholds; if not, the draft's are kept.
    """
    weight, bias = _head_of(draft)
    first = held_out.embedded[0]
    # The runtimes' embeddings differ slightly, above all in bfloat16, so each one gets a temperature of its own.
    logits = {each.runtime: each.embeddings @ weight + bias for each in held_out.embedded}
    temperatures = fit_temperatures(
        {each.runtime: (logits[each.runtime], held_out.classes[each.indices]) for each in held_out.embedded}
    )
    manifest = replace(
        draft.manifest,
        temperature=temperatures.get(first.runtime, draft.manifest.temperature),
        temperatures=temperatures,
        bfloat16=bfloat16_check((weight, bias), held_out) or draft.manifest.bfloat16,
    )
    bundle = replace(draft, manifest=manifest)
    probs, y_true = probabilities(logits[first.runtime], manifest.temperature), held_out.classes[first.indices]
    if thresholds:
        bundle = replace(bundle, manifest=_with_thresholds(bundle, first.embeddings, probs, y_true, out_of_fold))
    groups = None if held_out.groups is None else held_out.groups[first.indices]
    evaluation = evaluate(probs, y_true, manifest.nameplates, groups) if len(y_true) else None
    return Calibrated(bundle, evaluation, probs)


def finalize(
    target: Path,
    calibrated: Calibrated,
    provenance: Mapping[str, object],
    *,
    index: bytes | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Add the provenance and the answer to the reference image, and write the bundle, whole or not at all.

    Args:
        target: the bundle's folder.
        calibrated: from `calibrate_bundle`.
        provenance: how the bundle was made; its "metrics" are filled in here.
        index: the content of index.safetensors; None writes no neighbour index.
        overwrite: whether to replace a bundle that is at `target`.

    Raises:
        BundleError: the bundle would be refused when it is loaded.
        NameplateError: `target` exists and `overwrite` is false, or it cannot be written.
    """
    bundle = calibrated.bundle
    # A key that is there already keeps its place in bundle.json, so callers say where the metrics stand.
    record = dict(provenance) | {"metrics": metrics_record(calibrated.evaluation)}
    manifest = with_reference(replace(bundle.manifest, provenance=record), bundle.backbone, *_head_of(bundle))
    return save_bundle(target, replace(bundle, manifest=manifest), index=index, overwrite=overwrite)


def bfloat16_check(head: tuple[Floats, Floats], held_out: HeldOut) -> Bfloat16Check | None:
    """Measure what bfloat16 costs a classifier in top-1.

    Args:
        head: weight D×C and bias C.
        held_out: photos that the classifier was not trained on.

    Returns:
        Top-1 in float32 and in bfloat16 on the photos that both embedded; None where one of the two did not run, or
        there are no such photos.
    """
    embedded = {each.runtime: each for each in held_out.embedded}
    half = embedded.get(BFLOAT16_RUNTIME)
    exact = next((embedded[name] for name in FLOAT32_RUNTIMES if name in embedded), None)
    if half is None or exact is None:
        return None
    indices, of_exact, of_half = np.intersect1d(exact.indices, half.indices, assume_unique=True, return_indices=True)
    if not len(indices):
        return None

    def top1(embeddings: Floats) -> float:
        return float(((embeddings @ head[0] + head[1]).argmax(1) == held_out.classes[indices]).mean())

    return Bfloat16Check(len(indices), top1(exact.embeddings[of_exact]), top1(half.embeddings[of_half]))


def _head_of(bundle: Bundle) -> tuple[Floats, Floats]:
    """Weight D×C and bias C of a bundle that has a classifier."""
    assert bundle.weight is not None
    assert bundle.bias is not None
    return bundle.weight, bundle.bias


def _with_thresholds(
    bundle: Bundle, embeddings: Floats, probs: Floats, y_true: NDArray[np.int64], out_of_fold: OutOfFold | None
) -> Manifest:
    """The manifest with thresholds that are chosen on held-out photos, where there are enough of them.

    Where there are too few, the out-of-fold training photos are added for the threshold of unknown cars. They do not
    choose the thresholds of prediction sets: models of single folds know fewer photos, and are less confident than the
    final one.

    Args:
        bundle: calibrated.
        embeddings: float32 N×D, of the held-out photos.
        probs: float32 N×C, their calibrated probabilities.
        y_true: int64 (N,), their true classes.
        out_of_fold: training photos, where there are answers to them.
    """
    manifest, known = bundle.manifest, bundle.ood_detector
    far, no_car = manifest.thresholds.far, manifest.thresholds.no_car
    distances = None if known is None else known.distances(embeddings)
    if len(y_true) >= MIN_CALIBRATION or out_of_fold is None or known is None or distances is None:
        odds = None if known is None else known.non_car_log_odds(embeddings)
        return with_verdicts(manifest, probs, y_true, distances, far, no_car, odds)
    trained, classes = out_of_fold.embeddings, out_of_fold.classes
    probs = np.concatenate([probs, probabilities(out_of_fold.logits, manifest.temperature)])
    y_true = np.concatenate([y_true, classes])
    # A training photo is part of its own class mean, so its distance is computed with the photo left out.
    near = np.concatenate([distances[0], leave_one_out_distances(known, trained, classes)])
    cars = np.concatenate([distances[1], known.distances(trained)[1]])
    found = with_verdicts(manifest, probs, y_true, (near, cars), far, no_car)
    return replace(found, thresholds=replace(found.thresholds, nameplate=None, make=None))
