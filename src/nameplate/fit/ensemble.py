"""Ensembles: several bundles become one ordinary bundle, whose logits are the weighted mean of theirs.

Averaged logits of linear heads are again a linear head. So bundles with the same backbone become one bundle at no cost,
and those with several backbones become one bundle whose backbone computes them side by side (`runtime/onnx_join.py`),
with their heads stacked. Whatever runs a bundle runs an ensemble. The mean of the probabilities would need a format of
its own; docs/ensembles.md compares both.

Weights are fitted only on photos that trained no member, and kept only if that is better than equal weights by more
than noise. Temperature and thresholds come from the same photos.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from statistics import median

import numpy as np

from nameplate.errors import UsageError
from nameplate.evaluate.metrics import evaluate
from nameplate.evaluate.significance import Paired, paired
from nameplate.fit.combine import calibrated_on, combined
from nameplate.fit.finalize import finalize
from nameplate.fit.folds import is_fold_run, load_plan, out_of_fold
from nameplate.fit.held_out import (
    HeldOutPredictions,
    aligned,
    held_out_photos,
    joined,
    merged_photos,
    predict_held_out,
)
from nameplate.fit.run import data_record, licence_record, versions
from nameplate.fit.split import Split, photos_csv
from nameplate.fit.weights import Weighing, averaged, choose_weights, cross_weighted, equal_weights
from nameplate.model.bundle import Bundle, refuse_other_folder
from nameplate.model.classifier import log_losses
from nameplate.model.embeddings import Progress
from nameplate.model.model import Model
from nameplate.model.reference import reference_inputs
from nameplate.model.runtime_choice import common_runtime
from nameplate.runtime.base import BATCH
from nameplate.runtime.select import make_runtime
from nameplate.storage import counted, writing
from nameplate.types import Evaluation, Photo

SPEED_INPUTS, SPEED_ROUNDS = 32, 5
"""Number of model inputs in each round, and rounds, that measure the speed of a backbone."""


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One bundle of an ensemble."""

    name: str
    """What the user called it."""
    model: Model
    predictions: HeldOutPredictions | None
    """Of photos that did not train it, calibrated; None where there are none."""


@dataclass(frozen=True, slots=True)
class Ensemble:
    """The result of `make_ensemble`."""

    bundle: Bundle
    members: tuple[str, ...]
    weighing: Weighing
    backbones: int
    """Number of different networks that it computes for each photo."""
    evaluation: Evaluation | None
    """On photos that trained no member; None where there are none. Fitted weights are judged on photos that did not fit
    them."""
    best: str | None
    """The member with the lowest log-loss on the same photos."""
    accuracy_gain: Paired | None
    """Top-1 of the ensemble compared with `best`."""
    loss_gain: Paired | None
    """The log-loss that the ensemble saves over `best`."""
    photos_per_second: tuple[float, float] | None
    """Speed of the backbone of the first member, and of the ensemble, with ONNX Runtime; None where the ensemble has
    one backbone, and so the same speed, or was not timed."""
    seconds: float

    @property
    def cost(self) -> str:
        """What it costs in words."""
        if self.photos_per_second is None and self.backbones > 1:
            return f"{self.backbones} networks for each photo"
        if self.photos_per_second is None:
            return "nothing: one network for each photo, as each member has"
        one, all_ = self.photos_per_second
        return (
            f"{self.backbones} networks for each photo: {all_:,.0f} photos/s instead of {one:,.0f} "
            "(the networks alone, by ONNX Runtime)"
        )

    @property
    def verdict(self) -> str | None:
        """Whether it is better than its best member, in words; None where that cannot be told."""
        if self.accuracy_gain is None or self.loss_gain is None:
            return None
        points, loss = self.accuracy_gain.difference, self.loss_gain.difference
        beyond = "more than noise" if self.accuracy_gain.significant else "not more than noise"
        of_loss = "more than noise" if self.loss_gain.significant else "not more than noise"
        return (
            f"{100 * points.value:+.1f} points ({100 * points.low:+.1f} to {100 * points.high:+.1f}), {beyond}; "
            f"log-loss {-loss.value:+.4f} ({-loss.high:+.4f} to {-loss.low:+.4f}), {of_loss}"
        )

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        lines = [("member", "weight"), *zip(self.members, (f"{w:.2f}" for w in self.weighing.weights), strict=True)]
        if self.evaluation is not None:
            lines.append(("top-1 of the ensemble", self.evaluation.top1.percent))
        if self.verdict is not None:
            lines.append((f"against {self.best}", self.verdict))
        lines += [("weights", self.weighing.reason), ("costs", self.cost)]
        return (
            f"<table>{''.join(f'<tr><td>{escape(one)}</td><td>{escape(two)}</td></tr>' for one, two in lines)}</table>"
        )


