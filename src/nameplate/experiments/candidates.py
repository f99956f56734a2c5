"""The candidates of a comparison: linear classifiers on frozen backbones, or recipes; each has its own name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nameplate.errors import UsageError
from nameplate.fit.recipe import Recipe, load_recipe
from nameplate.model.bundle import is_bundle, load_bundle, shipped
from nameplate.types import HeadRecipe, Interpolation, Locate

SIZE = (180, 240)
"""Height and width of the model's input in the original notebook's comparison, in pixels."""
EPOCHS = 3
"""Number of epochs in that comparison."""
PIXELS = (32, 4096)
"""Smallest and largest side of the model's input, as in the stages of a recipe."""


@dataclass(frozen=True, slots=True)
class Frozen:
    """A linear classifier on a frozen backbone. The field names are keys of the JSON files of a comparison."""

    name: str
    backbone: str
    """A name that `nameplate backbones` knows."""
    height: int
    """Height of the model's input in pixels."""
    width: int
    """Width of the model's input in pixels."""
    head: HeadRecipe
    weights: str = "auto"
    """As `weights` in a recipe."""
    locate: Locate = "ssd"
    """As `locate` in a recipe."""
    bundle: str = ""
    """The bundle whose backbone it is, see `load_bundle`; empty for a network of timm. A bundle has its own size."""
    digest: str = ""
    """The digest of this bundle."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """A network that is trained by a recipe. The field names are keys of the JSON files of a comparison."""

    name: str
    recipe: Recipe


Candidate = Frozen | Tuned


def parse_size(text: str) -> tuple[int, int]:
    """Read height and width from a text such as `180x240`; one number means a square, as in timm.

    Raises:
        UsageError: the text has another form, or a side is out of range.

    >>> parse_size("180x240")
    (180, 240)
    >>> parse_size("224")
    (224, 224)
    """
    found = re.fullmatch(r"([0-9]{1,5})(?:[x×]([0-9]{1,5}))?", text.strip())
    if found is None:
        raise UsageError(
            f"--size {text}: write height x width in pixels, such as {SIZE[0]}x{SIZE[1]}, or one number for a square."
        )
    height, width = int(found[1]), int(found[2] or found[1])
    if not all(PIXELS[0] <= side <= PIXELS[1] for side in (height, width)):
        raise UsageError(f"--size {text}: each side must be from {PIXELS[0]} to {PIXELS[1]} pixels.")
    return height, width


def split_values(text: str) -> list[str]:
    """Split a text at its commas, except at those inside brackets or quotes.

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
    """Split a backbone of `--backbones` into its title, its name, and its weights.

    >>> split_weights("ResNet50=here/mine.safetensors")
    ('ResNet50 (mine.safetensors)', 'ResNet50', 'here/mine.safetensors')
    """
    name, _, weights = text.partition("=")
    return (f"{name} ({Path(weights).name})" if weights else name), name, weights or "auto"


def of_bundle(text: str, head: HeadRecipe) -> Frozen | None:
    """Make a candidate of a bundle; None where the text names none.

    Args:
        text: the name of a bundle that ships, or a folder, as for `load_bundle`.
        head: how the head on its backbone is fitted.

    Raises:
        BundleError: the bundle is damaged, unsafe or made by a newer Nameplate.
    """
    if not is_bundle(text):
        return None
    bundle = load_bundle(text)
    size = bundle.manifest.preprocess
    name = text if text in shipped() else Path(text).resolve().name
    return Frozen(
        name, f"bundle {name}", size.height, size.width, head, "its own", size.locate, str(text), bundle.digest
    )


