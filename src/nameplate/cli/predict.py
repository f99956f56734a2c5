"""`nameplate predict`."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from nameplate.cli import screen
from nameplate.cli.commands import BundleArgument, Json, RuntimeOption, Threads, Top, TtaOption, app, photo_paths
from nameplate.cli.options import RayOption, Workers, check_ray
from nameplate.errors import UsageError
from nameplate.model.verification import DEFAULT_LIES, DEFAULT_RATE, RATES
from nameplate.types import DEFAULT_BUNDLE, NO_TTA, SHARD_SIZE, TOP

if TYPE_CHECKING:
    from nameplate.batch.predict import JobResult, Profile


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
        Path, typer.Option("--output", "-o", help="A .csv, .jsonl or .parquet file, or a folder for a file a part.")
    ],
    format_: Annotated[
        str | None, typer.Option("--format", help="Of a folder's files.", show_default="parquet, csv or jsonl")
    ] = None,
    part: Annotated[int, typer.Option(min=1, metavar="N", help="Photos a part.")] = SHARD_SIZE,
    profile: Annotated[bool, typer.Option("--profile", help="Show where the time goes.")] = False,
    top: Top = TOP,
    tta: TtaOption = NO_TTA,
    runtime: RuntimeOption = "auto",
    threads: Threads = None,
    ray: RayOption = None,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Name many photos into a table, a row each. Run it again after an interruption to go on."""
    from nameplate.batch.on_ray import shards_on_ray
    from nameplate.batch.predict import Options, find_output, predict_photos
    from nameplate.model.model import Model

    check_ray(ray, workers)
    make = None if ray is None else shards_on_ray(ray, workers, threads)
    target = find_output(output, format_)  # type: ignore[arg-type]
    model = Model.load(bundle, runtime=runtime, threads=threads, tta=tta)
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
        told = {"left_out": screen.left_out_json(left_out.first), "left_out_total": left_out.total}
        screen.print_json({"output": str(output), **asdict(done), **told})
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
        table.add_row(stage.stage, f"{stage.seconds:.2f}", f"{100 * stage.share:.1f} %")
    screen.out.print(table)
    screen.out.print(
        f"{profile.photos_per_second:,.0f} photos/s, {100 * profile.reached:.0f} % of the {profile.floor:,.0f} that "
        f"decoding alone ({profile.decode_alone:,.0f}) and inference alone ({profile.infer_alone:,.0f}) allow together"
    )


# JOINED `nameplate verify`.


if TYPE_CHECKING:
    from nameplate.model.model import Model
    from nameplate.model.verification import ClaimVerdict, Lies, Verified

LIES = {"mixed": "half of the same make", "random": "random", "same-make": "same make", "alike": "the most alike"}
STYLES: dict[ClaimVerdict, str] = {"accept": "bold green", "reject": "bold red", "unsure": "bold yellow"}


@app.command()
def verify(
    photos: Annotated[list[Path] | None, typer.Argument(metavar="PHOTO", readable=False, show_default=False)] = None,
    claimed: Annotated[
        str | None, typer.Option(metavar="NAME", help="What the advert says: a nameplate, words of one, or a make.")
    ] = None,
    batch: Annotated[
        Path | None,
        typer.Option(metavar="ADVERTS", help="A table: 'claimed' and 'photos', or 'advert', 'claimed', 'photo'."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="With --batch the .csv or .jsonl file to write.")
    ] = None,
    false_accepts: Annotated[
        float, typer.Option(help="Share of wrong claims that may be accepted, and of true ones that may be rejected.")
    ] = DEFAULT_RATE,
    false_accepts_of: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="Which wrong claims that share is of: mixed (half of the same make), random, same-make, or "
            "alike (what such photos are most often taken for).",
        ),
    ] = DEFAULT_LIES,
    model: Annotated[str, typer.Option(help="A bundle's folder, or the name of one that ships.")] = DEFAULT_BUNDLE,
    runtime: RuntimeOption = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Say whether an advert's photos, all together, show the car that it names: accept, reject or unsure."""
    import msgspec

    from nameplate.model.model import Model
    from nameplate.model.verification import verified_json

    lies = cast("Lies", false_accepts_of)  # which is checked where it is used
    if batch is not None:
        if photos or claimed is not None or output is None:
            raise UsageError("With --batch give --output, and neither photos nor --claimed: they stand in the table.")
        chosen = Model.load(model, runtime=runtime, threads=threads)
        _verify_batch(chosen, batch, output, (false_accepts, lies), json=json)
        return
    if not photos or claimed is None or output is not None:
        raise UsageError("Give an advert's photos and --claimed NAME, or a table of adverts: --batch ADVERTS -o OUT.")
    chosen = Model.load(model, runtime=runtime, threads=threads)
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
        said = "left out" if score is None else f"{100 * score:5.1f} %"
        named = prediction.error or f"{prediction.verdict}: {prediction.nameplate}"
        if prediction.verdict in ("not a car", "unknown car"):
            named = prediction.verdict
        elif prediction.verdict == "poor photo":
            named = f"poor photo: {prediction.flawed}"
        screen.out.print(f"  {said:>8}  {prediction.photo}  ({named})", style="dim" if score is None else "")


def _percent(share: float) -> str:
    """A share within what thresholds are held for."""
    few, many = share <= RATES[0], share >= RATES[-1]
    return f"{'at most ' if few else 'at least ' if many else ''}{100 * share:.2g} %"


# JOINED `nameplate explain`.


if TYPE_CHECKING:
    from nameplate.model.cam import Case


@app.command()
def explain(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", show_default=False)],
    model: Annotated[str, typer.Option(help="A bundle's folder, or the name of one that ships.")] = DEFAULT_BUNDLE,
    claimed: Annotated[
        str | None, typer.Option(metavar="NAME", help="A nameplate that the photo is said to show.")
    ] = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="PAGE", help="The .html page to write, or a .png of the maps alone."),
    ] = Path("explain.html"),
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Show what in a photo speaks for the nameplate it is given, and the training photos most like it."""
    from nameplate.data.inputs import refuse_overwriting_input
    from nameplate.model.cam import explain as explained
    from nameplate.model.model import Model
    from nameplate.report.explanation import SUFFIXES, as_json, write_explanation

    if output.suffix.lower() not in SUFFIXES:
        raise UsageError(f"Cannot write '{output}': its name must end in {', '.join(SUFFIXES)}.")
    refuse_overwriting_input([output], [photo])
    known = Model.load(model, runtime="onnxruntime", threads=threads)
    found = explained(known, photo, claimed)
    write_explanation(found, known, output)
    if json:
        screen.print_json({**as_json(found), "output": str(output)})
        return
    screen.step("Verdict", found.verdict)
    for word, case in ((found.word, found.named), ("Claimed", found.claimed)):
        if case is not None:
            screen.step(word, f"{case.nameplate}, {100 * case.confidence:.1f} %")
            screen.step("", _where(case))
    for neighbour in found.nearest or ():
        screen.step("Like", f"{neighbour.nameplate}, {neighbour.path} (similarity {neighbour.similarity:.2f})")
    screen.step("Wrote", str(output))


def _where(case: Case) -> str:
    if case.region is None:
        return "nothing in the photo speaks for it"
    left, top, right, bottom = case.region
    return f"speaks for it most: {right - left} × {bottom - top} pixels at {left}, {top}"
