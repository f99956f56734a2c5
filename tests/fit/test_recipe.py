"""Recipes: those that ship, what a file may contain, how a wrong one is refused, and the page that describes them."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nameplate import types
from nameplate.errors import UsageError
from nameplate.fit import recipe as module
from nameplate.fit.recipe import (
    Recipe,
    Stage,
    allowed,
    load_recipe,
    recipe_rows,
    recipe_toml,
    shipped_recipes,
    with_backbone,
)
from nameplate.images import augment, mixing
from nameplate.images.augment import Augmentation
from nameplate.images.mixing import Mixing
from nameplate.types import HeadRecipe

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
SMALL = """
name = "mine"
summary = "Mine."
backbone = "resnet18"
[[stages]]
height = 64
width = 96
epochs = 2
[[stages]]
height = 96
width = 128
epochs = 1
"""

Write = Callable[[str | bytes], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes my.toml and gives its path."""

    def write(text: str | bytes) -> str:
        file = tmp_path / "my.toml"
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(file)

    return write


def network(name: str, *changes: str) -> Recipe:
    """A recipe that trains a network."""
    recipe = load_recipe(name, changes)
    assert isinstance(recipe, Recipe)
    return recipe


def refusal(name: str, *changes: str) -> str:
    """What is said against a recipe."""
    with pytest.raises(UsageError) as caught:
        load_recipe(name, changes)
    return str(caught.value)


# What ships


def test_the_shipped_recipes_are_these() -> None:
    assert list(shipped_recipes()) == ["fast", "few", "fine-tune", "gradual", "head", "original"]


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_loads_under_its_own_name(name: str) -> None:
    recipe = load_recipe(name)
    assert isinstance(recipe, HeadRecipe) or recipe.name == name


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if name != "head"])
def test_every_shipped_recipe_is_written_and_read_again(name: str, write: Write) -> None:
    assert load_recipe(write(recipe_toml(network(name)))) == load_recipe(name)


def test_original_is_the_notebook() -> None:
    recipe = network("original")
    one, two = recipe.stages
    assert (one.height, one.width, one.batch, one.learning_rate, one.patience) == (220, 305, 8, 1e-3, 4)
    assert one.epochs == 25
    assert (two.height, two.width, two.batch, two.learning_rate, two.patience) == (440, 610, 2, 1e-6, 5)
    for stage in recipe.stages:
        assert (stage.schedule, stage.decay, stage.decay_steps) == ("exponential", 0.9, 1000)
        assert stage.restore_best
        assert stage.train == "all"
        assert (stage.head_factor, stage.layer_decay, stage.warmup) == (1, 1, 0)
    assert (recipe.backbone, recipe.optimizer, recipe.precision) == ("EfficientNetB7", "adam", "float32")
    assert (recipe.holdout, recipe.seed, recipe.fit) == (0.15, 20, "squash")
    assert (recipe.weight_decay, recipe.label_smoothing, recipe.dropout) == (0, 0, 0)
    assert (recipe.clip, recipe.ema, recipe.head_start) == (None, None, False)
    assert recipe.augmentation == Augmentation(
        rotate=15, brightness=0.5, flip=0.5, shift=0.15, shear=15, zoom=0.15, fill="nearest"
    )
    assert recipe.mixing == Mixing()


def test_head_is_the_default_head() -> None:
    assert load_recipe("head") == HeadRecipe()


def test_rows_describe_a_recipe() -> None:
    rows = {row.name: row for row in recipe_rows()}
    assert list(rows) == list(shipped_recipes())
    assert (rows["original"].backbone, rows["original"].kind) == ("EfficientNetB7", "network")
    assert (rows["original"].sizes, rows["original"].epochs) == ("220×305 → 440×610", 50)
    assert (rows["head"].backbone, rows["head"].kind, rows["head"].sizes, rows["head"].epochs) == (None, "head", "", 0)
    assert all(row.summary.endswith(".") for row in rows.values())


def test_a_recipe_needs_no_torch() -> None:
    code = "import sys, nameplate.fit.recipe as r; r.recipe_rows(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Files


def test_missing_keys_of_a_file_have_their_defaults(write: Write) -> None:
    assert load_recipe(write(SMALL)) == Recipe(
        "mine", "Mine.", "resnet18", (Stage(64, 96, 2), Stage(96, 128, 1)), holdout=0.15, seed=20
    )


