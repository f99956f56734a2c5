"""Makes batches of augmented photos in threads, and mixes them with MixUp and CutMix.

Threads suffice because decoding and resizing release the interpreter lock, and nothing has to be copied between
processes. All random numbers depend only on the seed, the epoch and the photo, so that a resumed run sees the same
model inputs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import torch
from numpy.typing import NDArray

from nameplate.errors import NameplateError, PhotoError
from nameplate.images.augment import Augmentation, augment, jittered
from nameplate.images.decode import decode
from nameplate.images.mixing import Mixing, draw_mix
from nameplate.images.parallel import ordered_map
from nameplate.images.transforms import Pixels, crop
from nameplate.model.detector import crop_box, locate
from nameplate.model.pipeline import Settings, UnreadablePhoto, prepare_photo
from nameplate.train.schedule import steps_per_epoch
from nameplate.types import Preprocess


def mix(
    photos: torch.Tensor, classes: torch.Tensor, settings: Mixing, draw: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Mix a batch with a permutation of itself by MixUp or CutMix, or leave it as it is, at random.

    Args:
        photos: uint8 N×H×W×3.
        classes: int64 (N,).
        settings: probabilities and Beta distributions.
        draw: the random generator.

    Returns:
        The photos (float32 0–255 after MixUp, otherwise uint8), the classes of the second photos int64 (N,), and the
        weight of the first classes in the loss, 0–1.
    """
    plan = draw_mix(len(photos), photos.shape[1], photos.shape[2], settings, draw)
    if plan is None:
        return photos, classes, 1.0
    order = torch.from_numpy(plan.order)
    if plan.box is None:
        # Mixing before the normalisation gives the same as after it, because both are linear.
        blend = photos.float().mul(plan.share).add(photos[order].float(), alpha=1 - plan.share)
        return blend, classes[order], plan.share
    top, left, tall, wide = plan.box
    mixed = photos.clone()
    mixed[:, top : top + tall, left : left + wide] = photos[order, top : top + tall, left : left + wide]
    return mixed, classes[order], plan.share


AHEAD = 6
"""Largest number of batches in memory, the one in the network included."""


@dataclass(frozen=True, slots=True)
class PhotoBatch:
    """Model inputs that go through the network together."""

    photos: Pixels
    """uint8 N×H×W×3."""
    indices: NDArray[np.int64]
    """int64 (N,): the index of each photo in the list of paths; unreadable photos are left out."""
    lost: tuple[tuple[str, str], ...]
    """Path and reason of each photo of the batch that could not be read this time."""


def epoch_batches(count: int, batch: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """The indices of the photos in each step of an epoch, int64; each photo occurs at most once."""
    order = np.random.default_rng([seed, epoch, count]).permutation(count)  # differs from every [seed, epoch, photo]
    return [order[step * batch : (step + 1) * batch] for step in range(steps_per_epoch(count, batch))]


def in_order(indices: NDArray[np.int64], batch: int) -> list[NDArray[np.int64]]:
    """The indices in batches, in their order."""
    return [indices[i : i + batch] for i in range(0, len(indices), batch)]


def training_batches(
    paths: Sequence[str],
    batches: Sequence[NDArray[np.int64]],
    size: Preprocess,
    settings: Augmentation,
    seed: int,
    epoch: int,
    threads: int,
) -> Iterator[PhotoBatch]:
    """Batches of augmented training photos.

    Args:
        paths: all training photos.
        batches: the indices of the photos in each batch, from `epoch_batches` or `in_order`.
        size: height and width of the model's input, and whether photos are first cropped to their main car.
        settings: the augmentation.
        seed: seed of the random numbers.
        epoch: number of the epoch in the whole run; each epoch has other random numbers.
        threads: number of threads that prepare photos.
    """

    def prepare(i: int) -> Pixels:
        # A generator for each photo: the result does not depend on which thread prepares it, or when.
        draw = np.random.default_rng([seed, epoch, i])
        photo = decode(paths[i], at_least=(size.height, size.width))
        for car in locate(photo)[:1] if size.locate != "none" else ():
            photo = crop(photo, jittered(crop_box(car), settings, draw))
        scenery = None  # the background is one colour
        if settings.zoom_out and settings.fill == "scene":
            with contextlib.suppress(PhotoError):  # an unreadable background is no reason to lose the photo
                scenery = decode(paths[int(draw.integers(len(paths)))], at_least=(size.height, size.width))
        return augment(photo, size.height, size.width, settings, draw, scenery)

    return _batches(paths, batches, prepare, threads)


def plain_batches(
    paths: Sequence[str], batches: Sequence[NDArray[np.int64]], settings: Preprocess, threads: int
) -> Iterator[PhotoBatch]:
    """Batches of photos without augmentation, prepared by the same pipeline that serves the bundle."""

    def prepare(i: int) -> Pixels:
        photo = prepare_photo(paths[i], settings, Settings())
        if isinstance(photo, UnreadablePhoto):
            raise PhotoError(photo.failure.reason, photo.failure.detail)
        return photo.inputs[0]

    return _batches(paths, batches, prepare, threads)


def unreadable(paths: Sequence[str]) -> NameplateError:
    """The error for a list of photos none of which can be read."""
    return NameplateError(
        f"None of {len(paths):,} photos can be read any more; the first, '{paths[0]}'. "
        "When they are back, or with --data and the folder that they are in now: nameplate train --resume."
    )


def _batches(
    paths: Sequence[str], batches: Sequence[NDArray[np.int64]], prepare: Callable[[int], Pixels], threads: int
) -> Iterator[PhotoBatch]:
    """Batches whose photos `prepare` makes in threads, in order, a limited number ahead."""

    def one(i: int) -> Pixels | str:
        try:
            return prepare(i)
        except PhotoError as error:
            return str(error)

    ahead = (AHEAD - 1) * max(map(len, batches), default=1)  # one batch is in the network
    with contextlib.closing(ordered_map(one, map(int, chain.from_iterable(batches)), threads, ahead)) as made:
        for indices in batches:
            yield _gather(paths, indices, list(islice(made, len(indices))))


def _gather(paths: Sequence[str], indices: NDArray[np.int64], made: Sequence[Pixels | str]) -> PhotoBatch:
    """A batch from prepared photos and, in place of unreadable ones, the reasons."""
    good = [number for number, pixels in enumerate(made) if not isinstance(pixels, str)]
    lost = tuple((paths[indices[n]], text) for n, text in enumerate(made) if isinstance(text, str))
    photos = np.stack([made[number] for number in good]) if good else np.zeros((0, 1, 1, 3), np.uint8)
    return PhotoBatch(photos, indices[good], lost)
