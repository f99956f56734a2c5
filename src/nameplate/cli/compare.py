"""`nameplate compare`: backbones or recipes side by side."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nameplate.cli import screen
from nameplate.cli.commands import Data, Exclude, Json, LayoutOption, Names, Threads, app
from nameplate.cli.training import needs_train_extra
from nameplate.errors import NameplateError, UsageError
from nameplate.types import HeadRecipe

if TYPE_CHECKING:
    from nameplate.experiments.contenders import Contender
    from nameplate.reports.compare import Comparison, Row

BASE = "fine-tune"
"""The recipe that `--set` changes where none is named."""
COLUMNS = ("name", "top-1 (95 %)", "log-loss", "photos/s", "millions", "GMACs", "MB", "took, s", "what the test says")
"""Of the table on the screen."""


@app.command()
def compare(
    data: Data,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="The comparison's folder.")],
    backbones: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,…",
            help="What 'nameplate backbones' lists; NAME=FILE with weights of your own. For recipes of heads: the one "
            "that is frozen.",
            show_default="those with common names; Lite0",
        ),
    ] = None,
    protocol: Annotated[
        Literal["frozen", "fine-tune"],
        typer.Option(help="frozen: a head on each; fine-tune: three epochs each, as the original."),
    ] = "frozen",
    recipes: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="Compare recipes instead: their names, or .toml files.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="The recipe that --set changes.")] = BASE,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=V1,V2", help="Compare single changes of --recipe with it; repeatable."),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Of the picture, in pixels.", show_default="180x240")
    ] = None,
    mirror: Annotated[
        bool | None,
        typer.Option(
            "--mirror/--no-mirror",
            help="frozen: train on every photo mirrored as well.",
            show_default="mirror" if HeadRecipe().mirror else "no-mirror",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=2, help="Photos of each nameplate, drawn at random.")] = None,
    holdout: Annotated[
        float,
        typer.Option(
            min=0.01, max=0.9, help="Share of each nameplate that judges networks, where the data has no parts."
        ),
    ] = HeadRecipe().holdout,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the split and of training.")] = HeadRecipe().seed,
    names: Names = None,
    exclude: Exclude = None,
    layout: LayoutOption = "auto",
    overwrite: Annotated[bool, typer.Option(help="Replace a comparison rather than go on with it.")] = False,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Compare backbones, or recipes, on the same photos. Run it again after an interruption to go on."""
    with needs_train_extra():
        import nameplate.experiments.evaluate  # noqa: F401 - what is missing is said before a photo is read
    from nameplate.cli.labelled import read_labelled
    from nameplate.datasets.inputs import refuse_output_inside
    from nameplate.experiments.compare import Plan, at_most, compare
    from nameplate.experiments.contenders import SIZE, parse_size
    from nameplate.models.runtime import available_cpus

    pictures = parse_size(size) if size is not None else SIZE
    if recipes is not None or changes:
        kind, chosen = "recipes", _recipes(recipes, recipe, changes or [], backbones, pictures, seed)
    else:
        if recipe != BASE:
            raise UsageError("--recipe is what --set changes: give --set KEY=V1,V2, or compare recipes: --recipes A,B.")
        kind, chosen = protocol, _backbones(backbones, protocol, pictures, mirror, seed)
    _refuse_idle(kind, chosen, size, mirror, backbones)
    plan = Plan(kind, tuple(chosen), bool(changes), seed, holdout, threads or available_cpus())
    refuse_output_inside(output, data, (names, exclude, *(recipes or recipe).split(",")))
    with screen.progress() as report:
        dataset = read_labelled(data, names, exclude, layout, report)
    if limit is not None:
        dataset = at_most(dataset, limit, seed)
    made = compare(
        dataset,
        plan,
        output,
        overwrite=overwrite,
        bars=screen.progress,
        training=partial(screen.training, quiet=False),
        say=lambda text: screen.notes.print(text),
    )
    screen.tell_refused(list(made.unreadable), "unreadable")
    if json:
        left_out = screen.left_out_json(dataset.refused, made.unreadable)
        screen.print_json({"output": str(output), "comparison": made, "left_out": left_out})
    else:
        _print(made, output)
    if made.reference is None:
        raise NameplateError("None could be judged; each row says why.")


def _backbones(
    named: str | None, protocol: str, size: tuple[int, int], mirror: bool | None, seed: int
) -> list[Contender]:
    from nameplate.experiments.contenders import Frozen, Tuned, fine_tune_recipe, split_values, split_weights
    from nameplate.training.backbones import FEATURED, find_backbone
    from nameplate.training.frozen_network import interpolation_of

    head = HeadRecipe(seed=seed, mirror=HeadRecipe().mirror if mirror is None else mirror)
    found: list[Contender] = []
    for text in split_values(named) if named else FEATURED:
        title, name, weights = split_weights(text)
        known = find_backbone(name)
        title = title.replace(name, known.name, 1)
        if protocol == "frozen":
            found.append(Frozen(title, known.name, *size, head, weights))
        else:
            found.append(Tuned(title, fine_tune_recipe(known.name, weights, interpolation_of(known), size, seed)))
    return found


def _recipes(
    named: str | None, base: str, changes: list[str], backbones: str | None, size: tuple[int, int], seed: int
) -> list[Contender]:
    from nameplate.experiments.contenders import of_changes, of_recipes, split_values
    from nameplate.training.backbones import FEATURED, find_backbone

    backbone = find_backbone(backbones or next(iter(FEATURED))).name
    if named is None:
        return of_changes(base, changes, backbone, size, seed)
    if changes:
        raise UsageError("--recipes compares recipes as they are, --set changes of one --recipe: give one of the two.")
    return of_recipes(split_values(named), backbone, size, seed)


def _refuse_idle(
    kind: str, chosen: list[Contender], size: str | None, mirror: bool | None, backbones: str | None
) -> None:
    """Refuse an option that would change nothing.

    Raises:
        UsageError: there is one.
    """
    from nameplate.experiments.contenders import Tuned

    networks = any(isinstance(each, Tuned) for each in chosen)
    if mirror is not None and (networks or kind == "recipes"):
        raise UsageError("--mirror is for --protocol frozen; of a recipe it is a key: --set mirror=true,false.")
    if kind == "recipes" and networks and (size is not None or backbones is not None):
        given = "--size" if size is not None else "--backbones"
        raise UsageError(f"{given} is not for recipes of networks: each says its own. Change it there, or with --set.")


def _print(made: Comparison, output: Path) -> None:
    done = [row for row in made.rows if row.error is None]
    if done:
        table = [COLUMNS, *(_cells(row) for row in done)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for place, (name, *figures, verdict) in enumerate(table):  # lines that wrap rather than cells cut off
            cells = [name.ljust(widths[0]), *(f.rjust(w) for f, w in zip(figures, widths[1:-1], strict=True)), verdict]
            screen.out.print("  ".join(cells).rstrip(), style="" if place else "bold")
        screen.out.print(f"\n{made.summary}", style="bold")
    screen.out.print(made.judged)
    screen.step("Wrote", str(output))
    screen.step("See", str((output / "index.html").resolve()))


def _cells(row: Row) -> tuple[str, ...]:
    assert row.top1 is not None
    return (
        row.name,
        row.top1.percent,
        f"{row.log_loss:.3f}",
        f"{row.photos_per_second:.1f}",
        f"{(row.parameters or 0) / 1e6:.1f}",
        f"{row.gmacs:.2f}",
        f"{row.megabytes:.1f}",
        f"{row.seconds:.0f}",
        row.verdict,
    )
