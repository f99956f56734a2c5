"""`nameplate compare`, `leaderboard` and `extra-data`: backbones, recipes, bundles or photos side by side."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nameplate.cli import screen
from nameplate.cli.app import app
from nameplate.cli.ending import needs_train_extra
from nameplate.cli.options import (
    Changes,
    Data,
    Exclude,
    Json,
    LayoutOption,
    Names,
    RecipeOption,
    Relabel,
    RuntimeOption,
    Threads,
    WholePhoto,
    which_cars,
)
from nameplate.cli.train import with_options
from nameplate.defaults import DEFAULT_BUNDLE, DEFAULT_RECIPE, SEEDS
from nameplate.errors import NameplateError, UsageError
from nameplate.types import HeadRecipe

if TYPE_CHECKING:
    from nameplate.experiments.candidates import Candidate
    from nameplate.experiments.result import Experiment
    from nameplate.report.compare import Comparison, ComparisonRow


BASE = "fine-tune"
"""The recipe that `--set` changes where none is named."""
COLUMNS = (
    "rank",
    "name",
    "top-1 (95 %)",
    "log-loss",
    "photos/s",
    "millions",
    "GMACs",
    "MB",
    "took, s",
    "what the test says",
)
"""Of the table on the screen."""


@app.command()
def compare(
    data: Data,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="The folder for the comparison.")],
    backbones: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,…",
            help="What 'nameplate backbones' lists, and bundles (by name or folder); NAME=FILE with weights of your "
            "own. For recipes of heads: the one that is frozen.",
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
        str | None,
        typer.Option(
            metavar="HxW",
            help="Input size of the networks, in pixels; one number for a square.",
            show_default="180x240",
        ),
    ] = None,
    mirror: Annotated[
        bool | None,
        typer.Option(
            "--mirror/--no-mirror",
            help="With frozen: also train on every photo mirrored.",
            show_default="mirror" if HeadRecipe().mirror else "no-mirror",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=2, help="Use at most this many photos of each nameplate, drawn at random.")
    ] = None,
    holdout: Annotated[
        float,
        typer.Option(
            min=0.01, max=0.9, help="Share of each nameplate held out to evaluate networks, if the data has no split."
        ),
    ] = HeadRecipe().holdout,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of the split and of the training.")
    ] = HeadRecipe().seed,
    names: Names = None,
    exclude: Exclude = None,
    relabel: Relabel = None,
    layout: LayoutOption = "auto",
    overwrite: Annotated[bool, typer.Option(help="Replace an existing comparison instead of continuing it.")] = False,
    whole_photo: WholePhoto = False,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Compare backbones or recipes on the same photos. After an interruption, run it again to continue."""
    from nameplate.cli.labelled import read_labelled
    from nameplate.data.inputs import refuse_output_inside
    from nameplate.experiments.candidates import SIZE, located, parse_size
    from nameplate.experiments.compare import Plan, at_most, compare
    from nameplate.runtime.select import available_cpus

    pictures = parse_size(size) if size is not None else SIZE
    kind = "recipes" if recipes is not None or changes else protocol
    if mirror is not None and kind != "frozen":
        raise UsageError("--mirror is for --protocol frozen; of a recipe it is a key: --set mirror=true,false.")
    if kind == "recipes":
        chosen = _recipes(recipes, recipe, changes or [], backbones, pictures if size is not None else None, seed)
    else:
        if recipe != BASE:
            raise UsageError("--recipe is what --set changes: give --set KEY=V1,V2, or compare recipes: --recipes A,B.")
        chosen = _backbones(backbones, protocol, pictures, mirror, seed)
    _need_torch(chosen)
    if whole_photo:
        chosen = [located(candidate, "none") for candidate in chosen]
    plan = Plan(kind, tuple(chosen), bool(changes), seed, holdout, threads or available_cpus())
    refuse_output_inside(output, data, (names, exclude, relabel, *(recipes or recipe).split(",")))
    with screen.progress() as report:
        dataset = read_labelled(data, names, exclude, layout, report, relabel)
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
        _print_comparison(made, output)
    if made.reference is None:
        raise NameplateError("No candidate could be evaluated; each row gives the reason.")


