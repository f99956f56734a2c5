"""`train --folds` and the command `ensemble`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nameplate.cli import screen
from nameplate.cli.app import app
from nameplate.cli.ending import needs_extra
from nameplate.cli.labelled import tell, tell_parts
from nameplate.cli.options import Json, Threads, which_cars
from nameplate.defaults import DEFAULT_BUNDLE
from nameplate.errors import UsageError

if TYPE_CHECKING:
    from nameplate.data.dataset import Dataset
    from nameplate.fit.fold_run import FoldsResult
    from nameplate.fit.recipe import Recipe
    from nameplate.types import HeadRecipe

Report = Callable[[str, int, int], None]


@app.command()
def ensemble(
    bundles: Annotated[
        list[str],
        typer.Argument(metavar="BUNDLE", help="Bundles, runs, or runs in folds; two or more.", show_default=False),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="BUNDLE", help="The bundle to write.")],
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="W,W",
            help="The weight of each bundle.",
            show_default="fitted on photos that trained none of them, if that is more than noise; else equal",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing bundle.")] = False,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Combine bundles into one, which averages their answers and runs wherever a bundle does."""
    from nameplate.evaluate.metrics import as_json
    from nameplate.fit.ensemble import make_ensemble

    given = None if weights is None else _weights(weights)
    with screen.progress() as report:
        made = make_ensemble(bundles, output, weights=given, threads=threads, overwrite=overwrite, progress=report)
    if json:
        screen.print_json(
            {
                "bundle": str(output),
                "members": [
                    {"bundle": name, "weight": weight}
                    for name, weight in zip(made.members, made.weighing.weights, strict=True)
                ],
                "weights_fitted": made.weighing.fitted,
                "weights_gain": made.weighing.gain,
                "backbones": made.backbones,
                "photos_per_second": made.photos_per_second,
                "evaluation": None if made.evaluation is None else as_json(made.evaluation),
                "best_member": made.best,
                "gain_top1": made.accuracy_gain,
                "gain_log_loss": made.loss_gain,
                "seconds": made.seconds,
            }
        )
        return
    for name, weight in zip(made.members, made.weighing.weights, strict=True):
        screen.step("Member", f"{name}, weight {weight:.2f}{'' if weight else ': left out'}")
    screen.step("Weights", made.weighing.reason)
    if made.evaluation is not None:
        screen.print_held_out(made.evaluation)
        screen.step("Against", f"the best member, {made.best}: {made.verdict}")
    else:
        screen.note("not judged", "No photo trained none of the members: 'nameplate evaluate' it on further photos.")
    screen.step("Costs", made.cost)
    screen.step("Wrote", f"{output}  ({made.seconds:.0f} s)")
    screen.step("Next", f"nameplate identify --model '{output}' PHOTO")


def _weights(text: str) -> list[float]:
    try:
        return [float(each) for each in text.split(",")]
    except ValueError:
        raise UsageError(f"--weights {text}: give numbers joined by commas, such as 0.7,0.3.") from None


def without_choice(
    recipe: Recipe | HeadRecipe, changes: Sequence[str], *, holdout: float | None
) -> Recipe | HeadRecipe:
    """The recipe as folds train it, except for what the user set.

    Nothing is held out from all folds, because each fold has photos that it does not see; and these choose no epoch,
    which would make the figures on them too good.
    """
    from nameplate.fit.recipe import Recipe

    given = {change.partition("=")[0].strip() for change in changes}
    if holdout is None and "holdout" not in given:
        recipe = replace(recipe, holdout=0.0)
    if isinstance(recipe, Recipe) and "keep_best" not in given:
        recipe = replace(recipe, keep_best=False)
    return recipe


