"""Compares backbones or recipes on the same photos, one after another; an interrupted comparison can be resumed.

The folder of a comparison holds:

settings.json      what all rows have in common; a comparison with other settings is refused
judged/NAME.json   a row with its answer to each photo, written when the row is complete
runs/NAME/         the run of a row, where networks are trained
compare.json       all rows, the tests of pairs, and the versions; it is written anew after each row,
                   with compare.csv and index.html
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from nameplate.data.dataset import Dataset
from nameplate.errors import DataError, NameplateError, UsageError, WriteError
from nameplate.evaluate.evaluator import same_picture
from nameplate.experiments.bundles import evaluate_bundle
from nameplate.experiments.candidates import Candidate, Frozen, Tuned, file_name, refuse_mixture
from nameplate.experiments.paired import (
    PairedAnswers,
    one_speed,
    ordered,
    pairs,
    photo_keys,
    summary,
    with_ranks,
    with_verdicts,
)
from nameplate.fit.run import EVALUATION_RUNTIME, RUN, data_record, load_run, versions
from nameplate.fit.split import Split, split_photos
from nameplate.model.embeddings import Progress, embed_photos
from nameplate.model.model import Model
from nameplate.report.compare import Comparison, ComparisonRow, write_comparison
from nameplate.runtime.base import BATCH
from nameplate.storage import clear_folder, is_free, whole_file, working_in
from nameplate.types import HeadRecipe

if TYPE_CHECKING:
    from nameplate.train.finetune import Say
    from nameplate.train.loop import OnStep


SETTINGS, JUDGED, RUNS = "settings.json", "judged", "runs"
SCHEMA = 1
"""Version of the format of these files."""


@dataclass(frozen=True, slots=True)
class FinishedCandidate:
    """What judged/NAME.json holds; the field names are its keys, so they must not change."""

    schema: int
    contender: dict[str, object]
    """The candidate, as `described`."""
    row: ComparisonRow
    answers: PairedAnswers


def refuse_folder(target: Path) -> None:
    """Refuse a folder that holds something other than a comparison.

    Raises:
        NameplateError: it does.
    """
    if not is_free(target) and not (target / SETTINGS).is_file():
        raise NameplateError(f"'{target}' is there and is no comparison, so it is left alone. Choose another name.")


def begin(target: Path, settings: dict[str, object]) -> None:
    """Begin a comparison in an empty folder, or check that the one in it has the same settings.

    Raises:
        NameplateError: the settings in the folder are damaged.
        UsageError: the settings in the folder are different.
    """
    path = target / SETTINGS
    if not path.exists():
        with whole_file(path) as temporary:
            temporary.write_bytes(msgspec.json.encode(settings))
        return
    try:
        before = msgspec.json.decode(path.read_bytes(), type=dict[str, object])
    except (OSError, msgspec.DecodeError):
        raise NameplateError(f"'{path}' is damaged. Choose another --output, or pass --overwrite.") from None
    for key in {**settings, **before}:
        if settings.get(key) != before.get(key):
            raise UsageError(
                f"'{target}' is a comparison with {key} {before.get(key)}, not {settings.get(key)}. "
                "Choose another --output, or pass --overwrite."
            )


def load_done(target: Path, candidate: Candidate) -> FinishedCandidate | None:
    """The complete row of a candidate; None where there is none, or it cannot be read.

    Raises:
        UsageError: the folder has another candidate of the same name.
    """
    other = UsageError(
        f"'{target}' holds another '{candidate.name}', of other settings. Choose another --output, or pass --overwrite."
    )
    if isinstance(candidate, Tuned):
        run = run_folder(target, candidate)
        if (run / RUN).is_file() and load_run(run).recipe != candidate.recipe:
            raise other
    path = _file(target, candidate)
    if not path.exists():
        return None
    try:
        done = msgspec.json.decode(path.read_bytes(), type=FinishedCandidate)
    except (OSError, msgspec.DecodeError):  # damaged: the row is computed again
        return None
    if done.contender != described(candidate):
        raise other
    return done if done.schema == SCHEMA else None


def save_done(target: Path, candidate: Candidate, row: ComparisonRow, answers: PairedAnswers) -> FinishedCandidate:
    """Write a complete row.

    Raises:
        WriteError: the folder cannot be written to.
    """
    done = FinishedCandidate(SCHEMA, described(candidate), row, answers)
    with whole_file(_file(target, candidate)) as temporary:
        temporary.write_bytes(msgspec.json.encode(done))
    return done


def run_folder(target: Path, candidate: Tuned) -> Path:
    """The folder of the run of a network."""
    return target / RUNS / file_name(candidate.name)


def _file(target: Path, candidate: Candidate) -> Path:
    return target / JUDGED / f"{file_name(candidate.name)}.json"


def described(candidate: Candidate) -> dict[str, object]:
    """A candidate as plain data, as the JSON files hold it."""
    data = msgspec.json.decode(msgspec.json.encode(candidate), type=dict[str, object])
    if isinstance(candidate, Frozen) and not candidate.bundle:  # as comparisons that knew no bundles wrote it
        del data["bundle"], data["digest"]
    return data


Bars = Callable[[], AbstractContextManager[Progress]]
TrainingScreen = Callable[[], "AbstractContextManager[tuple[OnStep, Say]]"]


FROZEN_BY = "torch"
"""The runtime that computes the embeddings of frozen backbones."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is compared, and the settings that all candidates share."""

    protocol: str
    """`frozen`, `fine-tune` or `recipes`."""
    candidates: tuple[Candidate, ...]
    base: bool = False
    """Whether the first candidate is a base, and each of the others is a single change of it."""
    seed: int = HeadRecipe().seed
    """Seed of the split."""
    holdout: float = HeadRecipe().holdout
    """Share of each nameplate that is held out to evaluate networks, where the data has no validation part."""
    threads: int = 1
    """Number of processors."""

    @property
    def frozen(self) -> bool:
        """Whether linear classifiers are cross-validated; otherwise networks are trained."""
        return isinstance(self.candidates[0], Frozen)


