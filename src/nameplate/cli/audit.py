"""`nameplate look` and `nameplate audit`: the data set, at first sight and in depth."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nameplate.cli import screen
from nameplate.cli.app import app
from nameplate.cli.ending import needs_extra
from nameplate.cli.options import (
    Data,
    Exclude,
    Json,
    LayoutOption,
    Names,
    Relabel,
    RuntimeOption,
    Threads,
    WholePhoto,
    which_cars,
)
from nameplate.defaults import DEFAULT_BUNDLE
from nameplate.errors import UsageError

if TYPE_CHECKING:
    from nameplate.audit.inspect import Audit
    from nameplate.audit.look import Look


@app.command()
def look(
    data: Data,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PAGE", help="The HTML page to write.")] = Path(
        "look.html"
    ),
    names: Names = None,
    exclude: Exclude = None,
    relabel: Relabel = None,
    layout: LayoutOption = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Look at labelled photos first: counts, samples, sizes of each part, and copies across parts, in seconds."""
    from nameplate.cli.labelled import as_json as how_read
    from nameplate.cli.labelled import read_labelled
    from nameplate.data.inputs import refuse_overwriting_input
    from nameplate.report.audit import finding_counts
    from nameplate.report.look import SHOWN_KINDS, look_page

    _refuse_no_page(output)
    refuse_overwriting_input((output,), [*data, names, exclude, relabel])
    with screen.progress() as report:
        dataset = read_labelled(data, names, exclude, layout, report, relabel)
        page = look_page(dataset, tuple(data), threads, report)
    page.write(output)
    found = page.found
    counts = {kind: count for kind, count in finding_counts(found.findings).items() if kind in SHOWN_KINDS}
    if json:
        screen.print_json(
            {
                "page": str(output),
                "photos": len(found.photos),
                "nameplates": found.counts,
                "parts": found.parts,
                "findings": counts,
                "copies_across_parts": found.across,
                "data": how_read(dataset),
                "left_out": screen.left_out_json(dataset.refused),
            }
        )
        return
    _print_look(found, counts)
    screen.step("Wrote", f"{output}  ({page.seconds:.1f} s)")
    named = [] if names is None else ["--names", str(names)]
    screen.step("Next", shlex.join(["nameplate", "audit", *map(str, data), *named]))


def _print_look(found: Look, counts: dict[str, int]) -> None:
    few, many = min(found.counts.items(), key=lambda each: each[1]), max(found.counts.items(), key=lambda each: each[1])
    screen.step(
        "Looked at", f"{screen.counted(len(found.photos), 'photo')} of {screen.counted(len(found.counts), 'nameplate')}"
    )
    if few[1] == many[1]:
        screen.step("Photos", f"{few[1]:,} of each nameplate")
    else:
        screen.step("Photos", f"{few[1]:,} ({few[0]}) to {many[1]:,} ({many[0]}) of a nameplate")
    for part in found.parts:
        mean, median = ("{:,.0f} × {:,.0f}".format(*size) for size in (part.mean_size, part.median_size))
        where = "" if part.name == "all" else f"{part.name}: "
        screen.step("Size", f"{where}{screen.counted(part.photos, 'photo')}, mean {mean}, median {median} pixels")
    for kind, count in counts.items():
        screen.step(f"{count:>9,}", kind)
    if len(found.parts) > 1:
        screen.step("Across parts", f"{screen.counted(found.across, 'photo')} with a copy in another part")


def _refuse_no_page(output: Path) -> None:
    """Raises UsageError where the report's name is not that of a page."""
    if output.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"The report is a page: '{output}' must end with .html.")