@app.command()
def leaderboard(
    entries: Annotated[
        list[str],
        typer.Argument(
            metavar="BUNDLE…", help="Bundles, runs, or the folders of comparisons of networks.", show_default=False
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="The folder for the page and tables.")],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DATA",
            help="Labelled photos to judge them on; repeatable. Each leaves out what trained any of them.",
            show_default="the photos that the first was made from",
        ),
    ] = None,
    names: Names = None,
    exclude: Exclude = None,
    relabel: Relabel = None,
    layout: LayoutOption = "auto",
    whole_photo: WholePhoto = False,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Rank bundles and runs as they are, on the photos that trained none of them; ties are called ties."""
    from nameplate.cli.labelled import read_labelled
    from nameplate.data.inputs import refuse_output_inside
    from nameplate.experiments.leaderboard import PROTOCOL, find_entries
    from nameplate.experiments.leaderboard import leaderboard as rank
    from nameplate.report.compare import JSON, is_comparison, write_comparison
    from nameplate.storage import is_free, working_in

    find_entries(entries)  # said before photos are read
    if data is None and (names or exclude or relabel or layout != "auto"):
        raise UsageError("--names, --exclude and --layout say how --data is read: give --data too.")
    refuse_output_inside(output, (*map(Path, entries), *(data or ())), (names, exclude, relabel))
    if not is_free(output) and not is_comparison(output, PROTOCOL):
        raise NameplateError(f"'{output}' is there and holds no leaderboard ({JSON}), so it is left alone.")
    with screen.progress() as report:
        dataset = None if data is None else read_labelled(data, names, exclude, layout, report, relabel)
        made = rank(
            entries,
            dataset,
            threads=threads,
            cars=which_cars(whole_photo=whole_photo),
            progress=report,
            say=lambda text: screen.notes.print(text),
        )
    with working_in(output):
        write_comparison(output, made)
    screen.tell_refused(list(made.unreadable), "unreadable")
    if json:
        screen.print_json({"output": str(output), "leaderboard": made})
    else:
        _print_comparison(made, output)
    if made.reference is None:
        raise NameplateError("No entry could be judged; each row gives the reason.")


def _backbones(
    named: str | None, protocol: str, size: tuple[int, int], mirror: bool | None, seed: int
) -> list[Candidate]:
    from nameplate.experiments.candidates import (
        Frozen,
        Tuned,
        fine_tune_recipe,
        of_bundle,
        refuse_fewer_than_two,
        split_values,
        split_weights,
    )

    texts = split_values(named) if named else list(_featured())
    refuse_fewer_than_two(texts)
    head = HeadRecipe(seed=seed, mirror=HeadRecipe().mirror if mirror is None else mirror)
    found: list[Candidate] = []
    for text in texts:
        if (bundle := of_bundle(text, head)) is not None:
            if protocol != "frozen":
                raise UsageError(
                    f"'{text}' is a bundle, which has no weights to train on from. Compare it with --protocol frozen, "
                    "or judge it as it is: nameplate leaderboard."
                )
            found.append(bundle)
            continue
        with needs_train_extra():
            from nameplate.train.backbones import find_backbone
            from nameplate.train.frozen_network import interpolation_of
        title, name, weights = split_weights(text)
        known = find_backbone(name)
        title = title.replace(name, known.name, 1)
        if protocol == "frozen":
            found.append(Frozen(title, known.name, *size, head, weights))
        else:
            found.append(Tuned(title, fine_tune_recipe(known.name, weights, interpolation_of(known), size, seed)))
    return found


def _featured() -> Iterable[str]:
    with needs_train_extra():
        from nameplate.train.backbones import FEATURED
    return FEATURED


def _recipes(
    named: str | None, base: str, changes: list[str], backbones: str | None, size: tuple[int, int] | None, seed: int
) -> list[Candidate]:
    from nameplate.experiments.candidates import (
        SIZE,
        Frozen,
        of_changes,
        of_recipes,
        refuse_fewer_than_two,
        split_values,
    )

    if named is None:
        found = of_changes(base, changes, "", size or SIZE, seed)
    elif changes:
        raise UsageError("--recipes compares recipes as they are, --set changes of one --recipe: give one of the two.")
    else:
        found = of_recipes(split_values(named), "", size or SIZE, seed)
    refuse_fewer_than_two(found)
    heads = [each for each in found if isinstance(each, Frozen)]
    if len(heads) < len(found) and (size is not None or backbones is not None):
        given = "--size" if size is not None else "--backbones"
        raise UsageError(f"{given} is not for recipes of networks: each says its own. Change it there, or with --set.")
    if not heads:
        return found
    with needs_train_extra():
        from nameplate.train.backbones import find_backbone
    backbone = find_backbone(backbones or next(iter(_featured()))).name
    return [replace(each, backbone=backbone) if isinstance(each, Frozen) else each for each in found]


def _need_torch(chosen: list[Candidate]) -> None:
    """Say what is missing for networks before a photo is read; bundles need none of it.

    Raises:
        NameplateError: a package is missing.
    """
    from nameplate.experiments.candidates import Tuned

    if any(isinstance(each, Tuned) or not each.bundle for each in chosen):
        with needs_train_extra():
            import nameplate.experiments.evaluate  # noqa: F401


def _print_comparison(made: Comparison, output: Path) -> None:
    done = [row for row in made.rows if row.error is None]
    if done:
        table = [COLUMNS, *(_cells(row) for row in done)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for place, (rank, name, *figures, verdict) in enumerate(table):  # lines that wrap rather than cells cut off
            right = (figure.rjust(width) for figure, width in zip(figures, widths[2:-1], strict=True))
            cells = [rank.rjust(widths[0]), name.ljust(widths[1]), *right, verdict]
            screen.out.print("  ".join(cells).rstrip(), style="" if place else "bold")
        screen.out.print(f"\n{made.summary}", style="bold")
    screen.out.print(made.judged)
    screen.step("Wrote", str(output))
    screen.step("See", str((output / "index.html").resolve()))


def _cells(row: ComparisonRow) -> tuple[str, ...]:
    assert row.top1 is not None
    return (
        row.rank or "–",
        row.name,
        row.top1.percent,
        _number(row.log_loss, 3),
        _number(row.photos_per_second, 1),
        _number(None if row.parameters is None else row.parameters / 1e6, 1),
        _number(row.gmacs, 2),
        _number(row.megabytes, 1),
        _number(row.seconds, 0),
        row.verdict,
    )


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


# extra-data


@app.command("extra-data")
def extra_data(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="The labelled photos that you have.")],
    extra: Annotated[Path, typer.Argument(metavar="EXTRA", help="The labelled photos that you might add.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="OUT", help="The folder for the page, the tables and the results of each seed."
        ),
    ],
    recipe: RecipeOption = DEFAULT_RECIPE,
    changes: Changes = None,
    seeds: Annotated[
        int, typer.Option(help=f"How many pairs of models to train, with and without EXTRA; {SEEDS} or more.")
    ] = SEEDS,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, max=2**32 - 1, help="The first seed; the split uses it too.", show_default=str(HeadRecipe().seed)
        ),
    ] = None,
    holdout: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=0.9,
            help="Share of BASE held out for the evaluation, if BASE has no validation part.",
            show_default=str(HeadRecipe().holdout),
        ),
    ] = None,
    class_map: Annotated[
        Path | None,
        typer.Option(
            "--map",
            metavar="FILE",
            help="A table with the columns extra and base that maps classes; an empty base leaves the class out.",
        ),
    ] = None,
    names: Names = None,
    exclude: Exclude = None,
    relabel: Relabel = None,
    layout: LayoutOption = "auto",
    backbone: Annotated[
        str,
        typer.Option(
            metavar="BUNDLE", help="The bundle whose backbone finds copies and, with recipe 'head', embeds the photos."
        ),
    ] = DEFAULT_BUNDLE,
    whole_photo: WholePhoto = False,
    runtime: RuntimeOption = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Test whether additional photos help: train with and without them over several seeds, on the same test photos."""
    from nameplate.cli.labelled import tell_notes
    from nameplate.data.inputs import refuse_output_inside
    from nameplate.experiments.extra_data import Design, read_both
    from nameplate.experiments.extra_data import extra_data as run_extra_data
    from nameplate.experiments.further import read_class_map
    from nameplate.experiments.result import as_json
    from nameplate.fit.recipe import load_recipe
    from nameplate.model.model import Model

    refuse_output_inside(output, (base, extra), (names, exclude, relabel, class_map, recipe))
    begun = time.monotonic()
    given = {"holdout": holdout, "seed": seed}
    chosen = with_options(load_recipe(recipe, changes or []), {k: v for k, v in given.items() if v is not None}, recipe)
    if not isinstance(chosen, HeadRecipe):
        with needs_train_extra():
            import nameplate.experiments.networks  # noqa: F401 - said before photos are read
        chosen = replace(chosen, locate="none") if whole_photo else chosen
    model = Model.load(backbone, runtime=runtime, threads=threads, cars=which_cars(whole_photo=whole_photo))
    with screen.progress() as report:
        ours, further = read_both(base, extra, names, exclude, layout, report, relabel)
        tell_notes((*ours.notes, *further.notes))
        screen.tell_left_out((*ours.refused, *further.refused))
        made = run_extra_data(
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
    _print_extra_data(made, output, time.monotonic() - begun)
    if made.verdict.word == "helps":
        screen.step("Next", _next(base, output, names, exclude))


def _tell(made: Experiment) -> None:
    """Print what was left out, on stderr."""
    near = made.classes.nearest or {}
    classes = [(name, f"near '{near[name]}'; see --map" if name in near else "") for name in made.classes.unmapped]
    screen.tell_refused(list(made.unreadable), "unreadable")
    screen.tell_refused(classes, "no such class in BASE")


def _next(base: Path, output: Path, names: Path | None, exclude: Path | None) -> str:
    """Return the `train` command for both data sets under the same names, without what was left out here."""
    from nameplate.experiments.result import EXTRA

    options = [
        str(part) for pair in (("--names", names), ("--exclude", exclude)) if pair[1] is not None for part in pair
    ]
    return shlex.join(["nameplate", "train", str(base), str(output / EXTRA), *options, "-o", "MODEL"])


def _print_extra_data(made: Experiment, output: Path, seconds: float) -> None:
    from nameplate.experiments import result
    from nameplate.experiments.result import PAGE, TAKEN_OUT

    verdict, cleaning = made.verdict, made.cleaning
    screen.step("Verdict", result.headline(verdict))
    screen.step("Top-1", f"{_shares(verdict.without)} without, {_shares(verdict.added)} with")
    screen.step("Difference", f"{result.points(verdict.top1.difference)}, {result.chance(verdict.top1.p)}")
    if how := result.how_to_tell(verdict):
        screen.step("", how)
    screen.step("Log-loss", f"{verdict.log_loss_without:.3f} without, {verdict.log_loss_added:.3f} with")
    screen.step("Nameplates", result.about_classes(verdict))
    holdout = f"{verdict.photos:,} photos, {len(made.seeds)} seeds, by {made.runtime}"
    screen.step(
        "Evaluated on",
        f"{holdout}; {made.base['trained']:,} photos train without, {len(cleaning.kept):,} more with",
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
