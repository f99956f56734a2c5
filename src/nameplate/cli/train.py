"""`nameplate train`: the command, and the training of a head; networks are trained in `fine_tune.py`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nameplate.cli import screen
from nameplate.cli.app import app
from nameplate.cli.fine_tune import Read, train_by_recipe
from nameplate.cli.labelled import as_json as how_read
from nameplate.cli.labelled import left_out_json, tell, tell_known, tell_parts
from nameplate.cli.options import (
    DATA,
    BatchSize,
    Changes,
    Epochs,
    Exclude,
    Json,
    LayoutOption,
    Names,
    PhotoSize,
    RecipeOption,
    Relabel,
    RuntimeOption,
    Threads,
    WholePhoto,
    which_cars,
)
from nameplate.defaults import DEFAULT_BUNDLE, DEFAULT_RECIPE
from nameplate.errors import UsageError
from nameplate.types import HeadRecipe

if TYPE_CHECKING:
    from nameplate.data.dataset import Dataset
    from nameplate.fit.recipe import Recipe


@app.command()
def train(
    data: Annotated[list[Path] | None, DATA] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT", help="The bundle or the run's folder to write.")
    ] = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    changes: Changes = None,
    epochs: Epochs = None,
    size: PhotoSize = None,
    batch: BatchSize = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="With recipe 'head': the bundle whose backbone embeds the photos; else one of 'nameplate backbones'.",
            show_default=f"{DEFAULT_BUNDLE}, or the recipe's",
        ),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Continue an interrupted run; it needs no DATA.")
    ] = None,
    moved: Annotated[
        list[Path] | None,
        typer.Option(
            "--data", metavar="PLACE", help="With --resume: where the photos are now, if they have moved; repeatable."
        ),
    ] = None,
    names: Names = None,
    exclude: Exclude = None,
    relabel: Relabel = None,
    layout: LayoutOption = "auto",
    holdout: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=0.9,
            help="Share of each nameplate that is held out for the evaluation.",
            show_default=str(HeadRecipe().holdout),
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="Seed of the split.", show_default=str(HeadRecipe().seed))
    ] = None,
    mirror: Annotated[
        bool | None,
        typer.Option("--mirror/--no-mirror", help="With recipe 'head': also train on every photo mirrored."),
    ] = None,
    balanced: Annotated[
        bool | None,
        typer.Option("--balanced/--no-balanced", help="With recipe 'head': give every nameplate the same weight."),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=20,
            metavar="K",
            help="Train K models, each without another part of the photos, and write their ensemble and what each says "
            "of the photos that it did not see.",
        ),
    ] = None,
    time_limit: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Choose recipe, photo size, epochs and folds to fit this time on this machine: 90s, 20m, 1h30m.",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="With --time-limit: fast (a head), good (heads and networks) or best (larger photos, more epochs).",
            show_default="good",
        ),
    ] = None,
    index: Annotated[
        bool,
        typer.Option("--index", help="Store thumbnails of the training photos in the bundle, for 'explain'."),
    ] = False,
    track: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Send the figures of a network's training to wandb or mlflow as well; repeatable. Also with --resume.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing bundle or run.")] = False,
    whole_photo: WholePhoto = False,
    runtime: RuntimeOption = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Train on labelled photos and evaluate the model: a linear head in seconds, or a whole network by a recipe."""
    from nameplate.cli.auto import is_auto_run, preset_of, resume_auto, train_auto
    from nameplate.cli.folds import resume_folds, train_in_folds, without_choice
    from nameplate.fit.folds import is_fold_run
    from nameplate.fit.recipe import load_recipe, with_backbone

    if resume is not None:
        switches = (epochs, size, batch, holdout, seed, mirror, balanced, folds, threads, time_limit, preset)
        others = (data, output, changes, backbone, names, exclude, relabel, *switches)
        changed = recipe != DEFAULT_RECIPE or layout != "auto" or whole_photo
        if any(other not in (None, []) for other in others) or changed or overwrite or index:
            raise UsageError(
                "--resume takes photos, recipe and folder from the run: give nothing with it but --data, --track and "
                "--json."
            )
        if is_auto_run(resume):
            if track or moved:
                raise UsageError(f"'{resume}' was begun with --time-limit: it goes on without --track and --data.")
            resume_auto(resume, json=json)
            return
        if is_fold_run(resume):
            if track:
                raise UsageError("--track is for one network: it does not go with --folds.")
            if moved:
                raise UsageError(f"'{resume}' is a run in folds: its photos must be where they were when it began.")
            resume_folds(resume, json=json)
            return
        train_by_recipe(None, resume, moved=moved or [], track=track or [], json=json)
        return
    if moved:
        raise UsageError("--data says where the photos of a run are now: it needs --resume RUN.")
    if not data or output is None:
        raise UsageError("Give the labelled photos and --output, or a run to go on with: --resume RUN.")
    if preset is not None and time_limit is None:
        raise UsageError("--preset says how to use a --time-limit: give both, such as --time-limit 20m --preset good.")
    limit = None if time_limit is None else preset_of(time_limit, preset)
    given = {"holdout": holdout, "seed": seed, "mirror": mirror, "balanced": balanced}
    chosen = with_options(load_recipe(recipe, changes or []), {k: v for k, v in given.items() if v is not None}, recipe)
    chosen = with_plain_options(chosen, recipe, epochs=epochs, size=size, batch=batch)

    def read(report: Callable[[str, int, int], None]) -> Dataset:
        from nameplate.data import read_dataset
        from nameplate.data.inputs import refuse_output_inside

        def unpacked(done: int, total: int) -> None:
            report("unpack", done, total)

        refuse_output_inside(
            output, data, (names, exclude, relabel, recipe)
        )  # the output by itself was looked at before
        return read_dataset(*data, names=names, exclude=exclude, relabel=relabel, layout=layout, progress=unpacked)

    if limit is not None:
        decided = (changes, epochs, size, batch, backbone, holdout, seed, mirror, balanced, folds, track)
        if any(each not in (None, []) for each in decided) or recipe != DEFAULT_RECIPE or index or whole_photo:
            raise UsageError(
                "--time-limit chooses recipe, size, epochs and folds itself: give none of them, and no --backbone, "
                "--holdout, --seed, --index, --track or --whole-photo with it."
            )
        train_auto(read, output, limit, overwrite=overwrite, runtime=runtime, threads=threads, json=json)
        return
    if track and (folds is not None or isinstance(chosen, HeadRecipe)):
        raise UsageError("--track is for the training of one network: not with --folds, and not with recipe 'head'.")
    if folds is not None:
        if index:
            raise UsageError("--index is for one model: train without --folds.")
        plain = without_choice(chosen, changes or [], holdout=holdout)
        if not isinstance(plain, HeadRecipe):
            plain = replace(plain, locate="none") if whole_photo else plain
            plain = plain if backbone is None else with_backbone(plain, backbone, changes or [])
        train_in_folds(
            read,
            output,
            plain,
            folds,
            backbone=backbone,
            whole_photo=whole_photo,
            overwrite=overwrite,
            runtime=runtime,
            threads=threads,
            json=json,
        )
        return
    if isinstance(chosen, HeadRecipe):
        train_head_alone(
            read,
            output,
            chosen,
            backbone or DEFAULT_BUNDLE,
            whole_photo=whole_photo,
            index=index,
            overwrite=overwrite,
            runtime=runtime,
            threads=threads,
            json=json,
        )
        return
    if whole_photo:
        chosen = replace(chosen, locate="none")
    if backbone is not None:
        chosen = with_backbone(chosen, backbone, changes or [])
    train_by_recipe(
        read,
        output,
        recipe=chosen,
        index=index,
        overwrite=overwrite,
        track=track or [],
        threads=threads,
        json=json,
    )


