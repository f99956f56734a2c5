"""What `nameplate train` does with each kind of recipe, and what it says of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nameplate.cli import screen
from nameplate.cli.ending import needs_extra
from nameplate.cli.options import as_json as how_read
from nameplate.cli.options import left_out_json, tell, tell_parts
from nameplate.errors import NameplateError, UsageError, WriteError
from nameplate.types import HeadRecipe

if TYPE_CHECKING:
    from nameplate.data.dataset import Dataset
    from nameplate.fit.recipe import Recipe
    from nameplate.train.finetune import FineTuned

Report = Callable[[str, int, int], None]
Read = Callable[[Report], "Dataset"]


def needs_train_extra() -> AbstractContextManager[None]:
    """For imports of what only the extra `train` installs; see `needs_extra`."""
    return needs_extra("train", "Training a network needs")


def with_options(recipe: Recipe | HeadRecipe, given: dict[str, Any], name: str) -> Recipe | HeadRecipe:
    """The recipe with the options that were given.

    Raises:
        UsageError: one that this kind of recipe has not.
    """
    strange = [option for option in given if not hasattr(recipe, option)]
    if strange:
        raise UsageError(f"--{strange[0]} is for recipe 'head', not for '{name}'.")
    return replace(recipe, **given)


def train_head_alone(
    read: Read,
    output: Path,
    recipe: HeadRecipe,
    backbone: str,
    *,
    index: bool,
    overwrite: bool,
    runtime: str,
    threads: int | None,
    json: bool,
) -> None:
    """A head on a bundle's frozen backbone."""
    from nameplate.data.inputs import refuse_overwriting_input
    from nameplate.evaluate.metrics import as_json
    from nameplate.fit.linear_probe import train_head
    from nameplate.model.bundle import refuse_other_folder
    from nameplate.model.model import Model

    start = time.monotonic()
    refuse_other_folder(output)
    if output.exists() and not overwrite:
        raise UsageError(f"'{output}' is there already. Choose another name, or pass --overwrite.")
    model = Model.load(backbone, runtime=runtime, threads=threads)
    refuse_overwriting_input([output], [model.bundle.folder])
    with screen.progress() as report:
        dataset = read(report)
        tell(dataset)
        trained = train_head(
            dataset, output, model=model, recipe=recipe, index=index, overwrite=overwrite, progress=report
        )
    seconds = time.monotonic() - start
    refused = [(entry.name, entry.reason) for entry in dataset.refused]
    screen.tell_refused(list(trained.unreadable), "unreadable")
    tell_parts(trained.split)
    if json:
        judged = None if trained.evaluation is None else as_json(trained.evaluation)
        screen.print_json(
            {
                "bundle": str(output),
                "photos": trained.photos,
                "seconds": seconds,
                "runtime": trained.runtime,
                "evaluation": judged,
                "data": how_read(dataset),
                "left_out": left_out_json(refused, trained.split, trained.unreadable),
            }
        )
        return
    nameplates = trained.bundle.manifest.nameplates
    trained_on = f"{trained.photos:,} photos of {len(nameplates):,} nameplates ({', '.join(dataset.kinds)})"
    screen.step("Trained on", f"{trained_on}; {trained.copies:,} copies kept on one side of the split")
    if trained.evaluation is not None:
        screen.print_held_out(trained.evaluation)
    if trained.bundle.manifest.thresholds.near is None:
        screen.note("verdicts", "'unknown car' is never said: too few photos to tell how far a known one may be.")
    screen.step("Wrote", f"{output}  ({seconds:.0f} s, {trained.runtime})")
    screen.step("Next", f"nameplate identify --model '{output}' PHOTO")


def train_by_recipe(
    read: Read | None,
    run: Path,
    *,
    recipe: Recipe | None = None,
    index: bool = False,
    overwrite: bool = False,
    moved: Sequence[Path] = (),
    threads: int | None = None,
    json: bool = False,
) -> None:
    """A network in the stages of a recipe; without `read` a run goes on, with its photos where they have `moved`."""
    if moved:
        _look_elsewhere(run, moved)
    main = os.environ.get("RANK", "0") == "0"  # torchrun starts one process more for each device
    with needs_train_extra():
        from nameplate.train.finetune import fine_tune, start
    begun = time.monotonic()
    refused: list[tuple[str, str]] = []
    if read is not None and recipe is not None:
        with screen.progress() as report:

            def told() -> Dataset:
                dataset = read(report)
                tell(dataset)
                refused.extend((entry.name, entry.reason) for entry in dataset.refused)
                return dataset

            start(told, run, recipe, threads=threads, index=index, overwrite=overwrite, progress=report)
    with _to_go_on(run), screen.training(quiet=not main) as (watch, say):
        made = fine_tune(run, watch=watch, say=say)
    if made is not None:
        _tell(made, refused, run, time.monotonic() - begun, json)


def _look_elsewhere(run: Path, places: Sequence[Path]) -> None:
    with needs_train_extra():
        from nameplate.train.finetune import look_elsewhere
    with screen.progress() as report:
        found = look_elsewhere(run, places, report)
    if found is None:
        return
    screen.notes.print(f"{found.found:,} of {found.photos:,} photos of '{run}' are where --data says.")
    screen.tell_refused([(path, "neither there nor where it was") for path in found.missing], "missing")


@contextmanager
def _to_go_on(run: Path) -> Iterator[None]:
    """Says how to go on with a run that a person or the disk interrupts."""
    try:
        yield
    except KeyboardInterrupt:
        screen.note("interrupted", f"Go on from the last checkpoint: nameplate train --resume '{run}'.")
        raise typer.Exit(130) from None
    except WriteError as error:
        raise NameplateError(f"{error} When that is mended: nameplate train --resume '{run}'.") from None
    except OSError as error:
        reason = error.strerror or error
        raise NameplateError(f"'{run}': {reason}. When that is mended: nameplate train --resume '{run}'.") from None


def _tell(made: FineTuned, refused: list[tuple[str, str]], run: Path, seconds: float, json: bool) -> None:
    from nameplate.evaluate.metrics import as_json
    from nameplate.fit.run import exported_record
    from nameplate.model.bundle import IN_RUN
    from nameplate.report.run import exported_words

    split, finished = made.split, made.finished
    unreadable = [*split.unreadable, *made.state.lost.items()]
    screen.tell_refused(unreadable, "unreadable")
    tell_parts(split)
    photos = int(split.train.sum())
    if json:
        judged = None if finished.evaluation is None else as_json(finished.evaluation)
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
                "evaluation": judged,
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
    screen.step("Wrote", f"{run}  ({seconds:.0f} s, judged by {finished.runtime})")
    screen.step("See", str((run / "index.html").resolve()))
    screen.step("Next", f"nameplate identify --model '{run}' PHOTO")
