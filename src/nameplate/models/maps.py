"""Where in a photo its embedding comes from, and so where the evidence for a nameplate lies.

Many backbones give, beside the embedding, that of each place of their last feature map, whose mean is the embedding.
A linear head on the mean is the mean of the head on the places: B. Zhou et al., "Learning Deep Features for
Discriminative Localization", 2016 (class activation maps). No gradients, and no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nameplate.errors import BundleError
from nameplate.models.bundle import numbers
from nameplate.models.head import probabilities
from nameplate.models.model import Model
from nameplate.models.pipeline import (
    NOT_COMPUTED,
    EmbeddedPhoto,
    Pixels,
    PreparedPhoto,
    UnreadablePhoto,
    embedded,
    prepare_photo,
    run_through,
)
from nameplate.models.runtime import BATCH, Batch, OnnxRuntime
from nameplate.models.sources import PhotoLike, as_sources
from nameplate.photos.parallel import ordered_map
from nameplate.photos.preprocess import frame
from nameplate.types import Preprocess

Floats = NDArray[np.float32]

SMOOTH = 8
"""Points that a place of the map is drawn out to, along each side, before the hottest region is looked for."""
AREA = 0.15
"""Share of the picture that a hot region covers."""


@dataclass(frozen=True, slots=True)
class MappedPhoto:
    """A photo that the backbone has seen, with its map."""

    photo: EmbeddedPhoto
    """Of one view."""
    picture: Pixels
    """What the backbone saw, uint8 H×W×3."""
    places: Floats
    """float32 h×w×D: the embedding of each place; the mean over the places is the photo's embedding."""


@dataclass(frozen=True, slots=True)
class Region:
    """A box in the model's picture, as shares of its width and height from the top left corner."""

    left: float
    top: float
    right: float
    bottom: float


def photo_maps(
    model: Model, photos: Iterable[PhotoLike], runtime: OnnxRuntime | None = None
) -> Iterator[MappedPhoto | UnreadablePhoto]:
    """Embed photos and keep the maps, in order, by ONNX Runtime.

    Args:
        model: whose backbone to run.
        photos: of any kind (`sources.PhotoLike`).
        runtime: the backbone opened with its maps; None opens it.

    Raises:
        BundleError: the backbone gives no maps.
    """
    size, settings = model.bundle.manifest.preprocess, model.settings
    sources = as_sources(photos, settings.limits)
    # Maps are large: no more than a batch of photos is prepared ahead of them.
    prepared = ordered_map(lambda source: prepare_photo(source, size, settings), sources, settings.threads, BATCH)
    return map_prepared(model, prepared, runtime)


def map_prepared(
    model: Model, photos: Iterator[PreparedPhoto | UnreadablePhoto], runtime: OnnxRuntime | None = None
) -> Iterator[MappedPhoto | UnreadablePhoto]:
    """`photo_maps` of photos that are prepared already, of whose views the first is embedded."""
    runtime = runtime or OnnxRuntime(model.bundle.backbone, model.settings.threads, maps=True)
    if not runtime.has_maps:
        raise BundleError(
            f"'{model.bundle.manifest.name}' cannot show where it looks: its backbone gives no map. It was exported "
            "before Nameplate had maps (train it again), or is a network without a grid of features, as transformers "
            "are (use another)."
        )

    def run(batches: Iterable[Batch]) -> Iterator[Iterable[tuple[Floats, Floats]]]:
        for embeddings, places in runtime.maps(batches):
            _check(embeddings, places, model)
            yield zip(embeddings, places, strict=True)

    first = (_first_view(photo) for photo in photos)
    for photo, found in run_through(first, run):
        if isinstance(photo, UnreadablePhoto):
            yield photo
            continue
        [(embedding, places)] = found
        outcome = embedded(photo, embedding[None], runtime.name)
        if isinstance(outcome, UnreadablePhoto) or not numbers(places):
            yield UnreadablePhoto(NOT_COMPUTED, photo.file.digest)
        else:
            yield MappedPhoto(outcome, photo.inputs[0], places)


