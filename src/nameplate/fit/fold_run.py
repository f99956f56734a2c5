"""A run in folds from its photos to its ensemble: `begin_run` plans it, `continue_run` trains what is missing.

It trains linear heads by itself; for networks, `train/fold_runs.py` says how one fold is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from nameplate.data.dataset import Dataset
from nameplate.errors import DataError
from nameplate.evaluate.metrics import evaluate
from nameplate.fit.combine import calibrated_on, combined
from nameplate.fit.finalize import finalize
from nameplate.fit.folds import (
    ALWAYS,
    TABLE,
    FoldPlan,
    FoldScores,
    begin_folds,
    fold_folder,
    load_plan,
    out_of_fold,
    plan_folds,
    refuse_folder,
    score_folds,
    train_folds,
    write_table,
)
from nameplate.fit.held_out import HeldOutPredictions, joined, predict_held_out
from nameplate.fit.linear_probe import train_head
from nameplate.fit.recipe import Recipe
from nameplate.fit.run import data_record, licence_record, versions
from nameplate.fit.split import Split, photos_csv, split_photos
from nameplate.model.bundle import IN_RUN, Bundle, load_bundle
from nameplate.model.embeddings import Progress, embed_photos
from nameplate.model.model import Model
from nameplate.storage import working_in
from nameplate.types import Evaluation, HeadRecipe

TrainFold = Callable[[Path, Split], None]
"""Trains one split in a folder, in which it writes `bundle/`; called again after an interruption."""


def begin_run(
    read: Callable[[], Dataset],
    folder: Path,
    recipe: Recipe | HeadRecipe,
    count: int,
    *,
    model: Model,
    overwrite: bool = False,
    progress: Progress = lambda *_: None,
) -> FoldPlan:
    """Read the photos, distribute them over folds, and write the plan into the folder of the run.

    Args:
        read: returns the labelled photos. What the data set holds out itself stays apart from all folds.
        folder: the folder of the run.
        recipe: how to train; its `holdout` is held out from all folds.
        count: number of folds.
        model: finds copies by its embeddings, and is the backbone of linear heads.
        overwrite: whether to replace a run in folds that is at `folder`.
        progress: see `Progress`.

    Raises:
        DataError: there are too few photos.
        NameplateError: `folder` is there already, or cannot be written.
        UsageError: `count` is out of range.
    """
    refuse_folder(folder, overwrite=overwrite)
    with working_in(folder):
        refuse_folder(folder, overwrite=overwrite)  # again under the lock: another run may have begun in between
        dataset = read()
        mirrored = isinstance(recipe, HeadRecipe) and recipe.mirror
        embedded = embed_photos(dataset.photos, model, progress, also_mirrored=mirrored)
        split = split_photos(dataset, embedded, recipe.holdout, recipe.seed, progress)
        plan = plan_folds(split, count, recipe, model)
        begin_folds(folder, plan)
    return plan


def continue_run(
    folder: Path,
    train: TrainFold | None = None,
    *,
    begun: Callable[[int], None] = lambda _: None,
    progress: Progress = lambda *_: None,
    judge: bool = True,
) -> FoldsResult:
    """Train the folds of a run that are not complete, then make and evaluate its ensemble.

    Args:
        folder: the folder of a run, from `begin_run`.
        train: trains one fold; None for linear heads.
        begun: called with the number of each fold before it is trained.
        progress: see `Progress`.
        judge: whether to evaluate the ensemble on the photos that are apart from all folds.

    Raises:
        NameplateError: `folder` is no run in folds, another process works on it, or what `train` raises.
    """
    with working_in(folder):
        plan = load_plan(folder)
        before = train_folds(folder, plan, train or _heads(plan, progress), begun=begun, progress=progress)
        by_fold = out_of_fold(folder, plan)
        found = joined(by_fold)
        write_table(folder / TABLE, found, plan.nameplates)
        members = [load_bundle(fold_folder(folder, fold) / IN_RUN) for fold in plan.numbers]
        bundle = finish_folds(folder, plan, by_fold, members)
        result = score_run(plan, bundle, found, progress, judge=judge)
        return replace(result, backbones=len({each.digest for each in members}), resumed=before)


def _heads(plan: FoldPlan, progress: Progress) -> TrainFold:
    """Trains one fold's linear head."""
    model = Model.load(plan.backbone, runtime=plan.runtime, threads=plan.threads, cars=plan.cars)

    def train(here: Path, split: Split) -> None:
        train_head(split, here / IN_RUN, model=model, recipe=plan.head, overwrite=True, progress=progress)

    return train


