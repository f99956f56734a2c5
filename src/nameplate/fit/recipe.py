"""Reads recipes: TOML files with everything that decides how a network is trained.

`load_recipe` reads a shipped recipe (`nameplate recipes`) or a file. The defaults and limits of all fields are in the
dataclasses below and nowhere else. An unknown key is refused with a suggestion, an impossible value with the limits.
The field names are keys of the TOML files, and docs/recipes.md repeats the field docstrings; a test compares them.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
import tomli_w
from msgspec import Meta

from nameplate.errors import UsageError
from nameplate.images.augment import Augmentation, Below1, To1
from nameplate.images.mixing import Mixing, Positive
from nameplate.storage import printable
from nameplate.types import Fit, HeadRecipe, Interpolation, Locate, Preprocess

HEAD = "head"
"""The `kind` of recipes that fit a linear classifier on a frozen backbone (`fit/linear_probe.py`)."""
MAX_BYTES = 32 * 1024
"""Largest size of a recipe file in bytes."""

_FROZEN = HeadRecipe()

Optimizer = Literal["adamw", "adam", "sgd"]
Schedule = Literal["cosine", "exponential", "constant"]
Precision = Literal["auto", "float32", "bfloat16"]

# Each type has its limits beside it: msgspec checks them; error texts and docs/recipes.md take the descriptions.
Text = Annotated[str, Meta(min_length=1, description="text")]
Count = Annotated[int, Meta(ge=1, le=1_000_000, description="a whole number from 1 to 1,000,000")]
Folds = Annotated[int, Meta(ge=2, le=100, description="a whole number from 2 to 100")]
SideLength = Annotated[int, Meta(ge=32, le=4096, description="a whole number from 32 to 4096")]
Seed = Annotated[int, Meta(ge=0, lt=2**32, description="a whole number from 0 to 4294967295")]
# The upper limit refuses infinity, which TOML can write.
NotNegative = Annotated[float, Meta(ge=0, le=sys.float_info.max, description="a number of at least 0")]
Unfrozen = Annotated[
    str, Meta(pattern=r"\A(all|head|[1-9][0-9]{0,2})\Z", description="all, head, or a whole number from 1 to 999")
]


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the training with one input size."""

    height: SideLength
    """Height of the model's input in pixels."""
    width: SideLength
    """Width of the model's input in pixels."""
    epochs: Count
    """Largest number of epochs; patience may end the stage sooner."""
    batch: Count = 32
    """Number of photos in each step, over all processes together."""
    train: Unfrozen = "all"
    """The part that is trained: "all", "head" (only the classifier), or a number N (the last N layer groups of the
    backbone, and the classifier)."""
    learning_rate: Positive = 4e-4
    """Peak learning rate of the backbone's last layer."""
    head_factor: Positive = 1.0
    """The classifier's learning rate, as a multiple of `learning_rate`."""
    layer_decay: To1 = 1.0
    """Learning rate of each layer group, as a multiple of that of the group after it (nearer to the classifier)."""
    schedule: Schedule = "cosine"
    """cosine: falls to zero over all consecutive cosine stages together; exponential: falls continuously, by the
    factor `decay` in every `decay_steps` steps; constant: does not change."""
    decay: To1 = 0.9
    """Factor of the exponential schedule."""
    decay_steps: Count = 1000
    """Number of steps in which the exponential schedule falls by `decay`."""
    warmup: NotNegative = 0.0
    """Number of epochs at the beginning of the stage in which the learning rate rises from zero."""
    patience: Count | None = None
    """End the stage after this many epochs without a better validation accuracy; none: never."""
    restore_best: bool = False
    """Whether the stage ends with the weights of its best epoch instead of its last one."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides how a network is trained."""

    name: Text
    """Name of the recipe."""
    summary: Text
    """One line that says what the recipe is for."""
    backbone: Text
    """A name that `nameplate backbones` lists, or any name of a timm network."""
    stages: tuple[Stage, ...]
    """The stages, which follow one another."""
    weights: Text = "auto"
    """auto: the backbone's pretrained weights; none: random weights; otherwise a file of weights, the folder of a run,
    or a bundle whose network is the backbone: its folder, or the name of one that ships, such as cars196."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    mixing: Mixing = field(default_factory=Mixing)
    optimizer: Optimizer = "adamw"
    """adamw: AdamW (I. Loshchilov and F. Hutter, 2019); adam: Adam; sgd: SGD with Nesterov momentum 0.9."""
    amsgrad: bool = False
    """Whether adamw and adam divide by the largest second moment so far (S. Reddi et al., "On the Convergence of Adam
    and Beyond", 2018)."""
    weight_decay: NotNegative = 0.0
    """Weight decay of matrices and convolution kernels; biases and norms have none. With adam and sgd it is an L2
    penalty, added to the gradient."""
    label_smoothing: Below1 = 0.0
    """Share of the target probability that is spread evenly over all classes."""
    clip: Positive | None = None
    """Largest L2 norm of the gradient; longer gradients are scaled down; none: no limit."""
    ema: Below1 | None = None
    """Decay of the exponential moving average of the weights, which is then validated and exported in place of the
    weights; none: no average."""
    dropout: Below1 = 0.0
    """Dropout rate before the classifier."""
    drop_path: Below1 = 0.0
    """Rate of stochastic depth (G. Huang et al., 2016) in the deepest block."""
    head_start: bool = False
    """Fit the classifier on the frozen backbone's embeddings before the first stage (A. Kumar et al.,
    "Fine-Tuning can Distort Pretrained Features", 2022)."""
    fit: Fit = "squash"
    """How a photo is fitted into the model's input outside training."""
    interpolation: Interpolation = "bicubic"
    """Resampling filter outside training."""
    locate: Locate = "none"
    """ssd: crop each photo to its main car first, in training and afterwards; none: take the whole photo."""
    precision: Precision = "auto"
    """auto: measure both on this machine and take the faster."""
    compile: bool = False
    """Whether torch compiles the network: it takes a minute for each input size and is then faster, so it pays in long
    runs."""
    keep_best: bool = True
    """true: the bundle gets the weights of the epoch with the best accuracy on the held-out photos (the lower loss
    decides between equals), and the input size of that stage; false: the weights at the end of the training."""
    holdout: Below1 = _FROZEN.holdout
    """Share of the photos of each nameplate that is held out, where the data set has no parts of its own."""
    seed: Seed = _FROZEN.seed
    """Seed of the split and of all random numbers."""

    def preprocess(self, height: int, width: int) -> Preprocess:
        """How a photo becomes the model's input outside training, at a size in pixels."""
        return Preprocess(height, width, self.fit, self.interpolation, self.locate)


@dataclass(frozen=True, slots=True)
class RecipeRow:
    """A shipped recipe in the list of `nameplate recipes`."""

    name: str
    summary: str
    kind: Literal["network", "head"]
    """What is trained: a whole network, or a linear classifier on a frozen backbone."""
    backbone: str | None
    """The backbone; None for a linear classifier."""
    sizes: str
    """Height × width of the model's input in each stage: `160×240 → 192×288`; empty for a linear classifier."""
    epochs: int
    """Largest number of epochs of all stages together; 0 for a linear classifier."""


def shipped_recipes() -> dict[str, Path]:
    """Name → file of each recipe that ships with the package."""
    folder = Path(str(resources.files("nameplate.fit"))) / "recipes"
    return {file.stem: file for file in sorted(folder.glob("*.toml"))}


def recipe_rows() -> list[RecipeRow]:
    """The shipped recipes, sorted by name."""
    return [_row(name, file) for name, file in shipped_recipes().items()]


def _row(name: str, file: Path) -> RecipeRow:
    recipe = load_recipe(name)
    if isinstance(recipe, HeadRecipe):
        return RecipeRow(name, _table(file)["summary"], "head", None, "", 0)
    sizes = " → ".join(size for size, _ in groupby(f"{stage.height}×{stage.width}" for stage in recipe.stages))
    epochs = sum(stage.epochs for stage in recipe.stages)
    return RecipeRow(name, recipe.summary, "network", recipe.backbone, sizes, epochs)


def load_recipe(name: str, changes: Sequence[str] = ()) -> Recipe | HeadRecipe:
    """Load a shipped recipe or a recipe file, and change some of its fields.

    Args:
        name: the name of a shipped recipe, or the path of a file that ends in `.toml`.
        changes: `key=value`; a later change overrides an earlier one: `seed=3`, `augmentation.flip=0`,
            `stages.2.epochs=3` (stages count from 1), `stages.batch=16` (in every stage). Values are
            written as in TOML; text needs no quotes; `none` stands for none. A new backbone has its own pretrained
            weights, unless `weights` is given too (`with_backbone`).

    Returns:
        A `HeadRecipe` where the file says `kind = "head"`, else a `Recipe`.

    Raises:
        UsageError: there is no such recipe or file, the file is not TOML, a key is unknown, a value has the wrong
            type or is outside its limits, or two values contradict each other.
    """
    file = shipped_recipes().get(name) or _own_file(name)
    where = f"Recipe '{printable(name)}'"
    table = _table(file)
    kind = table.pop("kind", "network")
    recipe: Recipe | HeadRecipe
    if kind == HEAD:
        settings = {key: value for key, value in table.items() if key not in ("name", "summary")}
        recipe = _built(HeadRecipe, settings, "", where)
    elif kind == "network":
        recipe = _built(Recipe, table, "", where)
    else:
        raise UsageError(f"{where}: kind = {_shown(kind)}, but it must be one of network, head.")
    for change in changes:
        key, equals, text = (part.strip() for part in change.partition("="))
        if not (key and equals):
            raise UsageError(f"--set {printable(change)}: write key=value, such as seed=3 or augmentation.flip=0.")
        recipe = _changed(recipe, key.split("."), text, "", f"--set {printable(change)}")
    if isinstance(recipe, Recipe):
        recipe = with_backbone(recipe, recipe.backbone, changes) if "backbone" in _keys(changes) else recipe
        _refuse_disagreement(recipe, where)
    return recipe


def with_backbone(recipe: Recipe, backbone: str, changes: Sequence[str] = ()) -> Recipe:
    """The recipe with another backbone, and with its pretrained weights: the recipe's do not fit it.

    Weights that `changes` names (see `load_recipe`) stay, and so do random ones.
    """
    stay = recipe.weights == "none" or "weights" in _keys(changes)
    return replace(recipe, backbone=backbone, weights=recipe.weights if stay else "auto")


def _keys(changes: Sequence[str]) -> set[str]:
    return {change.partition("=")[0].strip() for change in changes}


def recipe_toml(recipe: Recipe) -> str:
    """A recipe as TOML with every field; `load_recipe` reads it back as an equal recipe."""
    return tomli_w.dumps(_without_none(msgspec.to_builtins(recipe)))


def allowed(kind: type) -> dict[str, str]:
    """Field → a description of its permitted values; `kind` is `Recipe`, one of its tables, or `HeadRecipe`."""
    return {name: _in_words(wanted) for name, wanted in _types(kind).items()}


def _own_file(name: str) -> Path:
    """The path of a recipe file; a name that is neither a file nor a shipped recipe is refused."""
    if not name.endswith(".toml"):
        near = get_close_matches(name, shipped_recipes(), 1)
        hint = f"Did you mean '{near[0]}'? " if near else ""
        raise UsageError(
            f"Unknown recipe '{printable(name)}'. {hint}See 'nameplate recipes', or name a file that ends in .toml."
        )
    return Path(name)


def _table(file: Path) -> dict[str, Any]:
    """The content of a TOML file; only its size and syntax are checked."""
    where = f"Recipe '{printable(str(file))}'"
    try:
        if file.exists() and not file.is_file():
            raise UsageError(f"{where} is no file. Name a TOML file, or a recipe that 'nameplate recipes' lists.")
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: the name cannot be a path
        raise UsageError(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if len(data) > MAX_BYTES:
        raise UsageError(f"{where} is larger than {MAX_BYTES // 1024} KiB: that is no recipe.")
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise UsageError(f"{where} is not UTF-8 text. Save it as UTF-8.") from None
    except ValueError as error:  # also raised for integers of thousands of digits
        raise UsageError(f"{where} is not valid TOML: {error}.") from None
    except RecursionError:
        raise UsageError(f"{where} is not valid TOML: nested too deeply.") from None


def _built(kind: type, table: dict[str, Any], prefix: str, where: str) -> Any:
    """A dataclass from a TOML table; `prefix` is the dotted path of the table, for error texts."""
    types = _types(kind)
    for key in table:
        if key not in types:
            raise _unknown(kind, key, prefix, where)
    for each in fields(kind):
        if each.name not in table and each.default is MISSING and each.default_factory is MISSING:
            hint = ' Write a [[stages]] for each, or kind = "head".' if each.name == "stages" else ""
            raise UsageError(f"{where}: '{prefix}{each.name}' is missing: {_in_words(types[each.name])}.{hint}")
    return kind(**{key: _value(types[key], value, prefix + key, where) for key, value in table.items()})


def _value(wanted: Any, value: Any, key: str, where: str) -> Any:
    """The value of a field from its TOML value; raises `UsageError` where they do not match."""
    if wanted == tuple[Stage, ...]:
        if not isinstance(value, list) or not value or not all(isinstance(each, dict) for each in value):
            raise _wrong(wanted, value, key, where)
        return tuple(_built(Stage, each, f"{key}.{number}.", where) for number, each in enumerate(value, 1))
    if is_dataclass(wanted):
        if not isinstance(value, dict):
            raise _wrong(wanted, value, key, where)
        return _built(wanted, value, f"{key}.", where)  # type: ignore[arg-type]
    # Not isinstance: true and false are integers in Python, too.
    if wanted == Unfrozen and type(value) is int and 0 < value < 1000:
        value = str(value)
    if value == "none" and type(None) in get_args(wanted):
        return None
    try:
        converted = msgspec.convert(value, wanted)
        if isinstance(converted, str):
            converted.encode()  # A path whose bytes are not UTF-8 could not be written to a file again.
    except (msgspec.ValidationError, UnicodeEncodeError):
        raise _wrong(wanted, value, key, where) from None
    return converted


def _changed(value: Any, path: list[str], text: str, prefix: str, where: str) -> Any:
    """A copy of a recipe, or of one of its tables, in which the field at `path` has the value of `text`."""
    name, *rest = path
    wanted = _types(type(value)).get(name)
    if wanted is None or (rest and wanted != tuple[Stage, ...] and not is_dataclass(wanted)):
        raise _unknown(type(value), ".".join(path), prefix, where)
    old, key = getattr(value, name), prefix + name
    new: Any
    if wanted == tuple[Stage, ...]:
        chosen = int(rest.pop(0)) if rest and re.fullmatch("-?[0-9]{1,6}", rest[0]) else None
        if chosen is not None and not 1 <= chosen <= len(old):
            raise UsageError(f"{where}: there is no stage {chosen}; they count from 1 to {len(old)}.")
        if not rest:
            raise UsageError(f"{where}: name one key of a stage, such as stages.1.epochs, or stages.epochs for all.")
        key = key if chosen is None else f"{key}.{chosen}"
        new = tuple(
            _changed(stage, rest, text, f"{key}.", where) if chosen in (None, number) else stage
            for number, stage in enumerate(old, 1)
        )
    elif is_dataclass(wanted):
        if not rest:
            raise UsageError(f"{where}: name one of its keys, such as {key}.{fields(old)[0].name}.")
        new = _changed(old, rest, text, f"{key}.", where)
    else:
        new = _value(wanted, _typed(wanted, text), key, where)
    return replace(value, **{name: new})


def _typed(wanted: Any, text: str) -> Any:
    """The value after `key=`: parsed as TOML, or the text itself where it is not TOML or where the field is a text."""
    try:
        value = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    first = next(iter(get_args(wanted)), wanted)
    text_wanted = first is str or isinstance(first, str)
    # More than one key means that the text contained a line break and a further key.
    return text if len(value) > 1 or (text_wanted and not isinstance(value["value"], str)) else value["value"]


def _types(kind: type) -> dict[str, Any]:
    """Field → its type with its limits."""
    # HeadRecipe is in types.py, which does not know the limits of this module.
    types = get_type_hints(kind, include_extras=True)
    return {**types, "holdout": Below1, "seed": Seed, "folds": Folds} if kind is HeadRecipe else types


def _in_words(wanted: Any) -> str:
    """A description of the permitted values of a type."""
    options = get_args(wanted)
    if described := [each.description for each in options if isinstance(each, Meta) and each.description]:
        return described[0]
    if wanted is bool:
        return "true or false"
    if wanted == tuple[Stage, ...]:
        return "a list of tables"
    if is_dataclass(wanted):
        return "a table"
    if type(None) in options:
        return f"{_in_words(options[0])}, or none"
    return f"one of {', '.join(options)}"


def _unknown(kind: type, key: str, prefix: str, where: str) -> UsageError:
    """The error for an unknown key; it suggests the same name in another table, or the most similar one."""
    own = {name: prefix + name for name in _types(kind)}
    places = {Stage: "stages.", Mixing: "mixing.", Augmentation: "augmentation.", Recipe: ""}
    if kind in places:
        known = {name: place + name for owner, place in places.items() for name in _types(owner)} | own
    else:
        known = own
    first, last = key.split(".")[0], key.split(".")[-1]
    names = [*([last] if last in known else []), *([first] if first in own else [])]
    names += get_close_matches(last, own, 1) + get_close_matches(last, known, 1)
    hint = f"Did you mean '{known[names[0]]}'?" if names else f"There are: {', '.join(own)}."
    return UsageError(f"{where}: unknown key '{printable(prefix + key)}'. {hint}")


def _wrong(wanted: Any, value: object, key: str, where: str) -> UsageError:
    return UsageError(f"{where}: {key} = {_shown(value)}, but it must be {_in_words(wanted)}.")


def _refuse_disagreement(recipe: Recipe, where: str) -> None:
    """Refuse values that are each permitted, but contradict each other."""
    least, most = recipe.augmentation.crop
    if least > most:
        raise UsageError(f"{where}: augmentation.crop = [{least}, {most}], but the lesser comes first.")
    mixing = recipe.mixing
    if mixing.mixup + mixing.cutmix > 1:
        sums = f"mixing.mixup = {mixing.mixup} and mixing.cutmix = {mixing.cutmix}"
        raise UsageError(f"{where}: {sums}, but they may add up to 1 at most.")
    if recipe.amsgrad and recipe.optimizer == "sgd":
        raise UsageError(f"{where}: amsgrad is for adamw and adam, and optimizer = sgd.")
    for number, stage in enumerate(recipe.stages, 1):
        if stage.warmup > stage.epochs:
            stretch = f"stages.{number}.warmup = {stage.warmup} epochs"
            raise UsageError(f"{where}: {stretch}, but the stage has {stage.epochs}.")


def _without_none(value: Any) -> Any:
    """The same tables and lists with "none" in place of None, because TOML has no null."""
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_none(inner) for inner in value]
    return "none" if value is None else value


def _shown(value: object) -> str:
    """A value in an error text, shortened where it is long or nested."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list) and (len(value) > 4 or any(isinstance(each, dict | list) for each in value)):
        return f"a list of {len(value)}"
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, str):
        value = printable(value[:80])
    try:
        # JSON writes strings and booleans as TOML does; numbers and dates are written as Python does.
        return json.dumps(value, ensure_ascii=False) if isinstance(value, bool | str) else str(value)
    except ValueError:  # an integer with more digits than Python converts to text
        return "a number of thousands of digits"
