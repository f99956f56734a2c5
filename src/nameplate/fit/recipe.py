"""A recipe: everything that decides how a network is trained, as one TOML file.

`load_recipe` reads one that ships (`nameplate recipes`) or a file; every field has its default and its limits
here and nowhere else, and an unknown or impossible one is refused with the nearest right name.
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
from nameplate.images.augment import Augmentation, Below1, Share, To1
from nameplate.storage import printable
from nameplate.types import Fit, HeadRecipe, Interpolation

HEAD = "head"
"""The kind of recipe that trains no network (`fit/linear_probe.py`)."""
MAX_BYTES = 32 * 1024
"""Size of the largest file that is read as a recipe."""

_FROZEN = HeadRecipe()

Optimizer = Literal["adamw", "adam", "sgd"]
Schedule = Literal["cosine", "exponential", "constant"]
Precision = Literal["auto", "float32", "bfloat16"]

# Limits stand beside the types: msgspec checks them, errors and docs/recipes.md say them in words.
Text = Annotated[str, Meta(min_length=1, description="text")]
Count = Annotated[int, Meta(ge=1, le=1_000_000, description="a whole number from 1 to 1,000,000")]
Folds = Annotated[int, Meta(ge=2, le=100, description="a whole number from 2 to 100")]
Pixels = Annotated[int, Meta(ge=32, le=4096, description="a whole number from 32 to 4096")]
Seed = Annotated[int, Meta(ge=0, lt=2**32, description="a whole number from 0 to 4294967295")]
# The upper limit refuses infinity, which TOML can write.
Positive = Annotated[float, Meta(gt=0, le=sys.float_info.max, description="a number above 0")]
NotNegative = Annotated[float, Meta(ge=0, le=sys.float_info.max, description="a number of at least 0")]
Unfrozen = Annotated[
    str, Meta(pattern=r"\A(all|head|[1-9][0-9]{0,2})\Z", description="all, head, or a whole number from 1 to 999")
]


@dataclass(frozen=True, slots=True)
class Mixing:
    """MixUp (H. Zhang et al., 2018) and CutMix (S. Yun et al., 2019) of the photos of a batch."""

    mixup: Share = 0.0
    """Probability that a batch is mixed by MixUp."""
    mixup_alpha: Positive = 0.2
    """Of the Beta distribution that its share is drawn from."""
    cutmix: Share = 0.0
    """Probability that a batch is mixed by CutMix."""
    cutmix_alpha: Positive = 1.0
    """Of the Beta distribution that its share is drawn from."""
    until: Share = 1.0
    """Share of all epochs after which no batch is mixed any more."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stretch of training at one photo size."""

    height: Pixels
    """Height of the network's picture in pixels."""
    width: Pixels
    """Width of the network's picture in pixels."""
    epochs: Count
    """At most; patience may end it sooner."""
    batch: Count = 32
    """Photos a step, over all processes together."""
    train: Unfrozen = "all"
    """What is unfrozen: "all", "head" (the classifier alone), or a number: the last so many of the
    backbone's layer groups and the classifier."""
    learning_rate: Positive = 4e-4
    """Of the backbone's last layer, at its peak."""
    head_factor: Positive = 1.0
    """The classifier's learning rate is this many times that."""
    layer_decay: To1 = 1.0
    """Each layer group below learns at this many times the rate of the one above it."""
    schedule: Schedule = "cosine"
    """cosine: down to zero over the run of consecutive cosine stages; exponential: times `decay` every
    `decay_steps` steps, smoothly; constant."""
    decay: To1 = 0.9
    """See `schedule`."""
    decay_steps: Count = 1000
    """See `schedule`."""
    warmup: NotNegative = 0.0
    """Epochs over which the rate rises from zero at the stage's beginning."""
    patience: Count | None = None
    """End after so many epochs without a better validation accuracy; None: never."""
    restore_best: bool = False
    """Whether the stage ends with its best epoch's weights rather than its last's."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained."""

    name: Text
    """What it is called."""
    summary: Text
    """What it is for, in a line."""
    backbone: Text
    """A name that `nameplate backbones` knows, or any of timm's."""
    stages: tuple[Stage, ...]
    """One after another."""
    weights: Text = "auto"
    """auto: the backbone's pretrained ones; none: random; else a file of weights or a run to start from."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    mixing: Mixing = field(default_factory=Mixing)
    optimizer: Optimizer = "adamw"
    """adamw: AdamW (I. Loshchilov and F. Hutter, 2019); adam; sgd: with Nesterov's momentum of 0.9."""
    weight_decay: NotNegative = 0.0
    """Of matrices and filters; biases and norms have none."""
    label_smoothing: Below1 = 0.0
    """Share of the probability that is spread over all classes."""
    clip: Positive | None = None
    """Longest gradient, in its L2 norm; None: any."""
    ema: Below1 | None = None
    """Share that the moving average of the weights keeps each step, None without one; it is the average
    that is validated and kept."""
    dropout: Below1 = 0.0
    """Before the classifier."""
    drop_path: Below1 = 0.0
    """Stochastic depth (G. Huang et al., 2016), in the deepest block."""
    head_start: bool = False
    """Fit the classifier on the frozen backbone's embeddings before the first stage (A. Kumar et al.,
    "Fine-Tuning can Distort Pretrained Features", 2022)."""
    fit: Fit = "squash"
    """How a photo is fitted into the picture outside training."""
    interpolation: Interpolation = "bicubic"
    """Resampling outside training."""
    precision: Precision = "auto"
    """auto measures both here and takes the faster."""
    compile: bool = False
    """Let torch compile the network: a minute a photo size, then faster; for long runs."""
    keep_best: bool = True
    """Whether the bundle holds the weights of the epoch, of all stages, that named most of the held-out photos rightly
    (of equals the lesser loss), at that stage's photo size; false: those that training ends with."""
    holdout: Below1 = _FROZEN.holdout
    """Share of every nameplate kept out of training, where the data itself has no parts."""
    seed: Seed = _FROZEN.seed
    """Of the split and of everything drawn."""