@dataclass(frozen=True, slots=True)
class FoldsResult:
    """The result of a run in folds."""

    bundle: Bundle
    """The ensemble of all folds."""
    scores: FoldScores
    """On the photos of the folds, each predicted by the fold that did not see it."""
    held_out: Evaluation | None
    """The ensemble on the photos that the data set or `--holdout` keeps apart from all folds; None without such."""
    backbones: int
    """Number of different networks that the ensemble computes for each photo: 1 where heads share their backbone."""
    resumed: int
    """Number of folds that were complete before this call."""
    always: int
    """Number of photos that train every fold, because their nameplate has no photo in another one."""

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        more = "" if self.held_out is None else f"<p>Held out from all folds: {self.held_out.top1.percent}</p>"
        return self.scores._repr_html_() + more


def finish_folds(
    folder: Path, plan: FoldPlan, by_fold: Sequence[HeldOutPredictions], members: Sequence[Bundle]
) -> Bundle:
    """Make the ensemble of the folds of a run, calibrated on their out-of-fold predictions.

    A single fold's model has seen fewer photos than the ensemble has, and is a little less sure and less often right.
    So temperature and thresholds that fit it are cautious ones for the ensemble.

    Args:
        folder: the folder of the run.
        plan: its plan.
        by_fold: from `out_of_fold`.
        members: the bundle of each fold.
    """
    scales = [1 / (len(members) * each.temperature) for each in by_fold]
    draft = combined(members, scales, folder.resolve().name)
    split = plan.split
    draft = replace(draft, photos=photos_csv(split.photos, split.groups))
    calibrated = calibrated_on(draft, joined(by_fold), members[0])
    recipe = members[0].manifest.provenance.get("recipe")
    provenance = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": recipe,
        "metrics": None,
        "folds": {
            "count": plan.count,
            "metrics_are": "out of fold",
            "backbones": len({each.digest for each in members}),
        },
        "data": data_record(split),
        "backbone": members[0].manifest.provenance.get("backbone", "?"),
        "members": [{"name": each.manifest.name, "digest": each.full_digest} for each in members],
        **licence_record(members),
        "versions": versions("numpy", "onnxruntime", "scipy"),
    }
    return finalize(folder / IN_RUN, calibrated, provenance, overwrite=True)


def score_run(
    plan: FoldPlan,
    bundle: Bundle,
    found: HeldOutPredictions,
    progress: Progress = lambda *_: None,
    *,
    judge: bool = True,
) -> FoldsResult:
    """Evaluate a complete run in folds, and, if `judge`, its ensemble on the photos that are apart from all folds."""
    held_out = None
    if judge:
        runtime = plan.runtime if plan.head else "onnxruntime"
        model = Model.load(str(bundle.folder), runtime=runtime, threads=plan.threads)
        held_out = judge_apart(plan.split, model, progress)
    always = sum(fold == ALWAYS for fold in plan.folds)
    return FoldsResult(bundle, score_folds(found, plan.nameplates), held_out, 1, 0, always)


def judge_apart(split: Split, model: Model, progress: Progress = lambda *_: None) -> Evaluation | None:
    """Evaluate a model on the held-out photos of a split; None where there are none, or none can be read any more."""
    rows = np.flatnonzero(split.holdout)
    if not len(rows):
        return None
    photos = [split.photos[i] for i in rows]
    try:
        found = predict_held_out(model, photos, split.classes[rows], split.groups[rows], progress)
    except DataError:
        return None
    return evaluate(found.probabilities, found.classes, split.nameplates, found.groups)
