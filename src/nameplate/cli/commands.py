"""The commands. What is heavy is imported inside the command that needs it, so that `--help` is quick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nameplate import __version__
from nameplate.cli import screen
from nameplate.cli.training import needs_train_extra
from nameplate.defaults import DEFAULT_BUNDLE, DEFAULT_RECIPE, NO_TTA, TOP
from nameplate.errors import DataError, UsageError
from nameplate.types import HeadRecipe

if TYPE_CHECKING:
    from nameplate.data import Refused
    from nameplate.data.dataset import Dataset

app = typer.Typer(
    name="nameplate",
    help="Read a car's make and model off a photo.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)

DATA = typer.Argument(
    metavar="DATA",
    help="A folder per nameplate, a CSV or Parquet with path and label, the competition's folder or zip. "
    "Several are merged.",
    show_default=False,
)
Data = Annotated[list[Path], DATA]
BundleArgument = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="A folder that 'train' wrote, or the name of one that ships.")
]
Names = Annotated[Path | None, typer.Option(help="File with the names of class ids: a name a line, or rows id,name.")]
Exclude = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Leave out the photos that it names: 'nameplate audit' writes one."),
]
LayoutOption = Annotated[
    str,
    typer.Option(
        "--layout",
        metavar="LAYOUT",
        help="How folders are read: auto (told by looking), classes (a folder per nameplate), parts (these in train, "
        "val and the like) or makes (a folder per make, in it one per model).",
    ),
]
RuntimeOption = Annotated[str, typer.Option("--runtime", help="auto, onnxruntime, openvino or openvino-bf16.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Processors to use.", show_default="all that this process may use")
]
Json = Annotated[bool, typer.Option("--json", help="Nothing but one JSON value on stdout.")]
RecipeOption = Annotated[str, typer.Option("--recipe", help="One that 'nameplate recipes' lists, or a .toml file.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one of the recipe's keys; repeatable.")
]
TtaOption = Annotated[
    str,
    typer.Option(
        "--tta",
        metavar="NAME",
        help="Look at each photo several times: mirror, scales, closer (at the car), sharpen (if it is blurred or "
        "small), some of them joined by commas, full, or original (the notebook's five random passes).",
    ),
]
Top = Annotated[int, typer.Option(min=1, help="How many nameplates to give for each photo.")]


def _version(wanted: bool) -> None:
    if wanted:
        screen.out.print(f"nameplate {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Read a car's make and model off a photo."""


