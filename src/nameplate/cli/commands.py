"""The commands. What is heavy is imported inside the command that needs it, so that `--help` is quick."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from nameplate import __version__
from nameplate.cli import screen
from nameplate.errors import UsageError
from nameplate.types import DEFAULT_BUNDLE, TOP, HeadRecipe

RECIPE = HeadRecipe()

app = typer.Typer(
    name="nameplate",
    help="Read a car's make and model off a photo.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)

Data = Annotated[
    list[Path],
    typer.Argument(
        metavar="DATA...",
        help="A folder per nameplate, a CSV or Parquet with path and label, the competition's folder or zip. "
        "Several are merged.",
        show_default=False,
    ),
]
BundleArgument = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="A folder that 'train' wrote, or the name of one that ships.")
]
Names = Annotated[Path | None, typer.Option(help="File with the names of class ids: a name a line, or rows id,name.")]
RuntimeOption = Annotated[str, typer.Option("--runtime", help="auto, onnxruntime, openvino or openvino-bf16.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Processors to use.", show_default="all that this process may use")
]
Json = Annotated[bool, typer.Option("--json", help="Nothing but one JSON value on stdout.")]
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
    data: Data,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="BUNDLE", help="The bundle to write.")],
    names: Names = None,
    backbone: Annotated[str, typer.Option(help="The bundle whose backbone embeds the photos.")] = DEFAULT_BUNDLE,
    holdout: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of each nameplate kept for judging.")
    ] = RECIPE.holdout,
    seed: Annotated[int, typer.Option(help="Of the split.")] = RECIPE.seed,
    mirror: Annotated[bool, typer.Option(help="Train on every photo mirrored as well.")] = RECIPE.mirror,
    balanced: Annotated[bool, typer.Option(help="Every nameplate weighs alike.")] = RECIPE.balanced,
    overwrite: Annotated[bool, typer.Option(help="Replace a bundle that is there.")] = False,
    runtime: RuntimeOption = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Fit a classifier to labelled photos, in seconds, and say what it is worth."""
    from nameplate.datasets import read_dataset
    from nameplate.models.bundle import refuse_other_folder
    from nameplate.models.model import Model
    from nameplate.training.frozen import train_head

    start = time.monotonic()
    refuse_other_folder(output)
    if output.exists() and not overwrite:
        raise UsageError(f"'{output}' is there already. Choose another name, or pass --overwrite.")
    model = Model.load(backbone, runtime=runtime, threads=threads)
    with screen.progress() as report:
        dataset = read_dataset(*data, names=names, progress=lambda a, b: report("unpack", a, b))
        recipe = HeadRecipe(holdout=holdout, seed=seed, mirror=mirror, balanced=balanced)
        trained = train_head(dataset, output, model=model, recipe=recipe, overwrite=overwrite, progress=report)
    seconds = time.monotonic() - start
    _tell_refused([(entry.name, entry.reason) for entry in dataset.refused], "left out")
    _tell_refused(list(trained.unreadable), "unreadable")
    if trained.leaked:
        screen.note("left out", f"{trained.leaked:,} held-out photos: they are copies of training photos.")
    if json:
        judged = None if trained.evaluation is None else screen.evaluation_json(trained.evaluation)
        screen.print_json({"bundle": str(output), "photos": trained.photos, "seconds": seconds, "evaluation": judged})
        return
    nameplates = trained.bundle.manifest.nameplates
    trained_on = f"{trained.photos:,} photos of {len(nameplates):,} nameplates ({', '.join(dataset.kinds)})"
    screen.step("Trained on", f"{trained_on}; {trained.copies:,} copies kept on one side of the split")
    if trained.evaluation is not None:
        screen.step("Held out", f"{trained.evaluation.photos:,} photos: {screen.figures(trained.evaluation)}")
        for pair in trained.evaluation.confusions[:3]:
            screen.step("", f"{pair.photos}× {pair.truth} taken for {pair.named}")
    screen.step("Wrote", f"{output}  ({seconds:.0f} s, {trained.runtime})")
    screen.step("Next", f"nameplate identify --model '{output}' PHOTO")


