"""The commands about training: `train`, `augment`, `recipes`, `backbones`, `backbone`, `convert-weights`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nameplate.cli import screen
from nameplate.cli.app import app
from nameplate.cli.ending import needs_extra
from nameplate.cli.labelled import as_json as how_read
from nameplate.cli.labelled import left_out_json, read_labelled, tell, tell_parts
from nameplate.cli.options import (
    DATA,
    Changes,
    Data,
    Exclude,
    Json,
    LayoutOption,
    Names,
    RecipeOption,
    RuntimeOption,
    Threads,
    WholePhoto,
    which_cars,
)
from nameplate.defaults import DEFAULT_BUNDLE, DEFAULT_RECIPE
from nameplate.errors import DataError, NameplateError, UsageError, WriteError
from nameplate.types import HeadRecipe

if TYPE_CHECKING:
    from nameplate.data.dataset import Dataset
    from nameplate.fit.recipe import Recipe
    from nameplate.train.finetune import FineTuned

Report = Callable[[str, int, int], None]
Read = Callable[[Report], "Dataset"]


@app.command()
def train(
    data: Annotated[list[Path] | None, DATA] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT", help="The bundle or the run's folder to write.")
    ] = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    changes: Changes = None,
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
    index: Annotated[
        bool,
        typer.Option("--index", help="Store thumbnails of the training photos in the bundle, for 'explain'."),
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing bundle or run.")] = False,
    whole_photo: WholePhoto = False,
    runtime: RuntimeOption = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Train on labelled photos and evaluate the model: a linear head in seconds, or a whole network by a recipe."""
    from nameplate.fit.recipe import load_recipe

    if resume is not None:
        others = (data, output, changes, backbone, names, exclude, holdout, seed, mirror, balanced, threads)
        changed = recipe != DEFAULT_RECIPE or layout != "auto" or whole_photo
        if any(other not in (None, []) for other in others) or changed or overwrite or index:
            raise UsageError(
                "--resume takes photos, recipe and folder from the run: give nothing with it but --data and --json."
            )
        train_by_recipe(None, resume, moved=moved or [], json=json)
        return
    if moved:
        raise UsageError("--data says where the photos of a run are now: it needs --resume RUN.")
    if not data or output is None:
        raise UsageError("Give the labelled photos and --output, or a run to go on with: --resume RUN.")
    given = {"holdout": holdout, "seed": seed, "mirror": mirror, "balanced": balanced}
    chosen = with_options(load_recipe(recipe, changes or []), {k: v for k, v in given.items() if v is not None}, recipe)

    def read(report: Callable[[str, int, int], None]) -> Dataset:
        from nameplate.data import read_dataset
        from nameplate.data.inputs import refuse_output_inside

        def unpacked(done: int, total: int) -> None:
            report("unpack", done, total)

        refuse_output_inside(output, data, (names, exclude, recipe))  # the output by itself was looked at before
        return read_dataset(*data, names=names, exclude=exclude, layout=layout, progress=unpacked)

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
        chosen = replace(chosen, backbone=backbone)
    train_by_recipe(read, output, recipe=chosen, index=index, overwrite=overwrite, threads=threads, json=json)


@app.command()
def augment(
    data: Data,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="SHEET", help="The .jpg or .png file to write.")],
    recipe: RecipeOption = "fine-tune",
    changes: Changes = None,
    stage: Annotated[
        int | None, typer.Option(min=1, help="The stage whose photo size to use.", show_default="last")
    ] = None,
    photos: Annotated[int, typer.Option(min=1, max=50, help="How many rows, each of another nameplate.")] = 4,
    pictures: Annotated[int, typer.Option(min=1, max=50, help="How many variations of each photo.")] = 6,
    names: Names = None,
    exclude: Exclude = None,
    layout: LayoutOption = "auto",
    json: Json = False,
) -> None:
    """Draw augmented photos as the network would see them in training."""
    from nameplate.data.inputs import refuse_overwriting_input
    from nameplate.fit.recipe import Recipe, load_recipe
    from nameplate.report.sheet import SUFFIXES, augmented_rows, contact_sheet, examples
    from nameplate.storage import whole_file

    if output.suffix.lower() not in SUFFIXES:
        raise UsageError(f"Cannot write '{output}': its name must end in {', '.join(SUFFIXES)}.")
    plan = load_recipe(recipe, changes or [])
    if not isinstance(plan, Recipe):
        raise UsageError(f"Recipe '{recipe}' trains no network, so it varies no photos. See 'nameplate recipes'.")
    if stage is not None and stage > len(plan.stages):
        raise UsageError(f"There is no stage {stage}: recipe '{recipe}' has {len(plan.stages)}.")
    seen_at = plan.stages[-1 if stage is None else stage - 1]
    height, width = seen_at.height, seen_at.width
    with screen.progress() as report:
        dataset = read_labelled(data, names, exclude, layout, report)
    refuse_overwriting_input([output], [*data, names, exclude, recipe, *(photo.path for photo in dataset.photos)])
    found, unreadable = examples(dataset.photos, photos, (height, width))
    screen.tell_refused(unreadable, "unreadable")
    if not found:
        raise DataError(f"No training photo in '{data[0]}' can be read.")
    rows = augmented_rows([pixels for _, pixels in found], height, width, plan.augmentation, plan.seed, pictures)
    sheet = contact_sheet(rows, [str(photo.label) for photo, _ in found], SUFFIXES[output.suffix.lower()])
    with whole_file(output) as temporary:
        temporary.write_bytes(sheet)
    if json:
        shown = [{"photo": photo.path, "nameplate": photo.label} for photo, _ in found]
        left_out = screen.left_out_json(dataset.refused, unreadable)
        made = {"output": str(output), "height": height, "width": width, "photos": shown, "left_out": left_out}
        screen.print_json(made)
        return
    screen.out.print(
        f"Wrote {output}: {len(found)} photos and {pictures} pictures of each, {height}×{width}, recipe '{recipe}'"
    )


