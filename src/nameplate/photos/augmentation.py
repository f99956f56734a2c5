"""`Augmentation`: how far a photo is varied at random, with the limits of each amount."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

Fill = Literal["grey", "nearest", "scene"]

# msgspec checks the limits where a recipe is read; errors and docs/recipes.md say them in words.
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
    """How a training photo is varied each time that it is seen; every amount is the most that is drawn."""

    crop: Range = (1.0, 1.0)
    """Least and greatest share of the photo's area that a random crop keeps (1, 1: no crop)."""
    aspect: Aspect = 1.0
    """A crop's aspect ratio is the photo's times or divided by up to this (1: kept)."""
    flip: Share = 0.5
    """Probability of a mirror image."""
    rotate: Rotation = 0.0
    """Degrees, either way."""
    shift: Share = 0.0
    """Share of the height and of the width, each way."""
    shear: Shear = 0.0
    """Degrees."""
    zoom: Below1 = 0.0
    """Each axis is scaled by 1 - zoom … 1 + zoom."""
    zoom_out: Share = 0.0
    """Probability that the photo becomes a smaller part of a larger scene."""
    zoom_out_to: To1 = 0.5
    """The least share of the scene's height and width that it then takes."""
    fill: Fill = "grey"
    """What lies beyond the photo's edge: grey, its nearest pixel, or (zoom-out only) another photo's scene."""
    brightness: Share = 0.0
    """Factor 1 - b … 1 + b."""
    contrast: Share = 0.0
    """Factor 1 - c … 1 + c."""
    saturation: Share = 0.0
    """Factor 1 - s … 1 + s."""
    hue: Turn = 0.0
    """Turn of the colour circle, as a share of it, either way."""
    grey: Share = 0.0
    """Probability of no colour at all."""
    swap: Share = 0.0
    """Probability that red and blue change places: some sets of photos were saved so, cars196 among them."""
