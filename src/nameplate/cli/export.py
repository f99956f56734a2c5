"""`nameplate export`."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nameplate.cli import screen
from nameplate.cli.app import app
from nameplate.cli.ending import needs_extra
from nameplate.cli.options import BundleArgument, Exclude, Json, LayoutOption, Names, Relabel, Threads
from nameplate.errors import UsageError

if TYPE_CHECKING:
    from nameplate.data.archive import Refused
    from nameplate.evaluate.significance import Paired
    from nameplate.fit.int8 import Int8Export
    from nameplate.fit.one_file import OneFile
    from nameplate.fit.parity import FileParity
    from nameplate.model.pipeline import Settings


@app.command()
def export(
    bundle: BundleArgument,
    onnx: Annotated[
        Path | None,
        typer.Option("--onnx", metavar="FILE", help="Write the whole model as one ONNX file.", show_default=False),
    ] = None,
    with_resize: Annotated[
        bool,
        typer.Option(
            "--with-resize", help="With --onnx: the file takes photos of any size, and locates, crops and resizes."
        ),
    ] = False,
    photos: Annotated[
        list[Path] | None,
        typer.Option(
            "--photos",
            metavar="PHOTOS",
            help="With --onnx and --web: compare what is written with the bundle on these photos. Repeatable.",
            show_default="the embedded ones",
        ),
    ] = None,
    web: Annotated[
        Path | None,
        typer.Option(
            "--web", metavar="FOLDER", help="Write a static site that names cars in the browser.", show_default=False
        ),
    ] = None,
    onnxruntime_web: Annotated[
        Path | None,
        typer.Option(
            "--onnxruntime-web",
            metavar="FOLDER",
            help="With --web: the unpacked npm package onnxruntime-web.",
            show_default="downloaded by npm",
        ),
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Write another bundle, quantised to int8.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT", help="With --int8: the bundle to write.")
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--calibrate",
            metavar="DATA",
            help="With --int8: labelled photos. Those that trained the bundle calibrate it, the others evaluate it. "
            "Repeatable.",
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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")] = False,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Write a model as one ONNX file, as a site, or smaller in int8. Exit code 1 if it would answer otherwise."""
    _check_target(onnx, web, onnxruntime_web, int8=int8)
    if web is not None:
        if with_resize or data or output:
            raise UsageError("--web names the folder to write: leave out --with-resize, --calibrate and -o.")
        _site(bundle, web, photos, onnxruntime_web, overwrite=overwrite, threads=threads, json=json)
        return
    _check(onnx, int8, photos, data, output, with_resize=with_resize)
    if onnx is not None:
        _one_file(bundle, onnx, photos, with_resize=with_resize, overwrite=overwrite, threads=threads, json=json)
        return
    with needs_extra("quantize", "Quantising needs"):
        from nameplate.fit.int8 import Gates, Int8Recipe, export_int8
        from nameplate.fit.quantize import FILTER_BITS
    from nameplate.cli.labelled import read_labelled
    from nameplate.data.inputs import refuse_output_inside
    from nameplate.model.pipeline import Settings
    from nameplate.model.proof import load_proven
    from nameplate.runtime.select import available_cpus
    from nameplate.storage import writing

    assert output is not None
    assert data is not None
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


def _check_target(onnx: Path | None, web: Path | None, onnxruntime_web: Path | None, *, int8: bool) -> None:
    """Refuse none and several of --onnx, --web and --int8.

    Raises:
        UsageError: there is not exactly one of them, or --onnxruntime-web without --web.
    """
    if (onnx is not None) + (web is not None) + int8 != 1:
        raise UsageError(
            "Give --onnx FILE to write the model as one file, --web FOLDER to write a site, or --int8 to write another "
            "bundle. For a file or a site in int8, export the bundle with --int8 first, and then the new bundle."
        )
    if onnxruntime_web is not None and web is None:
        raise UsageError("--onnxruntime-web belongs to --web.")