def with_options(recipe: Recipe | HeadRecipe, given: dict[str, Any], name: str) -> Recipe | HeadRecipe:
    """Return the recipe with the given options set.

    Raises:
        UsageError: this kind of recipe has no such option.
    """
    strange = [option for option in given if not hasattr(recipe, option)]
    if strange:
        raise UsageError(f"--{strange[0]} is for recipe 'head', not for '{name}'.")
    return replace(recipe, **given)


def with_plain_options(
    recipe: Recipe | HeadRecipe, name: str, *, epochs: int | None, size: str | None, batch: int | None
) -> Recipe | HeadRecipe:
    """Return the recipe changed by `--epochs`, `--size` and `--batch`; None leaves each as it is.

    Raises:
        UsageError: the recipe trains no network, or a value is impossible.
    """
    given = {"--epochs": epochs, "--size": size, "--batch": batch}
    named = [option for option, value in given.items() if value is not None]
    if not named:
        return recipe
    if isinstance(recipe, HeadRecipe):
        raise UsageError(f"{named[0]} is for recipes that train a network, not for '{name}'. See 'nameplate recipes'.")
    from nameplate.experiments.candidates import parse_size
    from nameplate.fit.adjust import adjusted

    return adjusted(recipe, epochs=epochs, size=None if size is None else parse_size(size), batch=batch)


def train_head_alone(
    read: Read,
    output: Path,
    recipe: HeadRecipe,
    backbone: str,
    *,
    whole_photo: bool,
    index: bool,
    overwrite: bool,
    runtime: str,
    threads: int | None,
    json: bool,
) -> None:
    """Train a linear head on a bundle's frozen backbone, and report it."""
    from nameplate.data.inputs import refuse_overwriting_input
    from nameplate.evaluate.metrics import as_json
    from nameplate.fit.linear_probe import train_head
    from nameplate.model.bundle import refuse_other_folder
    from nameplate.model.model import Model

    start = time.monotonic()
    refuse_other_folder(output)
    if output.exists() and not overwrite:
        raise UsageError(f"'{output}' is there already. Choose another name, or pass --overwrite.")
    model = Model.load(backbone, runtime=runtime, threads=threads, cars=which_cars(whole_photo=whole_photo))
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
    known = tell_known(trained.split, backbone, model.bundle)
    if json:
        evaluation = None if trained.evaluation is None else as_json(trained.evaluation)
        screen.print_json(
            {
                "bundle": str(output),
                "photos": trained.photos,
                "seconds": seconds,
                "runtime": trained.runtime,
                "evaluation": evaluation,
                "held_out_known": known,
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
