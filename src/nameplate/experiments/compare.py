"""`compare`: several ways of doing judged on the same photos, one after another, into a folder that resumes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from nameplate.data.dataset import Dataset
from nameplate.errors import DataError, NameplateError, UsageError, WriteError
from nameplate.evaluate.evaluator import same_picture
from nameplate.experiments.candidates import Candidate, Frozen, Tuned, file_name, refuse_mixture
from nameplate.experiments.paired import PairedAnswers, one_speed, ordered, pairs, photo_keys, summary, with_verdicts
from nameplate.fit.run import JUDGED_BY, RUN, data_record, load_run, versions
from nameplate.fit.split import Split, split_parts
from nameplate.model.embeddings import Progress, embed_photos
from nameplate.model.model import Model
from nameplate.report.compare import Comparison, ComparisonRow, write_comparison
from nameplate.runtime.base import BATCH
from nameplate.storage import clear_folder, is_free, whole_file, working_in
from nameplate.types import HeadRecipe

# JOINED A comparison's folder: what it holds, and what may be gone on with.
#
# JOINED settings.json      what all rows have in common; another comparison is not mixed in
# JOINED judged/NAME.json   a row and its answers photo by photo, written when it is done
# JOINED runs/NAME/         the run behind a row, where networks are trained
# JOINED compare.json       all rows, the pairs and the versions; with compare.csv and index.html written anew after each row


SETTINGS, JUDGED, RUNS = "settings.json", "judged", "runs"
SCHEMA = 1
"""Version of the files' form."""


@dataclass(frozen=True, slots=True)
class FinishedCandidate:
    """judged/NAME.json."""

    schema: int
    candidate: dict[str, object]
    row: ComparisonRow
    answers: PairedAnswers


def refuse_folder(target: Path) -> None:
    """Keep a comparison from a folder that holds something else.

    Raises:
        NameplateError: it does.
    """
    if not is_free(target) and not (target / SETTINGS).is_file():
        raise NameplateError(f"'{target}' is there and is no comparison, so it is left alone. Choose another name.")


def begin(target: Path, settings: dict[str, object]) -> None:
    """Go on only with the same comparison; begin one where there is none.

    Raises:
        UsageError: another one is there.
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
    """What was judged before, None where nothing was, or it cannot be read.

    Raises:
        UsageError: it is something else under the same name.
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
    except (OSError, msgspec.DecodeError):
        return None
    if done.candidate != described(candidate):
        raise other
    return done if done.schema == SCHEMA else None


def save_done(target: Path, candidate: Candidate, row: ComparisonRow, answers: PairedAnswers) -> FinishedCandidate:
    """Keep what was judged.

    Raises:
        WriteError: the folder cannot be written to.
    """
    done = FinishedCandidate(SCHEMA, described(candidate), row, answers)
    with whole_file(_file(target, candidate)) as temporary:
        temporary.write_bytes(msgspec.json.encode(done))
    return done


def run_folder(target: Path, candidate: Tuned) -> Path:
    """Where a network's run lies."""
    return target / RUNS / file_name(candidate.name)


def _file(target: Path, candidate: Candidate) -> Path:
    return target / JUDGED / f"{file_name(candidate.name)}.json"


def described(candidate: Candidate) -> dict[str, object]:
    """A contender as JSON holds it."""
    return msgspec.json.decode(msgspec.json.encode(candidate), type=dict[str, object])


if TYPE_CHECKING:
    from nameplate.train.finetune import Say, Watch

Bars = Callable[[], AbstractContextManager[Progress]]
Training = Callable[[], "AbstractContextManager[tuple[Watch, Say]]"]


FROZEN_BY = "torch"
"""What embeds for heads on frozen networks."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What all rows have in common."""

    protocol: str
    """frozen, fine-tune or recipes."""
    candidates: tuple[Candidate, ...]
    base: bool = False
    """Whether the first is the base that all others are a single change of."""
    seed: int = HeadRecipe().seed
    """Of the split."""
    holdout: float = HeadRecipe().holdout
    """Share of every nameplate that judges networks, where the data has no validation part."""
    threads: int = 1

    @property
    def frozen(self) -> bool:
        """Whether heads are cross-validated, rather than networks trained."""
        return isinstance(self.candidates[0], Frozen)