@app.command()
def evaluate(
    bundle: BundleArgument,
    data: Data,
    names: Names = None,
    include_trained: Annotated[
        bool, typer.Option(help="Judge also the photos that trained the model; the figures then flatter.")
    ] = False,
    all_classes: Annotated[bool, typer.Option(help="Show every nameplate's row.")] = False,
    runtime: RuntimeOption = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Say what a model is worth on labelled photos that did not train it."""
    from nameplate.datasets import read_dataset
    from nameplate.evaluation.judge import judge
    from nameplate.models.model import Model

    model = Model.load(bundle, runtime=runtime, threads=threads)
    model.require_head()
    with screen.progress() as report:
        dataset = read_dataset(*data, names=names, progress=lambda a, b: report("unpack", a, b))
        judged = judge(model, dataset, include_trained=include_trained, progress=report)
    _tell_refused([(entry.name, entry.reason) for entry in dataset.refused], "left out")
    _tell_refused(list(judged.unreadable), "unreadable")
    if judged.trained:
        screen.notes.print(f"{judged.trained:,} photos left out: they trained this model.")
    if judged.strange:
        screen.notes.print(f"{len(judged.strange):,} nameplates left out: the model does not know them.")
    if json:
        left_out = {
            "trained": judged.trained,
            "unreadable": len(judged.unreadable),
            "unknown": judged.strange,
        }
        screen.print_json(
            {**screen.evaluation_json(judged.evaluation), "left_out": left_out, "runtime": judged.runtime}
        )
        return
    screen.print_evaluation(judged.evaluation, all_classes=all_classes)


@app.command()
def identify(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO...", show_default=False)],
    model: Annotated[str, typer.Option(help="A bundle's folder, or the name of one that ships.")] = DEFAULT_BUNDLE,
    top: Top = TOP,
    runtime: RuntimeOption = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Name the car in a photo, or in each of several. Exit code 1 where none could be read."""
    from nameplate.bulk.predict import as_json
    from nameplate.models.model import Model

    known = Model.load(model, runtime=runtime, threads=threads)
    predictions = known.predict(_photo_paths(photos), top=top)
    if json:
        screen.print_json([as_json(prediction) for prediction in predictions])
    else:
        for prediction in predictions:
            screen.print_prediction(prediction)
    if all(prediction.error is not None for prediction in predictions):
        raise typer.Exit(1)


@app.command()
def predict(
    bundle: BundleArgument,
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTOS...", help="Photos, folders, tables or zips.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A .csv, .jsonl or .parquet file.")],
    top: Top = TOP,
    runtime: RuntimeOption = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Name many photos into a table, a row each. Run it again after an interruption to go on."""
    from nameplate.bulk.predict import predict_table
    from nameplate.models.model import Model

    model = Model.load(bundle, runtime=runtime, threads=threads)
    start = time.monotonic()
    with screen.progress() as report:
        done = predict_table(
            model, _photo_paths(photos), output, top=top, progress=lambda a, b: report("predict", a, b)
        )
    seconds = time.monotonic() - start
    if json:
        screen.print_json(
            {
                "output": str(output),
                "photos": done.photos,
                "unreadable": done.unreadable,
                "resumed": done.resumed,
            }
        )
        return
    resumed = f", {done.resumed:,} of them before the interruption" if done.resumed else ""
    screen.out.print(
        f"Wrote {output}: {done.photos:,} photos, {done.unreadable:,} unreadable{resumed} ({seconds:.1f} s)"
    )


@app.command()
def submit(
    bundle: BundleArgument,
    competition: Annotated[Path, typer.Argument(help="The competition's folder or zip.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The submission to write.")],
    runtime: RuntimeOption = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Write a valid submission: the sample submission's Ids, in its order."""
    from nameplate.bulk.submission import submit as write
    from nameplate.models.model import Model

    model = Model.load(bundle, runtime=runtime, threads=threads)
    with screen.progress() as report:
        made = write(model, competition, output, progress=lambda a, b: report("predict", a, b))
    _tell_refused(list(made.unreadable), f"unreadable, given Category {made.filler}")
    if json:
        screen.print_json({"output": str(output), "photos": made.photos, "unreadable": len(made.unreadable)})
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


def _photo_paths(arguments: list[Path]) -> list[str]:
    from nameplate.datasets import list_photos

    return [photo.path for argument in arguments for photo in list_photos(argument)]


def _tell_refused(refused: list[tuple[str, str]], what: str) -> None:
    for name, reason in refused[:10]:
        screen.note(what, f"{name}: {reason}")
    if len(refused) > 10:
        screen.notes.print(f"… and {len(refused) - 10:,} more {what}")