def compare(
    dataset: Dataset,
    plan: Plan,
    target: Path,
    *,
    overwrite: bool = False,
    bars: Bars = lambda: nullcontext(lambda *_: None),
    training: TrainingScreen = lambda: nullcontext((lambda _: None, lambda _: None)),
    say: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Evaluate all candidates that have no row yet, and write the comparison after each of them.

    Args:
        dataset: labelled photos; their test part is not used.
        plan: what is compared, and how.
        target: the folder of the comparison.
        overwrite: whether to replace a comparison that is at `target`, instead of resuming it.
        bars: opens a progress display.
        training: opens a display for the training of a network.
        say: called with a line for each complete row.

    Raises:
        DataError: too few photos can be read.
        UsageError: the candidates cannot be compared, or `target` holds a comparison with other settings.
        NameplateError: `target` holds something else, or cannot be written.
    """
    refuse_mixture(plan.candidates)
    refuse_folder(target)
    with working_in(target):
        return _compare(dataset, plan, target, overwrite, bars, training, say)


def _compare(
    dataset: Dataset,
    plan: Plan,
    target: Path,
    overwrite: bool,
    bars: Bars,
    training: TrainingScreen,
    say: Callable[[str], None],
) -> Comparison:
    """`compare`, within the lock on the folder."""
    begun = time.monotonic()
    with bars() as report:
        split = photos_to_evaluate(dataset, plan, report)
    for sentence in split.notes:
        say(f"left out: {sentence}")
    reading = time.monotonic() - begun
    # Only after the data was read: a mistake in the arguments must not delete a comparison.
    if overwrite:
        clear_folder(target)
    settings = _settings(plan, split)
    begin(target, settings)
    done = {each.name: found for each in plan.candidates if (found := load_done(target, each))}
    for found in done.values():
        say(f"{found.row.name}: {_described_row(found.row)}, evaluated before")
    todo = [each for each in plan.candidates if each.name not in done]
    comparison = _comparison(plan, split, settings, done, reading)
    for candidate in todo:
        done[candidate.name] = _evaluate(candidate, plan, split, target, bars, training)
        say(f"{len(done)} of {len(plan.candidates)}, {candidate.name}: {_described_row(done[candidate.name].row)}")
        comparison = _comparison(plan, split, settings, done, reading)
        write_comparison(target, comparison)
    if not todo:  # the pages are written again, so that a damaged one is repaired
        write_comparison(target, comparison)
    return comparison


def photos_to_evaluate(dataset: Dataset, plan: Plan, progress: Progress) -> Split:
    """Read the photos and split them, in the same way for every candidate.

    Copies are found as in `train`. Linear classifiers are cross-validated on the training part. Networks are evaluated
    on the validation part, or where there is none, on a share of the training part. The test part is not used.

    Raises:
        DataError: no photos are left to evaluate on.
    """
    wanted = (None, "train") if plan.frozen else (None, "train", "validation")
    chosen = [photo for photo in dataset.photos if photo.split in wanted]
    if not chosen:
        raise DataError("There are no photos to train on: the data has a test part alone.")
    embedded = embed_photos(chosen, Model.load(threads=plan.threads), progress)
    if not plan.frozen:
        split = split_photos(dataset, embedded, plan.holdout, plan.seed, progress)
        if not split.holdout.any():
            raise DataError("No photos are held out to evaluate networks on. Raise --holdout, or give more photos.")
        return split
    photos = [photo.with_(split="train") for photo in embedded.photos]
    nameplates = [name for name in dataset.nameplates if any(photo.label == name for photo in photos)]
    if len(nameplates) < 2:
        raise DataError(f"Only {len(nameplates)} nameplate with readable photos; a comparison needs two or more.")
    ids = [dataset.ids.get(name, name) for name in nameplates]
    return Split.of(photos, same_picture(embedded, progress), nameplates, ids, embedded.unreadable)


def at_most(dataset: Dataset, each: int, seed: int) -> Dataset:
    """A data set with at most `each` photos of every nameplate in each of its parts, drawn at random."""
    by_class: dict[tuple[str | None, str | None], list[int]] = {}
    for i, photo in enumerate(dataset.photos):
        by_class.setdefault((photo.label, photo.split), []).append(i)
    kept: list[int] = []
    for members in by_class.values():
        kept += np.random.default_rng(seed).permutation(members)[:each].tolist()
    return replace(dataset, photos=tuple(dataset.photos[i] for i in sorted(kept)))


def _settings(plan: Plan, split: Split) -> dict[str, object]:
    """The content of settings.json: whatever makes the rows of two comparisons incomparable."""
    first = plan.candidates[0]
    common: dict[str, object] = {"schema": SCHEMA, "protocol": plan.protocol, "seed": plan.seed}
    if isinstance(first, Frozen) and plan.protocol == "frozen":
        common |= {"size": _size(plan.candidates), "folds": first.head.folds, "mirror": first.head.mirror}
    if isinstance(first, Tuned):
        common |= {"holdout": plan.holdout}
        if plan.protocol == "fine-tune":
            stage = first.recipe.stages[0]
            common |= {"size": f"{stage.height}×{stage.width}", "epochs": stage.epochs}
    return common | {"base": first.name if plan.base else None, "batch": BATCH, "data": split.digest}


def _size(candidates: Sequence[Candidate]) -> str:
    """The input size of the networks, which all share; bundles have their own."""
    sizes = [f"{each.height}×{each.width}" for each in candidates if isinstance(each, Frozen) and not each.bundle]
    return sizes[0] if sizes else "of each bundle"


def _evaluate(
    candidate: Candidate, plan: Plan, split: Split, target: Path, bars: Bars, training: TrainingScreen
) -> FinishedCandidate:
    """Evaluate a candidate and keep its row. After an error the row has the reason, and the next call tries again."""
    try:
        row, found = _row(candidate, plan, split, target, bars, training)
    except WriteError:  # a full disk would fail every further candidate as well
        raise
    except (NameplateError, RuntimeError, MemoryError) as error:  # torch: RuntimeError
        why = str(error).strip().split("\n")[0] or type(error).__name__
        backbone = candidate.backbone if isinstance(candidate, Frozen) else candidate.recipe.backbone
        if plan.protocol != "recipes":  # there the weights are part of --backbones
            why = why.replace("--set weights=", f"--backbones {backbone}=")
        return FinishedCandidate(
            SCHEMA,
            described(candidate),
            ComparisonRow(candidate.name, backbone, error=why),
            PairedAnswers((), (), (), ()),
        )
    return save_done(target, candidate, row, found)


def _row(
    candidate: Candidate, plan: Plan, split: Split, target: Path, bars: Bars, training: TrainingScreen
) -> tuple[ComparisonRow, PairedAnswers]:
    """Evaluate a candidate."""
    with bars() as report:

        def report_step(step: str, done: int, total: int) -> None:
            report(f"{candidate.name}: {step}", done, total)

        if isinstance(candidate, Frozen) and candidate.bundle:
            return evaluate_bundle(candidate, split, plan.threads, report_step)
        # Imported here because it imports torch, which --help, bundles and a complete comparison do not need.
        from nameplate.experiments.evaluate import evaluate_frozen, evaluate_tuned, start_run

        if isinstance(candidate, Frozen):
            return evaluate_frozen(candidate, split, plan.threads, report_step)
        run = run_folder(target, candidate)
        start_run(candidate, split, run, plan.threads, report_step)
    with training() as (watch, say):
        return evaluate_tuned(candidate, split, run, watch=watch, say=say)


def _comparison(
    plan: Plan, split: Split, settings: dict[str, object], finished: dict[str, FinishedCandidate], reading: float
) -> Comparison:
    names = [each.name for each in plan.candidates if each.name in finished]
    done = one_speed(ordered([finished[name].row for name in names]))
    found = {name: finished[name].answers for name in names if finished[name].row.error is None}
    reference = None
    if found:
        first = plan.candidates[0].name
        reference = first if plan.base and first in found else done[0].name
    base = plan.base and reference == plan.candidates[0].name
    # Groups by key, because an unreadable photo may be missing in the answers of one candidate.
    groups = dict(zip(photo_keys(split.photos), split.groups.tolist(), strict=True))
    tested = pairs(found, groups, reference if base else None)
    return Comparison(
        protocol=plan.protocol,
        judged=_evaluated_on(plan, split),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        settings={**settings, "threads": plan.threads, "runtime": _runtime(plan)},
        data=data_record(split),
        versions=versions("numpy", "pillow", "scipy", "simplejpeg", "timm", "torch"),
        seconds_to_read=reading,
        waiting=tuple(each.name for each in plan.candidates if each.name not in finished),
        rows=with_ranks(with_verdicts(done, tested, reference, base), tested, base) if reference else done,
        reference=reference,
        summary=summary(done, tested, reference, base) if reference else "No candidate could be evaluated.",
        pairs=tested,
        unreadable=split.unreadable,
        contenders=tuple(described(each) for each in plan.candidates),
    )


def _evaluated_on(plan: Plan, split: Split) -> str:
    """A sentence on the photos of a comparison."""
    classes = len(split.nameplates)
    if plan.frozen:
        return (
            f"Evaluated on {len(split.photos):,} photos of {classes} nameplates, each by a head that did not see it "
            f"or a copy of it (cross-validation), embedded by {_runtime(plan)}."
        )
    holdout, training = int(split.holdout.sum()), int(split.train.sum())
    held_out = f"Evaluated on {holdout:,} photos that were held out, by {EVALUATION_RUNTIME}"
    return f"{held_out}; trained on {training:,} photos of {classes} nameplates."


def _runtime(plan: Plan) -> str:
    """What computes the embeddings of the evaluated photos."""
    if not plan.frozen:
        return EVALUATION_RUNTIME
    bundles = [isinstance(each, Frozen) and bool(each.bundle) for each in plan.candidates]
    if all(bundles):
        return EVALUATION_RUNTIME
    return f"{FROZEN_BY}, those of bundles by {EVALUATION_RUNTIME}" if any(bundles) else FROZEN_BY


def _described_row(row: ComparisonRow) -> str:
    """A row in one line: top-1 with its interval, or the error."""
    if row.top1 is None:
        return str(row.error)
    return f"top-1 {row.top1.percent}"
