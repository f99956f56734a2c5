"""`nameplate explain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nameplate.cli import screen
from nameplate.cli.commands import Json, Threads, app
from nameplate.errors import UsageError
from nameplate.types import DEFAULT_BUNDLE

if TYPE_CHECKING:
    from nameplate.models.explain import Case


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
    from nameplate.datasets.inputs import refuse_overwriting_input
    from nameplate.models.explain import explain as explained
    from nameplate.models.model import Model
    from nameplate.reports.explain import SUFFIXES, as_json, write_explanation

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
