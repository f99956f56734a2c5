"""The search for a learning rate: its curve, its proposals, and what it refuses."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nameplate.data.dataset import Dataset, read_dataset
from nameplate.demo import photos_folder
from nameplate.errors import DataError, NameplateError, UsageError
from nameplate.fit.recipe import Recipe, Stage
from nameplate.images.mixing import Mixing

pytestmark = pytest.mark.torch
for needed in ("torch", "timm", "accelerate"):
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed}", allow_module_level=True)

from nameplate.train.lr_find import BELOW, HIGHEST, LOWEST, RateSearch, _proposal, _search, find_rate, valley  # noqa: E402

SMALL = Stage(height=32, width=48, epochs=1, batch=8)
TINY = Recipe(
    "tiny",
    "For trying.",
    "test_efficientnet",
    (SMALL, replace(SMALL, height=48)),
    weights="none",
    precision="float32",
)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return read_dataset(photos_folder("test"))


@pytest.fixture(scope="module")
def found(dataset: Dataset) -> RateSearch:
    return find_rate(dataset, replace(TINY, ema=0.9, mixing=Mixing(mixup=0.5)), steps=40, threads=1)


def test_the_loss_falls_and_explodes_and_the_proposal_lies_between(found: RateSearch) -> None:
    assert found.rates[0] == LOWEST
    assert list(found.rates) == sorted(found.rates)
    assert len(found.rates) == len(found.losses)
    assert found.losses[0] == pytest.approx(np.log(10), rel=0.05)  # a new classifier gives all ten the same probability
    assert min(found.losses) < found.losses[0]
    assert found.fell == pytest.approx(1 - min(found.losses) / found.losses[0])
    assert 0 < found.fell < 1
    assert LOWEST < found.valley <= found.minimum / BELOW < HIGHEST
    assert {found.valley, found.steepest, found.minimum} <= set(found.rates)


def test_the_same_search_finds_the_same_and_draws_a_plot(dataset: Dataset, found: RateSearch) -> None:
    again = find_rate(dataset, replace(TINY, ema=0.9, mixing=Mixing(mixup=0.5)), steps=40, threads=1)
    assert again.losses == found.losses
    assert found.plot().startswith(b"\x89PNG")
    assert found._repr_png_() != found.plot(dark=True)


def test_more_steps_than_an_epoch_and_another_stage(dataset: Dataset) -> None:
    few = replace(dataset, photos=dataset.photos[::10])
    search = find_rate(few, TINY, stage=2, steps=30, threads=1)
    assert search.stage == 2
    assert len(search.rates) > len(few.photos) // SMALL.batch


def test_what_a_search_refuses(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no stage 3: recipe 'tiny' has 2"):
        find_rate(dataset, TINY, stage=3)
    with pytest.raises(UsageError, match="9 steps are too few"):
        find_rate(dataset, TINY, steps=9)
    one = [photo for photo in dataset.photos if photo.label == dataset.nameplates[0]]
    with pytest.raises(DataError, match="at least two nameplates"):
        find_rate(replace(dataset, photos=tuple(one)), TINY, steps=10, threads=1)
    gone = tuple(replace(photo, path=str(tmp_path / "none.jpg")) for photo in dataset.photos)
    with pytest.raises(NameplateError, match=r"can be read; the first, '.*none\.jpg'"):
        find_rate(replace(dataset, photos=gone), TINY, steps=10, threads=1)


def valley_of_fastai(losses: list[float]) -> int:
    """Fastai's `valley` (fastai/callback/schedule.py), but that it returns the index."""
    n = len(losses)
    max_start, max_end = 0, 0
    lds = [1] * n
    for i in range(1, n):
        for j in range(i):
            if losses[i] < losses[j] and lds[i] < lds[j] + 1:
                lds[i] = lds[j] + 1
            if lds[max_end] < lds[i]:
                max_end = i
                max_start = max_end - lds[max_end]
    sections = (max_end - max_start) / 3
    return max(0, max_start + int(sections) + int(sections / 2))


@pytest.mark.parametrize("seed", range(20))
def test_the_valley_is_fastais(seed: int) -> None:
    draw = np.random.default_rng(seed)
    x = np.linspace(-1, 1, 60)
    losses = (1 - np.tanh(3 * x) + np.exp(6 * (x - 0.7)) + 0.05 * draw.normal(size=60)).tolist()
    assert valley(losses) == valley_of_fastai(losses)


def test_the_proposal_is_on_the_descent_and_not_on_the_smooth_plateau_before_it() -> None:
    x = np.linspace(-7, 1, 100)
    losses = (2.3 - 1e-4 * (x + 7) - 1.2 / (1 + np.exp(-6 * (x + 3))) + np.exp(3 * (x + 0.3))).tolist()
    least = int(np.argmin(losses))
    found = _proposal(losses)
    fall = losses[0] - losses[least]
    assert found < least
    assert losses[0] - 0.9 * fall < losses[found] < losses[0] - 0.05 * fall
    assert losses[valley(losses)] > losses[0] - 0.05 * fall  # which the plateau misleads
    assert _proposal([1.0, 2.0, 3.0]) == 0


@pytest.mark.parametrize("drop", [1, 2, 3])
def test_a_short_steep_descent_does_not_propose_the_rate_of_the_least_loss(drop: int) -> None:
    rates = np.geomspace(LOWEST, HIGHEST, 20).tolist()
    losses = [2.3] * 12 + [2.3 - 1.5 * (step + 1) / drop for step in range(drop)] + [9.0]
    found = _search(1, rates[: len(losses)], losses)
    assert found.minimum == rates[11 + drop]
    assert rates[6] < found.valley <= found.minimum / BELOW
    assert _search(1, rates[:3], [1.0, 2.0, 3.0]).valley == rates[0]  # it only rose, which `fell` says
