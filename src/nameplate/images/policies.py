"""Published augmentation policies as recipes name them: TrivialAugment, RandAugment and AutoAugment.

They are those of torchvision's `transforms.autoaugment`, drawn from the generator that is passed in: torchvision draws
from torch's global one, with which a resumed run would see other photos. Operations beyond the edge are bilinear and
leave grey.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from nameplate.images.transforms import PAD_GREY

Policy = Literal["none", "trivialaugment", "randaugment", "autoaugment"]

Operation = Callable[[Image.Image, float], Image.Image]
GREY = (PAD_GREY,) * 3
RAND_OPERATIONS, RAND_STRENGTH = 2, 9 / 30
"""RandAugment's number of operations for each photo, and their strength as a fraction of the greatest; the defaults of
torchvision."""
TRIVIAL_STEPS, AUTO_STEPS = 31, 10
"""Number of strengths, from none to the greatest, that TrivialAugment and AutoAugment know."""


def apply_policy(image: Image.Image, policy: Policy, draw: np.random.Generator) -> Image.Image:
    """Change a photo by a published policy; the size stays.

    Args:
        image: mode RGB.
        policy: trivialaugment (S. Müller and F. Hutter, 2021, the wide space): one operation of random strength;
            randaugment (E. Cubuk et al., 2020): two operations of medium strength; autoaugment (E. Cubuk et al., 2019):
            a pair of operations of the 25 that were found on ImageNet; none: nothing, and nothing is drawn.
        draw: the source of all random numbers.
    """
    if policy == "none":
        return image
    if policy == "trivialaugment":
        name = _one_of(list(TRIVIAL), draw)
        return _operate(image, name, draw.integers(TRIVIAL_STEPS) / (TRIVIAL_STEPS - 1), TRIVIAL, draw)
    if policy == "randaugment":
        for _ in range(RAND_OPERATIONS):
            image = _operate(image, _one_of(list(RAND), draw), RAND_STRENGTH, RAND, draw)
        return image
    for name, probability, strength in PAIRS[draw.integers(len(PAIRS))]:
        if draw.random() < probability:
            image = _operate(image, name, strength / (AUTO_STEPS - 1), AUTO, draw)
    return image


def _one_of(names: list[str], draw: np.random.Generator) -> str:
    return names[draw.integers(len(names))]


def _operate(
    image: Image.Image, name: str, strength: float, greatest: dict[str, float], draw: np.random.Generator
) -> Image.Image:
    """Apply an operation at a strength from 0 to 1, with a random sign where it has two directions."""
    amount = strength * greatest[name] * (image.width if name == "TranslateX" and greatest is not TRIVIAL else 1)
    amount *= image.height if name == "TranslateY" and greatest is not TRIVIAL else 1
    if name in SIGNED and draw.random() < 0.5:
        amount = -amount
    return OPERATIONS[name](image, amount)


def _moved(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    """Apply an affine map, from the pixels of the result to those of the image (Pillow's six coefficients)."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=GREY)


def _enhanced(kind: type[ImageEnhance.Color]) -> Operation:
    return lambda image, amount: kind(image).enhance(1 + amount)


OPERATIONS: dict[str, Operation] = {
    "Identity": lambda image, _: image,
    "ShearX": lambda image, amount: _moved(image, (1, amount, 0, 0, 1, 0)),
    "ShearY": lambda image, amount: _moved(image, (1, 0, 0, amount, 1, 0)),
    "TranslateX": lambda image, amount: _moved(image, (1, 0, -int(amount), 0, 1, 0)),
    "TranslateY": lambda image, amount: _moved(image, (1, 0, 0, 0, 1, -int(amount))),
    "Rotate": lambda image, amount: image.rotate(amount, Image.Resampling.BILINEAR, fillcolor=GREY),
    "Brightness": _enhanced(ImageEnhance.Brightness),  # type: ignore[arg-type]
    "Color": _enhanced(ImageEnhance.Color),
    "Contrast": _enhanced(ImageEnhance.Contrast),  # type: ignore[arg-type]
    "Sharpness": _enhanced(ImageEnhance.Sharpness),  # type: ignore[arg-type]
    "Posterize": lambda image, amount: ImageOps.posterize(image, 8 - math.floor(amount + 0.5)),
    "Solarize": lambda image, amount: ImageOps.solarize(image, math.ceil(255 - amount)),
    "AutoContrast": lambda image, _: ImageOps.autocontrast(image),
    "Equalize": lambda image, _: ImageOps.equalize(image),
    "Invert": lambda image, _: ImageOps.invert(image),
}
"""Name → a function of a photo and an amount. Shears are tangents, shifts are pixels, rotations degrees; brightness and
the like are factors beyond 1; posterize takes bits away from 8, and solarize takes its threshold away from 255."""
SIGNED = frozenset(
    ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness")
)
"""Operations with two directions."""

TRIVIAL: dict[str, float] = {
    "Identity": 0,
    "ShearX": 0.99,
    "ShearY": 0.99,
    "TranslateX": 32,
    "TranslateY": 32,
    "Rotate": 135,
    "Brightness": 0.99,
    "Color": 0.99,
    "Contrast": 0.99,
    "Sharpness": 0.99,
    "Posterize": 6,
    "Solarize": 255,
    "AutoContrast": 0,
    "Equalize": 0,
}
"""TrivialAugment's operations with their greatest amounts; its shifts are pixels of the model's input."""
RAND: dict[str, float] = {
    "Identity": 0,
    "ShearX": 0.3,
    "ShearY": 0.3,
    "TranslateX": 150 / 331,
    "TranslateY": 150 / 331,
    "Rotate": 30,
    "Brightness": 0.9,
    "Color": 0.9,
    "Contrast": 0.9,
    "Sharpness": 0.9,
    "Posterize": 4,
    "Solarize": 255,
    "AutoContrast": 0,
    "Equalize": 0,
}
"""RandAugment's; shifts are fractions of the side, as AutoAugment's are."""
AUTO: dict[str, float] = {**RAND, "Invert": 0}
PAIRS: tuple[tuple[tuple[str, float, int], tuple[str, float, int]], ...] = (
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, 0), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, 0)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, 0)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, 0), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, 0)),
    (("Equalize", 0.0, 0), ("Equalize", 0.8, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, 0)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, 0)),
    (("Color", 0.4, 0), ("Equalize", 0.6, 0)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
)
"""AutoAugment's pairs for ImageNet, each operation with its probability and its strength from 0 to 9."""