def compare(
    dataset: Dataset,
    plan: Plan,
    target: Path,
    *,
    overwrite: bool = False,
    bars: Bars,
    training: Training,
    say: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Judge every contender that was not judged before, and write the comparison after each.

    Args:
        dataset: labelled photos; their test part is not touched.
        plan: what is compared, how.
        target: the comparison's folder.
        overwrite: replace a comparison that is there, rather than go on with it.
        bars: opens something to report progress to.
        training: opens something to report a network's training to.
        say: called with a line for each row that is done.

    Raises:
        DataError: too little that can be read to compare on.
        UsageError: contenders that cannot be compared, or a comparison of other settings is there.
        NameplateError: `target` is something else, or cannot be written.
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
    training: Training,
    say: Callable[[str], None],
) -> Comparison:
    begun = time.monotonic()
    with bars() as report:
        parts = photos_to_judge(dataset, plan, report)
    for sentence in parts.told:
        say(f"left out: {sentence}")
    reading = time.monotonic() - begun
    if overwrite:
        clear_folder(target)
    settings = _settings(plan, parts)
    begin(target, settings)
    done = {each.name: found for each in plan.candidates if (found := load_done(target, each))}
    for found in done.values():
        say(f"{found.row.name}: {_told(found.row)}, judged before")
    todo = [each for each in plan.candidates if each.name not in done]
    comparison = _comparison(plan, parts, settings, done, reading)
    for candidate in todo:
        done[candidate.name] = _judge(candidate, plan, parts, target, bars, training)
        say(f"{len(done)} of {len(plan.candidates)}, {candidate.name}: {_told(done[candidate.name].row)}")
        comparison = _comparison(plan, parts, settings, done, reading)
        write_comparison(target, comparison)
    if not todo:
        write_comparison(target, comparison)
    return comparison


def photos_to_judge(dataset: Dataset, plan: Plan, progress: Progress) -> Split:
    """Read all photos and say which train and which judge, the same for every contender.

    Copies are found as `train` finds them. Heads: all photos of the training part judge, out of fold. Networks: the
    validation part judges, or where there is none, a share of the training part. The test part is left alone.

    Raises:
        DataError: nothing is left to judge on.
    """
    wanted = (None, "train") if plan.frozen else (None, "train", "validation")
    chosen = [photo for photo in dataset.photos if photo.split in wanted]
    if not chosen:
        raise DataError("There are no photos to train on: the data has a test part alone.")
    embedded = embed_photos(chosen, Model.load(threads=plan.threads), progress)
    if not plan.frozen:
        parts = split_parts(dataset, embedded, plan.holdout, plan.seed, progress)
        if not parts.held.any():
            raise DataError("No photos are held out to judge networks on. Raise --holdout, or give more photos.")
        return parts
    photos = [photo.with_(split="train") for photo in embedded.photos]
    nameplates = [name for name in dataset.nameplates if any(photo.label == name for photo in photos)]
    if len(nameplates) < 2:
        raise DataError(f"Only {len(nameplates)} nameplate with readable photos; a comparison needs two or more.")
    ids = [dataset.ids.get(name, name) for name in nameplates]
    return Split.of(photos, same_picture(embedded, progress), nameplates, ids, embedded.unreadable)


def at_most(dataset: Dataset, each: int, seed: int) -> Dataset:
    """A data set with so many photos of every nameplate, drawn at random, in each of its parts."""
    places: dict[tuple[str | None, str | None], list[int]] = {}
    for place, photo in enumerate(dataset.photos):
        places.setdefault((photo.label, photo.split), []).append(place)
    kept: list[int] = []
    for members in places.values():
        kept += np.random.default_rng(seed).permutation(members)[:each].tolist()
    return replace(dataset, photos=tuple(dataset.photos[place] for place in sorted(kept)))


def _settings(plan: Plan, parts: Split) -> dict[str, object]:
    first = plan.candidates[0]
    common: dict[str, object] = {"schema": SCHEMA, "protocol": plan.protocol, "seed": plan.seed}
    if isinstance(first, Frozen) and plan.protocol == "frozen":
        common |= {"size": f"{first.height}×{first.width}", "folds": first.head.folds, "mirror": first.head.mirror}
    if isinstance(first, Tuned):
        common |= {"holdout": plan.holdout}
        if plan.protocol == "fine-tune":
            stage = first.recipe.stages[0]
            common |= {"size": f"{stage.height}×{stage.width}", "epochs": stage.epochs}
    return common | {"base": first.name if plan.base else None, "batch": BATCH, "data": parts.digest}


