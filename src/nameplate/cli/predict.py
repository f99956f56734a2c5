"""The commands that name cars: `identify`, `predict`, `submit`, `verify`, `explain`."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from nameplate.cli import screen
from nameplate.cli.app import app
from nameplate.cli.options import (
    AllCars,
    BundleArgument,
    DeviceOption,
    Json,
    RayOption,
    RuntimeOption,
    Threads,
    Top,
    TtaOption,
    WholePhoto,
    Workers,
    check_ray,
    which_cars,
)
from nameplate.defaults import DEFAULT_BUNDLE, NO_TTA, PART, TOP
from nameplate.errors import DataError, UsageError
from nameplate.model.verification import DEFAULT_LIES, DEFAULT_RATE, RATES
from nameplate.types import percent

if TYPE_CHECKING:
    from nameplate.batch.predict import JobResult, Profile
    from nameplate.data import Refused
    from nameplate.model.cam import Case
    from nameplate.model.model import Model
    from nameplate.model.verification import ClaimVerdict, Lies, Verified


@app.command()
def identify(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO", readable=False, show_default=False)],
    model: Annotated[
        str, typer.Option(help="A bundle's folder, or the name of a model that ships with Nameplate.")
    ] = DEFAULT_BUNDLE,
    top: Top = TOP,
    all_cars: AllCars = False,
    whole_photo: WholePhoto = False,
    tta: TtaOption = NO_TTA,
    runtime: RuntimeOption = "auto",
    device: DeviceOption = "cpu",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Name the car in each photo. Exit code 1 if no photo could be read."""
    from nameplate.model.model import Model
    from nameplate.model.verification import prediction_json
    from nameplate.runtime.select import on_device

    cars = which_cars(whole_photo=whole_photo, all_cars=all_cars)
    known = Model.load(model, runtime=on_device(runtime, device), threads=threads, tta=tta, cars=cars)
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


def photo_paths(arguments: list[Path]) -> tuple[list[str], list[Refused]]:
    """List the photos of a command's arguments; print and return what is left out.

    An argument without readable photos is left out, as long as another argument has some.

    Raises:
        DataError: no argument has any photo.
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


@app.command()
def predict(
    bundle: BundleArgument,
    photos: Annotated[
        list[str],
        typer.Argument(
            metavar="PHOTOS",
            help="Photos, folders, quoted patterns, tables (CSV, Parquet, JSON Lines), zips, tars, s3:// and gs:// "
            "addresses, or - for a list on standard input.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="A .csv, .jsonl or .parquet file, or a folder that gets one file per part."
        ),
    ],
    format_: Annotated[
        str | None,
        typer.Option("--format", help="Format of the files in the folder.", show_default="parquet, csv or jsonl"),
    ] = None,
    part: Annotated[int, typer.Option(min=1, metavar="N", help="Photos per part.")] = PART,
    profile: Annotated[bool, typer.Option("--profile", help="Show where the time is spent.")] = False,
    top: Top = TOP,
    all_cars: AllCars = False,
    whole_photo: WholePhoto = False,
    tta: TtaOption = NO_TTA,
    runtime: RuntimeOption = "auto",
    device: DeviceOption = "cpu",
    threads: Threads = None,
    ray: RayOption = None,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Name the cars in many photos and write a table. After an interruption, run it again to continue."""
    from nameplate.batch.on_ray import shards_on_ray
    from nameplate.batch.predict import Options, find_output, predict_photos
    from nameplate.model.model import Model
    from nameplate.runtime.select import on_device

    check_ray(ray, workers)
    make = None if ray is None else shards_on_ray(ray, workers, threads)
    target = find_output(output, format_)  # type: ignore[arg-type]
    cars = which_cars(whole_photo=whole_photo, all_cars=all_cars)
    model = Model.load(bundle, runtime=on_device(runtime, device), threads=threads, tta=tta, cars=cars)
    with screen.progress() as report:
        done = predict_photos(
            model,
            photos,
            target,
            Options(top, part, profile, make),
            listed=lambda count: report("list", count, count),
            progress=lambda a, b: report("predict", a, b),
        )
    left_out = done.left_out
    screen.tell_counted(left_out)
    if json:
        unlisted = {"left_out": screen.left_out_json(left_out.first), "left_out_total": left_out.total}
        screen.print_json({"output": str(output), **asdict(done), **unlisted})
    else:
        _print(output, done)