def fine_tune_recipe(
    backbone: str, weights: str, interpolation: Interpolation, size: tuple[int, int], seed: int
) -> Recipe:
    """The original notebook's comparison as a recipe: three epochs with its batch, optimiser, rate and augmentation.

    Three things differ: the car is located first, every backbone gets pixels normalised as its weights were trained,
    and none has stochastic depth, which not every network supports.
    """
    original = load_recipe("original")
    assert isinstance(original, Recipe)
    height, width = size
    stage = replace(
        original.stages[0], height=height, width=width, epochs=EPOCHS, schedule="constant", patience=None
    )  # restore_best stays: the original's figures, too, are those of the best epoch
    return replace(
        original,
        name=f"original, {EPOCHS} epochs of {backbone}",
        summary=f"The original's comparison: {EPOCHS} epochs at {height}×{width}.",
        backbone=backbone,
        weights=weights,
        interpolation=interpolation,
        drop_path=0.0,
        locate="ssd",
        seed=seed,
        stages=(stage,),
    )


def of_recipes(names: Sequence[str], backbone: str, size: tuple[int, int], seed: int) -> list[Candidate]:
    """Make a candidate of each recipe.

    Args:
        names: names or files of recipes, see `load_recipe`.
        backbone: the frozen backbone for recipes of linear classifiers.
        size: height and width of its input in pixels.
        seed: overrides the seed of the recipes.

    Raises:
        UsageError: see `load_recipe`.
    """
    titles = [Path(name).stem if name.endswith(".toml") else name for name in names]
    return [
        _candidate(title, load_recipe(name, [f"seed={seed}"]), backbone, size)
        for title, name in zip(titles, names, strict=True)
    ]


def of_changes(base: str, changes: Sequence[str], backbone: str, size: tuple[int, int], seed: int) -> list[Candidate]:
    """Make a candidate of a recipe, and one of each single change of it; the recipe itself is the first.

    Args:
        base: name or file of a recipe, see `load_recipe`.
        changes: `key=v1,v2`; each value is a change of its own, and one that changes nothing is left out.
        backbone: see `of_recipes`.
        size: see `of_recipes`.
        seed: see `of_recipes`.

    Raises:
        UsageError: see `load_recipe`; or no value changes anything.
    """
    [first] = of_recipes([base], backbone, size, seed)
    found = [first]
    for change in changes:
        key, _, values = change.partition("=")
        if key.strip() == "holdout":
            raise UsageError(
                "--set holdout: all candidates share their evaluation photos. Use --holdout SHARE for all of them."
            )
        for value in split_values(values) or [""]:  # load_recipe refuses an empty value
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


def located(candidate: Candidate, locate: Locate) -> Candidate:
    """The candidate with another way to locate the car."""
    if isinstance(candidate, Frozen):
        return replace(candidate, locate=locate)
    return replace(candidate, recipe=replace(candidate.recipe, locate=locate))


def file_name(name: str) -> str:
    """The name of a candidate as a file name.

    >>> file_name("augmentation.crop=[0.5, 1]")
    'augmentation.crop=-0.5-1'
    """
    return re.sub(r"[^\w.=]+", "-", name).strip("-.") or "unnamed"


def refuse_fewer_than_two(candidates: Sequence[object]) -> None:
    """Refuse to compare one candidate, or none; it needs only their number.

    Raises:
        UsageError: there are fewer than two.
    """
    if len(candidates) < 2:
        raise UsageError(
            "A comparison needs two or more candidates. Name them: --backbones A,B, --recipes A,B or --set KEY=V1,V2."
        )


def refuse_mixture(candidates: Sequence[Candidate]) -> None:
    """Refuse candidates that cannot be evaluated on the same photos, or whose names are equal.

    Raises:
        UsageError: there are linear classifiers and networks, two equal names, or fewer than two candidates.
    """
    refuse_fewer_than_two(candidates)
    kinds = {type(each) for each in candidates}
    if len(kinds) > 1:
        heads = ", ".join(each.name for each in candidates if isinstance(each, Frozen))
        raise UsageError(
            f"Recipes of heads ({heads}) are cross-validated, and recipes of networks are evaluated on held-out "
            "photos. Compare each kind separately."
        )
    files = [file_name(each.name).casefold() for each in candidates]
    for each, file in zip(candidates, files, strict=True):
        if files.count(file) > 1:
            raise UsageError(f"'{each.name}' is named twice. Give each another name.")
