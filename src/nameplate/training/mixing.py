"""MixUp and CutMix of a batch."""

from __future__ import annotations

import math

import numpy as np
import torch

from nameplate.fit.recipe import Mixing


def mix(
    photos: torch.Tensor, classes: torch.Tensor, settings: Mixing, draw: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Mix a batch with itself in another order, or leave it.

    Args:
        photos: uint8 N×H×W×3.
        classes: int64 (N,).
        settings: how often, and how much.
        draw: where chance comes from.

    Returns:
        The photos (float32 0–255 after MixUp, else uint8), the other classes int64 (N,), and the share of the
        first classes, 0–1.
    """
    chance = draw.random()
    if chance >= settings.mixup + settings.cutmix or len(photos) < 2:
        return photos, classes, 1.0
    order = torch.from_numpy(draw.permutation(len(photos)))
    if chance < settings.mixup:
        share = float(draw.beta(settings.mixup_alpha, settings.mixup_alpha))
        return photos.float().mul(share).add(photos[order].float(), alpha=1 - share), classes[order], share
    height, width = photos.shape[1:3]
    side = math.sqrt(1 - float(draw.beta(settings.cutmix_alpha, settings.cutmix_alpha)))
    tall, wide = round(height * side), round(width * side)
    top, left = int(draw.integers(height - tall + 1)), int(draw.integers(width - wide + 1))
    mixed = photos.clone()
    mixed[:, top : top + tall, left : left + wide] = photos[order, top : top + tall, left : left + wide]
    return mixed, classes[order], 1 - tall * wide / (height * width)
