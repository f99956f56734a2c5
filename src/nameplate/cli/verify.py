"""`nameplate verify`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from nameplate.cli import screen
from nameplate.cli.commands import Json, RuntimeOption, Threads, app, photo_paths
from nameplate.errors import UsageError
from nameplate.models.claim import DEFAULT_LIES, DEFAULT_RATE, RATES
from nameplate.types import DEFAULT_BUNDLE

if TYPE_CHECKING:
    from nameplate.models.claim import ClaimVerdict, Lies, Verified
    from nameplate.models.model import Model

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

    from nameplate.models.answer_json import verified_json
    from nameplate.models.model import Model

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
        _print(found)
    if all(prediction.error is not None for prediction, _ in found.photos):
        raise typer.Exit(1)


def _verify_batch(model: Model, batch: Path, output: Path, cut: tuple[float, Lies], *, json: bool) -> None:
    from nameplate.bulk.adverts import read_adverts, verify_table
    from nameplate.datasets.inputs import refuse_overwriting_input

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


def _print(found: Verified) -> None:
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
