"""The candidates of a comparison, and which mixtures are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nameplate.errors import UsageError
from nameplate.experiments.candidates import (
    Candidate,
    Frozen,
    Tuned,
    file_name,
    fine_tune_recipe,
    of_changes,
    of_recipes,
    parse_size,
    refuse_mixture,
    split_values,
    split_weights,
)
from nameplate.fit.recipe import Recipe, load_recipe
from nameplate.types import HeadRecipe

SIZE = (64, 96)


def changes(base: str, *each: str) -> list[Candidate]:
    return of_changes(base, each, "Lite0", SIZE, 3)


def recipe(candidate: Candidate) -> Recipe:
    assert isinstance(candidate, Tuned)
    return candidate.recipe


def test_each_value_is_one_change_of_the_base() -> None:
    base, none, half, crop = changes("fine-tune", "dropout=0,0.5", "augmentation.crop=[0.5, 1]")
    first = recipe(base)
    assert [each.name for each in (base, none, half, crop)] == [
        *("fine-tune", "dropout=0", "dropout=0.5", "augmentation.crop=[0.5, 1]")
    ]
    assert first == load_recipe("fine-tune", ["seed=3"])
    assert recipe(none) == replace(first, dropout=0.0)
    assert recipe(half) == replace(first, dropout=0.5)
    assert recipe(crop) == replace(first, augmentation=replace(first.augmentation, crop=(0.5, 1.0)))


def test_a_value_that_the_base_has_already_is_left_out() -> None:
    base, off = changes("head", "mirror=true,false")
    assert isinstance(base, Frozen)
    assert isinstance(off, Frozen)
    assert (base.head, off.head) == (HeadRecipe(seed=3), HeadRecipe(seed=3, mirror=False))
    with pytest.raises(UsageError, match="what 'head' says already"):
        changes("head", "mirror=true")


@pytest.mark.parametrize("change", ["dropout", "dropout=", "=0.1", "dropuot=0.1", "dropout=2"])
def test_an_invalid_change_is_refused(change: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        changes("fine-tune", change)


def test_the_settings_of_the_evaluation_photos_are_the_same_for_all() -> None:
    with pytest.raises(UsageError, match="--holdout"):
        changes("fine-tune", "holdout=0.1,0.2")


def test_recipes_by_name_and_by_file(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('kind = "head"\nname = "x"\nsummary = "y"\nbalanced = true\n')
    head, own = of_recipes(["head", str(mine)], "Lite1", SIZE, 5)
    assert (head.name, own.name) == ("head", "mine")
    assert own == Frozen("mine", "Lite1", *SIZE, HeadRecipe(seed=5, balanced=True))


def test_heads_and_networks_are_not_mixed_and_names_are_single() -> None:
    with pytest.raises(UsageError, match=r"heads \(head\).*each kind"):
        refuse_mixture(of_recipes(["head", "fast"], "Lite0", SIZE, 0))
    twice = of_recipes(["fast", "fast"], "Lite0", SIZE, 0)
    with pytest.raises(UsageError, match="named twice"):
        refuse_mixture(twice)
    with pytest.raises(UsageError, match="two or more"):
        refuse_mixture(twice[:1])
    refuse_mixture(changes("fast", "dropout=0.1,0.3"))


def test_the_originals_comparison_is_to_the_letter_where_it_can_be() -> None:
    made, original = fine_tune_recipe("Lite1", "auto", "bilinear", (180, 240), 20), load_recipe("original")
    assert isinstance(original, Recipe)
    [stage] = made.stages
    assert (stage.height, stage.width, stage.epochs, stage.batch) == (180, 240, 3, 8)
    assert (made.optimizer, stage.learning_rate, stage.schedule, stage.train) == ("adam", 1e-3, "constant", "all")
    assert (stage.restore_best, stage.patience) == (True, None)
    assert made.augmentation == original.augmentation
    assert (made.backbone, made.interpolation, made.drop_path) == ("Lite1", "bilinear", 0.0)


@pytest.mark.parametrize("text", ["8", "180x", "x240", "180x240x3", "8x240", "180x99999", "-180x240"])
def test_an_invalid_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--size"):
        parse_size(text)


def test_values_part_at_commas_outside_brackets_and_quotes() -> None:
    assert split_values("a,b , c") == ["a", "b", "c"]
    assert split_values("[1,2],[3,[4,5]]") == ["[1,2]", "[3,[4,5]]"]
    assert split_values('"x,y",z') == ['"x,y"', "z"]
    assert split_values(",,") == []


def test_a_backbone_may_bring_its_weights() -> None:
    assert split_weights("Lite0") == ("Lite0", "Lite0", "auto")
    assert split_weights("Lite0=none") == ("Lite0 (none)", "Lite0", "none")


def test_different_names_become_different_files() -> None:
    names = ["dropout=0.1", "dropout=0.2", "augmentation.crop=[0.5,1]", "../up", "Нива"]
    assert len({file_name(name) for name in names}) == len(names)
    assert file_name("../up") == "up"
    assert file_name("///") == "unnamed"
