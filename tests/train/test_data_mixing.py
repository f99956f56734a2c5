"""MixUp and CutMix: the stated weights are those of the pixels."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

from nameplate.images.mixing import Mixing, draw_mix, mixed

pytestmark = pytest.mark.torch
if importlib.util.find_spec("torch") is None:
    pytest.skip("needs torch", allow_module_level=True)

import torch  # noqa: E402

from nameplate.train.data import mix  # noqa: E402

torch.set_num_threads(1)

HEIGHT, WIDTH = 24, 40


def numbered(count: int = 8) -> tuple[Any, Any]:
    """Photos each of one grey, ten times its class."""
    classes = torch.arange(count)
    return (classes * 10).to(torch.uint8)[:, None, None, None].expand(count, HEIGHT, WIDTH, 3).clone(), classes


def test_cutmix_states_the_share_of_pixels_that_it_leaves() -> None:
    photos, classes = numbered()
    before, shares = photos.clone(), []
    for seed in range(200):
        mixed, others, share = mix(photos, classes, Mixing(cutmix=1), np.random.default_rng(seed))
        assert mixed.dtype == torch.uint8
        assert sorted(others.tolist()) == classes.tolist()
        for picture, own, other in zip(mixed, classes.tolist(), others.tolist(), strict=True):
            taken = picture.eq(other * 10).all(-1)
            assert (taken | picture.eq(own * 10).all(-1)).all()
            if own != other:
                assert 1 - float(taken.sum()) / (HEIGHT * WIDTH) == pytest.approx(share, abs=1e-12)
                rows, columns = taken.any(1).sum(), taken.any(0).sum()
                assert rows * columns == taken.sum()  # one rectangle
        shares.append(share)
    assert torch.equal(photos, before)
    assert min(shares) < 0.1
    assert max(shares) > 0.9
    assert np.mean(shares) == pytest.approx(0.5, abs=0.08)  # Beta(1, 1)


def test_cutmix_reaches_every_edge() -> None:
    photos, classes = numbered(2)
    hit = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    for seed in range(200):
        mixed, _, share = mix(photos, classes, Mixing(cutmix=1, cutmix_alpha=5), np.random.default_rng(seed))
        if share > 0.4:  # no rectangle that reaches every edge by its size alone
            hit |= mixed[0].ne(photos[0]).any(-1)
    assert hit.any(0).all()
    assert hit.any(1).all()


def test_mixup_states_the_share_of_pixel_values() -> None:
    photos, classes = numbered()
    before, shares = photos.clone(), []
    for seed in range(200):
        mixed, others, share = mix(photos, classes, Mixing(mixup=1, mixup_alpha=0.4), np.random.default_rng(seed))
        expected = 10 * (share * classes.double() + (1 - share) * others.double())  # to all of a photo's pixels
        assert mixed.dtype == torch.float32
        assert mixed.shape == photos.shape
        assert float((mixed - expected[:, None, None, None]).abs().max()) < 1e-4
        shares.append(share)
    assert torch.equal(photos, before)
    assert 0 <= min(shares) < 0.1
    assert 0.9 < max(shares) <= 1
    assert np.var(shares) == pytest.approx(0.25 / 1.8, abs=0.03)  # of Beta(0.4, 0.4)


def test_each_happens_as_often_as_it_is_asked_for() -> None:
    photos, classes = numbered(2)
    draw, settings = np.random.default_rng(0), Mixing(mixup=0.2, cutmix=0.5)
    counts = {"mixup": 0, "cutmix": 0, "none": 0}
    for _ in range(3000):
        mixed, _, share = mix(photos, classes, settings, draw)
        counts["mixup" if mixed.dtype == torch.float32 else "cutmix" if mixed is not photos else "none"] += 1
        assert mixed is not photos or share == 1
    assert counts["mixup"] / 3000 == pytest.approx(0.2, abs=0.03)
    assert counts["cutmix"] / 3000 == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("count", [0, 1])
def test_a_batch_of_one_is_left_alone(count: int) -> None:
    photos, classes = numbered(count)
    for seed in range(20):
        mixed, others, share = mix(photos, classes, Mixing(mixup=0.5, cutmix=0.5), np.random.default_rng(seed))
        assert mixed is photos
        assert others is classes
        assert share == 1


@pytest.mark.parametrize("settings", [Mixing(mixup=1), Mixing(cutmix=1)])
def test_the_generator_decides_all(settings: Mixing) -> None:
    photos, classes = numbered()
    (a, of_a, share_a), (b, of_b, share_b), (c, _, share_c) = (
        mix(photos, classes, settings, np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(a, b)
    assert torch.equal(of_a, of_b)
    assert share_a == share_b != share_c
    assert not torch.equal(a, c)


def test_a_sheet_shows_the_batch_that_the_network_sees() -> None:
    photos = torch.from_numpy(np.random.default_rng(0).integers(256, size=(5, HEIGHT, WIDTH, 3), dtype=np.uint8))
    for settings in (Mixing(mixup=1), Mixing(cutmix=1), Mixing(mixup=0.5, cutmix=0.5)):
        for seed in range(5):
            seen, _, share = mix(photos, torch.arange(5), settings, np.random.default_rng(seed))
            plan = draw_mix(5, HEIGHT, WIDTH, settings, np.random.default_rng(seed))
            assert plan is not None
            assert plan.share == share
            assert np.abs(mixed(photos.numpy(), plan) - seen.float().numpy()).max() <= 0.5 + 1e-4
    assert draw_mix(1, 9, 9, Mixing(mixup=1), np.random.default_rng(0)) is None