def test_a_file_may_write_a_number_of_layer_groups_none_and_whole_numbers(write: Write) -> None:
    recipe = network(write('clip = "none"\nweight_decay = 1\n' + SMALL + 'train = 2\npatience = "none"'))
    assert (recipe.clip, recipe.weight_decay) == (None, 1.0)
    assert (recipe.stages[1].train, recipe.stages[1].patience) == ("2", None)
    assert isinstance(recipe.weight_decay, float)


def test_a_head_has_its_own_keys(write: Write) -> None:
    file = write('kind = "head"\nseed = 3\nmirror = false')
    assert load_recipe(file) == HeadRecipe(seed=3, mirror=False)
    assert load_recipe(file, ["folds=5"]) == HeadRecipe(seed=3, mirror=False, folds=5)
    assert "unknown key 'fold'. Did you mean 'folds'?" in refusal(file, "fold=5")
    assert "unknown key 'stages.epochs'. There are: holdout, seed, folds, mirror, balanced." in refusal(
        file, "stages.epochs=5"
    )
    assert "folds = 1, but it must be a whole number from 2 to 100." in refusal(file, "folds=1")
    assert "holdout = 1, but" in refusal(file, "holdout=1")


def test_a_byte_order_mark_is_ignored(write: Write) -> None:
    assert network(write(b"\xef\xbb\xbf" + SMALL.encode())).name == "mine"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"name = '\xff'", "is not UTF-8 text"),
        ("name = ", "is not valid TOML: Invalid value"),
        ("a = 1\na = 2", "is not valid TOML: Cannot overwrite a value"),
        ("seed = " + "9" * 5000, "is not valid TOML"),
        ("a = " + "[" * 5000, "is not valid TOML: nested too deeply"),
        ("# " + "x" * 70_000, "is larger than 32 KiB"),
        ("", "'name' is missing: text"),
        (
            'name = "a"\nsummary = "b"\nbackbone = "c"',
            'is missing: a list of tables. Write a [[stages]] for each, or kind = "',
        ),
        ("stages = []\n" + SMALL.split("[[")[0], "stages = [], but it must be a list of tables"),
        ("stages = [1]\n" + SMALL.split("[[")[0], "stages = [1], but it must be a list of tables"),
        ('kind = "heads"\n' + SMALL, 'kind = "heads", but it must be one of network, head'),
        ("kind = []\n" + SMALL, "kind = [], but it must be one of network, head"),
        (SMALL + "epoch = 1", "unknown key 'stages.2.epoch'. Did you mean 'stages.2.epochs'?"),
        (SMALL.replace("height = 96", ""), "'stages.2.height' is missing: a whole number from 32 to 4096"),
        ("flip = 0\n" + SMALL, "unknown key 'flip'. Did you mean 'augmentation.flip'?"),
        ("weight-decay = 0\n" + SMALL, "unknown key 'weight-decay'. Did you mean 'weight_decay'?"),
        (SMALL + "[augmentation]\nflp = 0", "unknown key 'augmentation.flp'. Did you mean 'augmentation.flip'?"),
        (SMALL + "[mixing]\nflip = 0", "unknown key 'mixing.flip'. Did you mean 'augmentation.flip'?"),
        ("q = 0\n" + SMALL, "unknown key 'q'. There are: name, summary, backbone, stages,"),
        ("mixing = 3\n" + SMALL, "mixing = 3, but it must be a table"),
        ("seed = 0x1" + "0" * 6000 + "\n" + SMALL, "seed = a number of thousands of digits, but"),
        ("seed" + ".a" * 300 + " = 1\n" + SMALL, "seed = a table, but it must be a whole number"),
        ("seed = 2024-01-01\n" + SMALL, "seed = 2024-01-01, but it must be a whole number"),
        ("compile = 1\n" + SMALL, "compile = 1, but it must be true or false"),
        ("backbone2 = 1\n" + SMALL, "unknown key 'backbone2'. Did you mean 'backbone'?"),
    ],
)
def test_a_wrong_file_is_refused(write: Write, text: str | bytes, said: str) -> None:
    file = write(text)
    message = refusal(file)
    assert said in message
    assert message.startswith(f"Recipe '{file}'")


