"""`nameplate recipes`, and `augment`, which draws what a recipe makes of photos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nameplate.cli import screen
from nameplate.cli.app import app
from nameplate.cli.labelled import read_labelled
from nameplate.cli.options import Changes, Data, Exclude, Json, LayoutOption, Names, RecipeOption, Relabel
from nameplate.errors import DataError, UsageError


@app.command()
def augment(
    data: Data,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="SHEET", help="The .jpg or .png file to write.")],
    recipe: RecipeOption = "fine-tune",
    changes: Changes = None,
    stage: Annotated[
        int | None, typer.Option(min=1, help="The stage whose photo size to use.", show_default="last")
    ] = None,
    photos: Annotated[int, typer.Option(min=1, max=50, help="How many rows, each of another nameplate.")] = 4,
    pictures: Annotated[int, typer.Option(min=1, max=50, help="How many variations of each photo.")] = 6,
    names: Names = None,
    exclude: Exclude = None,
    relabel: Relabel = None,
    layout: LayoutOption = "auto",
    overwrite: Annotated[bool, typer.Option(help="Replace a sheet that is there.")] = False,
    json: Json = False,
) -> None:
    """Draw augmented photos as the network would see them in training."""
    from nameplate.data.inputs import refuse_existing, refuse_overwriting_input
    from nameplate.fit.recipe import Recipe, load_recipe
    from nameplate.report.sheet import SUFFIXES, augmented_sheet, examples
    from nameplate.storage import whole_file

    if output.suffix.lower() not in SUFFIXES:
        raise UsageError(f"Cannot write '{output}': its name must end in {', '.join(SUFFIXES)}.")
    plan = load_recipe(recipe, changes or [])
    if not isinstance(plan, Recipe):
        raise UsageError(f"Recipe '{recipe}' trains no network, so it varies no photos. See 'nameplate recipes'.")
    if stage is not None and stage > len(plan.stages):
        raise UsageError(f"There is no stage {stage}: recipe '{recipe}' has {len(plan.stages)}.")
    seen_at = plan.stages[-1 if stage is None else stage - 1]
    height, width = seen_at.height, seen_at.width
    with screen.progress() as report:
        dataset = read_labelled(data, names, exclude, layout, report, relabel)
    refuse_overwriting_input(
        [output], [*data, names, exclude, relabel, recipe, *(photo.path for photo in dataset.photos)]
    )
    refuse_existing([output], overwrite=overwrite)
    mixes = bool(plan.mixing.mixup or plan.mixing.cutmix)
    found, unreadable = examples(dataset.photos, max(photos, pictures + 1) if mixes else photos, (height, width))
    screen.tell_refused(unreadable, "unreadable")
    if not found:
        raise DataError(f"No training photo in '{data[0]}' can be read.")
    sheet = augmented_sheet(found, plan, seen_at, (photos, pictures), SUFFIXES[output.suffix.lower()])
    with whole_file(output) as temporary:
        temporary.write_bytes(sheet)
    if json:
        shown = [{"photo": photo.path, "nameplate": photo.label} for photo, _ in found[:photos]]
        left_out = screen.left_out_json(dataset.refused, unreadable)
        made = {"output": str(output), "height": height, "width": width, "photos": shown, "left_out": left_out}
        screen.print_json(made)
        return
    mixed = ", and a mixed batch" if mixes and len(found) > 1 else ""
    screen.out.print(
        f"Wrote {output}: {min(photos, len(found))} photos and {pictures} pictures of each{mixed}, {height}×{width}, "
        f"recipe '{recipe}'"
    )


@app.command()
def recipes(json: Json = False) -> None:
    """List the recipes that ship, for 'train --recipe'."""
    from nameplate.fit.recipe import recipe_rows

    rows = recipe_rows()
    if json:
        screen.print_json(rows)
    else:
        screen.print_recipes(rows)