def _print(output: Path, done: JobResult) -> None:
    resumed = f", {done.resumed:,} of them before the interruption" if done.resumed else ""
    screen.out.print(
        f"Wrote {output}: {done.photos:,} photos, {done.unreadable:,} unreadable{resumed} "
        f"({done.seconds:.1f} s, {done.photos_per_second:,.0f} photos/s, {done.runtime})"
    )
    screen.step("Verdicts", _counts(done.verdicts))
    if done.errors:
        screen.step("Unreadable", _counts(done.errors))
    if done.profile is not None:
        _print_profile(done.profile)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _print_profile(profile: Profile) -> None:
    from rich.table import Table

    table = Table("stage", box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("thread-seconds", justify="right")
    table.add_column(f"of {profile.seconds:.1f} s on {profile.threads} processors", justify="right")
    for stage in profile.stages:
        table.add_row(stage.stage, f"{stage.seconds:.2f}", percent(stage.share))
    screen.out.print(table)
    screen.out.print(
        f"{profile.photos_per_second:,.0f} photos/s, {100 * profile.reached:.0f} % of the {profile.floor:,.0f} that "
        f"decoding alone ({profile.decode_alone:,.0f}) and inference alone ({profile.infer_alone:,.0f}) allow together"
    )


@app.command()
def submit(
    bundle: BundleArgument,
    competition: Annotated[Path, typer.Argument(metavar="COMPETITION", help="The competition's folder or zip.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The submission file to write.")],
    probabilities: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="A further file, with the probability of each Category for each photo."),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace files that are there.")] = False,
    whole_photo: WholePhoto = False,
    tta: TtaOption = NO_TTA,
    runtime: RuntimeOption = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Write a valid submission for the Kaggle competition, in the order of its sample submission."""
    from nameplate.batch.submission import submit as write
    from nameplate.data.inputs import refuse_existing, refuse_overwriting_input
    from nameplate.model.model import Model

    outputs = [output, *([] if probabilities is None else [probabilities])]
    refuse_overwriting_input(outputs, [competition])
    if probabilities is not None and probabilities.resolve() == output.resolve():
        raise UsageError("--output and --probabilities are the same file: give two names.")
    refuse_existing(outputs, overwrite=overwrite)  # before the bundle is loaded
    cars = which_cars(whole_photo=whole_photo)
    model = Model.load(bundle, runtime=runtime, threads=threads, tta=tta, cars=cars)
    with screen.progress() as report:
        made = write(
            model,
            competition,
            output,
            probabilities=probabilities,
            overwrite=overwrite,
            progress=lambda a, b: report("predict", a, b),
        )
    screen.tell_left_out(made.refused)
    screen.tell_refused(list(made.unreadable), f"unreadable, given Category {made.filler}")
    if json:
        left_out = screen.left_out_json(made.refused)
        counts = {"photos": made.photos, "unreadable": len(made.unreadable), "left_out": left_out}
        of_probabilities = None if probabilities is None else str(probabilities)
        screen.print_json({"output": str(output), "probabilities": of_probabilities, **counts})
        return
    screen.out.print(f"Wrote {output}: {made.photos:,} rows, in the order of the sample submission.")
    if probabilities is not None:
        screen.out.print(f"Wrote {probabilities}: the probability of each Category for each of them.")


# verify


LIES = {"mixed": "half of the same make", "random": "random", "same-make": "same make", "alike": "the most alike"}
STYLES: dict[ClaimVerdict, str] = {"accept": "bold green", "reject": "bold red", "unsure": "bold yellow"}


@app.command()
def verify(
    photos: Annotated[list[Path] | None, typer.Argument(metavar="PHOTO", readable=False, show_default=False)] = None,
    claimed: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What the advert claims: a nameplate, some words of it, or a make."),
    ] = None,
    batch: Annotated[
        Path | None,
        typer.Option(
            metavar="ADVERTS", help="A table with the columns claimed and photos, or advert, claimed and photo."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="With --batch: the .csv or .jsonl file to write.")
    ] = None,
    false_accepts: Annotated[
        float,
        typer.Option(help="The share of wrong claims that may be accepted, and of true claims that may be rejected."),
    ] = DEFAULT_RATE,
    false_accepts_of: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="Which wrong claims that share refers to: mixed (half of the same make), random, same-make, or "
            "alike (what such photos are most often taken for).",
        ),
    ] = DEFAULT_LIES,
    model: Annotated[
        str, typer.Option(help="A bundle's folder, or the name of a model that ships with Nameplate.")
    ] = DEFAULT_BUNDLE,
    whole_photo: WholePhoto = False,
    runtime: RuntimeOption = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Check whether the photos of an advert show the car that it names: accept, reject or unsure."""
    import msgspec

    from nameplate.model.model import Model
    from nameplate.model.verification import verified_json

    lies = cast("Lies", false_accepts_of)  # which is checked where it is used
    cars = which_cars(whole_photo=whole_photo)
    if batch is not None:
        if photos or claimed is not None or output is None:
            raise UsageError("With --batch give --output, and neither photos nor --claimed: they stand in the table.")
        chosen = Model.load(model, runtime=runtime, threads=threads, cars=cars)
        _verify_batch(chosen, batch, output, (false_accepts, lies), json=json)
        return
    if not photos or claimed is None or output is not None:
        raise UsageError("Give an advert's photos and --claimed NAME, or a table of adverts: --batch ADVERTS -o OUT.")
    chosen = Model.load(model, runtime=runtime, threads=threads, cars=cars)
    paths, left_out = photo_paths(photos)
    found = chosen.verify(paths, claimed, rate=false_accepts, lies=lies)
    if json:
        screen.print_json({**msgspec.to_builtins(verified_json(found)), "left_out": screen.left_out_json(left_out)})
    else:
        _print_claim(found)
    if all(prediction.error is not None for prediction, _ in found.photos):
        raise typer.Exit(1)


def _verify_batch(model: Model, batch: Path, output: Path, cut: tuple[float, Lies], *, json: bool) -> None:
    from nameplate.batch.adverts import read_adverts, verify_table
    from nameplate.data.inputs import refuse_overwriting_input

    start = time.monotonic()
    refuse_overwriting_input([output], [batch])
    adverts = read_adverts(batch)
    with screen.progress() as report:
        done = verify_table(
            model, adverts, output, rate=cut[0], lies=cut[1], progress=lambda a, b: report("verify", a, b)
        )
    if json:
        screen.print_json(
            {
                "output": str(output),
                "adverts": done.adverts,
                "accept": done.accepted,
                "reject": done.rejected,
                "unsure": done.unsure,
                "unknown_claims": done.unknown,
                "resumed": done.resumed,
            }
        )
        return
    adverts_done = screen.counted(done.adverts, "advert")
    unknown = f", {done.unknown:,} of them of claims that the model does not know" if done.unknown else ""
    screen.out.print(
        f"Wrote {output}: {adverts_done}, {done.accepted:,} accepted, {done.rejected:,} rejected, "
        f"{done.unsure:,} unsure{unknown} ({time.monotonic() - start:.1f} s)"
    )


def _print_claim(found: Verified) -> None:
    screen.out.print(f"{found.verdict}: {found.claimed}", style=STYLES[found.verdict])
    if len(found.nameplates) > 1:
        screen.out.print(f"  any of {len(found.nameplates)}: {', '.join(found.nameplates[:5])}")
    screen.out.print(f"  {found.reason}")
    if found.false_accepts:
        rates = ", ".join(f"{LIES[lies]} {_percent(share)}" for lies, share in found.false_accepts.items())
        screen.out.print(f"  of wrong claims so many score high enough to be accepted: {rates}")
    screen.out.print("")
    for prediction, score in found.photos:
        said = "left out" if score is None else f"{percent(score):>7}"
        named = prediction.error or f"{prediction.verdict}: {prediction.nameplate}"
        if prediction.verdict in ("not a car", "unknown car"):
            named = prediction.verdict
        elif prediction.verdict == "poor photo":
            named = f"poor photo: {prediction.flawed}"
        screen.out.print(f"  {said:>8}  {prediction.photo}  ({named})", style="dim" if score is None else "")


def _percent(share: float) -> str:
    """Check that a share is one that the bundle has thresholds for."""
    few, many = share <= RATES[0], share >= RATES[-1]
    return f"{'at most ' if few else 'at least ' if many else ''}{100 * share:.2g} %"


# explain


@app.command()
def explain(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", show_default=False)],
    model: Annotated[
        str, typer.Option(help="A bundle's folder, or the name of a model that ships with Nameplate.")
    ] = DEFAULT_BUNDLE,
    claimed: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A nameplate to explain, for example the one that an advert claims."),
    ] = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="PAGE", help="The .html page to write, or a .png with the maps alone."),
    ] = Path("explain.html"),
    whole_photo: WholePhoto = False,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Show which part of a photo speaks for a nameplate, and the training photos most like it."""
    from nameplate.data.inputs import refuse_overwriting_input
    from nameplate.model.cam import explain as explained
    from nameplate.model.model import Model
    from nameplate.report.explanation import SUFFIXES, as_json, write_explanation

    if output.suffix.lower() not in SUFFIXES:
        raise UsageError(f"Cannot write '{output}': its name must end in {', '.join(SUFFIXES)}.")
    refuse_overwriting_input([output], [photo])
    known = Model.load(model, runtime="onnxruntime", threads=threads, cars=which_cars(whole_photo=whole_photo))
    found = explained(known, photo, claimed)
    write_explanation(found, known, output)
    if json:
        screen.print_json({**as_json(found), "output": str(output)})
        return
    screen.step("Verdict", found.verdict)
    for word, case in ((found.word, found.predicted), ("Claimed", found.claimed)):
        if case is not None:
            screen.step(word, f"{case.nameplate}, {percent(case.confidence)}")
            screen.step("", _where(case))
    for neighbour in found.nearest or ():
        screen.step("Like", f"{neighbour.nameplate}, {neighbour.path} (similarity {neighbour.similarity:.2f})")
    screen.step("Wrote", str(output))


def _where(case: Case) -> str:
    if case.region is None:
        return "nothing in the photo speaks for it"
    left, top, right, bottom = case.region
    return f"speaks for it most: {right - left} × {bottom - top} pixels at {left}, {top}"