def test_a_missing_file_a_folder_and_an_unknown_name_are_refused(tmp_path: Path) -> None:
    assert "none.toml' cannot be read: No such file or directory." in refusal(str(tmp_path / "none.toml"))
    (tmp_path / "folder.toml").mkdir()
    assert "folder.toml' is no file. Name a TOML file" in refusal(str(tmp_path / "folder.toml"))
    assert "name a file that ends in .toml" in refusal(str(tmp_path))
    message = refusal("finetune")
    assert message.startswith("Unknown recipe 'finetune'. Did you mean 'fine-tune'? See 'nameplate recipes'")
    assert "Did you mean" not in refusal("zzzz")
    assert refusal("").startswith("Unknown recipe ''")
    assert "cannot be read: File name too long." in refusal(str(tmp_path / f"{'a' * 300}.toml"))
    assert "cannot be read: embedded null" in refusal("\0.toml")
    assert r"a\xff.toml' cannot be read" in refusal("a\udcff.toml")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    assert "is no file" in refusal(str(tmp_path / "pipe.toml"))


# --set


def test_set_changes_one_field_at_a_time() -> None:
    before = network("fine-tune")
    assert network("fine-tune", "seed=3") == replace(before, seed=3)
    assert network("fine-tune", "augmentation.flip=0").augmentation == replace(before.augmentation, flip=0.0)
    assert network("fine-tune", "mixing.cutmix=0.25").mixing == replace(before.mixing, cutmix=0.25)
    second = network("fine-tune", "stages.2.epochs=3").stages
    assert [stage.epochs for stage in second] == [4, 3, 6, 4]
    assert all(stage.batch == 16 for stage in network("fine-tune", "stages.batch=16").stages)
    assert network("fine-tune", "seed=3", "seed = 4").seed == 4


def test_set_reads_values_as_toml_and_words_as_text() -> None:
    recipe = network(
        "fine-tune",
        "augmentation.crop=[0.5, 1]",
        "weights=runs/a=b #1.safetensors",
        'backbone="resnet18"',
        "optimizer=sgd",
        "ema=none",
        "compile=true",
        "stages.train=2",
        "stages.1.learning_rate=1e-3",
        "name=2024-01-01",
        "stages.1.patience=4",
    )
    assert recipe.augmentation.crop == (0.5, 1.0)
    assert (recipe.weights, recipe.backbone, recipe.optimizer) == ("runs/a=b #1.safetensors", "resnet18", "sgd")
    assert (recipe.ema, recipe.compile, recipe.name) == (None, True, "2024-01-01")
    assert [stage.train for stage in recipe.stages] == ["2"] * 4
    assert (recipe.stages[0].learning_rate, recipe.stages[0].patience) == (1e-3, 4)


def test_another_backbone_has_its_own_weights_unless_some_are_given() -> None:
    assert network("few").weights == "cars196"
    assert network("few", "seed=3").weights == "cars196"
    assert network("few", "backbone=Lite1").weights == "auto"
    assert network("few", "weights=mine.safetensors", "backbone=Lite1").weights == "mine.safetensors"
    assert network("few", "backbone=Lite1", "weights=none").weights == "none"
    assert with_backbone(network("few"), "Lite1").backbone == "Lite1"
    assert with_backbone(network("few"), "Lite1").weights == "auto"
    assert with_backbone(network("few", "weights=none"), "Lite1").weights == "none"


