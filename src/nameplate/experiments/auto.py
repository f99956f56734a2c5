"""Training that fits a time limit (`train_within`): heads first, then as many networks as the time allows.

OUT/auto.json         the limit, the time used so far, and what was tried and chosen
OUT/heads/            five folds of linear heads: the floor, which is saved first
OUT/networks/         the folds of networks that fitted into the time
OUT/bundle/           the best of heads, networks and both, by the photos that trained none of them
OUT/index.html        what auto.json holds as a page

How many networks of how many epochs and which photo size fit is decided by a trial on some dozen of the photos. Before
each further fold, the time left is compared with what the last one took. Only `train/` imports torch; it is imported
where networks are trained, if it is installed.
"""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nameplate.data.dataset import Dataset
from nameplate.errors import DataError, NameplateError
from nameplate.evaluate.metrics import evaluate
from nameplate.evaluate.significance import paired
from nameplate.experiments.time_plan import (
    FOLDS,
    LADDERS,
    MANY,
    Option,
    Photos,
    Preset,
    Speed,
    choose,
    end_seconds,
    fold_seconds,
    in_words,
    recipe_of,
)
from nameplate.fit.ensemble import make_ensemble
from nameplate.fit.fold_run import TrainFold, begin_run, continue_run, judge_apart
from nameplate.fit.folds import (
    FoldPlan,
    begin_folds,
    fold_folder,
    is_fold_run,
    load_plan,
    out_of_fold,
    save_plan,
    train_folds,
)
from nameplate.fit.held_out import HeldOutPredictions, aligned, joined
from nameplate.fit.linear_probe import train_head
from nameplate.fit.recipe import Recipe, load_recipe
from nameplate.fit.record import read_record, write_record
from nameplate.fit.run import EVALUATION_RUNTIME, METRICS
from nameplate.fit.split import Split
from nameplate.model.bundle import IN_RUN, load_bundle
from nameplate.model.classifier import log_losses
from nameplate.model.embeddings import Progress
from nameplate.model.model import Model
from nameplate.report.auto import AutoPage, auto_page, write_auto_page
from nameplate.report.page import in_notebook
from nameplate.storage import clear_folder, counted, is_free, whole_folder, working_in
from nameplate.types import Evaluation, HeadRecipe, Metric

if TYPE_CHECKING:
    from nameplate.train.finetune import Say
    from nameplate.train.loop import OnStep, StepEvent

STATE, PAGE, HEADS, NETWORKS, TRIAL = "auto.json", "index.html", "heads", "networks", "trial"
SCHEMA = 1
"""Version of the format of auto.json."""
LEAST_SECONDS = 60.0
"""With less time left after the heads, no network is tried: the trial alone would take half of it."""
TRIAL_SHARE = 1 / 3
"""A trial that takes more than this share of the time left is given up: it trains on a tenth of what a network sees."""
TRIAL_PHOTOS, TRIAL_CLASS = 64, 8
"""Number of training photos of the trial, and how many of one nameplate at most."""
CAREFUL = 1.05
"""A fold is begun if the time left is this many times what it is expected to take."""
OVER = 0.05
"""Share of the limit by which a fold may be expected to end late before it is given up."""
SETTLED = 0.15
"""Share of a fold after which the estimate of its end is relied on."""
KEEP_SECONDS = 10.0
"""Seconds between two records of the time used: a killed run has used at most so much more than it knows."""

Bars = Callable[[], AbstractContextManager[Progress]]
TrainingScreen = Callable[[], "AbstractContextManager[tuple[OnStep, Say]]"]


@dataclass(frozen=True, slots=True)
class Tried:
    """Something that took time."""

    name: str
    """What it was."""
    seconds: float
    said: str
    """What came out, in words."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of the models that could be chosen, judged on photos that trained none of its members."""

    name: str
    top1: Metric
    log_loss: float
    photos: int


