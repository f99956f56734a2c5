"""Class activation maps (CAM): where in a photo the evidence for a nameplate lies, and `explain`, which shows it.

Many backbones have a second output: the embedding of each place of their last feature map. The mean of these over the
places is the photo's embedding. A linear head on the mean equals the mean of the head on the places (B. Zhou et al.,
"Learning Deep Features for Discriminative Localization", 2016). So a map needs neither gradients nor torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nameplate.defaults import TOP
from nameplate.errors import BundleError, PhotoError, UsageError
from nameplate.images.parallel import ordered_map
from nameplate.images.quality import flaws
from nameplate.images.transforms import WHOLE, Box, Pixels, frame
from nameplate.model.bundle import all_finite
from nameplate.model.classifier import probabilities
from nameplate.model.model import Model
from nameplate.model.neighbours import Neighbour, nearest, read_index
from nameplate.model.pipeline import (
    NOT_COMPUTED,
    EmbeddedPhoto,
    PreparedPhoto,
    UnreadablePhoto,
    bytes_of,
    decode_photo,
    embedded,
    prepare_photo,
    run_through,
)
from nameplate.model.sources import PhotoLike, as_source, as_sources, photo_name
from nameplate.model.verdict import with_flaws
from nameplate.model.verification import read_claim
from nameplate.runtime.base import BATCH, Batch
from nameplate.runtime.ort import OnnxRuntime
from nameplate.storage import nfc
from nameplate.types import Floats, Preprocess, Verdict

SMOOTH = 8
"""Factor by which a map is upsampled along each side before the hottest region is searched."""
AREA = 0.15
"""Share of the model input that the hottest region covers."""


@dataclass(frozen=True, slots=True)
class MappedPhoto:
    """A photo with its embedding and its feature map."""

    photo: EmbeddedPhoto
    """With one view."""
    model_input: Pixels
    """The model input, uint8 H×W×3."""
    places: Floats
    """float32 h×w×D: the embedding of each place. Their mean over the places is the photo's embedding."""


@dataclass(frozen=True, slots=True)
class Region:
    """A box in the model input, as shares of its width and height from the top left corner."""

    left: float
    top: float
    right: float
    bottom: float


def photo_maps(
    model: Model, photos: Iterable[PhotoLike], runtime: OnnxRuntime | None = None
) -> Iterator[MappedPhoto | UnreadablePhoto]:
    """Embed photos and keep their feature maps, in order, on ONNX Runtime.

    Args:
        model: whose backbone to run.
        photos: of any kind (`sources.PhotoLike`).
        runtime: the backbone, opened with `maps=True`; None opens it.

    Raises:
        BundleError: the backbone gives no maps.
    """
    size, settings = model.bundle.manifest.preprocess, model.settings
    sources = as_sources(photos, settings.limits)
    # Maps are large, so at most one batch of photos is prepared ahead.
    prepared = ordered_map(lambda source: prepare_photo(source, size, settings), sources, settings.threads, BATCH)
    return map_prepared(model, prepared, runtime)


