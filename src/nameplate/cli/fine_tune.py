"""`train` by a recipe that trains a network: starts or continues the run, and prints what it made."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import typer

from nameplate.cli import screen
from nameplate.cli.ending import needs_train_extra
from nameplate.cli.labelled import left_out_json, tell, tell_known, tell_parts
from nameplate.errors import NameplateError, UsageError, WriteError

if TYPE_CHECKING:
    from nameplate.data.dataset import Dataset
    from nameplate.fit.recipe import Recipe
    from nameplate.fit.run import Tracking
    from nameplate.train.finetune import FineTuned

Report = Callable[[str, int, int], None]
Read = Callable[[Report], "Dataset"]


def train_by_recipe(
    read: Read | None,
    run: Path,
    *,
    recipe: Recipe | None = None,
    index: bool = False,
    overwrite: bool = False,
    moved: Sequence[Path] = (),
    track: Sequence[str] = (),
    threads: int | None = None,
    json: bool = False,
) -> None:
    """Train a network in the stages of a recipe; without `read`, continue a run, whose photos may have `moved`."""
    trackers = _trackers(track)
    if moved:
        _look_elsewhere(run, moved)
    main = os.environ.get("RANK", "0") == "0"  # torchrun starts one process more for each device
    with needs_train_extra():
        from nameplate.train.finetune import fine_tune, start
    from nameplate.fit.run import set_tracking

    begun = time.monotonic()
    refused: list[tuple[str, str]] = []
    if read is not None and recipe is not None:
        with screen.progress() as report:

            def read_again() -> Dataset:
                dataset = read(report)
                tell(dataset)
                refused.extend((entry.name, entry.reason) for entry in dataset.refused)
                return dataset

            start(read_again, run, recipe, threads=threads, index=index, overwrite=overwrite, progress=report)
    if trackers and main:
        set_tracking(run, trackers)
    with _to_go_on(run), screen.training(quiet=not main) as (watch, say):
        made = fine_tune(run, watch=watch, say=say)
    if made is not None:
        _tell(made, refused, run, time.monotonic() - begun, json)


def _trackers(names: Sequence[str]) -> list[Tracking]:
    """The services of `--track`, whose packages are there.

    Raises:
        NameplateError: a package is missing.
        UsageError: there is no such service.
    """
    from nameplate.fit.run import Tracking

    known: dict[str, Tracking] = {each: each for each in get_args(Tracking)}
    for name in names:
        if name not in known:
            raise UsageError(f"--track {name}: give {' or '.join(known)}. TensorBoard's files are always written.")
        if find_spec(name) is None:
            raise NameplateError(f"--track {name} needs more packages: pip install 'nameplate[track]'.")
    return [known[name] for name in dict.fromkeys(names)]


def _look_elsewhere(run: Path, places: Sequence[Path]) -> None:
    with needs_train_extra():
        from nameplate.train.finetune import look_elsewhere
    with screen.progress() as report:
        found = look_elsewhere(run, places, report)
    if found is None:
        return
    screen.notes.print(f"{found.found:,} of {found.photos:,} photos of '{run}' are where --data says.")
    screen.tell_refused([(path, "neither there nor where it was") for path in found.missing], "missing")


class _Terminated(KeyboardInterrupt):
    """SIGTERM: the machine shuts down, or a job system's time is over."""


def _terminate(*_: object) -> None:
    raise _Terminated


@contextmanager
def _to_go_on(run: Path) -> Iterator[None]:
    """Say how to continue a run that a person, SIGTERM or the disk interrupts; exit codes are 128 + the signal."""
    before = (
        signal.signal(signal.SIGTERM, _terminate) if threading.current_thread() is threading.main_thread() else None
    )
    try:
        yield
    except KeyboardInterrupt as stop:
        what, code = ("terminated", 143) if isinstance(stop, _Terminated) else ("interrupted", 130)
        screen.note(what, f"Go on from the last checkpoint: nameplate train --resume '{run}'.")
        raise typer.Exit(code) from None
    except WriteError as error:
        raise NameplateError(f"{error} When that is mended: nameplate train --resume '{run}'.") from None
    except OSError as error:
        reason = error.strerror or error
        raise NameplateError(f"'{run}': {reason}. When that is mended: nameplate train --resume '{run}'.") from None
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _tell(made: FineTuned, refused: list[tuple[str, str]], run: Path, seconds: float, json: bool) -> None:
    from nameplate.evaluate.metrics import as_json
    from nameplate.fit.run import exported_record, load_run
    from nameplate.model.bundle import IN_RUN, is_bundle, load_bundle
    from nameplate.report.run import exported_words

    split, finished = made.split, made.finished
    unreadable = [*split.unreadable, *made.state.lost.items()]
    screen.tell_refused(unreadable, "unreadable")
    tell_parts(split)
    weights = load_run(run).recipe.weights
    known = tell_known(split, weights, load_bundle(weights) if is_bundle(weights) else None)
    photos = int(split.train.sum())
    if json:
        evaluation = None if finished.evaluation is None else as_json(finished.evaluation)
        screen.print_json(
            {
                "run": str(run),
                "bundle": str(run / IN_RUN),
                "photos": photos,
                "epochs": made.state.history,
                "exported": exported_record(finished.exported),
                "steps": made.state.steps,
                "resumed": made.resumed,
                "seconds": seconds,
                "runtime": finished.runtime,
                "parity": finished.parity,
                "evaluation": evaluation,
                "held_out_known": known,
                "left_out": left_out_json(refused, split, unreadable),
            }
        )
        return
    screen.step("Trained on", f"{photos:,} photos of {len(split.nameplates):,} nameplates, {made.state.epoch} epochs")
    screen.step("Exported", exported_words(finished.exported))
    if finished.evaluation is not None:
        screen.print_held_out(finished.evaluation)
    for each in finished.parity:
        screen.step("As torch", f"{each.same:,} of {each.photos:,} photos by {each.runtime}, gap ≤ {each.gap:.1e}")
    screen.step("Wrote", f"{run}  ({seconds:.0f} s, evaluated by {finished.runtime})")
    screen.step("See", str((run / "index.html").resolve()))
    screen.step("Next", f"nameplate identify --model '{run}' PHOTO")
