"""`export_int8`: a bundle → the same in int8, calibrated, held against float32 on photos that trained nothing.

In this room because, as training does, it makes a bundle from photos: some shape it, others judge it. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nameplate.datasets.sources import Dataset, digest
from nameplate.errors import BundleError, DataError, NameplateError
from nameplate.evaluation.calibration import MIN_CALIBRATION, calibrate, fit_temperatures
from nameplate.evaluation.golden import with_golden
from nameplate.evaluation.judge import Judged, judge
from nameplate.evaluation.significance import Paired, paired
from nameplate.evaluation.verdicts import with_verdicts
from nameplate.models.bundle import (
    BACKBONE,
    SCHEMA,
    Bfloat16Check,
    Bundle,
    File,
    Manifest,
    refuse_other_folder,
    save_bundle,
)
from nameplate.models.collection import Progress
from nameplate.models.embedding import Settings
from nameplate.models.head import probabilities
from nameplate.models.model import Model
from nameplate.models.runtime import PROBE_PHOTOS, agrees, probe
from nameplate.storage import sha256
from nameplate.training.calibration_photos import calibration_pictures, training_and_held
from nameplate.training.pace import Pace, fastest_of, measure_paces
from nameplate.training.quantize import by_sensitivity, quantize
from nameplate.training.record import metrics_record, versions
from nameplate.types import Photo

FLOAT32, INT8 = "float32", "int8"
BFLOAT16 = "openvino-bf16"
METHOD = "ONNX Runtime static, QDQ; filters int8, a scale for each channel; activations uint8, least to greatest"
LEFT_IN_FLOAT = (0, 3, 8)
"""Convolutions, the most sensitive first, that stay in float32 at the first attempt and at each further one, which is
made where the one before lost too much. Three attempts, so that none passes by luck."""
REFERENCE = "onnxruntime"
"""What computes the float32 answers that int8 is held against."""


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
    paces: tuple[Pace, ...]
    bytes: tuple[int, int]
    """Of the backbone, before and after."""
    unreadable: tuple[tuple[str, str], ...]

    @property
    def speedup(self) -> float:
        """int8 against float32, each by its fastest runtime without bfloat16."""
        plain = [pace for pace in self.paces if pace.runtime != BFLOAT16]
        return fastest_of(plain, INT8).over(fastest_of(plain, FLOAT32))


def export_int8(
    bundle: Bundle,
    dataset: Dataset,
    target: Path,
    *,
    settings: Settings,
    gates: Gates | None = None,
    keep: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda *_: None,
) -> Exported:
    """Quantise, judge, calibrate, time, write.

    Args:
        bundle: float32, with a head.
        dataset: labelled photos: those that trained the bundle calibrate, the others judge.
        target: folder of the bundle to write.
        settings: threads and limits; the runtimes are all that can be had.
        gates: what int8 must pass.
        keep: write it even where it does not.
        overwrite: replace a bundle that is there.
        progress: see `Progress`.

    Raises:
        DataError: too few photos to judge on, or none to calibrate on.
        BundleError: the bundle has no head, or is in int8 already.
        NameplateError: `target` is there already, or the speed cannot be measured.
    """
    gates = gates or Gates()
    refuse_other_folder(target)
    if target.exists() and not overwrite:
        raise NameplateError(f"'{target}' is there already. Choose another name, or pass --overwrite.")
    if bundle.int8:
        raise BundleError(
            f"'{bundle.manifest.name}' is in int8 already. Give the float32 bundle that it was made from."
        )
    plain = Model(bundle, replace(settings, runtime=REFERENCE))
    plain.require_head()
    train, held, unreadable = training_and_held(dataset, bundle, settings, progress)
    if len(held) < max(1, gates.photos):
        raise DataError(
            f"Only {len(held):,} photos of the data can judge: they have nameplates that the model knows and did not "
            f"train it. {gates.photos:,} are needed to tell a loss of {gates.loss} points; --min-photos asks for fewer."
        )
    pictures, calibration = calibration_pictures(train, bundle, settings)
    to_judge = replace(dataset, photos=held)
    before = judge(plain, to_judge, progress=lambda _, a, b: progress(FLOAT32, a, b))
    attempts = _attempts(bundle, pictures, before, to_judge, settings, gates, progress)
    best = min(attempts, key=lambda attempt: attempt.lost)
    draft, manifest, after = best.draft, best.manifest, best.judged
    backbone = draft.backbone
    progress("time", 0, 1)
    runtimes = list(dict.fromkeys([*after, *_working(bundle, pictures, settings.threads)]))
    paces = measure_paces({FLOAT32: bundle.backbone, INT8: backbone}, pictures, runtimes, settings.threads)
    progress("time", 1, 1)
    found = Exported(
        None,
        (),
        len(pictures),
        before.evaluation.top1.value,
        before.evaluation.log_loss,
        calibrate(before.confidence, before.right, before.groups).ece.value,
        best.held,
        best.in_float,
        paces,
        (len(bundle.backbone), len(backbone)),
        unreadable,
    )
    found = replace(found, failed=tuple(_failures(found, gates)))
    if found.failed and not keep:
        return found
    provenance = _provenance(bundle, calibration, held, after[REFERENCE], found, gates)
    manifest = replace(manifest, name=target.name, provenance=provenance)
    head = plain.require_head()
    manifest = with_golden(manifest, backbone, *head)
    saved = save_bundle(
        target,
        manifest,
        backbone,
        head,
        bundle.photos,
        bundle.known,
        index=bundle.index_bytes(),
        overwrite=overwrite,
    )
    return replace(found, bundle=saved)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One way of quantising, judged."""

    draft: Bundle
    manifest: Manifest
    judged: dict[str, Judged]
    held: tuple[Held, ...]
    in_float: tuple[str, ...]

    @property
    def lost(self) -> float:
        """Points of top-1, by the worst runtime that would be used."""
        return max(held.lost for held in self.held if held.runtime != BFLOAT16)


