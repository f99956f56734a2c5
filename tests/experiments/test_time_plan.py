"""What fits into a time limit."""

from __future__ import annotations

import pytest

from nameplate.errors import UsageError
from nameplate.experiments.time_plan import (
    BASE_SIZE,
    BEST,
    GOOD,
    Option,
    Photos,
    Speed,
    choose,
    end_seconds,
    fold_seconds,
    parse_time,
    recipe_of,
)
from nameplate.fit.recipe import Recipe, load_recipe

PHOTOS = Photos(train=400, held_out=100, apart=200)
SPEED = Speed(fixed=20.0, per_pixel=(1e-6, 1e-6))


def few() -> Recipe:
    recipe = load_recipe("few")
    assert isinstance(recipe, Recipe)
    return recipe


@pytest.mark.parametrize("text", ["0", "0m", "20 parsecs", "", "m", "-5m", "1.2.3s", "20m!", "nan", "9999h", "1e9"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="20m"):
        parse_time(text)


def test_an_option_changes_length_and_size_of_a_recipe() -> None:
    recipe = recipe_of(few(), Option(1, 2, 4 / 3))
    assert sum(stage.epochs for stage in recipe.stages) == 14
    assert (recipe.stages[-1].height, recipe.stages[-1].width) == (256, 384)
    assert not recipe.keep_best
    same = recipe_of(few(), Option(1, 1))
    assert same.stages == few().stages  # the base size is that of recipe few


def test_every_option_is_possible_with_both_recipes() -> None:
    for name in ("few", "fast"):
        base = load_recipe(name)
        assert isinstance(base, Recipe)
        for option in (*GOOD, *BEST):
            recipe = recipe_of(base, option)
            assert all(stage.epochs >= 1 for stage in recipe.stages)


def test_more_time_never_gives_a_worse_plan_and_no_plan_is_longer_than_the_time() -> None:
    places = []
    for left in (30, 60, 120, 300, 600, 1200, 3600, 36000):
        found = choose(GOOD, few(), PHOTOS, SPEED, left)
        if found is None:
            places.append(len(GOOD))
            continue
        option, seconds = found
        recipe = recipe_of(few(), option)
        needed = option.folds * fold_seconds(recipe, PHOTOS, SPEED) + end_seconds(recipe, option.folds, PHOTOS, SPEED)
        assert seconds == needed <= left
        places.append(GOOD.index(option))
    assert places == sorted(places, reverse=True)
    assert places[0] == len(GOOD)
    assert places[-1] == 0


def test_a_fold_costs_its_pixels_and_what_is_fixed() -> None:
    recipe = few()
    none = fold_seconds(recipe, Photos(0, 0, 0), SPEED)
    assert none == pytest.approx(20)
    trained = sum(stage.epochs * stage.height * stage.width for stage in recipe.stages) * 400e-6
    assert fold_seconds(recipe, Photos(400, 0, 0), SPEED) - none >= trained
    assert fold_seconds(recipe, PHOTOS, SPEED) > fold_seconds(recipe, Photos(400, 0, 0), SPEED)
    assert (recipe.stages[-1].height, recipe.stages[-1].width) == BASE_SIZE