def test_none_is_a_word_where_text_is_wanted() -> None:
    assert network("fast", "weights=none").weights == "none"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("seed", "write key=value, such as seed=3"),
        ("=3", "write key=value, such as seed=3"),
        ("sed=3", "unknown key 'sed'. Did you mean 'seed'?"),
        ("augmentaton.flip=3", "unknown key 'augmentaton.flip'. Did you mean 'augmentation.flip'?"),
        ("seed.x=3", "unknown key 'seed.x'. Did you mean 'seed'?"),
        ("augmentation=3", "name one of its keys, such as augmentation.crop"),
        ("stages=3", "name one key of a stage"),
        ("stages.1=3", "name one key of a stage"),
        ("stages.0.epochs=3", "there is no stage 0; they count from 1 to 4"),
        ("stages.5.epochs=3", "there is no stage 5; they count from 1 to 4"),
        ("stages.-1.epochs=3", "there is no stage -1; they count from 1 to 4"),
        (f"stages.{'9' * 5000}.epochs=3", "Did you mean 'stages.epochs'?"),
        ("stages.2.epoch=3", "unknown key 'stages.2.epoch'. Did you mean 'stages.2.epochs'?"),
        ("stages.epoch=3", "unknown key 'stages.epoch'. Did you mean 'stages.epochs'?"),
        ("kind=head", "unknown key 'kind'"),
        ("seed=x", 'seed = "x", but it must be a whole number from 0 to 4294967295.'),
        ("seed=1.0", "seed = 1.0, but it must be a whole number"),
        ("seed=true", "seed = true, but it must be a whole number"),
        ("seed=none", 'seed = "none", but it must be a whole number'),
        ("seed=1\nname=2", 'seed = "1\\nname=2", but it must be a whole number'),
        ("weights=", 'weights = "", but it must be text'),
        ("weights=\udcff", r'weights = "\\xff", but it must be text'),
        ("augmentation.crop=[1]", "augmentation.crop = [1], but it must be two numbers"),
        (f"augmentation.crop={'[' * 2000}", "but it must be two numbers"),
        ("augmentation.crop=[[1]]", "augmentation.crop = a list of 1, but"),
    ],
)
def test_a_wrong_change_is_refused(change: str, said: str) -> None:
    message = refusal("fine-tune", change)
    assert said in message
    assert message.startswith("--set ")
    message.encode()  # can be printed


@pytest.mark.parametrize(
    ("key", "wrong", "must"),
    [
        ("stages.1.epochs", "-1", "a whole number from 1 to 1,000,000"),
        ("stages.1.epochs", "0", "a whole number from 1 to 1,000,000"),
        ("stages.1.batch", "0", "a whole number from 1 to 1,000,000"),
        ("stages.1.height", "31", "a whole number from 32 to 4096"),
        ("stages.1.width", "5000", "a whole number from 32 to 4096"),
        ("stages.1.train", '"heads"', "all, head, or a whole number from 1 to 999"),
        ("stages.1.train", '"0"', "all, head, or a whole number from 1 to 999"),
        ("stages.1.train", '"head\\n"', "all, head, or a whole number from 1 to 999"),
        ("stages.1.learning_rate", "0", "a number above 0"),
        ("stages.1.learning_rate", "inf", "a number above 0"),
        ("stages.1.learning_rate", "nan", "a number above 0"),
        ("stages.1.head_factor", "-1.0", "a number above 0"),
        ("stages.1.layer_decay", "0", "a number above 0, at most 1"),
        ("stages.1.schedule", '"cosin"', "one of cosine, exponential, constant"),
        ("stages.1.decay", "1.1", "a number above 0, at most 1"),
        ("stages.1.decay", "nan", "a number above 0, at most 1"),
        ("stages.1.decay_steps", "0", "a whole number from 1 to 1,000,000"),
        ("stages.1.warmup", "-0.5", "a number of at least 0"),
        ("stages.1.patience", "0", "a whole number from 1 to 1,000,000, or none"),
        ("augmentation.flip", "1.5", "a number from 0 to 1"),
        ("augmentation.crop", "[0, 1]", "two numbers above 0, at most 1, the lesser first"),
        ("augmentation.aspect", "0.5", "a number from 1 to 10"),
        ("augmentation.fill", '"gray"', "one of grey, nearest, scene"),
        ("augmentation.rotate", "181", "a number from 0 to 180"),
        ("augmentation.shear", "90", "a number from 0 to 80"),
        ("augmentation.zoom", "1", "a number from 0 to below 1"),
        ("augmentation.zoom_out_to", "0", "a number above 0, at most 1"),
        ("augmentation.hue", "0.6", "a number from 0 to 0.5"),
        ("mixing.cutmix", "-0.1", "a number from 0 to 1"),
        ("mixing.mixup_alpha", "0", "a number above 0"),
        ("mixing.until", "2", "a number from 0 to 1"),
        ("augmentation.policy", '"trivial"', "one of none, trivialaugment, randaugment, autoaugment"),
        ("amsgrad", "1", "true or false"),
        ("optimizer", '"adamx"', "one of adamw, adam, sgd"),
        ("precision", '"float16"', "one of auto, float32, bfloat16"),
        ("fit", '"stretch"', "one of squash, pad, crop"),
        ("interpolation", '"nearest"', "one of bilinear, bicubic, lanczos"),
        ("weight_decay", "-1", "a number of at least 0"),
        ("weight_decay", "inf", "a number of at least 0"),
        ("label_smoothing", "1", "a number from 0 to below 1"),
        ("clip", "0", "a number above 0, or none"),
        ("ema", "1", "a number from 0 to below 1, or none"),
        ("dropout", "1", "a number from 0 to below 1"),
        ("drop_path", "-1", "a number from 0 to below 1"),
        ("head_start", '"yes"', "true or false"),
        ("holdout", "1", "a number from 0 to below 1"),
        ("seed", "-1", "a whole number from 0 to 4294967295"),
        ("seed", "4294967296", "a whole number from 0 to 4294967295"),
    ],
)
def test_an_impossible_value_is_refused_by_name(key: str, wrong: str, must: str) -> None:
    assert f": {key} = {wrong}, but it must be {must}." in refusal("fine-tune", f"{key}={wrong}")