@dataclass(frozen=True, slots=True)
class AutoState:
    """What auto.json holds; the field names are its keys."""

    schema: int
    preset: Preset
    limit: float
    """The time limit in seconds."""
    made: str
    """When the run began, ISO 8601 in UTC."""
    threads: int
    used: float = 0.0
    """Seconds used so far, over all interruptions."""
    tried: tuple[Tried, ...] = ()
    notes: tuple[str, ...] = ()
    """Reasons of the choices, as sentences."""
    recipe: str | None = None
    """The recipe of the networks."""
    speed: Speed | None = None
    option: Option | None = None
    """How the networks are trained; None where nothing fits, or before the trial."""
    candidates: tuple[Candidate, ...] = ()
    chosen: str | None = None
    """The candidate whose bundle was written; None until the end."""
    held_out: Evaluation | None = None
    """The bundle on the photos apart from all folds; None without such."""
    unreadable: tuple[tuple[str, str], ...] = field(default=())


@dataclass(frozen=True, slots=True)
class AutoResult:
    """The result of `train_within`; a notebook shows its page."""

    folder: Path
    state: AutoState

    @property
    def bundle(self) -> Path:
        """The folder of the bundle that was chosen."""
        return self.folder / IN_RUN

    def _repr_html_(self) -> str:
        return in_notebook(auto_page(_page(self.state)))


class _OutOfTimeError(Exception):
    """A fold would end too late; holds the event at which that was seen."""

    def __init__(self, event: StepEvent) -> None:
        super().__init__("given up: it would have taken too long")
        self.event = event


class _Clock:
    """The time of a run, over all interruptions, and its record in auto.json."""

    def __init__(self, folder: Path, state: AutoState, begun: float | None) -> None:
        self.folder, self.state = folder, state
        self.begun = (time.monotonic() if begun is None else begun) - state.used
        self.kept = time.monotonic()

    @property
    def used(self) -> float:
        return time.monotonic() - self.begun

    @property
    def left(self) -> float:
        return self.state.limit - self.used

    def keep(self, state: AutoState | None = None) -> None:
        """Write auto.json with the time used so far."""
        self.state = replace(state or self.state, used=self.used)
        self.kept = time.monotonic()
        write_record(self.folder / STATE, self.state)

    def tick(self) -> None:
        """Write auto.json if that was not done for a while."""
        if time.monotonic() - self.kept > KEEP_SECONDS:
            self.keep()

    @contextmanager
    def timed(self, name: str) -> Iterator[list[str]]:
        """Record what a piece of work took, and what the block appends to the list as its outcome."""
        begun, said = time.monotonic(), list[str]()
        try:
            yield said
        except _OutOfTimeError as error:
            name, said = f"{name}, unfinished", [str(error)]
            raise
        except BaseException:
            said = ["interrupted"]
            raise
        finally:
            taken = Tried(name, time.monotonic() - begun, "; ".join(said))
            self.keep(replace(self.state, tried=(*self.state.tried, taken)))

    def note(self, sentence: str) -> None:
        """Record the reason of a choice."""
        if sentence not in self.state.notes:
            self.keep(replace(self.state, notes=(*self.state.notes, sentence)))


@dataclass(frozen=True, slots=True)
class Screen:
    """How a run shows its progress; by default not at all."""

    bars: Bars = lambda: nullcontext(lambda *_: None)
    """Opens a display for heads and evaluations."""
    training: TrainingScreen = lambda: nullcontext((lambda _: None, lambda _: None))
    """Opens a display for the training of a network."""
    say: Callable[[str], None] = lambda _: None
    """Called with a sentence at each decision."""