def make_ensemble(
    names: Sequence[str],
    target: Path,
    *,
    weights: Sequence[float] | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    timed: bool = True,
    progress: Progress = lambda *_: None,
) -> Ensemble:
    """Make one bundle of several.

    Args:
        names: bundles, runs, or runs in folds; two or more.
        target: the bundle's folder.
        weights: the weight of each; None: fitted where that is more than noise, otherwise equal.
        threads: number of processors to use; None: all that this process may use.
        overwrite: whether to replace a bundle that is at `target`.
        timed: whether to measure its speed, which takes some seconds for each network.
        progress: see `Progress`.

    Raises:
        UsageError: there are fewer than two, one occurs twice, or their nameplates or their model inputs differ.
        NameplateError: a bundle cannot be loaded, or `target` cannot be written.
    """
    start = time.monotonic()
    refuse_other_folder(target)
    if target.exists() and not overwrite:
        raise UsageError(f"'{target}' is there already. Choose another name, or pass --overwrite.")
    if len(names) < 2 or len(set(names)) < len(names):
        raise UsageError("An ensemble needs two or more different bundles.")
    if weights is not None and (len(weights) != len(names) or min(weights) < 0 or sum(weights) <= 0):
        raise UsageError(f"{len(names)} bundles need {len(names)} weights, none of them negative, such as 0.7,0.3.")
    models = [Model.load(name, threads=threads) for name in names]
    check_members(names, [model.bundle for model in models])
    if any(target.resolve() == model.bundle.folder.resolve() for model in models if model.bundle.folder):
        raise UsageError(f"'{target}' is one of the members, which would be replaced. Choose another name.")
    with writing(target):
        members = [_member(name, model) for name, model in zip(names, models, strict=True)]
        members = _with_predictions(members, progress)
        return _made(members, target, weights, overwrite, timed, start)


def check_members(names: Sequence[str], bundles: Sequence[Bundle]) -> None:
    """Refuse members whose answers cannot be averaged.

    Raises:
        UsageError: nameplates or model inputs differ.
        BundleError: a bundle has no head.
    """
    first = bundles[0].manifest
    for name, bundle in zip(names, bundles, strict=True):
        manifest = bundle.manifest
        if not manifest.nameplates:
            raise UsageError(f"'{name}' has no head, so it names nothing that could be averaged.")
        if set(manifest.nameplates) != set(first.nameplates):
            differ = sorted(set(manifest.nameplates) ^ set(first.nameplates))
            raise UsageError(
                f"'{name}' and '{names[0]}' know different nameplates ({counted(len(differ), 'difference')}, such as "
                f"'{differ[0]}'), so their answers cannot be averaged. Train all members on the same nameplates."
            )
        one, other = first.preprocess, manifest.preprocess
        if one != other:
            what = [
                f"{field} {getattr(one, field)} and {getattr(other, field)}"
                for field in ("height", "width", "fit", "interpolation", "locate")
                if getattr(one, field) != getattr(other, field)
            ]
            raise UsageError(
                f"'{names[0]}' and '{name}' prepare photos differently ({'; '.join(what)}), and a bundle prepares "
                "each photo once. Train the members with the same photo size and preprocessing, such as "
                f"--set stages.height={one.height} --set stages.width={one.width}."
            )


def _member(name: str, model: Model) -> Member:
    folder = Path(name)
    if not is_fold_run(folder):
        return Member(name, model, None)
    plan = load_plan(folder)
    return Member(name, model, joined(out_of_fold(folder, plan)))


def _with_predictions(members: Sequence[Member], progress: Progress) -> list[Member]:
    """The members with predictions of the same photos, which trained none of them; without any where there are none."""
    nameplates = members[0].model.nameplates
    common = _common(members)
    if not common:  # a part that the data holds out from all folds and from all other members
        members = [replace(member, predictions=None) for member in members]
        common = _common(members)
    if not common:
        return list(members)
    models = [member.model for member in members]
    runtime = "auto"
    if any(member.predictions is None for member in members):  # the choice of a runtime takes seconds
        runtime = common_runtime([model.bundle for model in models], "auto", models[0].settings.threads)
    found = []
    for member in members:
        predicted = member.predictions
        if predicted is None:
            predicted = _predicted(member.model.with_settings(runtime=runtime), common, progress)
        found.append(_in_order(predicted, member.model.nameplates, nameplates))
    return [
        replace(member, predictions=each if len(each.photos) else None)
        for member, each in zip(members, aligned(found), strict=True)
    ]


def _common(members: Sequence[Member]) -> set[str]:
    """SHA-256 of the photos that trained no member."""
    return set.intersection(*({str(photo.sha256) for photo in _held_out(member)} for member in members))


def _held_out(member: Member) -> Sequence[Photo]:
    return held_out_photos(member.model.bundle) if member.predictions is None else member.predictions.photos


def _predicted(model: Model, digests: set[str], progress: Progress) -> HeldOutPredictions:
    """The calibrated predictions of held-out photos of a bundle that have one of these digests."""
    photos = [photo for photo in held_out_photos(model.bundle) if photo.sha256 in digests]
    column = {name: number for number, name in enumerate(model.nameplates)}
    classes = np.array([column[str(photo.label)] for photo in photos], np.int64)
    groups = np.unique([str(photo.group) for photo in photos], return_inverse=True)[1].astype(np.int64)
    return predict_held_out(model, photos, classes, groups, progress).calibrated


