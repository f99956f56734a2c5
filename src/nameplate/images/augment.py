"""`augment` turns a decoded photo into a randomly varied model input. In training it takes the place of `preprocess`.

All random numbers come from the generator that is passed in, so that a generator in the same state gives the same
result in every process. `Augmentation` holds the amounts and their limits; docs/augmentation.md shows examples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from PIL import Image

from nameplate.images.policies import Policy, apply_policy
from nameplate.images.transforms import FILTERS, PAD_GREY, Box, check_pixels
from nameplate.types import Doubles

Fill = Literal["grey", "nearest", "scene"]

# msgspec checks these limits when a recipe is read. Error messages and docs/recipes.md show the descriptions.
Share = Annotated[float, Meta(ge=0, le=1, description="a number from 0 to 1")]
Below1 = Annotated[float, Meta(ge=0, lt=1, description="a number from 0 to below 1")]
To1 = Annotated[float, Meta(gt=0, le=1, description="a number above 0, at most 1")]
Aspect = Annotated[float, Meta(ge=1, le=10, description="a number from 1 to 10")]
Rotation = Annotated[float, Meta(ge=0, le=180, description="a number from 0 to 180")]
Shear = Annotated[float, Meta(ge=0, le=80, description="a number from 0 to 80")]
Turn = Annotated[float, Meta(ge=0, le=0.5, description="a number from 0 to 0.5")]
Range = Annotated[tuple[To1, To1], Meta(description="two numbers above 0, at most 1, the lesser first")]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How a training photo is varied each time that it is used. Every amount is the maximum that is drawn."""

    crop: Range = (1.0, 1.0)
    """Least and greatest share of the photo's area that a random crop keeps (1, 1: no crop)."""
    aspect: Aspect = 1.0
    """A crop's aspect ratio is the photo's times or divided by up to this (1: kept)."""
    flip: Share = 0.5
    """Probability of a mirror image."""
    rotate: Rotation = 0.0
    """Greatest rotation in degrees, in either direction."""
    shift: Share = 0.0
    """Greatest shift as a fraction of the height and of the width, in either direction."""
    shear: Shear = 0.0
    """Greatest shear in degrees, in either direction."""
    zoom: Below1 = 0.0
    """Each axis is scaled by a factor from 1 - zoom to 1 + zoom."""
    zoom_out: Share = 0.0
    """Probability that the photo becomes a smaller part of a larger scene."""
    zoom_out_to: To1 = 0.5
    """The least share of the scene's height and width that it then takes."""
    fill: Fill = "grey"
    """What lies beyond the photo's edge: grey, its nearest pixel, or (zoom-out only) another photo's scene."""
    brightness: Share = 0.0
    """The factor is from 1 - brightness to 1 + brightness."""
    contrast: Share = 0.0
    """The factor is from 1 - contrast to 1 + contrast."""
    saturation: Share = 0.0
    """The factor is from 1 - saturation to 1 + saturation."""
    hue: Turn = 0.0
    """Greatest turn of the colour circle as a fraction of it, in either direction."""
    grey: Share = 0.0
    """Probability that the photo becomes grey."""
    swap: Share = 0.0
    """Probability that the red and blue channels are swapped. Some data sets were saved so, among them cars196."""
    policy: Policy = "none"
    """A published policy on top of the rest: trivialaugment (S. Müller and F. Hutter, 2021), randaugment (E. Cubuk et
    al., 2020) or autoaugment (E. Cubuk et al., 2019, for ImageNet)."""
    box: Share = 0.0
    """Greatest shift of each side of the box of a located car, as a fraction of the box's side, in either direction."""