def train_within(
    read: Callable[[], Dataset],
    folder: Path,
    limit: float,
    preset: Preset = "good",
    *,
    model: Model | None = None,
    overwrite: bool = False,
    screen: Screen | None = None,
) -> AutoResult:
    """Train what fits into a time limit, and write the best of it as a bundle.

    Args:
        read: returns the labelled photos. Parts that the data holds out judge the result and choose nothing.
        folder: the folder of the run; the bundle is in its `bundle/`.
        limit: seconds for everything: reading, training, export, evaluation. Heads are trained whatever it is.
        preset: fast (a head), good (heads and networks), best (larger photos, more epochs).
        model: embeds the photos; None takes the bundle that ships.
        overwrite: whether to replace such a run that is at `folder`.
        screen: shows the progress.

    Raises:
        DataError: fewer than two nameplates with readable photos to train on.
        NameplateError: `folder` is there already, or cannot be written.
    """
    begun = time.monotonic()
    model = model or Model.load()
    _refuse_folder(folder, overwrite)
    with working_in(folder):
        _refuse_folder(folder, overwrite)  # again under the lock: another run may have begun in between
        clear_folder(folder)
        made = datetime.now(UTC).isoformat(timespec="seconds")
        clock = _Clock(folder, AutoState(SCHEMA, preset, limit, made, model.settings.threads), begun)
        clock.keep()
        return _begin(read, clock, model, screen or Screen())


def resume_within(folder: Path, *, screen: Screen | None = None) -> AutoResult:
    """Go on with an interrupted run of `train_within`; the time that it had used counts.

    Raises:
        NameplateError: `folder` is no such run, or was interrupted before anything was kept.
    """
    begun = time.monotonic()
    with working_in(folder):
        clock = _Clock(folder, load_state(folder), begun)
        if clock.state.chosen is not None:
            return AutoResult(folder, clock.state)
        if not is_fold_run(folder / HEADS):
            raise NameplateError(
                f"'{folder}' was interrupted before its photos were read. Begin again: nameplate train DATA "
                f"--time-limit … -o '{folder}' --overwrite."
            )
        return _go_on(clock, screen or Screen())


def is_auto_run(folder: Path) -> bool:
    """Whether a folder is that of `train_within`."""
    return (folder / STATE).is_file()


def load_state(folder: Path) -> AutoState:
    """Read auto.json.

    Raises:
        NameplateError: it is missing, damaged, or of another version.
    """
    return read_record(folder / STATE, AutoState, SCHEMA)


def _refuse_folder(folder: Path, overwrite: bool) -> None:
    if is_free(folder):
        return
    if not is_auto_run(folder):
        raise NameplateError(
            f"'{folder}' exists and was not made with --time-limit, so it is not replaced. Choose another name."
        )
    if not overwrite:
        raise NameplateError(
            f"'{folder}' is there already. Go on with it (nameplate train --resume '{folder}'), choose another name, "
            "or pass --overwrite."
        )


def _begin(read: Callable[[], Dataset], clock: _Clock, model: Model, screen: Screen) -> AutoResult:
    """The part of a run that reads the data set."""
    if clock.state.preset == "fast":
        return _one_head(read(), clock, model, screen)
    found: list[Dataset] = []

    def once() -> Dataset:
        found[:] = found or [read()]
        return found[0]

    recipe, folder = HeadRecipe(holdout=0.0), clock.folder / HEADS
    for count in range(FOLDS, 1, -1):
        try:
            with clock.timed("read and embed the photos") as said, screen.bars() as report:
                plan = begin_run(once, folder, recipe, count, model=model, progress=report, overwrite=True)
                said.append(f"{counted(len(plan.photos), 'photo')} of {len(plan.nameplates):,} nameplates")
        except DataError:
            if count == 2 or not found:
                break
            continue
        clock.keep(replace(clock.state, unreadable=plan.unreadable))
        return _go_on(clock, screen)
    clock.note("The photos do not fill two folds, so that nothing could be compared: one head, as preset fast.")
    return _one_head(once(), clock, model, screen)


