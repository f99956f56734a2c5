"""`nameplate extra-data`."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nameplate.cli import screen
from nameplate.cli.commands import (
    Changes,
    Exclude,
    Json,
    LayoutOption,
    Names,
    RecipeOption,
    RuntimeOption,
    Threads,
    app,
)
from nameplate.cli.training import needs_train_extra, with_options
from nameplate.types import DEFAULT_BUNDLE, DEFAULT_RECIPE, SEEDS, HeadRecipe

if TYPE_CHECKING:
    from nameplate.experiments.result import Experiment


@app.command("extra-data")
def extra_data(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="Labelled photos that there are.")],
    extra: Annotated[Path, typer.Argument(metavar="EXTRA", help="Labelled photos that might be added.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Folder for page, tables and seeds.")],
    recipe: RecipeOption = DEFAULT_RECIPE,
    changes: Changes = None,
    seeds: Annotated[int, typer.Option(help=f"Models to train with, and without; {SEEDS} or more.")] = SEEDS,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**32 - 1, help="The first; also of the split.", show_default=str(HeadRecipe().seed)),
    ] = None,
    holdout: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=0.9,
            help="Share of BASE that judges where BASE has no validation part.",
            show_default=str(HeadRecipe().holdout),
        ),
    ] = None,
    class_map: Annotated[
        Path | None,
        typer.Option("--map", metavar="FILE", help="Table extra,base: which class is which; empty base: leave out."),
    ] = None,
    names: Names = None,
    exclude: Exclude = None,
    layout: LayoutOption = "auto",
    backbone: Annotated[
        str, typer.Option(metavar="BUNDLE", help="Whose backbone finds copies and, with recipe 'head', is trained on.")
    ] = DEFAULT_BUNDLE,
    runtime: RuntimeOption = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Say whether further photos help: trained with and without them, judged on the same photos, over several seeds."""
    from nameplate.cli.labelled import tell_notes
    from nameplate.datasets.inputs import refuse_output_inside
    from nameplate.experiments.extra_data import Design, read_both
    from nameplate.experiments.extra_data import extra_data as judge
    from nameplate.experiments.mapping import read_class_map
    from nameplate.experiments.result import as_json
    from nameplate.fit.recipe import load_recipe
    from nameplate.models.model import Model

    refuse_output_inside(output, (base, extra), (names, exclude, class_map, recipe))
    begun = time.monotonic()
    given = {"holdout": holdout, "seed": seed}
    chosen = with_options(load_recipe(recipe, changes or []), {k: v for k, v in given.items() if v is not None}, recipe)
    if not isinstance(chosen, HeadRecipe):
        with needs_train_extra():
            import nameplate.experiments.networks  # noqa: F401 - said before photos are read
    model = Model.load(backbone, runtime=runtime, threads=threads)
    with screen.progress() as report:
        ours, further = read_both(base, extra, names, exclude, layout, report)
        tell_notes((*ours.notes, *further.notes))
        screen.tell_left_out((*ours.refused, *further.refused))
        made = judge(
            ours,
            further,
            output,
            Design(chosen, seeds, None if class_map is None else read_class_map(class_map)),
            model=model,
            progress=report,
            say=lambda text: screen.notes.print(f"{text} …"),
        )
    _tell(made)
    if json:
        left_out = screen.left_out_json(made.refused, made.unreadable)
        screen.print_json({"output": str(output), **as_json(made), "left_out": left_out})
        return
    _print(made, output, time.monotonic() - begun)
    if made.verdict.word == "helps":
        screen.step("Next", _next(base, output, names, exclude))


def _tell(made: Experiment) -> None:
    """What was left out, on stderr."""
    near = made.classes.nearest or {}
    classes = [(name, f"near '{near[name]}'; see --map" if name in near else "") for name in made.classes.unmapped]
    screen.tell_refused(list(made.unreadable), "unreadable")
    screen.tell_refused(classes, "no such class in BASE")


def _next(base: Path, output: Path, names: Path | None, exclude: Path | None) -> str:
    """The command that trains on both, under the same names, less what was left out here."""
    from nameplate.experiments.result import EXTRA

    options = [
        str(part) for pair in (("--names", names), ("--exclude", exclude)) if pair[1] is not None for part in pair
    ]
    return shlex.join(["nameplate", "train", str(base), str(output / EXTRA), *options, "-o", "MODEL"])


def _print(made: Experiment, output: Path, seconds: float) -> None:
    from nameplate.experiments import words
    from nameplate.experiments.page import PAGE
    from nameplate.experiments.result import TAKEN_OUT

    verdict, cleaning = made.verdict, made.cleaning
    screen.step("Verdict", words.headline(verdict))
    screen.step("Top-1", f"{_shares(verdict.without)} without, {_shares(verdict.added)} with")
    screen.step("Difference", f"{words.points(verdict.top1.difference)}, {words.chance(verdict.top1.p)}")
    if how := words.how_to_tell(verdict):
        screen.step("", how)
    screen.step("Log-loss", f"{verdict.log_loss_without:.3f} without, {verdict.log_loss_added:.3f} with")
    screen.step("Nameplates", words.about_classes(verdict))
    judged = f"{verdict.photos:,} photos judge, {len(made.seeds)} seeds, by {made.runtime}"
    screen.step(
        "Judged on", f"{judged}; {made.base['trained']:,} photos train without, {len(cleaning.kept):,} more with"
    )
    if cleaning.counts:
        counts = "; ".join(f"{count:,}× {reason}" for reason, count in cleaning.counts.items())
        screen.step("Taken out", f"{counts}  ({output / TAKEN_OUT})")
    if cleaning.suspects:
        screen.step("Suspect", f"{len(cleaning.suspects):,} of those added look like another nameplate")
    screen.step("Wrote", f"{output}  ({seconds:.0f} s)")
    screen.step("See", str((output / PAGE).resolve()))


def _shares(shares: tuple[float, ...]) -> str:
    return f"{100 * sum(shares) / len(shares):.1f} % ({', '.join(f'{100 * share:.1f}' for share in shares)})"
