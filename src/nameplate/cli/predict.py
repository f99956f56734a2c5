"""`nameplate predict`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nameplate.cli import screen
from nameplate.cli.commands import BundleArgument, Json, RuntimeOption, Threads, Top, TtaOption, app
from nameplate.cli.on_ray import RayOption, Workers, check_ray
from nameplate.types import NO_TTA, PART, TOP

if TYPE_CHECKING:
    from nameplate.bulk.predict import Done
    from nameplate.bulk.profile import Profile


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
    part: Annotated[int, typer.Option(min=1, metavar="N", help="Photos a part.")] = PART,
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
    from nameplate.bulk.on_ray import made_on_ray
    from nameplate.bulk.predict import Options, find_output, predict_photos
    from nameplate.models.model import Model

    check_ray(ray, workers)
    make = None if ray is None else made_on_ray(ray, workers, threads)
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


def _print(output: Path, done: Done) -> None:
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
