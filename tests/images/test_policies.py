"""TrivialAugment, RandAugment and AutoAugment are torchvision's, but for the generator that they draw from."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from nameplate.demo import photos_folder
from nameplate.images import policies
from nameplate.images.augment import Augmentation, augment
from nameplate.images.policies import AUTO, OPERATIONS, PAIRS, RAND, SIGNED, TRIVIAL, apply_policy

NAMES = ("trivialaugment", "randaugment", "autoaugment")


def photo() -> Image.Image:
    return Image.open(sorted(photos_folder("test").glob("*/*.jpg"))[3]).convert("RGB").resize((96, 64))


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_draws_the_same_from_the_same_generator_and_keeps_the_size(name: policies.Policy) -> None:
    image = photo()
    made = [np.asarray(apply_policy(image, name, np.random.default_rng(seed))) for seed in (*range(40), 0)]
    assert all(pixels.shape == (64, 96, 3) for pixels in made)
    assert (made[0] == made[-1]).all()
    assert len({pixels.tobytes() for pixels in made}) > 15  # some draws leave the photo as it is


def test_none_draws_nothing_and_augment_applies_a_policy() -> None:
    image, draw = photo(), np.random.default_rng(1)
    assert apply_policy(image, "none", draw) is image
    assert draw.random() == np.random.default_rng(1).random()
    pixels = np.asarray(image)
    plain, varied = (
        [augment(pixels, 48, 64, Augmentation(policy=policy, flip=0), np.random.default_rng(n)) for n in range(20)]
        for policy in ("none", "trivialaugment")
    )
    assert all((one == plain[0]).all() for one in plain)
    assert sum(not (one == plain[0]).all() for one in varied) > 10


@pytest.mark.torch
def test_operations_and_spaces_are_torchvisions() -> None:
    torchvision = pytest.importorskip("torchvision.transforms.autoaugment")
    bilinear = torchvision.InterpolationMode.BILINEAR
    image, spaces = (
        photo(),
        (
            (TRIVIAL, torchvision.TrivialAugmentWide()._augmentation_space(31), 31),
            (RAND, torchvision.RandAugment()._augmentation_space(31, (64, 96)), 31),
            (AUTO, torchvision.AutoAugment()._augmentation_space(10, (64, 96)), 10),
        ),
    )
    for ours, theirs, bins in spaces:
        assert set(ours) == set(theirs) - {"Identity"} | ({"Identity"} & set(ours))
        for name, (magnitudes, signed) in theirs.items():
            assert signed == (name in SIGNED)
            for step in (0, bins // 3, bins - 1):
                amount = float(magnitudes[step]) if magnitudes.ndim else 0.0
                side = {"TranslateX": 96, "TranslateY": 64}.get(name, 1) if ours is not TRIVIAL else 1
                for sign in (1, -1) if signed else (1,):
                    mine = OPERATIONS[name](image, sign * ours[name] * side * step / (bins - 1))
                    other = torchvision._apply_op(image, name, sign * amount, bilinear, [128, 128, 128])
                    gap = np.abs(np.asarray(mine, int) - np.asarray(other, int))
                    assert gap.mean() < 2, (name, step, sign)  # Pillow rounds the coefficients of an affine map


@pytest.mark.torch
def test_the_pairs_of_autoaugment_are_torchvisions() -> None:
    torchvision = pytest.importorskip("torchvision.transforms.autoaugment")
    theirs = torchvision.AutoAugment()._get_policies(torchvision.AutoAugmentPolicy.IMAGENET)
    assert tuple(tuple((name, p, strength or 0) for name, p, strength in pair) for pair in theirs) == PAIRS
    assert math.isclose(policies.RAND_STRENGTH, torchvision.RandAugment().magnitude / 30)
    assert torchvision.RandAugment().num_ops == policies.RAND_OPERATIONS