def _one_head(dataset: Dataset, clock: _Clock, model: Model, screen: Screen) -> AutoResult:
    """Preset `fast`: a head, as `nameplate train` without options makes it."""
    target = clock.folder / IN_RUN
    with clock.timed("a head on the frozen backbone") as said, screen.bars() as report:
        trained = train_head(dataset, target, model=model, overwrite=True, progress=report)
        if trained.evaluation is not None:
            said.append(f"{trained.evaluation.top1.percent} of {trained.evaluation.photos:,} held-out photos")
    state = replace(clock.state, held_out=trained.evaluation, unreadable=trained.unreadable, chosen="head")
    return _finished(clock, state)


def _go_on(clock: _Clock, screen: Screen) -> AutoResult:
    """Train and choose, from wherever the run is."""
    heads, networks = clock.folder / HEADS, clock.folder / NETWORKS
    _train_heads(clock, screen)
    train = _network_trainer(clock)
    if train is not None and _plan_networks(clock, train, screen):
        _train_networks(clock, train, screen)
    names = [heads]
    if is_fold_run(networks) and (load_plan(networks).first or 0) > 0:
        with clock.timed("the ensemble of the networks") as said, screen.bars() as report:
            result = continue_run(networks, _never, progress=report, judge=False)
            said.append(result.scores.sentence)
        names.append(networks)
    state = _choose(clock, names, screen)
    with clock.timed("judge the result on the photos apart") as said, screen.bars() as report:
        plan = load_plan(heads)
        runtime = plan.runtime if state.chosen == HEADS else EVALUATION_RUNTIME
        chosen = Model.load(clock.folder / IN_RUN, runtime=runtime, threads=plan.threads)
        held_out = judge_apart(plan.split, chosen, report)
        said.append("none" if held_out is None else f"{held_out.top1.percent} of {held_out.photos:,} photos")
    return _finished(clock, replace(clock.state, held_out=held_out, chosen=state.chosen))


def _never(_: Path, __: Split) -> None:
    raise AssertionError("all folds were trained before")


def _finished(clock: _Clock, state: AutoState) -> AutoResult:
    """Write the page and the last record."""
    clock.keep(state)
    write_auto_page(clock.folder / PAGE, _page(clock.state))
    return AutoResult(clock.folder, clock.state)


def _train_heads(clock: _Clock, screen: Screen) -> None:
    """Train the heads and save their ensemble, so that there is a bundle from here on."""
    if (clock.folder / IN_RUN).is_dir():
        return
    with clock.timed("five folds of heads on the frozen backbone") as said, screen.bars() as report:
        result = continue_run(clock.folder / HEADS, progress=report, judge=False)
        said.append(result.scores.sentence)
    _copy(clock.folder / HEADS / IN_RUN, clock.folder / IN_RUN)
    screen.say(f"saved: {result.scores.sentence}")


def _copy(source: Path, target: Path) -> None:
    with whole_folder(target, overwrite=True) as temporary:
        shutil.copytree(source, temporary, dirs_exist_ok=True)


# Networks.

Trainer = Callable[[Recipe, "OnStep", "Say"], TrainFold]


def _network_trainer(clock: _Clock) -> Trainer | None:
    """Makes the function that trains a fold; None where the extra `train` is not installed."""
    try:
        from nameplate.train.fold_runs import network_fold
    except ModuleNotFoundError as error:
        clock.note(
            f"No network was trained, since '{error.name}' is missing (pip install 'nameplate[train]'). Heads are "
            "complete: nothing longer is known to help them, so that the rest of the time is not used."
        )
        return None
    threads = clock.state.threads
    return lambda recipe, watch, say: network_fold(recipe, threads, watch=watch, say=say)


