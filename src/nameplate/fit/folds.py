"""Training in folds: K models, each of which predicts the photos that it did not see.

OUT/folds.json          the plan: recipe, photos with their folds, nameplates
OUT/fold-1/             the first fold: bundle/ and, of a network, the files of its run
OUT/fold-1/out-of-fold.safetensors    logits and distances of the photos that it did not see
OUT/out-of-fold.csv     those of all folds: photo, fold, label, and the probability of each nameplate
OUT/bundle/             the ensemble of all folds

Copies and groups never straddle folds. A fold that is complete is not trained again, so that an interrupted run goes on
with the next one.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

from nameplate.data.split import folds as assign_folds
from nameplate.errors import DataError, NameplateError, UsageError
from nameplate.evaluate.metrics import evaluate
from nameplate.fit.held_out import (
    HeldOutPredictions,
    cross_calibrated,
    load_predictions,
    predict_held_out,
    save_predictions,
)
from nameplate.fit.recipe import Recipe
from nameplate.fit.record import read_record, write_record
from nameplate.fit.run import RunPhoto, rows
from nameplate.fit.split import Split
from nameplate.model.bundle import IN_RUN, MANIFEST, shipped
from nameplate.model.embeddings import Progress
from nameplate.model.model import Model
from nameplate.storage import clear_folder, is_free, printable, whole_file
from nameplate.types import Cars, Evaluation, HeadRecipe, Photo

PLAN, PREDICTIONS, TABLE = "folds.json", "out-of-fold.safetensors", "out-of-fold.csv"
SCHEMA = 1
"""Version of the format of folds.json."""
ALWAYS, APART = 0, -1
"""In place of a fold's number: the photo trains all folds, because its nameplate has no other; or the data set holds it
out, so that no fold sees it."""
MOST = 20
"""Largest number of folds."""


@dataclass(frozen=True, slots=True)
class FoldPlan:
    """What folds.json holds; the field names are its keys."""

    schema: int
    count: int
    """Number of folds."""
    recipe: Recipe | None
    """How the networks are trained; None for linear heads."""
    head: HeadRecipe | None
    """How the linear heads are trained; None for networks."""
    backbone: str
    """The bundle whose backbone embeds the photos: for linear heads, and to find copies."""
    cars: Cars
    """Which part of each photo a linear head sees."""
    runtime: str
    """What linear heads are trained on, as `--runtime` has it."""
    threads: int
    photos: tuple[RunPhoto, ...]
    folds: tuple[int, ...]
    """The fold of each photo, 1 … count, or `ALWAYS` or `APART`."""
    nameplates: tuple[str, ...]
    ids: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]
    made: str
    """When the run began, ISO 8601 in UTC."""
    lost: tuple[tuple[str, int], ...] = ()
    excluded: tuple[str, ...] = ()
    first: int | None = None
    """Train only so many folds, from the first on, because the time allows no more; None: all."""

    @property
    def numbers(self) -> range:
        """The numbers of the folds that are trained, from 1."""
        return range(1, (self.count if self.first is None else self.first) + 1)

    @property
    def split(self) -> Split:
        """All photos: those of all folds are training photos."""
        photos = tuple(
            Photo(r.path, r.label, r.split, r.source, str(r.group), r.sha256, r.width, r.height)  # type: ignore[arg-type]
            for r in self.photos
        )
        groups = np.array([row.group for row in self.photos], np.int64)
        found = Split.of(photos, groups, self.nameplates, self.ids, self.unreadable, self.excluded)
        return replace(found, lost=self.lost)

    def split_of(self, fold: int) -> Split:
        """The split of one fold, 1 … count: its photos are held out, those of the others train."""
        whole, numbers = self.split, np.array(self.folds, np.int64)
        kept = np.flatnonzero(numbers != APART)
        photos = [
            whole.photos[i].with_(split="validation" if numbers[i] == fold else "train", group=None) for i in kept
        ]
        return Split.of(photos, whole.groups[kept], self.nameplates, self.ids, self.unreadable, self.excluded)


def plan_folds(split: Split, count: int, recipe: Recipe | HeadRecipe, model: Model) -> FoldPlan:
    """Distribute the training photos of a split over folds, stratified by nameplate.

    Args:
        split: what it holds out stays apart from all folds.
        count: number of folds, 2 … `MOST`.
        recipe: how to train; its seed is that of the folds.
        model: with the settings of the run; it embeds the photos of linear heads.

    Raises:
        UsageError: `count` is out of range.
        DataError: there are too few photos to fill two folds.
    """
    if not 2 <= count <= MOST:
        raise UsageError(f"--folds {count}: give a number from 2 to {MOST}.")
    numbers = np.full(len(split.photos), APART, np.int64)
    numbers[split.train] = _folds(split, count, recipe.seed)
    if len(np.unique(numbers[numbers > 0])) < count:
        raise DataError(
            f"{int(split.train.sum()):,} training photos do not fill {count} folds: every fold needs photos of a "
            "nameplate that has others in another fold. Give fewer --folds, or more photos."
        )
    return FoldPlan(
        schema=SCHEMA,
        count=count,
        recipe=recipe if isinstance(recipe, Recipe) else None,
        head=recipe if isinstance(recipe, HeadRecipe) else None,
        backbone=_name_of(model),
        cars=model.settings.cars,
        runtime=model.settings.runtime,
        threads=model.settings.threads,
        photos=rows(split),
        folds=tuple(numbers.tolist()),
        nameplates=split.nameplates,
        ids=split.ids,
        unreadable=split.unreadable,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        lost=split.lost,
        excluded=split.excluded,
    )


def _name_of(model: Model) -> str:
    """The name of a bundle that ships, which is the same on every machine; the absolute path of any other."""
    folder = model.bundle.folder
    assert folder is not None
    return next((name for name, path in shipped().items() if path == folder), str(folder.absolute()))


def _folds(split: Split, count: int, seed: int) -> NDArray[np.int64]:
    """The fold of each training photo, 1 … count; `ALWAYS` where every fold must see it.

    All models must know all nameplates, or their answers could not be averaged. So a nameplate whose photos are all in
    one fold, such as one of a single photo, trains every fold.
    """
    train = np.flatnonzero(split.train)
    photos = [split.photos[i] for i in train]
    groups, classes = split.groups[train], split.classes[train]
    labels, digests = [str(photo.label) for photo in photos], [str(photo.sha256) for photo in photos]
    found = assign_folds(labels, digests, groups, count, seed) + 1
    for one in np.unique(classes):
        if len(np.unique(found[(classes == one) & (found > 0)])) < 2:
            found[np.isin(groups, groups[classes == one])] = ALWAYS
    return found


def begin_folds(folder: Path, plan: FoldPlan) -> None:
    """Write the plan of a new run into its folder, which is emptied first; the caller holds its lock.

    Raises:
        WriteError: it cannot be written.
    """
    clear_folder(folder)
    save_plan(folder, plan)


def save_plan(folder: Path, plan: FoldPlan) -> None:
    """Write folds.json atomically.

    Raises:
        WriteError: it cannot be written.
    """
    write_record(folder / PLAN, plan)


def is_fold_run(folder: Path) -> bool:
    """Whether a folder is that of a run in folds."""
    return (folder / PLAN).is_file()


def refuse_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that a new run in folds must not write to.

    Raises:
        NameplateError: it holds something else, or such a run and `overwrite` is false.
    """
    if is_free(folder):
        return
    if not is_fold_run(folder):
        raise NameplateError(f"'{folder}' exists and is no run in folds, so it is not replaced. Choose another name.")
    if not overwrite:
        raise NameplateError(
            f"'{folder}' is there already. Go on with it (nameplate train --resume '{folder}'), choose another name, "
            "or pass --overwrite."
        )