def _site(
    bundle: str,
    target: Path,
    photos: list[Path] | None,
    onnxruntime_web: Path | None,
    *,
    overwrite: bool,
    threads: int | None,
    json: bool,
) -> None:
    """Write a bundle as a static site."""
    with needs_extra("export", "Writing a site needs"):
        from nameplate.web.site import export_site
    from nameplate.model.proof import load_proven
    from nameplate.storage import writing

    begun = time.monotonic()
    loaded = load_proven(bundle)
    paths, left_out, settings = _to_compare(photos, threads)
    with writing(target), screen.progress() as report:
        made = export_site(
            loaded,
            target,
            paths,
            onnxruntime=onnxruntime_web,
            overwrite=overwrite,
            settings=settings,
            progress=report,
        )
    screen.tell_refused(list(made.unreadable), "unreadable")
    if json:
        screen.print_json(
            {
                "folder": str(made.folder),
                "files": made.files,
                "bytes": made.bytes,
                **asdict(made.parity),
                "left_out": screen.left_out_json(left_out, made.unreadable),
            }
        )
        return
    seconds = time.monotonic() - begun
    _print_parity(made.parity, "answer")
    screen.step("Wrote", f"{made.folder}  ({made.files} files, {made.bytes / 1e6:.1f} MB, {seconds:.0f} s)")
    screen.step("", "Photos are named in the browser and sent nowhere; it works without a network after one visit.")
    screen.step("Next", f"python -m http.server --directory '{made.folder}', or see docs/web.md")


def _to_compare(photos: list[Path] | None, threads: int | None) -> tuple[list[str], list[Refused], Settings]:
    """The photos that an export is compared on, path and reason of those that are left out, and how to read them."""
    from nameplate.cli.predict import photo_paths
    from nameplate.demo import photos_folder
    from nameplate.model.pipeline import Settings
    from nameplate.runtime.select import available_cpus

    paths, left_out = photo_paths(photos or [photos_folder("test")])
    return paths, left_out, Settings("onnxruntime", threads or available_cpus())


def _print_parity(parity: FileParity, what: str) -> None:
    screen.step("Compared", f"on {parity.photos:,} photos: {parity.same:,} with the same {what}")
    screen.step("", f"largest difference of a probability {parity.gap:.2g}")


def _check(
    onnx: Path | None,
    int8: bool,
    photos: list[Path] | None,
    data: list[Path] | None,
    output: Path | None,
    *,
    with_resize: bool,
) -> None:
    """Refuse options that do not go together.

    Raises:
        UsageError: an option of the other one.
    """
    if onnx is not None and (data or output):
        raise UsageError("--onnx names the file to write and needs no other output: leave out --calibrate and -o.")
    if int8 and (with_resize or photos):
        raise UsageError("--with-resize belongs to --onnx, and --photos to --onnx and --web.")
    if int8 and not (data and output):
        raise UsageError(
            "With --int8, give --calibrate DATA, the photos that the bundle was trained and judged on, and -o OUT."
        )


def _one_file(
    bundle: str,
    target: Path,
    photos: list[Path] | None,
    *,
    with_resize: bool,
    overwrite: bool,
    threads: int | None,
    json: bool,
) -> None:
    """Write a bundle as one ONNX file."""
    with needs_extra("export", "Writing an ONNX file needs"):
        from nameplate.fit.one_file import export_one_file
    from nameplate.model.proof import load_proven

    begun = time.monotonic()
    loaded = load_proven(bundle)
    paths, left_out, settings = _to_compare(photos, threads)
    with screen.progress() as report:
        made = export_one_file(
            loaded,
            target,
            paths,
            with_resize=with_resize,
            overwrite=overwrite,
            settings=settings,
            progress=report,
        )
    screen.tell_refused(list(made.unreadable), "unreadable")
    if json:
        screen.print_json(
            {
                "model": str(made.model),
                "detector": None if made.detector is None else str(made.detector),
                "labels": str(made.labels),
                "bytes": made.model.stat().st_size,
                **asdict(made.parity),
                "left_out": screen.left_out_json(left_out, made.unreadable),
            }
        )
        return
    _print_one_file(made, loaded.manifest.preprocess.locate != "none", time.monotonic() - begun)


def _print_one_file(made: OneFile, locates: bool, seconds: float) -> None:
    _print_parity(made.parity, "nameplate")
    size = made.model.stat().st_size / 1e6
    screen.step("Wrote", f"{made.model}  ({size:.1f} MB, {seconds:.0f} s)")
    screen.step("", f"{made.labels}  (nameplates and settings, as in the file's metadata)")
    if made.detector is not None:
        screen.step("", f"{made.detector}  (finds the car; crop photos to its box first)")
    elif locates:
        screen.step("", "The car detector is inside: it takes whole photos.")
    screen.step("Next", "docs/export.md has recipes for Python, JavaScript, Swift and Kotlin")


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