def _first_view(photo: PreparedPhoto | UnreadablePhoto) -> PreparedPhoto | UnreadablePhoto:
    return replace(photo, inputs=photo.inputs[:1]) if isinstance(photo, PreparedPhoto) else photo


def _check(embeddings: Floats, places: Floats, model: Model) -> None:
    manifest = model.bundle.manifest
    size, grid = (manifest.preprocess.height, manifest.preprocess.width), places.shape[1:3]
    if (
        embeddings.shape != (len(embeddings), manifest.embedding)
        or places.ndim != 4
        or places.shape[::3] != embeddings.shape
        or not all(0 < a <= b for a, b in zip(grid, size, strict=True))
    ):
        raise BundleError(
            f"'{manifest.name}' is no bundle that works: its backbone gives embeddings {embeddings.shape} and maps "
            f"{places.shape}, and bundle.json says N×{manifest.embedding}."
        )


def evidence(model: Model, places: Floats, nameplate: int, runtime: str) -> Floats:
    """What each place says for a nameplate and against the others, float32 h×w.

    The mean over the places is the nameplate's logit less that of the other nameplates, each weighted by how probable
    the model holds it beside this one (the slope of the log odds). Zero says nothing, below zero speaks against.

    Args:
        model: with a head, of two nameplates at least.
        places: float32 h×w×D, of `photo_maps`.
        nameplate: which of `model.nameplates`.
        runtime: the name of the runtime that computed `places`: it has a temperature of its own.

    Raises:
        BundleError: the bundle has no head.
    """
    weight, bias = model.require_head()
    logits = places.mean((0, 1)) @ weight + bias
    logits[nameplate] = -np.inf
    others = probabilities(logits[None], model.bundle.manifest.temperature_of(runtime))[0]
    direction = weight[:, nameplate] - weight @ others
    return np.asarray(places @ direction + (bias[nameplate] - bias @ others), np.float32)


def drawn_out(grid: Floats, height: int, width: int) -> Floats:
    """A map float32 h×w drawn out smoothly (bicubic) to float32 height×width."""
    image = Image.fromarray(np.ascontiguousarray(grid, np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), np.float32)


def hot_region(grid: Floats, area: float = AREA) -> Region:
    """The box with the most evidence of all of one area, of the picture's own shape.

    Args:
        grid: float32 h×w, of `evidence`.
        area: share of the picture, above 0 and at most 1.
    """
    height, width = grid.shape[0] * SMOOTH, grid.shape[1] * SMOOTH
    rows, columns = max(1, round(height * area**0.5)), max(1, round(width * area**0.5))
    sums = np.zeros((height + 1, width + 1))
    sums[1:, 1:] = drawn_out(grid, height, width).astype(np.float64).cumsum(0).cumsum(1)
    boxes = sums[rows:, columns:] - sums[:-rows, columns:] - sums[rows:, :-columns] + sums[:-rows, :-columns]
    top, left = (int(each) for each in np.unravel_index(boxes.argmax(), boxes.shape))
    return Region(left / width, top / height, (left + columns) / width, (top + rows) / height)


def mean_inside(grid: Floats, region: Region) -> float:
    """Mean evidence in a region of the picture."""
    height, width = grid.shape[0] * SMOOTH, grid.shape[1] * SMOOTH
    rows = slice(round(region.top * height), round(region.bottom * height))
    return float(drawn_out(grid, height, width)[rows, round(region.left * width) : round(region.right * width)].mean())


def in_photo(region: Region, width: int, height: int, size: Preprocess) -> tuple[int, int, int, int]:
    """A region of the model's picture as left, top, right, bottom in pixels of the upright photo.

    Args:
        region: of the picture.
        width: the upright photo's.
        height: the upright photo's.
        size: how the photo became the picture.
    """
    left, top, right, bottom = frame(width, height, size)
    across, down = right - left, bottom - top
    corners = (left + region.left * across, top + region.top * down,
               left + region.right * across, top + region.bottom * down)  # fmt: skip
    most = (width, height, width, height)
    box = [min(most[i], max(0, round(corner))) for i, corner in enumerate(corners)]
    return box[0], box[1], box[2], box[3]
