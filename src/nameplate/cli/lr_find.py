"""`nameplate lr-find`: a learning rate for a recipe on one's own photos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nameplate.cli import screen
from nameplate.cli.app import app
from nameplate.cli.ending import needs_train_extra
from nameplate.cli.labelled import read_labelled
from nameplate.cli.options import (
    BatchSize,
    Changes,
    Data,
    Exclude,
    Json,
    LayoutOption,
    Names,
    PhotoSize,
    RecipeOption,
    Relabel,
    Threads,
)
from nameplate.errors import UsageError


@app.command("lr-find")
def lr_find(
    data: Data,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PLOT", help="The .png file to write.")],
    recipe: RecipeOption = "fine-tune",
    changes: Changes = None,
    size: PhotoSize = None,
    batch: BatchSize = None,
    backbone: Annotated[
        str | None, typer.Option(help="One of 'nameplate backbones'.", show_default="the recipe's")
    ] = None,
    stage: Annotated[int, typer.Option(min=1, help="The stage of the recipe to find a rate for.")] = 1,
    steps: Annotated[int, typer.Option(min=10, max=10_000, help="How many training steps to try.")] = 100,
    names: Names = None,
    exclude: Exclude = None,
    relabel: Relabel = None,
    layout: LayoutOption = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Find a learning rate: train some steps at a rising rate, plot the loss, and propose a rate. Nothing is kept."""
    from nameplate.cli.train import with_plain_options
    from nameplate.data.inputs import refuse_overwriting_input
    from nameplate.fit.recipe import Recipe, load_recipe, with_backbone
    from nameplate.storage import whole_file

    if output.suffix.lower() != ".png":
        raise UsageError(f"Cannot write '{output}': its name must end in .png.")
    plan = load_recipe(recipe, changes or [])
    if not isinstance(plan, Recipe):
        raise UsageError(f"Recipe '{recipe}' trains no network: it needs no learning rate. See 'nameplate recipes'.")
    plan = with_plain_options(plan, recipe, epochs=None, size=size, batch=batch)
    assert isinstance(plan, Recipe)
    if backbone is not None:
        plan = with_backbone(plan, backbone, changes or [])
    if stage > len(plan.stages):
        raise UsageError(f"There is no stage {stage}: recipe '{recipe}' has {len(plan.stages)}.")
    with needs_train_extra():
        from nameplate.train.lr_find import FLAT, find_rate
    with screen.progress() as report:
        dataset = read_labelled(data, names, exclude, layout, report, relabel)
        inputs = [*data, names, exclude, relabel, recipe, *(photo.path for photo in dataset.photos)]
        refuse_overwriting_input([output], inputs)
        found = find_rate(
            dataset,
            plan,
            stage=stage,
            steps=steps,
            threads=threads,
            watch=lambda number, *_: report("rising rate", number, steps),
        )
    with whole_file(output) as temporary:
        temporary.write_bytes(found.plot())
    tried = plan.stages[stage - 1]
    key = "stages.learning_rate" if _one_rate(plan) else f"stages.{stage}.learning_rate"
    setting = f"{key}={found.valley:.1e}"
    if json:
        screen.print_json(
            {
                "output": str(output),
                "stage": stage,
                "set": setting,
                "valley": found.valley,
                "steepest": found.steepest,
                "minimum": found.minimum,
                "fell": found.fell,
                "recipe": tried.learning_rate,
                "rates": found.rates,
                "losses": found.losses,
            }
        )
        return
    where = f"stage {stage}, {tried.height}×{tried.width}, batches of {tried.batch}"
    screen.step("Tried", f"{found.rates[0]:.0e} to {found.rates[-1]:.1e} in {len(found.rates)} steps ({where})")
    screen.step("Proposed", f"{found.valley:.1e}; the recipe has {tried.learning_rate:.1e}")
    screen.step("", f"steepest at {found.steepest:.1e}, least loss at {found.minimum:.1e}: stay well below that")
    if found.fell < FLAT:
        screen.note(
            "flat",
            f"The loss fell by {100 * found.fell:.1f} % only, so the proposal means little. Take more --steps, a "
            "larger --batch, or pretrained weights.",
        )
    screen.step("Wrote", str(output))
    screen.step("Next", f"nameplate train DATA --recipe {recipe} --set {setting} -o RUN")


def _one_rate(recipe: object) -> bool:
    """Whether all stages of a recipe train the same layers at the same rate, so that one proposal serves them all."""
    from nameplate.fit.recipe import Recipe

    assert isinstance(recipe, Recipe)
    return len({(stage.learning_rate, stage.train, stage.batch) for stage in recipe.stages}) == 1