def _plan_networks(clock: _Clock, train: Trainer, screen: Screen) -> bool:
    """Measure the speed, and choose the networks; false where none fits. What was decided before stays."""
    if clock.state.option is not None:
        return True
    plan = load_plan(clock.folder / HEADS)
    base = _base(plan)
    if clock.left < LEAST_SECONDS:
        clock.note(f"No network was tried: {in_words(max(0, clock.left))} were left after the heads.")
        return False
    if clock.state.speed is None:
        left = clock.left
        try:
            with clock.timed("a trial of the training on some photos") as said:
                speed = _trial(clock, plan, base, train, screen)
                per_photo = speed.per_photo(base, len(base.stages) - 1)
                said.append(f"{1 / per_photo:.1f} photos/s at the recipe's last size, {speed.fixed:.0f} s a network")
        except _OutOfTimeError:
            clock.note(
                f"No network fits into the {in_words(left)} that were left: a trial on some photos took too long."
            )
            return False
        clock.keep(replace(clock.state, speed=speed, recipe=base.name))
    return _choose_networks(clock, plan, base, screen)


def _choose_networks(clock: _Clock, plan: FoldPlan, base: Recipe, screen: Screen) -> bool:
    """Choose how many networks of which length and size fit into the time left."""
    speed, left = clock.state.speed, clock.left
    assert speed is not None
    found = choose(LADDERS[clock.state.preset], base, _photos(plan), speed, left / CAREFUL)
    if found is None:
        clock.note(f"No network fits into the {in_words(max(0, left))} that are left: the heads are the result.")
        return False
    option, seconds = found
    recipe = recipe_of(base, option)
    networks = clock.folder / NETWORKS
    with working_in(networks):
        begin_folds(networks, replace(plan, recipe=recipe, head=None, cars="main", runtime=EVALUATION_RUNTIME, first=0))
    clock.keep(replace(clock.state, option=option))
    sentence = (
        f"Planned with {in_words(left)} left: {counted(option.folds, 'network')} by recipe {base.name}, "
        f"{_recipe_words(recipe)}, {in_words(seconds)}."
    )
    clock.note(sentence)
    screen.say(sentence)
    return True


def _base(plan: FoldPlan) -> Recipe:
    """The recipe for this number of photos."""
    recipe = load_recipe("few" if int(plan.split.train.sum()) <= MANY else "fast")
    assert isinstance(recipe, Recipe)
    return replace(recipe, seed=plan.head.seed if plan.head else recipe.seed)


def _recipe_words(recipe: Recipe) -> str:
    last = recipe.stages[-1]
    return f"{sum(stage.epochs for stage in recipe.stages)} epochs up to {last.height}×{last.width}"


def _photos(plan: FoldPlan) -> Photos:
    """Number of photos of the largest fold."""
    split = plan.split_of(1)
    return Photos(int(split.train.sum()), int(split.holdout.sum()), int(plan.split.holdout.sum()))


def _trial(clock: _Clock, plan: FoldPlan, base: Recipe, train: Trainer, screen: Screen) -> Speed:
    """Train a network on some photos from begin to end, at the recipe's sizes, and see what that takes."""
    here = clock.folder / TRIAL
    shutil.rmtree(here, ignore_errors=True)
    size = recipe_of(base, Option(1, 1))
    # Two epochs a stage: the first one of each size is slow, because memory and kernels are prepared.
    recipe = replace(size, stages=tuple(replace(stage, epochs=2, warmup=0.0) for stage in size.stages))
    split = _some(plan.split_of(1))
    begun, most = time.monotonic(), TRIAL_SHARE * clock.left
    with screen.training() as (watch, say):

        def step(event: StepEvent) -> None:
            watch(event)
            clock.tick()
            if time.monotonic() - begun > most:
                raise _OutOfTimeError(event)

        try:
            train(recipe, step, say)(here, split)
        except _OutOfTimeError:
            shutil.rmtree(here, ignore_errors=True)
            raise
    whole = time.monotonic() - begun
    with (here / METRICS).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    shutil.rmtree(here, ignore_errors=True)
    rates = [
        max(float(row["photos_per_second"]) for row in rows if row["stage"] == str(number))
        for number in range(1, len(recipe.stages) + 1)
    ]
    per_pixel = [1 / rate / (s.height * s.width) for rate, s in zip(rates, recipe.stages, strict=True)]
    none = Photos(int(split.train.sum()), int(split.holdout.sum()), 0)
    return Speed(max(0.0, whole - fold_seconds(recipe, none, Speed(0, tuple(per_pixel)))), tuple(per_pixel))


