"""MixUp and CutMix: `draw_mix` draws how a batch is mixed with itself, and `mixed` shows the batch."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from nameplate.images.augment import Share

# The upper limit refuses infinity, which TOML can write.
Positive = Annotated[float, Meta(gt=0, le=sys.float_info.max, description="a number above 0")]


@dataclass(frozen=True, slots=True)
class Mixing:
    """MixUp (H. Zhang et al., 2018) and CutMix (S. Yun et al., 2019), which mix the photos of a batch."""

    mixup: Share = 0.0
    """Probability that a batch is mixed by MixUp."""
    mixup_alpha: Positive = 0.2
    """Parameter α of the Beta(α, α) distribution that the mixing share is drawn from."""
    cutmix: Share = 0.0
    """Probability that a batch is mixed by CutMix."""
    cutmix_alpha: Positive = 1.0
    """Parameter α of the Beta(α, α) distribution that the mixing share is drawn from."""
    until: Share = 1.0
    """Share of the epochs in which batches are mixed; after it, none is."""


@dataclass(frozen=True, slots=True, eq=False)
class Mix:
    """How a batch is mixed with a permutation of itself."""

    order: NDArray[np.int64]
    """int64 (N,): the index of the second photo of each photo."""
    share: float
    """Weight of the first photo in the loss, 0–1: its share of the pixels' values (MixUp) or of the pixels (CutMix)."""
    box: tuple[int, int, int, int] | None
    """top, left, height and width in pixels of the part that the second photo covers (CutMix); None: MixUp."""


def draw_mix(count: int, height: int, width: int, settings: Mixing, draw: np.random.Generator) -> Mix | None:
    """Draw how a batch is mixed; None leaves it as it is.

    Args:
        count: number of photos of the batch; a single one is never mixed.
        height: of the photos in pixels.
        width: of the photos in pixels.
        settings: probabilities and Beta distributions.
        draw: the random generator.
    """
    chance = draw.random()
    if chance >= settings.mixup + settings.cutmix or count < 2:
        return None
    order = draw.permutation(count)
    if chance < settings.mixup:
        return Mix(order, float(draw.beta(settings.mixup_alpha, settings.mixup_alpha)), None)
    # CutMix: a rectangle with the aspect of the input, whose area is the share of the second photo.
    # The area grows with the square of the side.
    side = math.sqrt(1 - float(draw.beta(settings.cutmix_alpha, settings.cutmix_alpha)))
    tall, wide = round(height * side), round(width * side)
    top, left = int(draw.integers(height - tall + 1)), int(draw.integers(width - wide + 1))
    return Mix(order, 1 - tall * wide / (height * width), (top, left, tall, wide))


def mixed(photos: NDArray[np.uint8], mix: Mix) -> NDArray[np.uint8]:
    """Return the photos of a batch, uint8 N×H×W×3, as they look after mixing; MixUp is rounded to whole values."""
    second = photos[mix.order]
    if mix.box is None:
        blend = mix.share * photos.astype(np.float32) + (1 - mix.share) * second
        return blend.round().astype(np.uint8)
    top, left, tall, wide = mix.box
    made = photos.copy()
    made[:, top : top + tall, left : left + wide] = second[:, top : top + tall, left : left + wide]
    return made