def _judge(
    candidate: Candidate, plan: Plan, parts: Split, target: Path, bars: Bars, training: Training
) -> FinishedCandidate:
    """Judge one and keep it; one that fails gets a row that says why, and is tried again next time."""
    try:
        row, found = _row(candidate, plan, parts, target, bars, training)
    except WriteError:
        raise
    except (NameplateError, RuntimeError, MemoryError) as error:  # RuntimeError: torch's, of memory for one
        why = str(error).strip().split("\n")[0] or type(error).__name__
        backbone = candidate.backbone if isinstance(candidate, Frozen) else candidate.recipe.backbone
        if plan.protocol != "recipes":  # where weights are named otherwise than in a recipe
            why = why.replace("--set weights=", f"--backbones {backbone}=")
        return FinishedCandidate(
            SCHEMA,
            described(candidate),
            ComparisonRow(candidate.name, backbone, error=why),
            PairedAnswers((), (), (), ()),
        )
    return save_done(target, candidate, row, found)


def _row(
    candidate: Candidate, plan: Plan, parts: Split, target: Path, bars: Bars, training: Training
) -> tuple[ComparisonRow, PairedAnswers]:
    from nameplate.experiments.evaluate import judge_frozen, judge_tuned, start_run

    with bars() as report:

        def named(step: str, done: int, total: int) -> None:
            report(f"{candidate.name}: {step}", done, total)

        if isinstance(candidate, Frozen):
            return judge_frozen(candidate, parts, plan.threads, named)
        run = run_folder(target, candidate)
        start_run(candidate, parts, run, plan.threads, named)
    with training() as (watch, say):
        return judge_tuned(candidate, parts, run, watch=watch, say=say)


def _comparison(
    plan: Plan, parts: Split, settings: dict[str, object], judged: dict[str, FinishedCandidate], reading: float
) -> Comparison:
    names = [each.name for each in plan.candidates if each.name in judged]
    done = one_speed(ordered([judged[name].row for name in names]))
    found = {name: judged[name].answers for name in names if judged[name].row.error is None}
    reference = None
    if found:
        first = plan.candidates[0].name
        reference = first if plan.base and first in found else done[0].name
    base = plan.base and reference == plan.candidates[0].name
    groups = dict(zip(photo_keys(parts.photos), parts.groups.tolist(), strict=True))
    tested = pairs(found, groups, reference if base else None)
    return Comparison(
        protocol=plan.protocol,
        judged=_judged(plan, parts),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        settings={**settings, "threads": plan.threads, "runtime": FROZEN_BY if plan.frozen else JUDGED_BY},
        data=data_record(parts),
        versions=versions("numpy", "pillow", "scipy", "simplejpeg", "timm", "torch"),
        seconds_to_read=reading,
        waiting=tuple(each.name for each in plan.candidates if each.name not in judged),
        rows=with_verdicts(done, tested, reference, base) if reference else done,
        reference=reference,
        summary=summary(done, tested, reference, base) if reference else "None could be judged.",
        pairs=tested,
        unreadable=parts.unreadable,
        candidates=tuple(described(each) for each in plan.candidates),
    )


def _judged(plan: Plan, parts: Split) -> str:
    classes = len(parts.nameplates)
    if plan.frozen:
        return (
            f"Judged on {len(parts.photos):,} photos of {classes} nameplates, each by a head that did not see it "
            f"or a copy of it (cross-validation), embedded by {FROZEN_BY}."
        )
    judging, training = int(parts.held.sum()), int(parts.train.sum())
    judged = f"Judged on {judging:,} photos that were held out, by {JUDGED_BY}"
    return f"{judged}; trained on {training:,} photos of {classes} nameplates."


def _told(row: ComparisonRow) -> str:
    if row.top1 is None:
        return str(row.error)
    return f"top-1 {100 * row.top1.value:.1f} % ({100 * row.top1.low:.1f}–{100 * row.top1.high:.1f})"
