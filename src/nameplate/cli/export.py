"""`nameplate export`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nameplate.cli import screen
from nameplate.cli.app import app
from nameplate.cli.ending import needs_extra
from nameplate.cli.options import BundleArgument, Exclude, Json, LayoutOption, Names, Relabel, Threads
from nameplate.errors import UsageError

if TYPE_CHECKING:
    from nameplate.evaluate.significance import Paired
    from nameplate.fit.int8 import Int8Export


@app.command()
def export(
    bundle: BundleArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="The bundle to write.")],
    int8: Annotated[bool, typer.Option("--int8", help="Quantise the backbone to int8.")] = False,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--calibrate",
            metavar="DATA",
            help="Labelled photos: those that trained the bundle calibrate it, the others evaluate it. Repeatable.",
            show_default=False,
        ),
    ] = None,
    names: Names = None,
    exclude: Exclude = None,
    relabel: Relabel = None,
    layout: LayoutOption = "auto",
    min_photos: Annotated[
        int | None, typer.Option(min=1, help="The least number of photos to evaluate on.", show_default="1000")
    ] = None,
    max_loss: Annotated[
        float | None, typer.Option(min=0, help="How many points of top-1 accuracy may be lost.", show_default="0.3")
    ] = None,
    min_speedup: Annotated[
        float | None, typer.Option(min=0, help="The least speed-up over float32.", show_default="1.0")
    ] = None,
    any_cpu: Annotated[
        bool,
        typer.Option(
            "--any-cpu", help="Use 7-bit weights, which processors without VNNI need: 8-bit weights overflow there."
        ),
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Write the bundle even if it loses more accuracy or is not faster.")
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing bundle.")] = False,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Make a bundle smaller and faster in int8. Exit code 1 if it would lose accuracy or speed."""
    if not int8 or not data:
        raise UsageError("Give --int8 and --calibrate DATA, the photos that the bundle was trained and judged on.")
    with needs_extra("quantize", "Quantising needs"):
        from nameplate.fit.int8 import Gates, Int8Recipe, export_int8
        from nameplate.fit.quantize import FILTER_BITS
    from nameplate.cli.labelled import read_labelled
    from nameplate.data.inputs import refuse_output_inside
    from nameplate.model.pipeline import Settings
    from nameplate.model.proof import load_proven
    from nameplate.runtime.select import available_cpus
    from nameplate.storage import writing

    begun = time.monotonic()
    given = {"photos": min_photos, "loss": max_loss, "speedup": min_speedup}
    gates = Gates(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    plain = load_proven(bundle)
    refuse_output_inside(output, data, (plain.folder, names, exclude, relabel))
    with writing(output), screen.progress() as report:
        dataset = read_labelled(data, names, exclude, layout, report, relabel)
        made = export_int8(
            plain,
            dataset,
            output,
            settings=Settings(threads=threads or available_cpus()),
            recipe=Int8Recipe(gates, 7 if any_cpu else FILTER_BITS, keep),
            overwrite=overwrite,
            progress=report,
        )
    screen.tell_refused(list(made.unreadable), "unreadable")
    for failure in made.failed:
        screen.note("gate", failure, "bold red")
    if json:
        screen.print_json({**as_json(made, output), "left_out": screen.left_out_json(dataset.refused, made.unreadable)})
    else:
        _print(made, output, time.monotonic() - begun)
    if made.bundle is None:
        raise typer.Exit(1)


def as_json(made: Int8Export, output: Path) -> dict[str, Any]:
    """Return the result as plain data."""
    return {
        "output": None if made.bundle is None else str(output),
        "failed": made.failed,
        "calibrated": made.calibrated,
        "float32": {"top1": made.top1, "log_loss": made.log_loss, "ece": made.ece, "bytes": made.bytes[0]},
        "int8": {"bytes": made.bytes[1], "in_float": made.in_float, "runtimes": made.comparisons},
        "photos_per_second": [
            {"backbone": each.backbone, "runtime": each.runtime, "value": each.photos_per_second}
            for each in made.throughputs
        ],
        "speedup": made.speedup,
        "unreadable": len(made.unreadable),
    }


def _print(made: Int8Export, output: Path, seconds: float) -> None:
    photos = made.comparisons[0].photos
    screen.step("Calibrated", f"on {made.calibrated:,} photos that trained it; evaluated on {photos:,} others")
    screen.step("float32", _figures(made.top1, made.log_loss, made.ece))
    for compared in made.comparisons:
        figures = _figures(compared.top1, compared.log_loss, compared.ece)
        screen.step("int8", f"{figures}, {_change(compared.change)}, {compared.runtime}")
    if made.in_float:
        screen.step("In float32", f"{len(made.in_float)} convolutions, which were too sensitive")
    for each in made.throughputs:
        screen.step("Photos/s", f"{each.photos_per_second:.0f}, {each.backbone} by {each.runtime}")
    screen.step("Speed-up", f"{made.speedup:.2f} times, each by its fastest runtime without bfloat16")
    screen.step("Size", f"{made.bytes[0] / 1e6:.1f} MB before, {made.bytes[1] / 1e6:.1f} MB now")
    if made.bundle is None:
        screen.step("Not written", "a gate was not passed; --keep writes it all the same")
    else:
        screen.step("Wrote", f"{output}  ({seconds:.0f} s)")
        screen.step("Next", f"nameplate identify --model '{output}' PHOTO")


def _figures(top1: float, log_loss: float, ece: float) -> str:
    return f"top-1 {100 * top1:.2f} %, log-loss {log_loss:.4f}, ECE {100 * ece:.1f} %"


def _change(change: Paired) -> str:
    value, low, high = (100 * each for each in (change.difference.value, *change.difference.interval))
    return f"{value:+.2f} points ({low:+.2f} to {high:+.2f})"