@app.command()
def train(
    data: Annotated[list[Path] | None, DATA] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT", help="The bundle, or the run, to write.")
    ] = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    changes: Changes = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="With recipe 'head' the bundle whose backbone embeds the photos, else one of 'nameplate backbones'.",
            show_default=f"{DEFAULT_BUNDLE}, or the recipe's",
        ),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with a run that was interrupted; needs no DATA.")
    ] = None,
    moved: Annotated[
        list[Path] | None,
        typer.Option(
            "--data", metavar="PLACE", help="With --resume: where photos are now that have moved; repeatable."
        ),
    ] = None,
    names: Names = None,
    exclude: Exclude = None,
    layout: LayoutOption = "auto",
    holdout: Annotated[
        float | None,
        typer.Option(
            min=0, max=0.9, help="Share of each nameplate kept for judging.", show_default=str(HeadRecipe().holdout)
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="Of the split.", show_default=str(HeadRecipe().seed))
    ] = None,
    mirror: Annotated[
        bool | None, typer.Option("--mirror/--no-mirror", help="Head: train on every photo mirrored as well.")
    ] = None,
    balanced: Annotated[
        bool | None, typer.Option("--balanced/--no-balanced", help="Head: every nameplate weighs alike.")
    ] = None,
    index: Annotated[
        bool,
        typer.Option("--index", help="Put thumbnails of the photos that train into the bundle, for 'explain'."),
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace a bundle or a run that is there.")] = False,
    runtime: RuntimeOption = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Train on labelled photos, and say what the model is worth: a head in seconds, or a network by a recipe."""
    from nameplate.cli.training import train_by_recipe, train_head_alone, with_options
    from nameplate.fit.recipe import load_recipe

    if resume is not None:
        others = (data, output, changes, backbone, names, exclude, holdout, seed, mirror, balanced, threads)
        changed = recipe != DEFAULT_RECIPE or layout != "auto"
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
            index=index,
            overwrite=overwrite,
            runtime=runtime,
            threads=threads,
            json=json,
        )
        return
    if backbone is not None:
        chosen = replace(chosen, backbone=backbone)
    train_by_recipe(read, output, recipe=chosen, index=index, overwrite=overwrite, threads=threads, json=json)


@app.command()
def augment(
    data: Data,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="SHEET", help="The .jpg or .png to write.")],
    recipe: RecipeOption = "fine-tune",
    changes: Changes = None,
    stage: Annotated[int | None, typer.Option(min=1, help="Whose photo size to use.", show_default="last")] = None,
    photos: Annotated[int, typer.Option(min=1, max=50, help="Rows, each of another nameplate.")] = 4,
    pictures: Annotated[int, typer.Option(min=1, max=50, help="Pictures made of each photo.")] = 6,
    names: Names = None,
    exclude: Exclude = None,
    layout: LayoutOption = "auto",
    json: Json = False,
) -> None:
    """Draw photos as the network would see them in training, before it is trained."""
    from nameplate.cli.options import read_labelled
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
        str | None, typer.Argument(metavar="PATTERN", help="Of timm's names, with * and ?, such as 'convnext*'.")
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


@app.command("convert-weights")
def convert_weights(
    source: Annotated[Path, typer.Argument(metavar="IN.pth", help="A pickle of weights.", show_default=False)],
    target: Annotated[Path, typer.Argument(metavar="OUT.safetensors", show_default=False)],
    json: Json = False,
) -> None:
    """Turn a pickle of weights into safetensors, without running anything that is in it."""
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


@app.command()
def identify(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO", readable=False, show_default=False)],
    model: Annotated[str, typer.Option(help="A bundle's folder, or the name of one that ships.")] = DEFAULT_BUNDLE,
    top: Top = TOP,
    tta: TtaOption = NO_TTA,
    runtime: RuntimeOption = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Name the car in a photo, or in each of several. Exit code 1 where none could be read."""
    from nameplate.model.model import Model
    from nameplate.model.verification import prediction_json

    known = Model.load(model, runtime=runtime, threads=threads, tta=tta)
    paths, left_out = photo_paths(photos)
    predictions = known.predict(paths, top=top)
    if json:
        last = [{"left_out": screen.left_out_json(left_out)}] if left_out else []
        screen.print_json([*(prediction_json(prediction) for prediction in predictions), *last])
    else:
        for prediction in predictions:
            screen.print_prediction(prediction)
    if all(prediction.error is not None for prediction in predictions):
        raise typer.Exit(1)


@app.command()
def submit(
    bundle: BundleArgument,
    competition: Annotated[Path, typer.Argument(metavar="COMPETITION", help="The competition's folder or zip.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The submission to write.")],
    tta: TtaOption = NO_TTA,
    runtime: RuntimeOption = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Write a valid submission: the sample submission's Ids, in its order."""
    from nameplate.batch.submission import submit as write
    from nameplate.data.inputs import refuse_overwriting_input
    from nameplate.model.model import Model

    refuse_overwriting_input([output], [competition])
    model = Model.load(bundle, runtime=runtime, threads=threads, tta=tta)
    with screen.progress() as report:
        made = write(model, competition, output, progress=lambda a, b: report("predict", a, b))
    screen.tell_left_out(made.refused)
    screen.tell_refused(list(made.unreadable), f"unreadable, given Category {made.filler}")
    if json:
        left_out = screen.left_out_json(made.refused)
        counts = {"photos": made.photos, "unreadable": len(made.unreadable), "left_out": left_out}
        screen.print_json({"output": str(output), **counts})
        return
    screen.out.print(f"Wrote {output}: {made.photos:,} rows, in the order of the sample submission.")


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the page and the model.")] = Path(
        "nameplate-demo"
    ),
    runtime: RuntimeOption = "auto",
    threads: Threads = None,
) -> None:
    """A guided tour over the embedded photos: look, train, evaluate, identify, and a page with pictures."""
    from nameplate.demo.tour import tour

    with screen.progress() as report:
        tour(output, runtime=runtime, threads=threads, say=screen.step, progress=report)


def photo_paths(arguments: list[Path]) -> tuple[list[str], list[Refused]]:
    """The photos behind a command's arguments, and what is left out, which is told.

    An argument without photos, or that cannot be read, is left out too where another has some.

    Raises:
        DataError: none has.
    """
    from nameplate.data import Refused, list_photos

    paths: list[str] = []
    left_out: list[Refused] = []
    failed: list[tuple[Path, DataError]] = []
    for argument in arguments:
        try:
            paths += [photo.path for photo in list_photos(argument, left_out.append)]
        except DataError as error:
            failed.append((argument, error))
    below = [entry for _, error in failed for entry in error.left_out]
    if not paths:
        raise DataError(" ".join(str(error) for _, error in failed), below)
    left_out += [Refused(str(argument), str(error)) for argument, error in failed]
    left_out += [Refused(*entry) for entry in below]
    screen.tell_left_out(left_out)
    return paths, left_out