@app.command()
def audit(
    data: Data,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="PAGE", help="The HTML page to write; a JSON file is written beside it."
        ),
    ] = Path("report.html"),
    names: Names = None,
    exclude: Exclude = None,
    relabel: Relabel = None,
    layout: LayoutOption = "auto",
    model: Annotated[str, typer.Option(help="A bundle whose backbone embeds the photos.")] = DEFAULT_BUNDLE,
    shortcuts: Annotated[
        bool,
        typer.Option(
            "--shortcuts/--no-shortcuts",
            help="Test whether a watermark, a plate or the background gives the class away.",
        ),
    ] = True,
    serve: Annotated[
        bool,
        typer.Option(
            "--serve", help="Then keep, exclude or relabel the findings in a browser on this machine; stop with Ctrl-C."
        ),
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="With --serve: where to listen; 0 chooses a free port.")
    ] = 0,
    whole_photo: WholePhoto = False,
    runtime: RuntimeOption = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Inspect labelled photos for copies, leaks, wrong labels, photos of no car, and damaged files."""
    from nameplate.audit.inspect import inspect
    from nameplate.cli.labelled import as_json as how_read
    from nameplate.cli.labelled import read_labelled
    from nameplate.data.cleaning import read_excluded
    from nameplate.data.inputs import refuse_overwriting_input
    from nameplate.model.model import Model
    from nameplate.report.audit import AuditFiles, finding_counts, write_report

    _refuse_no_page(output)
    refuse_overwriting_input(AuditFiles.beside(output), [*data, names, exclude, relabel])
    if port and not serve:
        raise UsageError("--port is where --serve listens: add --serve.")
    if serve:
        with needs_extra("serve", "A review in a browser needs"):
            import nameplate.serve.reviewing  # noqa: F401 - what is missing is said before photos are read
        refuse_overwriting_input(
            [output.with_suffix(".relabel.csv"), output.with_suffix(".review.json")],
            [*data, names, exclude, relabel],
        )
    begun = time.monotonic()
    cars = which_cars(whole_photo=whole_photo)
    known = Model.load(model, runtime=runtime, threads=threads, cars=cars)
    with screen.progress() as report:
        dataset = read_labelled(data, names, exclude, layout, report, relabel)
        found = inspect(dataset, known, shortcuts=shortcuts, progress=report)
    before = read_excluded(exclude) if exclude is not None else ()
    written = write_report(found, output, known.settings.threads, time.monotonic() - begun, before)
    counts = finding_counts(found.findings)
    if json:
        screen.print_json(
            {
                "page": str(output),
                "report": str(written.json),
                "exclude": str(written.exclude),
                "photos": len(dataset.photos),
                "findings": counts,
                "runtime": found.runtime,
                "excluded": written.excluded,
                "data": how_read(dataset),
                "left_out": screen.left_out_json(dataset.refused),
            }
        )
    else:
        _print_audit(found, counts)
        screen.step("Wrote", f"{output}, {written.json}, {written.exclude}  ({time.monotonic() - begun:.0f} s)")
    if serve:
        _serve(found, output, tuple(before), port)
    if not json:
        relabelled = output.with_suffix(".relabel.csv") if serve else relabel
        screen.step("Next", _next(data, names, written.exclude, relabelled))


def _serve(found: Audit, page: Path, before: tuple[str, ...], port: int) -> None:
    """Let the findings be reviewed in a browser until a signal comes."""
    from nameplate.serve.reviewing import open_review, serve_review

    review = open_review(found, page, before)
    serve_review(review, port, lambda address: screen.note("review", f"{address}  (stop with Ctrl-C)", "bold"))
    screen.note("reviewed", f"{len(review.decided):,} photos; {review.exclude}, {review.relabel}", "bold")


def _print_audit(found: Audit, counts: dict[str, int]) -> None:
    dataset = found.dataset
    screen.step(
        "Looked at", f"{len(dataset.photos):,} photos of {len(dataset.nameplates):,} nameplates, by {found.runtime}"
    )
    for kind, count in counts.items():
        screen.step(f"{count:>9,}", kind)
    for alias in found.aliases:
        screen.step("Alike", f"{alias.first} and {alias.second}: told apart {alias.right.value:.0%} of the time")
    if found.shortcuts is not None:
        for telltale in found.shortcuts.telltales:
            screen.step("Given away", f"{telltale.nameplate}: {telltale.border.value:.0%} known by the border alone")


def _next(data: list[Path], names: Path | None, exclude: Path, relabel: Path | None) -> str:
    """Return the `train` command for the same photos and names, without the listed photos."""
    named = [] if names is None else ["--names", str(names)]
    named += ["--exclude", str(exclude)]
    named += [] if relabel is None else ["--relabel", str(relabel)]
    return shlex.join(["nameplate", "train", *map(str, data), *named, "-o", "my-model"])