def _attempts(
    bundle: Bundle,
    pictures: NDArray[np.uint8],
    before: Judged,
    to_judge: Dataset,
    settings: Settings,
    gates: Gates,
    progress: Progress,
) -> list[_Attempt]:
    """Quantise, leaving more and more in float32 until no more than the gate allows is lost."""
    order: list[str] = []
    made: list[_Attempt] = []
    for count in LEFT_IN_FLOAT:
        if count and not order:
            order = by_sensitivity(bundle.backbone, pictures, lambda a, b: progress("sensitivity", a, b))
        if count and count >= len(order):
            break
        progress("quantise", 0, 1)
        draft = _draft(bundle, quantize(bundle.backbone, pictures, order[:count]))
        progress("quantise", 1, 1)
        made.append(_attempt(draft, tuple(order[:count]), pictures, before, to_judge, settings, progress))
        if made[-1].lost <= gates.loss:
            break
    return made


def _attempt(
    draft: Bundle,
    in_float: tuple[str, ...],
    pictures: NDArray[np.uint8],
    before: Judged,
    to_judge: Dataset,
    settings: Settings,
    progress: Progress,
) -> _Attempt:
    judged = {}
    for runtime in _working(draft, pictures, settings.threads):
        model = Model(draft, replace(settings, runtime=runtime))
        judged[runtime] = judge(model, to_judge, progress=lambda _, a, b, r=runtime: progress(f"int8 {r}", a, b))  # type: ignore[misc]
    manifest = _calibrated(draft, judged)
    held = tuple(_held(before, found, draft, manifest) for found in judged.values())
    return _Attempt(draft, manifest, judged, held, in_float)


def _draft(bundle: Bundle, backbone: bytes) -> Bundle:
    """The bundle with another backbone, not yet calibrated."""
    manifest = replace(
        bundle.manifest,
        schema=SCHEMA,
        files={BACKBONE: File(sha256(backbone), len(backbone))},
        temperatures={},
        bfloat16=None,
    )
    return replace(bundle, manifest=manifest, backbone=backbone, folder=None)