@app.command()
def recipes(json: Json = False) -> None:
    """List the recipes that ship, for 'train --recipe'."""
    from nameplate.fit.recipe import recipe_rows

    rows = recipe_rows()
    if json:
        screen.print_json(rows)
    else:
        screen.print_recipes(rows)


@app.command()
def backbones(
    pattern: Annotated[
        str | None,
        typer.Argument(metavar="PATTERN", help="A pattern of timm's names with * and ?, such as 'convnext*'."),
    ] = None,
    json: Json = False,
) -> None:
    """List the networks that can be trained: the common ones, or all of timm's that match a pattern."""
    with needs_train_extra():
        from nameplate.train.backbones import list_backbones
    found = list_backbones(pattern)
    if json:
        screen.print_json(found)
    else:
        screen.print_backbones(found)


@app.command()
def backbone(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="One of 'nameplate backbones', such as timm:convnext_tiny.", show_default=False
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="BUNDLE", help="The bundle to write.")],
    weights: Annotated[
        str,
        typer.Option(help="auto (those that belong to NAME), a .safetensors file, a run's folder, or none (random)."),
    ] = "auto",
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW", help="Input size of the network, in pixels.", show_default="that of the weights' training"
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing bundle.")] = False,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Export a network with its weights as a bundle, for 'train --backbone BUNDLE', which then needs no torch."""
    with needs_train_extra():
        from nameplate.train.headless import export_backbone
    from nameplate.experiments.candidates import parse_size

    begun = time.monotonic()
    made = export_backbone(
        name,
        output,
        weights=weights,
        size=None if size is None else parse_size(size),
        threads=threads,
        overwrite=overwrite,
        say=lambda text: screen.notes.print(f"{text} …"),
    )
    manifest, seconds = made.bundle.manifest, time.monotonic() - begun
    height, width = manifest.preprocess.height, manifest.preprocess.width
    size_bytes = manifest.files["backbone.onnx"].bytes
    if json:
        screen.print_json(
            {
                "bundle": str(output),
                "backbone": made.backbone.timm,
                "weights": made.weights,
                "licence": made.backbone.licence,
                "height": height,
                "width": width,
                "embedding": manifest.embedding,
                "bytes": size_bytes,
                "parity": made.parity,
                "seconds": seconds,
            }
        )
        return
    screen.step("Exported", f"{made.backbone.timm}, {height}×{width}, an embedding of {manifest.embedding:,} numbers")
    screen.step("Weights", made.weights)
    for each in made.parity:
        screen.step("As torch", f"{each.pictures} pictures by {each.runtime}, gap ≤ {each.gap:.1e} of their spread")
    screen.step("Wrote", f"{output}  ({size_bytes / 1e6:.0f} MB, {seconds:.0f} s)")
    screen.step("Next", f"nameplate train DATA --backbone '{output}' -o OUT")


@app.command("convert-weights")
def convert_weights(
    source: Annotated[Path, typer.Argument(metavar="IN.pth", help="The file of pickled weights.", show_default=False)],
    target: Annotated[Path, typer.Argument(metavar="OUT.safetensors", show_default=False)],
    json: Json = False,
) -> None:
    """Convert pickled weights to safetensors without running any code in them."""
    with needs_train_extra():
        from nameplate.train.weights import convert_weights as convert
    from nameplate.data.inputs import refuse_overwriting_input

    refuse_overwriting_input([target], [source])
    made = convert(source, target)
    if json:
        screen.print_json({"output": str(target), "tensors": made.tensors, "dropped": made.dropped})
        return
    if made.dropped:
        more = f" and {len(made.dropped) - 10:,} more" if len(made.dropped) > 10 else ""
        screen.note("left out", ", ".join(made.dropped[:10]) + more)
    screen.out.print(f"Wrote {target}: {made.tensors:,} tensors")


def needs_train_extra() -> AbstractContextManager[None]:
    """Guard imports of packages that only the extra `train` installs; see `needs_extra`."""
    return needs_extra("train", "Training a network needs")


def with_options(recipe: Recipe | HeadRecipe, given: dict[str, Any], name: str) -> Recipe | HeadRecipe:
    """Return the recipe with the given options set.

    Raises:
        UsageError: this kind of recipe has no such option.
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
    if json:
        evaluation = None if trained.evaluation is None else as_json(trained.evaluation)
        screen.print_json(
            {
                "bundle": str(output),
                "photos": trained.photos,
                "seconds": seconds,
                "runtime": trained.runtime,
                "evaluation": evaluation,
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
    """Train a network in the stages of a recipe; without `read`, continue a run, whose photos may have `moved`."""
    if moved:
        _look_elsewhere(run, moved)
    main = os.environ.get("RANK", "0") == "0"  # torchrun starts one process more for each device
    with needs_train_extra():
        from nameplate.train.finetune import fine_tune, start
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
    """Say how to continue a run that a person or the disk interrupts."""
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