@dataclass(frozen=True, slots=True)
class RecipeRow:
    """A shipped recipe as `nameplate recipes` lists it."""

    name: str
    summary: str
    kind: Literal["network", "head"]
    """What is trained: a whole network, or a head on a bundle's frozen backbone."""
    backbone: str | None
    """None for a head."""
    sizes: str
    """Height × width of the network's picture, stage by stage: `160×240 → 192×288`; empty for a head."""
    epochs: int
    """Over all stages, at most; 0 for a head."""


def shipped_recipes() -> dict[str, Path]:
    """Name → file of the recipes inside the package."""
    folder = Path(str(resources.files("nameplate.fit"))) / "recipes"
    return {file.stem: file for file in sorted(folder.glob("*.toml"))}


def recipe_rows() -> list[RecipeRow]:
    """The shipped recipes, by name."""
    return [_row(name, file) for name, file in shipped_recipes().items()]


def _row(name: str, file: Path) -> RecipeRow:
    recipe = load_recipe(name)
    if isinstance(recipe, HeadRecipe):
        return RecipeRow(name, _table(file)["summary"], "head", None, "", 0)
    sizes = " → ".join(size for size, _ in groupby(f"{stage.height}×{stage.width}" for stage in recipe.stages))
    epochs = sum(stage.epochs for stage in recipe.stages)
    return RecipeRow(name, recipe.summary, "network", recipe.backbone, sizes, epochs)