def _working(bundle: Bundle, pictures: NDArray[np.uint8], threads: int) -> list[str]:
    """Runtimes that run this backbone here and agree on what it says; ONNX Runtime first."""
    trials = probe(bundle, pictures[:PROBE_PHOTOS], threads)
    return list(dict.fromkeys([REFERENCE, *(trial.runtime for trial in trials if agrees(trial, bundle))]))


def _calibrated(draft: Bundle, judged: Mapping[str, Judged]) -> Manifest:
    """Temperatures and thresholds chosen again, where there are photos enough; else they stay float32's."""
    assert draft.weight is not None
    assert draft.bias is not None
    logits = {runtime: found.embeddings @ draft.weight + draft.bias for runtime, found in judged.items()}
    temperatures = fit_temperatures({runtime: (logits[runtime], found.truths) for runtime, found in judged.items()})
    truth = judged[REFERENCE]
    check = None
    if BFLOAT16 in judged:
        right = truth.evaluation.top1.value, judged[BFLOAT16].evaluation.top1.value
        check = Bfloat16Check(len(truth.photos), *right)
    temperature = temperatures.get(REFERENCE, draft.manifest.temperature)
    manifest = replace(draft.manifest, temperatures=temperatures, temperature=temperature, bfloat16=check)
    if len(truth.photos) < MIN_CALIBRATION:
        return manifest
    distances = None if draft.known is None else draft.known.distances(truth.embeddings)
    chances = probabilities(logits[REFERENCE], temperature)
    return with_verdicts(manifest, chances, truth.truths, distances, draft.manifest.thresholds.far)


def _held(before: Judged, after: Judged, draft: Bundle, manifest: Manifest) -> Held:
    """int8's answers against float32's, photo by photo."""
    if [photo.sha256 for photo in before.photos] != [photo.sha256 for photo in after.photos]:
        raise DataError("Photos changed while they were judged. Run the command again.")
    model = Model(replace(draft, manifest=manifest), Settings())
    chances = model.probabilities(after.embeddings, after.runtime)
    right = chances.argmax(1) == after.truths
    return Held(
        after.runtime,
        len(after.photos),
        float(right.mean()),
        paired(before.right, right, before.groups),
        float((before.named == chances.argmax(1)).mean()),
        float(-np.log(np.maximum(chances[np.arange(len(right)), after.truths], 1e-12)).mean()),
        calibrate(chances.max(1), right, after.groups).ece.value,
    )


def _failures(found: Exported, gates: Gates) -> list[str]:
    """The gates that were not passed, in words."""
    failed = []
    for held in found.held:
        if held.photos < gates.photos:
            failed.append(f"{held.photos:,} photos could be judged by {held.runtime}, fewer than {gates.photos:,}")
        if held.lost > gates.loss and held.runtime != BFLOAT16:  # bfloat16 is not used where its own check fails
            failed.append(f"by {held.runtime} {held.lost:.2f} points of top-1 are lost, more than {gates.loss}")
    if not found.speedup >= gates.speedup:
        failed.append(f"it is {found.speedup:.2f} times as fast as float32, less than {gates.speedup}")
    return failed


def _provenance(
    bundle: Bundle,
    calibration: Sequence[Photo],
    held: Sequence[Photo],
    judged: Judged,
    found: Exported,
    gates: Gates,
) -> dict[str, object]:
    """What the float32 bundle says of its making, and how it became int8."""
    parent = bundle.manifest
    return parent.provenance | {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "metrics": metrics_record(judged.evaluation),
        "int8": {
            "from": {"name": parent.name, "backbone": bundle.digest, "metrics": parent.provenance.get("metrics")},
            "method": METHOD,
            "calibration": {"photos": len(calibration), "sha256": digest(calibration)},
            "judged": {"photos": len(held), "sha256": digest(held)},
            "gates": asdict(gates),
            "failed": list(found.failed),
            "top1_float32": found.top1,
            "log_loss_float32": found.log_loss,
            "in_float": found.in_float,
            "held": [asdict(each) for each in found.held],
            "photos_per_second": {f"{p.backbone} {p.runtime}": round(p.photos_per_second, 1) for p in found.paces},
            "speedup": round(found.speedup, 3),
            "versions": versions("onnx", "onnxruntime"),
        },
    }
