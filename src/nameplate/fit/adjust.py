"""Changes a recipe by the plain options `--epochs`, `--size` and `--batch`, whatever its number of stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nameplate.errors import UsageError
from nameplate.fit.recipe import Recipe, Stage

ROUND_TO = 16
"""Sides of the earlier stages are rounded to a multiple of this, since networks halve the input four or five times."""
LEAST_SIDE = 32
"""Least side of a model's input in pixels, as `recipe.SideLength` has it."""


def adjusted(
    recipe: Recipe, *, epochs: int | None = None, size: tuple[int, int] | None = None, batch: int | None = None
) -> Recipe:
    """Return a recipe with another length, photo size or batch; None leaves each as it is.

    Args:
        recipe: the recipe to change.
        epochs: number of epochs of the whole training; the stages share it in proportion to their own epochs, with at
            least one each, and a warm-up becomes no longer than its stage.
        size: height and width of the last stage in pixels; the sizes of the earlier stages keep their ratio to it,
            rounded to a multiple of `ROUND_TO`.
        batch: number of photos in each step, in every stage.

    Raises:
        UsageError: fewer epochs than stages.
    """
    stages: Sequence[Stage] = recipe.stages
    if epochs is not None:
        stages = [
            replace(stage, epochs=share, warmup=min(stage.warmup, float(share)))
            for stage, share in zip(stages, _shared(epochs, [stage.epochs for stage in stages]), strict=True)
        ]
    if size is not None:
        stages = _resized(stages, size)
    if batch is not None:
        stages = [replace(stage, batch=batch) for stage in stages]
    return replace(recipe, stages=tuple(stages))


def _shared(total: int, parts: Sequence[int]) -> list[int]:
    """Divide `total` in proportion to `parts`, at least one each (largest remainders).

    >>> _shared(10, [4, 10, 6, 4])
    [2, 4, 2, 2]
    >>> _shared(4, [1, 100, 1])
    [1, 2, 1]
    """
    if total < len(parts):
        raise UsageError(
            f"--epochs {total}: the recipe has {len(parts)} stages, and each needs an epoch. Give at least "
            f"{len(parts)}, or choose a recipe of fewer stages (nameplate recipes)."
        )
    # One epoch each is set aside; what is left goes to the stages that want more than one.
    left, wanted = total - len(parts), [part - 1 for part in parts]
    exact = [left * want / (sum(wanted) or 1) if sum(wanted) else left / len(parts) for want in wanted]
    shares = [int(each) for each in exact]
    by_remainder = sorted(range(len(parts)), key=lambda place: shares[place] - exact[place])
    for place in by_remainder[: left - sum(shares)]:
        shares[place] += 1
    return [1 + share for share in shares]


def _resized(stages: Sequence[Stage], size: tuple[int, int]) -> list[Stage]:
    """The stages with the last one at `size`, and the others in their ratio to it."""
    last = stages[-1]
    if size == (last.height, last.width):
        return list(stages)
    made = []
    for stage in stages:
        if (stage.height, stage.width) == (last.height, last.width):
            made.append(replace(stage, height=size[0], width=size[1]))
            continue
        height, width = (
            max(LEAST_SIDE, round(side * wanted / old / ROUND_TO) * ROUND_TO)
            for side, wanted, old in zip((stage.height, stage.width), size, (last.height, last.width), strict=True)
        )
        made.append(replace(stage, height=height, width=width))
    return made