def load_recipe(name: str, changes: Sequence[str] = ()) -> Recipe | HeadRecipe:
    """A recipe that ships, or a file's, with some of its fields changed.

    Args:
        name: a shipped recipe's name, or the path of a file that ends in `.toml`.
        changes: `key=value`, the later ones over the earlier: `seed=3`, `augmentation.flip=0`,
            `stages.2.epochs=3` (stages count from 1), `stages.batch=16` (in every stage). Values are
            written as in TOML; text needs no quotes; `none` stands for none.

    Returns:
        A `HeadRecipe` where the file says `kind = "head"`, else a `Recipe`.

    Raises:
        UsageError: no such recipe or file, one that is no TOML, an unknown key, a value that is of the wrong
            kind or impossible, or values that do not go together.
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
        _refuse_disagreement(recipe, where)
    return recipe


def recipe_toml(recipe: Recipe) -> str:
    """A recipe as TOML, every field written out; `load_recipe` reads it back to an equal one."""
    return tomli_w.dumps(_without_none(msgspec.to_builtins(recipe)))


def allowed(kind: type) -> dict[str, str]:
    """Field → what it may be, in words, of `Recipe`, `Stage`, `Augmentation`, `Mixing` or `HeadRecipe`."""
    return {name: _in_words(wanted) for name, wanted in _types(kind).items()}


def _own_file(name: str) -> Path:
    if not name.endswith(".toml"):
        near = get_close_matches(name, shipped_recipes(), 1)
        hint = f"Did you mean '{near[0]}'? " if near else ""
        raise UsageError(
            f"Unknown recipe '{printable(name)}'. {hint}See 'nameplate recipes', or name a file that ends in .toml."
        )
    return Path(name)


def _table(file: Path) -> dict[str, Any]:
    """What a TOML file holds, not checked any further."""
    where = f"Recipe '{printable(str(file))}'"
    try:
        if file.exists() and not file.is_file():
            raise UsageError(f"{where} is no file. Name a TOML file, or a recipe that 'nameplate recipes' lists.")
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: no path at all
        raise UsageError(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if len(data) > MAX_BYTES:
        raise UsageError(f"{where} is larger than {MAX_BYTES // 1024} KiB: that is no recipe.")
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise UsageError(f"{where} is not UTF-8 text. Save it as UTF-8.") from None
    except ValueError as error:  # also whole numbers of thousands of digits
        raise UsageError(f"{where} is not valid TOML: {error}.") from None
    except RecursionError:
        raise UsageError(f"{where} is not valid TOML: nested too deeply.") from None


def _built(kind: type, table: dict[str, Any], prefix: str, where: str) -> Any:
    """A dataclass from a table whose keys are its fields; `prefix` is what stands before them in a dotted key."""
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
    """A field's value from TOML's."""
    if wanted == tuple[Stage, ...]:
        if not isinstance(value, list) or not value or not all(isinstance(each, dict) for each in value):
            raise _wrong(wanted, value, key, where)
        return tuple(_built(Stage, each, f"{key}.{number}.", where) for number, each in enumerate(value, 1))
    if is_dataclass(wanted):
        if not isinstance(value, dict):
            raise _wrong(wanted, value, key, where)
        return _built(wanted, value, f"{key}.", where)  # type: ignore[arg-type]
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
    """A recipe, or a part of one, with the field at `path` read from `text`."""
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
    """What stands behind `key=`: TOML, or where that is no TOML or text is wanted, the text itself."""
    try:
        value = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    first = next(iter(get_args(wanted)), wanted)
    text_wanted = first is str or isinstance(first, str)
    return text if len(value) > 1 or (text_wanted and not isinstance(value["value"], str)) else value["value"]


def _types(kind: type) -> dict[str, Any]:
    """Field → its type with its limits."""
    types = get_type_hints(kind, include_extras=True)
    return {**types, "holdout": Below1, "seed": Seed, "folds": Folds} if kind is HeadRecipe else types


def _in_words(wanted: Any) -> str:
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
    """Values that are each possible, but not together."""
    least, most = recipe.augmentation.crop
    if least > most:
        raise UsageError(f"{where}: augmentation.crop = [{least}, {most}], but the lesser comes first.")
    mixing = recipe.mixing
    if mixing.mixup + mixing.cutmix > 1:
        sums = f"mixing.mixup = {mixing.mixup} and mixing.cutmix = {mixing.cutmix}"
        raise UsageError(f"{where}: {sums}, but they may add up to 1 at most.")
    for number, stage in enumerate(recipe.stages, 1):
        if stage.warmup > stage.epochs:
            stretch = f"stages.{number}.warmup = {stage.warmup} epochs"
            raise UsageError(f"{where}: {stretch}, but the stage has {stage.epochs}.")


def _without_none(value: Any) -> Any:
    """The same tables and lists with "none" in place of None, for which TOML has no word."""
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_none(inner) for inner in value]
    return "none" if value is None else value


def _shown(value: object) -> str:
    """A value as an error names it: however long or deep, in a few words."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list) and (len(value) > 4 or any(isinstance(each, dict | list) for each in value)):
        return f"a list of {len(value)}"
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, str):
        value = printable(value[:80])
    try:
        # JSON writes text and truth as TOML does; numbers and dates are shown as Python writes them.
        return json.dumps(value, ensure_ascii=False) if isinstance(value, bool | str) else str(value)
    except ValueError:  # an integer beyond the length that Python prints
        return "a number of thousands of digits"