def load_plan(folder: Path) -> FoldPlan:
    """Read folds.json.

    Raises:
        NameplateError: it is missing, damaged, or of another version.
    """
    return read_record(folder / PLAN, FoldPlan, SCHEMA)


def fold_folder(folder: Path, fold: int) -> Path:
    """The folder of a fold, 1 … count."""
    return folder / f"fold-{fold}"


def train_folds(
    folder: Path,
    plan: FoldPlan,
    train: Callable[[Path, Split], None],
    *,
    begun: Callable[[int], None] = lambda _: None,
    progress: Progress = lambda *_: None,
) -> int:
    """Train the folds that are not complete; the caller holds the folder's lock.

    Args:
        folder: the folder of the run.
        plan: its plan.
        train: trains one split, in a folder in which it writes `bundle/`; called again after an interruption.
        begun: called with the number of each fold before it is trained.
        progress: see `Progress`.

    Returns:
        How many folds were complete before.

    Raises:
        NameplateError: what `train` raises; photos of a fold can no longer be read, or a file cannot be written.
    """
    before = 0
    whole = plan.split
    for fold in plan.numbers:
        here = fold_folder(folder, fold)
        if (here / PREDICTIONS).is_file():
            before += 1
            continue
        if not (here / IN_RUN / MANIFEST).is_file():
            begun(fold)
            train(here, plan.split_of(fold))
        rows_of_fold = np.flatnonzero(np.array(plan.folds, np.int64) == fold)
        # Networks are always evaluated by one runtime, heads by the one that they were trained on.
        runtime = plan.runtime if plan.head is not None else "onnxruntime"
        model = Model.load(here / IN_RUN, runtime=runtime, threads=plan.threads)
        photos = [whole.photos[i] for i in rows_of_fold]
        found = predict_held_out(model, photos, whole.classes[rows_of_fold], whole.groups[rows_of_fold], progress)
        place = {photo.path: int(row) for photo, row in zip(photos, rows_of_fold, strict=True)}
        save_predictions(here / PREDICTIONS, found, np.array([place[photo.path] for photo in found.photos], np.int64))
    return before