def _in_order(found: HeldOutPredictions, own: Sequence[str], wanted: Sequence[str]) -> HeldOutPredictions:
    """Predictions with their columns and classes in the order of other nameplates."""
    if tuple(own) == tuple(wanted):
        return found
    columns = np.array([own.index(name) for name in wanted], np.int64)
    return replace(found, logits=found.logits[:, columns], classes=np.argsort(columns)[found.classes])


def _made(
    members: Sequence[Member],
    target: Path,
    weights: Sequence[float] | None,
    overwrite: bool,
    timed: bool,
    start: float,
) -> Ensemble:
    """Weigh the members, write the bundle, and evaluate it on the photos that trained none."""
    predictions = [member.predictions for member in members if member.predictions is not None]
    weighing = choose_weights(predictions) if len(predictions) == len(members) else equal_weights(len(members), None)
    if weights is not None:
        given = tuple(weight / sum(weights) for weight in weights)
        weighing = Weighing(given, False, None, "as they were given")
    kept = [number for number, weight in enumerate(weighing.weights) if weight > 0]
    bundles = [members[i].model.bundle for i in kept]
    scales = [weighing.weights[i] / bundle.manifest.temperature for i, bundle in zip(kept, bundles, strict=True)]
    draft = combined(bundles, scales, target.name)
    mean = averaged(predictions, weighing.weights) if len(predictions) == len(members) else None
    photos, groups = merged_photos(bundles)
    manifest = draft.manifest
    if len(photos):
        split = Split.of(photos, groups, manifest.nameplates, manifest.ids, ())
        draft = replace(draft, photos=photos_csv(split.photos, split.groups))
    calibrated = calibrated_on(draft, mean, bundles[0])
    if weighing.fitted and mean is not None:  # not with weights that the same photos fitted
        crossed = cross_weighted(predictions)
        fair = evaluate(crossed, mean.classes, manifest.nameplates, mean.groups)
        calibrated = replace(calibrated, evaluation=fair)
    record = data_record(split) if len(photos) else {}
    provenance = _provenance(bundles, [weighing.weights[i] for i in kept], record, fitted=weighing.fitted)
    bundle = finalize(target, calibrated, provenance, overwrite=overwrite)
    best, of_rights, of_losses = _against_best(members, predictions, mean, weighing)
    backbones = len({each.digest for each in bundles})
    speeds = None
    if backbones > 1 and timed:
        threads = members[0].model.settings.threads
        speeds = _speed(bundles[0], threads), _speed(bundle, threads)
    names = tuple(member.name for member in members)
    evaluation = calibrated.evaluation
    seconds = time.monotonic() - start
    return Ensemble(bundle, names, weighing, backbones, evaluation, best, of_rights, of_losses, speeds, seconds)


def _provenance(
    bundles: Sequence[Bundle], weights: Sequence[float], data: dict[str, object], *, fitted: bool
) -> dict[str, object]:
    """What bundle.json records of the ensemble; its keys are read by other versions, and must not change."""
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": {"name": "ensemble", "fitted_weights": fitted},
        "metrics": None,
        "data": data,
        "backbone": " + ".join(sorted({str(each.manifest.provenance.get("backbone", "?")) for each in bundles})),
        "members": [
            {"name": each.manifest.name, "weight": weight, "digest": each.full_digest}
            for each, weight in zip(bundles, weights, strict=True)
        ],
        **licence_record(bundles),
        "versions": versions("numpy", "onnxruntime", "scipy"),
    }


def _against_best(
    members: Sequence[Member],
    predictions: Sequence[HeldOutPredictions],
    mean: HeldOutPredictions | None,
    weighing: Weighing,
) -> tuple[str | None, Paired | None, Paired | None]:
    """The best member, and the ensemble's gain over it in top-1 and in log-loss."""
    if mean is None:
        return None, None, None
    probs = cross_weighted(predictions) if weighing.fitted else mean.probabilities
    losses = [float(log_losses(each.probabilities, each.classes).mean()) for each in predictions]
    number = int(np.argmin(losses))
    other = predictions[number].probabilities
    y_true, groups = mean.classes, mean.groups
    rights = paired(other.argmax(1) == y_true, probs.argmax(1) == y_true, groups)
    saved = paired(-log_losses(other, y_true), -log_losses(probs, y_true), groups)
    return members[number].name, rights, saved


# Speed.


def _speed(bundle: Bundle, threads: int) -> float:
    """Model inputs a second of a backbone in ONNX Runtime, the median of a few rounds after one that warms up."""
    inputs = reference_inputs(bundle.manifest.preprocess)
    inputs = np.resize(inputs, (SPEED_INPUTS, *inputs.shape[1:]))
    runtime = make_runtime("onnxruntime", bundle.backbone, threads)

    def once() -> float:
        begun = time.perf_counter()
        for _ in runtime.embed(inputs[i : i + BATCH] for i in range(0, len(inputs), BATCH)):
            pass
        return len(inputs) / (time.perf_counter() - begun)

    return median([once() for _ in range(1 + SPEED_ROUNDS)][1:])