def map_prepared(
    model: Model, photos: Iterator[PreparedPhoto | UnreadablePhoto], runtime: OnnxRuntime | None = None
) -> Iterator[MappedPhoto | UnreadablePhoto]:
    """`photo_maps` for photos that are already prepared; only the first view of each is embedded."""
    runtime = runtime or OnnxRuntime(model.bundle.backbone, model.settings.threads, maps=True)
    if not runtime.has_maps:
        raise BundleError(
            f"'{model.bundle.manifest.name}' cannot show heat maps: its backbone gives no map. Either it was exported "
            "before Nameplate had maps (train it again), or it is a network without a grid of features, such as a "
            "transformer (use another backbone)."
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
        if isinstance(outcome, UnreadablePhoto) or not all_finite(places):
            yield UnreadablePhoto(NOT_COMPUTED, photo.file.digest)
        else:
            yield MappedPhoto(outcome, photo.car.inputs[0], places)


def _first_view(photo: PreparedPhoto | UnreadablePhoto) -> PreparedPhoto | UnreadablePhoto:
    if not isinstance(photo, PreparedPhoto):
        return photo
    return replace(photo, car=replace(photo.car, inputs=photo.car.inputs[:1]), others=())


def _check(embeddings: Floats, places: Floats, model: Model) -> None:
    """Raise BundleError unless a map is N×h×w×D for N×D embeddings, with no more places than pixels."""
    manifest = model.bundle.manifest
    size, grid = (manifest.preprocess.height, manifest.preprocess.width), places.shape[1:3]
    if (
        embeddings.shape != (len(embeddings), manifest.embedding)
        or places.ndim != 4
        or places.shape[::3] != embeddings.shape
        or not all(0 < a <= b for a, b in zip(grid, size, strict=True))
    ):
        raise BundleError(
            f"'{manifest.name}' does not work: its backbone gives embeddings of shape {embeddings.shape} and maps of "
            f"shape {places.shape}, and bundle.json says N×{manifest.embedding}."
        )


def evidence_map(model: Model, places: Floats, nameplate: int, runtime: str) -> Floats:
    """The evidence of each place for a nameplate and against the others.

    The mean over the places is the nameplate's logit minus the mean logit of the other nameplates, weighted by their
    probabilities without this one (the gradient of the log-odds). Positive values are evidence for the nameplate,
    negative values evidence against it.

    Args:
        model: with a head of at least two nameplates.
        places: float32 h×w×D, from `photo_maps`.
        nameplate: index in `model.nameplates`.
        runtime: name of the runtime that computed `places`; it has its own temperature.

    Returns:
        float32 h×w.

    Raises:
        BundleError: the bundle has no head.
    """
    weight, bias = model.require_head()
    logits = places.mean((0, 1)) @ weight + bias
    logits[nameplate] = -np.inf  # so that the others' probabilities sum to 1
    others = probabilities(logits[None], model.bundle.manifest.temperature_of(runtime))[0]
    direction = weight[:, nameplate] - weight @ others
    return np.asarray(places @ direction + (bias[nameplate] - bias @ others), np.float32)


def upsample(grid: Floats, height: int, width: int) -> Floats:
    """Bicubic interpolation of a map: float32 h×w → float32 height×width."""
    image = Image.fromarray(np.ascontiguousarray(grid, np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), np.float32)


def hot_region(grid: Floats, area: float = AREA) -> Region:
    """The box with the most evidence among all boxes of one area that have the model input's aspect ratio.

    Args:
        grid: float32 h×w, from `evidence_map`.
        area: share of the model input, above 0 and at most 1.
    """
    height, width = grid.shape[0] * SMOOTH, grid.shape[1] * SMOOTH
    rows, columns = max(1, round(height * area**0.5)), max(1, round(width * area**0.5))
    sums = np.zeros((height + 1, width + 1))  # integral image: the sum of any box is four look-ups
    sums[1:, 1:] = upsample(grid, height, width).astype(np.float64).cumsum(0).cumsum(1)
    boxes = sums[rows:, columns:] - sums[:-rows, columns:] - sums[rows:, :-columns] + sums[:-rows, :-columns]
    top, left = (int(each) for each in np.unravel_index(boxes.argmax(), boxes.shape))
    return Region(left / width, top / height, (left + columns) / width, (top + rows) / height)


def mean_evidence(grid: Floats, region: Region) -> float:
    """Mean evidence in a region of the model input."""
    height, width = grid.shape[0] * SMOOTH, grid.shape[1] * SMOOTH
    rows = slice(round(region.top * height), round(region.bottom * height))
    return float(upsample(grid, height, width)[rows, round(region.left * width) : round(region.right * width)].mean())


def region_in_photo(
    region: Region, width: int, height: int, size: Preprocess, part: Box = WHOLE
) -> tuple[int, int, int, int]:
    """A region of the model input as left, top, right, bottom in pixels of the upright photo.

    Args:
        region: in the model input.
        width: the upright photo's, in pixels.
        height: the upright photo's, in pixels.
        size: how the photo was fitted into the model input.
        part: the part of the photo that the model input shows.
    """
    left, top, right, bottom = frame_of_part(width, height, size, part)
    across, down = right - left, bottom - top
    corners = (left + region.left * across, top + region.top * down,
               left + region.right * across, top + region.bottom * down)  # fmt: skip
    most = (width, height, width, height)
    box = [min(most[i], max(0, round(corner))) for i, corner in enumerate(corners)]
    return box[0], box[1], box[2], box[3]


def frame_of_part(width: int, height: int, size: Preprocess, part: Box) -> tuple[float, float, float, float]:
    """The box of a model input over a photo of which it shows a part: left, top, right, bottom in pixels of the photo.

    Args:
        width: the photo's, in pixels.
        height: the photo's, in pixels.
        size: how the part was fitted into the model input.
        part: the part of the photo.
    """
    left, top, right, bottom = frame((part[3] - part[1]) * width, (part[2] - part[0]) * height, size)
    return part[1] * width + left, part[0] * height + top, part[1] * width + right, part[0] * height + bottom


# Explanations: the evidence for the predicted nameplate, or for a claimed one, with the most similar training photos.

NEIGHBOURS = 6
"""Number of training photos shown."""
SHOWN = 640
"""Longest side of the photo as it is shown, in pixels."""
FAINT = 0.1
"""A box is not shown if its mean evidence is below this share of the strongest place's absolute value."""


@dataclass(frozen=True, slots=True)
class Case:
    """The evidence for one nameplate."""

    nameplate: str
    confidence: float
    """Calibrated probability, 0–1."""
    evidence: Floats
    """float32 h×w over the model input: above 0 for the nameplate, below 0 against it."""
    region: tuple[int, int, int, int] | None
    """The box with the most evidence: left, top, right, bottom in pixels of the upright photo; None where the evidence
    is faint everywhere."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The explanation of a model's answer to one photo."""

    photo: str
    """Its path; empty where it has none."""
    pixels: NDArray[np.uint8]
    """The upright photo, uint8 H×W×3, at least as large as it is shown."""
    width: int
    """Width of the upright photo in the file's pixels."""
    height: int
    """Height of the upright photo in the file's pixels."""
    predicted: Case
    claimed: Case | None
    """The claimed nameplate; None where none was claimed."""
    verdict: Verdict
    """See model/verdict.py."""
    top: tuple[tuple[str, float], ...]
    """The most probable nameplates with their probabilities, best first."""
    nearest: tuple[Neighbour, ...] | None
    """Photos that trained the head, the most similar first; None where the bundle has no neighbour index."""
    part: Box = WHOLE
    """The part of the photo that was named, around its main car."""

    @property
    def title(self) -> str:
        """A heading that agrees with the verdict: the bare nameplate only where it is the answer."""
        if self.verdict == "answer":
            return self.predicted.nameplate
        verdict = self.verdict.capitalize()
        return f"{verdict}: likeliest {self.predicted.nameplate}" if self.verdict == "unsure" else verdict

    @property
    def word(self) -> str:
        """How a page labels the most probable nameplate."""
        return "Named" if self.verdict == "answer" else "Likeliest"


def explain(model: Model, photo: PhotoLike, claimed: str | None = None) -> Explanation:
    """Explain a model's answer.

    The photo is decoded twice, because the page shows it larger than the model input, and the model input must not
    depend on what a page needs.

    Args:
        model: with a head, and a backbone that gives maps.
        photo: one photo of any kind (`sources.PhotoLike`).
        claimed: a nameplate that the photo is claimed to show, see `find_nameplate`.

    Raises:
        UsageError: the model knows no such nameplate.
        PhotoError: the photo cannot be read.
        BundleError: the bundle has no head, fewer than two nameplates or no maps, or its index is damaged.
    """
    model.require_head()
    if not explainable(model):
        raise BundleError(
            f"'{model.bundle.manifest.name}' knows only one nameplate, so there is none to compare it with."
        )
    wanted = None if claimed is None else find_nameplate(model, claimed)
    source = as_source(photo, model.settings.limits)
    if not isinstance(source, np.ndarray):
        source = bytes_of(source, model.settings.limits)  # some sources can be read only once
    shown = decode_photo(source, model.settings, (SHOWN // 2, SHOWN // 2))
    if isinstance(shown, UnreadablePhoto):
        raise PhotoError(shown.failure.reason, shown.failure.detail)
    [mapped] = photo_maps(model, [source])
    if isinstance(mapped, UnreadablePhoto):
        raise PhotoError(mapped.failure.reason, mapped.failure.detail)
    name = photo_name(photo, 0) if isinstance(photo, (str, os.PathLike)) else ""
    return replace(explain_mapped(model, mapped, shown.pixels, wanted), photo=name)


def explainable(model: Model) -> bool:
    """Whether a model knows at least two nameplates; evidence is always for one against the others."""
    return len(model.nameplates) > 1


def explain_mapped(model: Model, mapped: MappedPhoto, pixels: Pixels, wanted: int | None = None) -> Explanation:
    """`explain` for a photo whose map is already computed.

    Args:
        model: with a head of at least two nameplates.
        mapped: computed by this model's backbone.
        pixels: the upright photo to show, uint8 H×W×3, of any size.
        wanted: index in `model.nameplates` of the claimed one; None where none is claimed.
    """
    photo = mapped.photo
    sides = photo.file.upright
    probs = model.probabilities(photo.embedding[None], photo.runtime)[0]
    ranked = np.argsort(-probs, kind="stable")[:TOP].tolist()
    index, size = read_index(model.bundle), model.bundle.manifest.preprocess

    def case(number: int) -> Case:
        grid = evidence_map(model, mapped.places, number, photo.runtime)
        box = hot_region(grid)
        faint = mean_evidence(grid, box) < FAINT * np.abs(grid).max()
        region = None if faint else region_in_photo(box, *sides, size, photo.car.crop)
        return Case(model.nameplates[number], float(probs[number]), grid, region)

    return Explanation(
        "",
        pixels,
        *sides,
        case(ranked[0]),
        None if wanted is None else case(wanted),
        with_flaws(model.decide("", probs, photo.embedding), flaws(photo.car.quality)).verdict,
        tuple((model.nameplates[i], float(probs[i])) for i in ranked),
        None if index is None else nearest(index, photo.embedding, NEIGHBOURS),
        photo.car.crop,
    )


def find_nameplate(model: Model, name: str) -> int:
    """The index of a nameplate, by its class id, its name, or words that only its name contains.

    Raises:
        UsageError: the model knows no such nameplate, or several.
    """
    name, ids = nfc(name), [nfc(id_) for id_ in model.bundle.manifest.ids]
    if name in ids:
        return ids.index(name)
    meant = read_claim(name, model.nameplates, model.makes).nameplates
    if name not in meant and len(meant) > 1:
        raise UsageError(f"'{name}' may be any of {len(meant)} nameplates, such as {', '.join(meant[:3])}. Name one.")
    return model.nameplates.index(name if name in meant else meant[0])
