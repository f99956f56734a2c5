"""`export_int8`: a bundle → the same in int8, calibrated, held against float32 on photos that trained nothing.

Some photos choose the ranges of the activations, others judge what was lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from nameplate.datasets.sources import Dataset, digest
from nameplate.errors import BundleError, DataError, NameplateError
from nameplate.evaluation.calibration import calibrate
from nameplate.evaluation.judge import judge
from nameplate.fit.calibration_photos import calibration_pictures, training_and_held
from nameplate.fit.finalize import BFLOAT16_RUNTIME, finalize
from nameplate.fit.int8_attempt import REFERENCE, Attempt, AttemptInput, Held, best_attempt, working
from nameplate.fit.pace import Pace, fastest_of, measure_paces
from nameplate.fit.quantize import FILTER_BITS
from nameplate.fit.record import versions
from nameplate.models.bundle import Bundle, refuse_other_folder
from nameplate.models.collection import Progress
from nameplate.models.model import Model
from nameplate.models.pipeline import Settings
from nameplate.types import Photo

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
    paces: tuple[Pace, ...]
    bytes: tuple[int, int]
    """Of the backbone, before and after."""
    unreadable: tuple[tuple[str, str], ...]

    @property
    def speedup(self) -> float:
        """int8 against float32, each by its fastest runtime without bfloat16."""
        plain = [pace for pace in self.paces if pace.runtime != BFLOAT16_RUNTIME]
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
    before = judge(plain, to_judge, progress=lambda _, a, b: progress(FLOAT32, a, b))
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
        paces=measure_paces(backbones, inputs.pictures, list(runtimes), threads),
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
            "photos_per_second": {f"{p.backbone} {p.runtime}": round(p.photos_per_second, 1) for p in found.paces},
            "speedup": round(found.speedup, 3),
            "versions": versions("onnx", "onnxruntime"),
        },
    }