CROP_TRIES = 10
"""Number of boxes that are drawn before the whole photo is taken."""
ZOOM_OUT_KEEPS = 0.7
"""Least fraction of its area that a zoomed-out photo keeps, since the car is small in it already."""
BLUR = (9, 6)
"""(width, height) to which a background is reduced before it is enlarged again, so that only its colours remain."""
SKY = 0.2
"""Fraction of a photo, from the top, that shows sky and buildings and seldom a car."""
LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in luma (ITU-R BT.601, as in Pillow's mode L)."""
GREY = (PAD_GREY,) * 3
DRAWN_FILTERS = (FILTERS["bilinear"], FILTERS["bicubic"])


def augment(
    photo: NDArray[np.uint8],
    height: int,
    width: int,
    settings: Augmentation,
    draw: np.random.Generator,
    scenery: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Vary a photo: crop or zoom out, apply an affine map, mirror, change colours, and apply the policy, in this order.

    With every amount at zero the result is that of `preprocess` with the fit "squash" and the bicubic filter.

    Args:
        photo: uint8 H×W×3, RGB, H and W ≥ 1.
        height: of the result, in pixels.
        width: of the result, in pixels.
        settings: the amounts.
        draw: the source of all random numbers; its state advances.
        scenery: another photo, uint8 H×W×3, for the background of a zoom-out where `settings.fill` is "scene"; with
            None the background is grey.

    Returns:
        uint8 `height`×`width`×3.

    Raises:
        ValueError: the photo is not a uint8 H×W×3 array.
    """
    check_pixels(photo, "augment")
    image = Image.fromarray(photo)
    if _happens(settings.zoom_out, draw):
        image = _zoomed_out(image, height, width, settings, draw, scenery)
    else:
        image = _cropped(image, height, width, settings.crop, settings.aspect, draw)
    image = _turned(image, settings, draw)
    if _happens(settings.flip, draw):
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(apply_policy(_coloured(image, settings, draw), settings.policy, draw))


def jittered(box: Box, settings: Augmentation, draw: np.random.Generator) -> Box:
    """A box with its four sides shifted at random, within the photo and with an area.

    Args:
        box: as fractions of the photo's height and width.
        settings: the amounts.
        draw: the source of random numbers; with `settings.box` 0 nothing is drawn.
    """
    if not settings.box:
        return box
    high, wide = box[2] - box[0], box[3] - box[1]
    # Each side moves by less than half of the box, so that no box turns inside out.
    top, left, bottom, right = (
        side + min(settings.box, 0.49) * span * draw.uniform(-1, 1)
        for side, span in zip(box, (high, wide, high, wide), strict=True)
    )
    return max(0.0, top), max(0.0, left), min(1.0, bottom), min(1.0, right)


def _happens(probability: float, draw: np.random.Generator) -> bool:
    return probability > 0 and draw.random() < probability


def _either_way(amount: float, draw: np.random.Generator) -> float:
    """Draw a number from -amount to amount. An amount of 0 draws nothing, so that it leaves the generator as it was."""
    return draw.uniform(-amount, amount) if amount else 0.0


def _cropped(
    image: Image.Image,
    height: int,
    width: int,
    crop: tuple[float, float],
    aspect: float,
    draw: np.random.Generator,
) -> Image.Image:
    """A random crop of the photo, resized with a random filter (C. Szegedy et al., "Going deeper with convolutions",
    2015; the number of tries as in torchvision's RandomResizedCrop).
    """
    if min(crop) >= 1 and aspect == 1:
        return image.resize((width, height), FILTERS["bicubic"])
    wide, high, left, top = 1.0, 1.0, 0.0, 0.0  # Fractions of the photo's width and height.
    for _ in range(CROP_TRIES):
        # The logarithm makes a crop as often twice as wide as half as wide.
        area, stretch = draw.uniform(*crop), math.exp(_either_way(math.log(aspect), draw))
        across, down = math.sqrt(area * stretch), math.sqrt(area / stretch)
        if across <= 1 and down <= 1:
            wide, high, left, top = across, down, draw.uniform(0, 1 - across), draw.uniform(0, 1 - down)
            break
    right, bottom = min(1.0, left + wide), min(1.0, top + high)  # Rounding may lead beyond the edge.
    box = (left * image.width, top * image.height, right * image.width, bottom * image.height)
    return image.resize((width, height), DRAWN_FILTERS[draw.integers(2)], box)


def _zoomed_out(
    image: Image.Image,
    height: int,
    width: int,
    settings: Augmentation,
    draw: np.random.Generator,
    scenery: NDArray[np.uint8] | None,
) -> Image.Image:
    """The photo as a part of a larger scene, at a random place."""
    share = draw.uniform(settings.zoom_out_to, 1)
    high, wide = max(1, round(share * height)), max(1, round(share * width))
    # The crop is milder here than in `_cropped`, because the car is small already.
    least = max(ZOOM_OUT_KEEPS, settings.crop[0])
    part = _cropped(image, high, wide, (least, max(least, settings.crop[1])), settings.aspect, draw)
    scene = _background(image, height, width, settings.fill, draw, scenery)
    scene.paste(part, (int(draw.integers(width - wide + 1)), int(draw.integers(height - high + 1))))
    return scene


def _background(
    image: Image.Image,
    height: int,
    width: int,
    fill: Fill,
    draw: np.random.Generator,
    scenery: NDArray[np.uint8] | None,
) -> Image.Image:
    """The background of a zoomed-out photo. For the fill "scene" it is, with equal chances, one colour, blurred
    colours, or the top of another photo.
    """
    size = (width, height)
    if fill == "nearest":
        return _blurred(image, size)
    if fill == "grey" or scenery is None:
        return Image.new("RGB", size, GREY)
    kind = draw.integers(3)
    if kind == 0:
        colour = GREY if draw.random() < 0.5 else tuple(draw.integers(256, size=3).tolist())
        return Image.new("RGB", size, colour)
    other = Image.fromarray(scenery)
    if kind == 1:
        return _blurred(other, size)
    return other.resize(size, FILTERS["bilinear"], (0, 0, other.width, SKY * other.height))


def _blurred(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize(BLUR, Image.Resampling.BOX).resize(size, FILTERS["bicubic"])


def _turned(image: Image.Image, settings: Augmentation, draw: np.random.Generator) -> Image.Image:
    """Apply rotation · shift · shear · zoom about the centre, bilinear, in the order of Keras' `ImageDataGenerator`
    (keras/src/legacy/preprocessing/image.py, `apply_affine_transform`).
    """
    if not (settings.rotate or settings.shift or settings.shear or settings.zoom):
        return image
    return affine(image, _drawn_affine(image.height, image.width, settings, draw), settings.fill)


def _drawn_affine(height: int, width: int, settings: Augmentation, draw: np.random.Generator) -> Doubles:
    """The affine matrix, float64 3×3, from (row, column, 1) of the result to that of the photo, counted from the
    centre.
    """
    turn, slant = (math.radians(_either_way(most, draw)) for most in (settings.rotate, settings.shear))
    down, across = (_either_way(settings.shift, draw) * side for side in (height, width))
    high, wide = (1 + _either_way(settings.zoom, draw) for _ in range(2))
    rotation = np.array([[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1]])
    shift = np.array([[1, 0, down], [0, 1, across], [0, 0, 1]])
    shear = np.array([[1, -math.sin(slant), 0], [0, math.cos(slant), 0], [0, 0, 1]])
    matrix: Doubles = rotation @ shift @ shear @ np.diag([high, wide, 1])
    return matrix


def affine(image: Image.Image, matrix: Doubles, fill: Fill) -> Image.Image:
    """Transform an image by an affine matrix with bilinear interpolation; its size stays the same.

    Args:
        image: mode RGB.
        matrix: float64 3×3, see `_drawn_affine`.
        fill: "grey" fills with grey beyond the edge; every other value repeats the nearest pixel.
    """
    size = np.array([image.height, image.width])
    offset = matrix[:2, 2] + size / 2 - matrix[:2, :2] @ (size / 2)
    if fill != "grey":  # Pillow cannot repeat edge pixels, so the image is padded as far as the corners reach.
        corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]) * size @ matrix[:2, :2].T + offset
        before = np.ceil(np.maximum(0, -corners.min(0))).astype(int)
        after = np.ceil(np.maximum(0, corners.max(0) - size)).astype(int)
        padded = np.pad(np.asarray(image), ((before[0], after[0]), (before[1], after[1]), (0, 0)), "edge")
        image, offset = Image.fromarray(padded), offset + before
    (a, b), (c, d) = matrix[:2, :2]
    return image.transform(
        (int(size[1]), int(size[0])),
        Image.Transform.AFFINE,
        (d, c, offset[1], b, a, offset[0]),  # Pillow's coefficients have x before y.
        Image.Resampling.BILINEAR,
        fillcolor=GREY,
    )


def _coloured(image: Image.Image, settings: Augmentation, draw: np.random.Generator) -> Image.Image:
    """Change brightness, contrast and saturation as Pillow's ImageEnhance does, and hue, with one matrix.

    Each of them is an affine map of a pixel's colour. Their product is applied in one pass, so that values are rounded
    and clipped to 0–255 only once. Hue turns about the axis of greys: a third of a turn makes red green (P. Haeberli,
    "Matrix Operations for Image Processing", 1993).
    """
    brightness, contrast, saturation = (
        max(0.0, 1 + _either_way(most, draw)) for most in (settings.brightness, settings.contrast, settings.saturation)
    )
    turn = math.tau * _either_way(settings.hue, draw)
    if _happens(settings.grey, draw):
        saturation = 0.0
    swapped = _happens(settings.swap, draw)
    if not swapped and (brightness, contrast, saturation, turn) == (1, 1, 1, 0):
        return image
    saturate = saturation * np.eye(3) + (1 - saturation) * LUMA
    matrix = brightness * contrast * _hue(turn) @ saturate
    if swapped:
        image = Image.merge("RGB", image.split()[::-1])
    middle = float(LUMA @ image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))) if contrast != 1 else 0.0
    constant = np.full((3, 1), (1 - contrast) * brightness * middle)
    return image.convert("RGB", tuple(np.hstack([matrix, constant]).ravel().tolist()))


def _hue(turn: float) -> Doubles:
    """Rotation by `turn` radians about (1, 1, 1), float64 3×3, from red to green to blue (Rodrigues' formula)."""
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    rotation: Doubles = math.cos(turn) * np.eye(3) + math.sin(turn) * cross + (1 - math.cos(turn)) / 3 * np.ones((3, 3))
    return rotation