def out_of_fold(folder: Path, plan: FoldPlan) -> list[HeldOutPredictions]:
    """The out-of-fold predictions of a complete run, by fold, each calibrated on the other folds.

    Raises:
        NameplateError: a fold is not complete, or damaged.
    """
    whole = plan.split
    found = []
    for fold in plan.numbers:
        file = fold_folder(folder, fold) / PREDICTIONS
        if not file.is_file():
            raise NameplateError(f"Fold {fold} of '{folder}' is not complete: nameplate train --resume '{folder}'.")
        found.append(load_predictions(file, whole.photos, whole.classes, whole.groups))
    return cross_calibrated(found)


def write_table(target: Path, found: HeldOutPredictions, nameplates: tuple[str, ...]) -> None:
    """Write out-of-fold predictions as a table: photo, fold, label, answer, and the probability of each nameplate.

    Raises:
        WriteError: the file cannot be written.
    """
    probs = found.probabilities
    folds = np.zeros(len(probs), np.int64) if found.folds is None else found.folds
    with whole_file(target) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["photo", "sha256", "fold", "label", "nameplate", *nameplates])
        for photo, fold, row in zip(found.photos, folds.tolist(), probs, strict=True):
            shown = (f"{value:.7g}" for value in row.tolist())
            answer = nameplates[int(row.argmax())]
            table.writerow([printable(photo.path), photo.sha256, fold, photo.label, answer, *shown])


@dataclass(frozen=True, slots=True)
class FoldScores:
    """The accuracy of each fold on the photos that it did not see, and that of all folds together."""

    folds: tuple[Evaluation, ...]
    """Of each fold, in order."""
    whole: Evaluation
    """Of all photos, each predicted by the fold that did not see it. The interval counts copies as one photo."""

    @property
    def mean(self) -> float:
        """Mean of the folds' top-1, 0–1."""
        return fmean(each.top1.value for each in self.folds)

    @property
    def spread(self) -> float:
        """Standard deviation of the folds' top-1. It says how much the folds differ, and is no error of the mean:
        the folds share most of their training photos. 0 for a single fold.
        """
        return stdev(each.top1.value for each in self.folds) if len(self.folds) > 1 else 0.0

    @property
    def sentence(self) -> str:
        """Mean, spread and all photos in words."""
        return (
            f"{self.whole.top1.percent} of {self.whole.photos:,} photos, each by the fold that did not see it; "
            f"folds {100 * self.mean:.1f} % ± {100 * self.spread:.1f}, log-loss {self.whole.log_loss:.3f}"
        )

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        lines = [
            ("fold", "photos", "top-1", "log-loss"),
            *(
                (str(number), f"{each.photos:,}", each.top1.percent, f"{each.log_loss:.3f}")
                for number, each in enumerate(self.folds, 1)
            ),
            ("all", f"{self.whole.photos:,}", self.whole.top1.percent, f"{self.whole.log_loss:.3f}"),
        ]
        head, *rest = lines
        titles = "".join(f"<th>{cell}</th>" for cell in head)
        cells = ("".join(f"<td>{cell}</td>" for cell in line) for line in rest)
        return f"<table><tr>{titles}</tr>{''.join(f'<tr>{line}</tr>' for line in cells)}</table>"


def score_folds(found: HeldOutPredictions, nameplates: tuple[str, ...]) -> FoldScores:
    """Evaluate out-of-fold predictions, by fold and together."""
    assert found.folds is not None
    probs = found.probabilities
    parts = []
    for fold in np.unique(found.folds):
        here = found.folds == fold
        parts.append(evaluate(probs[here], found.classes[here], nameplates, found.groups[here]))
    return FoldScores(tuple(parts), evaluate(probs, found.classes, nameplates, found.groups))
