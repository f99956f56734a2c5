"""Recipes changed by `--epochs`, `--size` and `--batch`: their stages keep their proportions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nameplate.errors import UsageError
from nameplate.fit.adjust import adjusted
from nameplate.fit.recipe import Recipe, Stage, load_recipe


def shipped(name: str) -> Recipe:
    recipe = load_recipe(name)
    assert isinstance(recipe, Recipe)
    return recipe


def sizes(recipe: Recipe) -> list[tuple[int, int]]:
    return [(stage.height, stage.width) for stage in recipe.stages]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(1, 100))
def test_stages_share_the_epochs_in_proportion(parts: list[int], total: int) -> None:
    stages = tuple(Stage(height=32, width=32, epochs=part, warmup=part) for part in parts)
    recipe = Recipe("mine", "Mine.", "resnet18", stages)
    if total < len(parts):
        with pytest.raises(UsageError, match=f"--epochs {total}: the recipe has {len(parts)} stages"):
            adjusted(recipe, epochs=total)
        return
    made = [stage.epochs for stage in adjusted(recipe, epochs=total).stages]
    assert sum(made) == total
    assert min(made) >= 1
    # A stage that wants more epochs than another never gets fewer.
    assert all(
        a <= b for one, a in zip(parts, made, strict=True) for two, b in zip(parts, made, strict=True) if one < two
    )
    assert all(stage.warmup <= stage.epochs for stage in adjusted(recipe, epochs=total).stages)
    if total == sum(parts):
        assert made == parts


def test_earlier_sizes_follow_the_last_in_their_ratio() -> None:
    assert sizes(adjusted(shipped("fine-tune"), size=(384, 576))) == [(224, 352), (256, 384), (320, 480), (384, 576)]
    assert sizes(adjusted(shipped("original"), size=(100, 100))) == [(48, 48), (100, 100)]
    assert sizes(adjusted(shipped("original"), size=(32, 32))) == [(32, 32), (32, 32)]
    assert sizes(adjusted(shipped("original"), size=(440, 610))) == [(220, 305), (440, 610)]


def test_the_batch_is_that_of_every_stage_and_nothing_else_changes() -> None:
    recipe = shipped("original")
    assert [stage.batch for stage in adjusted(recipe, batch=16).stages] == [16, 16]
    assert adjusted(recipe) == recipe
    assert adjusted(recipe, epochs=50, size=(440, 610)) == recipe