def _some(split: Split) -> Split:
    """Some photos of some nameplates of a split."""
    chosen: list[int] = []
    names: list[str] = []
    for number, name in enumerate(split.nameplates):
        mine = np.flatnonzero(split.train & (split.classes == number))[:TRIAL_CLASS]
        chosen += mine.tolist()
        names.append(name)
        if len(chosen) >= TRIAL_PHOTOS and len(names) > 1:
            break
    held = np.flatnonzero(split.holdout & (split.classes < len(names)))[: len(chosen) // 4]
    rows = np.array(sorted([*chosen, *held.tolist()]), np.int64)
    return Split.of([split.photos[i] for i in rows], split.groups[rows], names, split.ids[: len(names)], ())


def _train_networks(clock: _Clock, train: Trainer, screen: Screen) -> None:
    """Train fold after fold, as long as another one fits into the time."""
    networks = clock.folder / NETWORKS
    plan = load_plan(networks)
    while (plan.first or 0) < plan.count:
        number = (plan.first or 0) + 1
        begun = (fold_folder(networks, number)).is_dir()
        if not begun and not _fits(clock, plan, number):
            return
        try:
            with clock.timed(f"network {number}") as said, screen.training() as (watch, say), working_in(networks):
                watched = _watch(clock, plan, number, watch)
                assert plan.recipe is not None
                train_folds(networks, replace(plan, first=number), train(plan.recipe, watched, say))
                said.append(_recipe_words(plan.recipe))
        except _OutOfTimeError as gone:
            shutil.rmtree(fold_folder(networks, number), ignore_errors=True)
            clock.note(f"Network {number} was given up: it would have ended after the time limit.")
            if number > 1 or not _again(clock, gone.event, screen):
                return
        else:
            save_plan(networks, replace(plan, first=number))
        plan = load_plan(networks)


def _fits(clock: _Clock, plan: FoldPlan, number: int) -> bool:
    """Whether another fold fits, by what the last one took."""
    speed = clock.state.speed
    assert plan.recipe is not None
    assert speed is not None
    photos = _photos(plan)
    last = [each.seconds for each in clock.state.tried if each.name == f"network {number - 1}"]
    needed = sum(last) if last else fold_seconds(plan.recipe, photos, speed)
    after = end_seconds(plan.recipe, number, photos, speed)
    if CAREFUL * needed + after <= clock.left or number == 1:
        return True
    clock.note(
        f"Network {number} was not begun: the last one took {in_words(needed)}, and {in_words(max(0, clock.left))} "
        "were left."
    )
    return False


def _watch(clock: _Clock, plan: FoldPlan, number: int, watch: OnStep) -> OnStep:
    """Give a fold up as soon as it is clear that it would end too late."""
    recipe, speed, photos = plan.recipe, clock.state.speed, _photos(plan)
    assert recipe is not None
    assert speed is not None
    epochs = replace(recipe, stages=tuple(replace(stage, epochs=1) for stage in recipe.stages))
    forward = fold_seconds(epochs, replace(photos, train=0), replace(speed, fixed=0.0))  # validation and evaluation
    after = speed.fixed / 2 + forward + end_seconds(recipe, number, photos, speed)
    begun: list[float] = []

    def step(event: StepEvent) -> None:
        watch(event)
        clock.tick()
        begun.append(clock.used) if not begun else None
        taken = clock.used - begun[0]
        share = taken / max(1e-9, taken + event.left)
        if share > SETTLED and clock.left + OVER * clock.state.limit < event.left + after:
            raise _OutOfTimeError(event)

    return step


def _again(clock: _Clock, event: StepEvent, screen: Screen) -> bool:
    """Plan the first network again, with the speed that was seen."""
    plan = load_plan(clock.folder / HEADS)
    speed, base = clock.state.speed, _base(plan)
    assert speed is not None
    stage = event.stage
    seen = 1 / event.photos_per_second / (stage.height * stage.width)
    slower = max(1.0, seen / speed.per_pixel[min(event.state.stage, len(speed.per_pixel) - 1)])
    slow = Speed(speed.fixed * slower, tuple(each * slower for each in speed.per_pixel))
    clock.keep(replace(clock.state, speed=slow, option=None))
    return clock.left >= LEAST_SECONDS and _choose_networks(clock, plan, base, screen)


# Choosing.


def _choose(clock: _Clock, runs: list[Path], screen: Screen) -> AutoState:
    """Write the candidate with the lowest log-loss on the photos that trained none of its members."""
    predictions = aligned([_predictions(run) for run in runs])
    names = load_plan(runs[0]).nameplates
    found = {run.name: (each.probabilities, run / IN_RUN) for run, each in zip(runs, predictions, strict=True)}
    candidates = {name: _candidate(name, probs, predictions[0], names) for name, (probs, _) in found.items()}
    both = clock.folder / "both"
    if len(runs) == 2:
        one, other = (load_bundle(run / IN_RUN).manifest.preprocess for run in runs)
        if one == other:
            with clock.timed("heads and networks together") as said, screen.bars() as report:
                paths = [str(run) for run in runs]
                threads = clock.state.threads
                made = make_ensemble(paths, both, threads=threads, overwrite=True, timed=False, progress=report)
                said.append(f"weights {made.weighing.reason}; against its best member {made.verdict}")
            assert made.evaluation is not None
            judged = made.evaluation
            candidates["both"] = Candidate("both", judged.top1, judged.log_loss, judged.photos)
        else:
            clock.note("Heads and networks see photos of different sizes, so that they cannot be one ensemble.")
    best = min(candidates.values(), key=lambda each: each.log_loss)
    source = both if best.name == "both" else found[best.name][1]
    if best.name != HEADS:
        _copy(source, clock.folder / IN_RUN)
    if best.name in found and len(found) > 1:
        clock.note(_against(best.name, found, predictions[0]))
    shutil.rmtree(both, ignore_errors=True)
    sentence = (
        f"Chosen: {best.name}, with the lowest log-loss ({best.log_loss:.3f}) on {counted(best.photos, 'photo')} "
        "that trained none of its members."
    )
    clock.note(sentence)
    screen.say(sentence)
    clock.keep(replace(clock.state, candidates=tuple(candidates.values())))
    return replace(clock.state, chosen=best.name)


def _predictions(run: Path) -> HeldOutPredictions:
    return joined(out_of_fold(run, load_plan(run)))


def _candidate(name: str, probs: np.ndarray, of: HeldOutPredictions, names: tuple[str, ...]) -> Candidate:
    found = evaluate(probs, of.classes, names, of.groups)
    return Candidate(name, found.top1, found.log_loss, found.photos)


def _against(best: str, found: dict[str, tuple[np.ndarray, Path]], of: HeldOutPredictions) -> str:
    """How sure the choice between heads and networks is."""
    other = next(name for name in found if name != best)
    one, two = (-log_losses(found[name][0], of.classes) for name in (other, best))
    gain = paired(one, two, of.groups)
    sure = "more than noise" if gain.significant else "not more than noise"
    return f"{best} against {other}: log-loss {-gain.difference.value:+.3f}, {sure}."


def _page(state: AutoState) -> AutoPage:
    return AutoPage(
        preset=state.preset,
        limit=in_words(state.limit),
        used=in_words(state.used),
        share=state.used / state.limit,
        tried=[(each.name, in_words(each.seconds), each.said) for each in state.tried],
        candidates=[(each.name, each.top1, each.log_loss, each.photos) for each in state.candidates],
        chosen=state.chosen or "",
        notes=state.notes,
        held_out=state.held_out,
        made=state.made,
    )