def test_contradictory_values_are_refused() -> None:
    assert "augmentation.crop = [0.9, 0.3], but the lesser comes first" in refusal(
        "fast", "augmentation.crop=[0.9, 0.3]"
    )
    message = refusal("fast", "mixing.cutmix=0.6", "mixing.mixup=0.5")
    assert "mixing.mixup = 0.5 and mixing.cutmix = 0.6, but they may add up to 1 at most" in message
    assert "stages.2.warmup = 2.5 epochs, but the stage has 2" in refusal("fast", "stages.2.warmup=2.5")
    assert network("fast", "mixing.cutmix=0.5", "mixing.mixup=0.5").mixing.mixup == 0.5
    assert "amsgrad is for adamw and adam, and optimizer = sgd" in refusal("gradual", "optimizer=sgd")
    assert not network("gradual", "optimizer=sgd", "amsgrad=false").amsgrad


def test_gradual_unfreezes_ever_more_at_ever_lower_rates() -> None:
    recipe = network("gradual")
    assert [stage.train for stage in recipe.stages] == ["head", "7", "14", "all"]
    rates = [stage.learning_rate for stage in recipe.stages]
    assert rates == sorted(rates, reverse=True)
    assert (recipe.optimizer, recipe.amsgrad, recipe.weight_decay > 0) == ("adam", True, True)


def test_changes_are_checked_together_not_one_by_one() -> None:
    recipe = network("fine-tune", "mixing.mixup=0.9", "mixing.cutmix=0.1")
    assert (recipe.mixing.mixup, recipe.mixing.cutmix) == (0.9, 0.1)


# There and back

SHARES = st.floats(0, 1)
BELOW_1 = st.floats(0, 1, exclude_max=True)
TO_1 = st.floats(0, 1, exclude_min=True)
POSITIVE = st.floats(0, exclude_min=True, allow_infinity=False)
NOT_NEGATIVE = st.floats(0, allow_infinity=False)
COUNTS = st.integers(1, 1_000_000)
PIXELS = st.integers(32, 4096)
WORDS = st.text(min_size=1)

AUGMENTATIONS = st.builds(
    Augmentation,
    crop=st.tuples(TO_1, TO_1).map(lambda pair: (min(pair), max(pair))),
    aspect=st.floats(1, 10),
    rotate=st.floats(0, 180),
    shear=st.floats(0, 80),
    zoom=BELOW_1,
    zoom_out_to=TO_1,
    hue=st.floats(0, 0.5),
    policy=st.sampled_from(["none", "trivialaugment", "randaugment", "autoaugment"]),
    **dict.fromkeys(("flip", "shift", "zoom_out", "brightness", "contrast", "saturation", "grey"), SHARES),
)
MIXINGS = st.builds(
    Mixing,
    mixup=st.floats(0, 0.5),
    cutmix=st.floats(0, 0.5),
    mixup_alpha=POSITIVE,
    cutmix_alpha=POSITIVE,
    until=SHARES,
)
STAGES = st.builds(
    Stage,
    height=PIXELS,
    width=PIXELS,
    epochs=COUNTS,
    batch=COUNTS,
    train=st.sampled_from(["all", "head", "1", "42", "999"]),
    learning_rate=POSITIVE,
    head_factor=POSITIVE,
    layer_decay=TO_1,
    decay=TO_1,
    decay_steps=COUNTS,
    warmup=SHARES,
    patience=st.none() | COUNTS,
)
RECIPES = st.builds(
    Recipe,
    name=WORDS,
    summary=WORDS,
    backbone=WORDS,
    stages=st.lists(STAGES, min_size=1, max_size=3).map(tuple),
    weights=WORDS,
    augmentation=AUGMENTATIONS,
    mixing=MIXINGS,
    amsgrad=st.booleans(),
    weight_decay=NOT_NEGATIVE,
    label_smoothing=BELOW_1,
    clip=st.none() | POSITIVE,
    ema=st.none() | BELOW_1,
    dropout=BELOW_1,
    drop_path=BELOW_1,
    head_start=st.booleans(),
    fit=st.sampled_from(["squash", "pad", "crop"]),
    precision=st.sampled_from(["auto", "float32", "bfloat16"]),
    compile=st.booleans(),
    holdout=BELOW_1,
    seed=st.integers(0, 2**32 - 1),
)