def train_in_folds(
    read: Callable[[Report], Dataset],
    output: Path,
    recipe: Recipe | HeadRecipe,
    folds: int,
    *,
    backbone: str | None,
    whole_photo: bool,
    overwrite: bool,
    runtime: str,
    threads: int | None,
    json: bool,
) -> None:
    """Train a recipe in folds, and report the folds and their ensemble."""
    from nameplate.fit.fold_run import begin_run
    from nameplate.fit.recipe import Recipe
    from nameplate.model.model import Model

    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UsageError("--folds trains fold after fold in one process: start it without torchrun.")
    network = isinstance(recipe, Recipe)
    begun = time.monotonic()
    if network:
        _need_train()
    name = DEFAULT_BUNDLE if network else backbone or DEFAULT_BUNDLE
    cars = "main" if network else which_cars(whole_photo=whole_photo)
    model = Model.load(name, runtime=runtime, threads=threads, cars=cars)
    refused: list[tuple[str, str]] = []
    with screen.progress() as report:

        def read_and_tell() -> Dataset:
            dataset = read(report)
            tell(dataset)
            refused.extend((entry.name, entry.reason) for entry in dataset.refused)
            return dataset

        plan = begin_run(read_and_tell, output, recipe, folds, model=model, overwrite=overwrite, progress=report)
    screen.tell_refused(list(plan.unreadable), "unreadable")
    tell_parts(plan.split)
    _go_on(output, begun, refused, json=json)


def resume_folds(run: Path, *, json: bool) -> None:
    """Train the folds of a run that are not complete yet, and report as `train_in_folds` does."""
    _go_on(run, time.monotonic(), [], json=json)


def _need_train() -> None:
    with needs_extra("train", "Training a network needs"):
        import nameplate.train.fold_runs  # noqa: F401


def _go_on(run: Path, begun: float, refused: list[tuple[str, str]], *, json: bool) -> None:
    from nameplate.fit.fold_run import continue_run
    from nameplate.fit.folds import load_plan

    plan = load_plan(run)

    def tell_fold(fold: int) -> None:
        screen.notes.print(f"fold {fold} of {plan.count}")

    try:
        if plan.recipe is None:
            with screen.progress() as report:
                result = continue_run(run, begun=tell_fold, progress=report)
        else:
            _need_train()
            from nameplate.train.fold_runs import network_fold

            with screen.training(quiet=False) as (watch, say):
                train = network_fold(plan.recipe, plan.threads, watch=watch, say=say)
                result = continue_run(run, train, begun=tell_fold)
    except KeyboardInterrupt:
        screen.note("interrupted", f"Go on with the fold that it was in: nameplate train --resume '{run}'.")
        raise typer.Exit(130) from None
    _tell(run, result, time.monotonic() - begun, refused, json=json)


def _tell(run: Path, result: FoldsResult, seconds: float, refused: list[tuple[str, str]], *, json: bool) -> None:
    from nameplate.evaluate.metrics import as_json
    from nameplate.fit.folds import TABLE, fold_folder, load_plan
    from nameplate.model.bundle import IN_RUN

    scores, plan = result.scores, load_plan(run)
    networks = result.backbones
    if json:
        screen.print_json(
            {
                "run": str(run),
                "bundle": str(run / IN_RUN),
                "out_of_fold": str(run / TABLE),
                "folds": [
                    {
                        "bundle": str(fold_folder(run, number)),
                        "photos": each.photos,
                        "top1": each.top1.value,
                        "log_loss": each.log_loss,
                    }
                    for number, each in enumerate(scores.folds, 1)
                ],
                "mean": scores.mean,
                "spread": scores.spread,
                "evaluation": as_json(scores.whole),
                "held_out": None if result.held_out is None else as_json(result.held_out),
                "always_train": result.always,
                "resumed_folds": result.resumed,
                "networks": networks,
                "seconds": seconds,
                "left_out": screen.left_out_json((), (*refused, *plan.unreadable)),
            }
        )
        return
    for number, each in enumerate(scores.folds, 1):
        resumed = ", complete before" if number <= result.resumed else ""
        screen.step(f"Fold {number}", f"{each.top1.percent} of {each.photos:,} photos{resumed}")
    screen.step("Out of fold", scores.sentence)
    if result.always:
        only = screen.counted(result.always, "photo")
        screen.note("in every fold", f"{only} of nameplates whose photos all belong together: never judged.")
    if result.held_out is not None:
        screen.step("Held out", f"{result.held_out.top1.percent} of {result.held_out.photos:,} photos, by the ensemble")
    cost = "one head, as fast as a single fold" if networks == 1 else f"{networks} networks for each photo"
    screen.step("Ensemble", f"{run / IN_RUN}: {cost}")
    screen.step("Wrote", f"{run}  ({seconds:.0f} s); {run / TABLE}")
    screen.step("Next", f"nameplate identify --model '{run}' PHOTO")
