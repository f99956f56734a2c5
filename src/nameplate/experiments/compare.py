"""`compare`: several ways of doing judged on the same photos, one after another, into a folder that resumes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nameplate.datasets.sources import Dataset
from nameplate.errors import DataError, NameplateError, WriteError
from nameplate.evaluation.same import same_picture
from nameplate.experiments.contenders import Contender, Frozen, Tuned, refuse_mixture
from nameplate.experiments.folder import SCHEMA, Done, begin, described, load_done, refuse_folder, run_folder, save_done
from nameplate.experiments.judged import Answers, one_speed, ordered, pairs, photo_keys, summary, with_verdicts
from nameplate.fit.parts import Parts, split_parts
from nameplate.fit.record import JUDGED_BY, data_record, versions
from nameplate.models.collection import Progress, embed_photos
from nameplate.models.model import Model
from nameplate.models.runtime import BATCH
from nameplate.reports.compare import Comparison, Row, write_comparison
from nameplate.storage import clear_folder, working_in
from nameplate.types import HeadRecipe

if TYPE_CHECKING:
    from nameplate.training.fine_tune import Say, Watch

Bars = Callable[[], AbstractContextManager[Progress]]
Training = Callable[[], "AbstractContextManager[tuple[Watch, Say]]"]


FROZEN_BY = "torch"
"""What embeds for heads on frozen networks."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What all rows have in common."""

    protocol: str
    """frozen, fine-tune or recipes."""
    contenders: tuple[Contender, ...]
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
        return isinstance(self.contenders[0], Frozen)


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
    refuse_mixture(plan.contenders)
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
    done = {each.name: found for each in plan.contenders if (found := load_done(target, each))}
    for found in done.values():
        say(f"{found.row.name}: {_told(found.row)}, judged before")
    todo = [each for each in plan.contenders if each.name not in done]
    comparison = _comparison(plan, parts, settings, done, reading)
    for contender in todo:
        done[contender.name] = _judge(contender, plan, parts, target, bars, training)
        say(f"{len(done)} of {len(plan.contenders)}, {contender.name}: {_told(done[contender.name].row)}")
        comparison = _comparison(plan, parts, settings, done, reading)
        write_comparison(target, comparison)
    if not todo:
        write_comparison(target, comparison)
    return comparison


def photos_to_judge(dataset: Dataset, plan: Plan, progress: Progress) -> Parts:
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
    return Parts.of(photos, same_picture(embedded, progress), nameplates, ids, embedded.unreadable)


def at_most(dataset: Dataset, each: int, seed: int) -> Dataset:
    """A data set with so many photos of every nameplate, drawn at random, in each of its parts."""
    places: dict[tuple[str | None, str | None], list[int]] = {}
    for place, photo in enumerate(dataset.photos):
        places.setdefault((photo.label, photo.split), []).append(place)
    kept: list[int] = []
    for members in places.values():
        kept += np.random.default_rng(seed).permutation(members)[:each].tolist()
    return replace(dataset, photos=tuple(dataset.photos[place] for place in sorted(kept)))


def _settings(plan: Plan, parts: Parts) -> dict[str, object]:
    first = plan.contenders[0]
    common: dict[str, object] = {"schema": SCHEMA, "protocol": plan.protocol, "seed": plan.seed}
    if isinstance(first, Frozen) and plan.protocol == "frozen":
        common |= {"size": f"{first.height}×{first.width}", "folds": first.head.folds, "mirror": first.head.mirror}
    if isinstance(first, Tuned):
        common |= {"holdout": plan.holdout}
        if plan.protocol == "fine-tune":
            stage = first.recipe.stages[0]
            common |= {"size": f"{stage.height}×{stage.width}", "epochs": stage.epochs}
    return common | {"base": first.name if plan.base else None, "batch": BATCH, "data": parts.digest}


def _judge(contender: Contender, plan: Plan, parts: Parts, target: Path, bars: Bars, training: Training) -> Done:
    """Judge one and keep it; one that fails gets a row that says why, and is tried again next time."""
    try:
        row, found = _row(contender, plan, parts, target, bars, training)
    except WriteError:
        raise
    except (NameplateError, RuntimeError, MemoryError) as error:  # RuntimeError: torch's, of memory for one
        why = str(error).strip().split("\n")[0] or type(error).__name__
        backbone = contender.backbone if isinstance(contender, Frozen) else contender.recipe.backbone
        if plan.protocol != "recipes":  # where weights are named otherwise than in a recipe
            why = why.replace("--set weights=", f"--backbones {backbone}=")
        return Done(SCHEMA, described(contender), Row(contender.name, backbone, error=why), Answers((), (), (), ()))
    return save_done(target, contender, row, found)


def _row(
    contender: Contender, plan: Plan, parts: Parts, target: Path, bars: Bars, training: Training
) -> tuple[Row, Answers]:
    from nameplate.experiments.evaluate import judge_frozen, judge_tuned, start_run

    with bars() as report:

        def named(step: str, done: int, total: int) -> None:
            report(f"{contender.name}: {step}", done, total)

        if isinstance(contender, Frozen):
            return judge_frozen(contender, parts, plan.threads, named)
        run = run_folder(target, contender)
        start_run(contender, parts, run, plan.threads, named)
    with training() as (watch, say):
        return judge_tuned(contender, parts, run, watch=watch, say=say)


def _comparison(
    plan: Plan, parts: Parts, settings: dict[str, object], judged: dict[str, Done], reading: float
) -> Comparison:
    names = [each.name for each in plan.contenders if each.name in judged]
    done = one_speed(ordered([judged[name].row for name in names]))
    found = {name: judged[name].answers for name in names if judged[name].row.error is None}
    reference = None
    if found:
        first = plan.contenders[0].name
        reference = first if plan.base and first in found else done[0].name
    base = plan.base and reference == plan.contenders[0].name
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
        waiting=tuple(each.name for each in plan.contenders if each.name not in judged),
        rows=with_verdicts(done, tested, reference, base) if reference else done,
        reference=reference,
        summary=summary(done, tested, reference, base) if reference else "None could be judged.",
        pairs=tested,
        unreadable=parts.unreadable,
        contenders=tuple(described(each) for each in plan.contenders),
    )


def _judged(plan: Plan, parts: Parts) -> str:
    classes = len(parts.nameplates)
    if plan.frozen:
        return (
            f"Judged on {len(parts.photos):,} photos of {classes} nameplates, each by a head that did not see it "
            f"or a copy of it (cross-validation), embedded by {FROZEN_BY}."
        )
    judging, training = int(parts.held.sum()), int(parts.train.sum())
    judged = f"Judged on {judging:,} photos that were held out, by {JUDGED_BY}"
    return f"{judged}; trained on {training:,} photos of {classes} nameplates."


def _told(row: Row) -> str:
    if row.top1 is None:
        return str(row.error)
    return f"top-1 {100 * row.top1.value:.1f} % ({100 * row.top1.low:.1f}–{100 * row.top1.high:.1f})"
