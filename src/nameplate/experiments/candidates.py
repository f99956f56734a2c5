"""What is compared: heads on frozen backbones, or whole recipes, each under a name of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nameplate.errors import UsageError
from nameplate.fit.recipe import Recipe, load_recipe
from nameplate.types import HeadRecipe, Interpolation

SIZE = (180, 240)
"""Height and width of the original's comparison."""
EPOCHS = 3
"""Of the original's comparison."""
PIXELS = (32, 4096)
"""Least and greatest side of a picture, as in a recipe's stages."""


@dataclass(frozen=True, slots=True)
class Frozen:
    """A head on a frozen backbone."""

    name: str
    backbone: str
    """One that `nameplate backbones` knows."""
    height: int
    """Of the picture, in pixels."""
    width: int
    """Of the picture, in pixels."""
    head: HeadRecipe
    weights: str = "auto"
    """As a recipe's `weights`."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """A network trained by a recipe."""

    name: str
    recipe: Recipe


Candidate = Frozen | Tuned


def parse_size(text: str) -> tuple[int, int]:
    """Height and width from `180x240`.

    Raises:
        UsageError: it is something else, or a side is impossible.

    >>> parse_size("180x240")
    (180, 240)
    """
    found = re.fullmatch(r"([0-9]{1,5})[x×]([0-9]{1,5})", text.strip())
    if found is None:
        raise UsageError(f"--size {text}: write height x width in pixels, such as {SIZE[0]}x{SIZE[1]}.")
    height, width = int(found[1]), int(found[2])
    if not all(PIXELS[0] <= side <= PIXELS[1] for side in (height, width)):
        raise UsageError(f"--size {text}: each side must be from {PIXELS[0]} to {PIXELS[1]} pixels.")
    return height, width


def split_values(text: str) -> list[str]:
    """A list at its commas, but for those inside brackets or quotes.

    >>> split_values("[0.5, 1], none, 'a,b'")
    ['[0.5, 1]', 'none', "'a,b'"]
    """
    parts, depth, quote = [""], 0, ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign in "[]":
            depth += 1 if sign == "[" else -1
        if sign == "," and depth <= 0 and not quote:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts if part.strip()]


def split_weights(text: str) -> tuple[str, str, str]:
    """A backbone as `--backbones` names it: its title, its name, and its weights.

    >>> split_weights("ResNet50=here/mine.safetensors")
    ('ResNet50 (mine.safetensors)', 'ResNet50', 'here/mine.safetensors')
    """
    name, _, weights = text.partition("=")
    return (f"{name} ({Path(weights).name})" if weights else name), name, weights or "auto"


def fine_tune_recipe(
    backbone: str, weights: str, interpolation: Interpolation, size: tuple[int, int], seed: int
) -> Recipe:
    """The original's comparison as a recipe: its batch, optimiser, learning rate and augmentation, three epochs.

    Two things differ: every backbone is shown pixels as its weights were trained, and none has stochastic depth,
    which not every network knows.
    """
    original = load_recipe("original")
    assert isinstance(original, Recipe)
    height, width = size
    stage = replace(
        original.stages[0], height=height, width=width, epochs=EPOCHS, schedule="constant", patience=None
    )  # restore_best stays: the original's table, too, is of the best epoch
    return replace(
        original,
        name=f"original, {EPOCHS} epochs of {backbone}",
        summary=f"The original's comparison: {EPOCHS} epochs at {height}×{width}.",
        backbone=backbone,
        weights=weights,
        interpolation=interpolation,
        drop_path=0.0,
        seed=seed,
        stages=(stage,),
    )


def of_recipes(names: Sequence[str], backbone: str, size: tuple[int, int], seed: int) -> list[Candidate]:
    """Recipes by their names or files.

    Args:
        names: what `load_recipe` takes.
        backbone: that recipes of heads are fitted on, frozen.
        size: height and width of its picture.
        seed: of the recipes' own.

    Raises:
        UsageError: see `load_recipe`.
    """
    titles = [Path(name).stem if name.endswith(".toml") else name for name in names]
    return [
        _candidate(title, load_recipe(name, [f"seed={seed}"]), backbone, size)
        for title, name in zip(titles, names, strict=True)
    ]


def of_changes(base: str, changes: Sequence[str], backbone: str, size: tuple[int, int], seed: int) -> list[Candidate]:
    """A recipe and each single change of it, the recipe itself first.

    Args:
        base: what `load_recipe` takes.
        changes: `key=v1,v2`, each value a change of its own; one that changes nothing is left out.
        backbone: see `of_recipes`.
        size: see `of_recipes`.
        seed: see `of_recipes`.

    Raises:
        UsageError: see `load_recipe`; or nothing is changed.
    """
    [first] = of_recipes([base], backbone, size, seed)
    found = [first]
    for change in changes:
        key, _, values = change.partition("=")
        if key.strip() == "holdout":
            raise UsageError("--set holdout: all are judged on the same photos, so it is one for all: --holdout SHARE.")
        for value in split_values(values) or [""]:  # nothing after the sign is for load_recipe to refuse
            one = f"{key.strip()}={value}"
            changed = _candidate(one, load_recipe(base, [f"seed={seed}", one]), backbone, size)
            if replace(changed, name=first.name) != first:
                found.append(changed)
    if len(found) == 1:
        raise UsageError(
            f"--set {', '.join(changes)}: this is what '{base}' says already, so there is nothing to compare."
        )
    return found


def _candidate(name: str, recipe: Recipe | HeadRecipe, backbone: str, size: tuple[int, int]) -> Candidate:
    return Tuned(name, recipe) if isinstance(recipe, Recipe) else Frozen(name, backbone, *size, recipe)


def file_name(name: str) -> str:
    """A contender's name as that of a file.

    >>> file_name("augmentation.crop=[0.5, 1]")
    'augmentation.crop=-0.5-1'
    """
    return re.sub(r"[^\w.=]+", "-", name).strip("-.") or "unnamed"


def refuse_mixture(candidates: Sequence[Candidate]) -> None:
    """Keep apart what cannot be judged on the same photos, or told apart by name.

    Raises:
        UsageError: heads and networks together, two of one name, or fewer than two.
    """
    if len(candidates) < 2:
        raise UsageError(
            "A comparison needs two or more. Name them: --backbones A,B, --recipes A,B or --set KEY=V1,V2."
        )
    kinds = {type(each) for each in candidates}
    if len(kinds) > 1:
        heads = ", ".join(each.name for each in candidates if isinstance(each, Frozen))
        raise UsageError(
            f"Recipes of heads ({heads}) are cross-validated and recipes of networks are judged on held-out photos. "
            "Compare each kind for itself."
        )
    files = [file_name(each.name).casefold() for each in candidates]
    for each, file in zip(candidates, files, strict=True):
        if files.count(file) > 1:
            raise UsageError(f"'{each.name}' is named twice. Give each another name.")