@settings(max_examples=150, deadline=None)
@given(recipe=RECIPES)
def test_every_recipe_is_written_and_read_again(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "written.toml"
    file.write_text(recipe_toml(recipe), encoding="utf-8", newline="\n")
    assert load_recipe(str(file)) == recipe


@settings(max_examples=150, deadline=None)
@given(
    change=st.text() | st.tuples(st.sampled_from(["seed", "stages.1.train", "mixing", "clip"]), st.text()).map("=".join)
)
def test_no_change_raises_another_error(change: str) -> None:
    try:
        load_recipe("fast", [change])
    except UsageError as error:
        str(error).encode()


@settings(max_examples=100, deadline=None)
@given(data=st.binary() | st.binary().map(lambda tail: SMALL.encode() + tail))
def test_no_file_raises_another_error(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(data)
    try:
        load_recipe(str(file))
    except UsageError as error:
        str(error).encode()


# The page


def described(source: ModuleType, kind: type) -> dict[str, str]:
    """Field → the text under it in the source."""
    found = next(
        node
        for node in ast.parse(inspect.getsource(source)).body
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__
    )
    texts = {}
    for one, two in zip(found.body, found.body[1:], strict=False):
        if isinstance(one, ast.AnnAssign) and isinstance(two, ast.Expr) and isinstance(one.target, ast.Name):
            texts[one.target.id] = " ".join(str(ast.literal_eval(two.value)).split())
    return texts


def default(each: Field[Any]) -> str:
    """A default as TOML writes it."""
    if each.default is MISSING:
        return "–"
    if each.default is None:
        return "none"
    value = each.default
    text = str(list(value) if isinstance(value, tuple) else value)
    return f"`{text.lower() if isinstance(value, bool) else text}`"


def table(source: ModuleType, kind: Any, prefix: str) -> str:
    """The page's table of a dataclass' keys."""
    words, texts = allowed(kind), described(source, kind)
    rows = ["| key | default | may be | what it is |", "| --- | --- | --- | --- |"]
    for each in fields(kind):
        if each.name not in ("stages", "augmentation", "mixing"):  # which have tables of their own
            rows.append(f"| `{prefix}{each.name}` | {default(each)} | {words[each.name]} | {texts[each.name]} |")
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize(
    ("source", "kind", "prefix"),
    [
        (module, Recipe, ""),
        (module, Stage, "stages."),
        (augment, Augmentation, "augmentation."),
        (mixing, Mixing, "mixing."),
        (types, HeadRecipe, ""),
    ],
)
def test_the_page_lists_every_key_with_its_default(source: ModuleType, kind: type, prefix: str) -> None:
    expected = table(source, kind, prefix)
    assert len(expected.splitlines()) > 5
    assert expected in PAGE.read_text(encoding="utf-8")


def test_the_page_lists_the_recipes_that_ship() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for row in recipe_rows():
        cells = (f"`{row.name}`", row.summary, row.backbone or "a bundle's", row.sizes or "–", str(row.epochs or "–"))
        assert f"| {' | '.join(cells)} |\n" in text


def test_the_pages_examples_work(write: Write) -> None:
    text = PAGE.read_text(encoding="utf-8")
    files = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    changes = re.findall(r"--set (\S+)", text)
    assert files
    assert len(changes) > 3
    for file in files:
        assert load_recipe(write(file))
    for change in changes:
        assert network("fine-tune", change.strip("'`"))
