"""Where in a photo its embedding comes from, and so where the evidence for a nameplate lies.

Many backbones give, beside the embedding, that of each place of their last feature map, whose mean is the embedding.
A linear head on the mean is the mean of the head on the places: B. Zhou et al., "Learning Deep Features for
Discriminative Localization", 2016 (class activation maps). No gradients, and no torch.
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
from nameplate.images.transforms import frame
from nameplate.model.bundle import numbers
from nameplate.model.classifier import probabilities
from nameplate.model.model import Model
from nameplate.model.neighbours import Neighbour, nearest, read_index
from nameplate.model.pipeline import (
    NOT_COMPUTED,
    EmbeddedPhoto,
    Pixels,
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


# JOINED `explain`: what in a photo speaks for the nameplate that it is given, or for one that is claimed.


NEIGHBOURS = 6
"""Photos of the index that are shown."""
SHOWN = 640
"""Longest side of the photo as it is shown, in pixels."""
FAINT = 0.1
"""A box whose mean evidence is below this share of the strongest place's, for or against, says nothing."""


@dataclass(frozen=True, slots=True)
class Case:
    """What speaks for one nameplate."""

    nameplate: str
    confidence: float
    """Calibrated probability, 0–1."""
    evidence: Floats
    """float32 h×w over the model's picture: above 0 speaks for it, below 0 against it."""
    region: tuple[int, int, int, int] | None
    """The box that says most for it: left, top, right, bottom in pixels of the upright photo; None where no box says
    anything to speak of."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """One photo explained."""

    photo: str
    """Its path; empty where it came without one."""
    pixels: NDArray[np.uint8]
    """The upright photo, uint8 H×W×3, as large as it is shown or larger."""
    width: int
    """Of the upright photo, in its own pixels."""
    height: int
    """Of the upright photo, in its own pixels."""
    named: Case
    claimed: Case | None
    """Of the nameplate that was claimed; None where none was."""
    verdict: Verdict
    """What may be done with the answer."""
    top: tuple[tuple[str, float], ...]
    """The most probable nameplates with their probabilities, best first."""
    nearest: tuple[Neighbour, ...] | None
    """Photos that trained the head, the most alike first; None where the bundle has no index."""

    @property
    def title(self) -> str:
        """What the photo shows, as the verdict has it: a nameplate only where it is the answer."""
        if self.verdict == "answer":
            return self.named.nameplate
        verdict = self.verdict.capitalize()
        return f"{verdict}: likeliest {self.named.nameplate}" if self.verdict == "unsure" else verdict

    @property
    def word(self) -> str:
        """What the likeliest nameplate is to the photo."""
        return "Named" if self.verdict == "answer" else "Likeliest"


def explain(model: Model, photo: PhotoLike, claimed: str | None = None) -> Explanation:
    """Explain a model's answer.

    The photo is decoded twice: the page shows it larger than the model sees it, and what the model sees must not depend
    on the page.

    Args:
        model: with a head, and a backbone that gives maps.
        photo: one, of any kind (`sources.PhotoLike`).
        claimed: a nameplate that the photo is said to show.

    Raises:
        UsageError: the model knows no such nameplate.
        PhotoError: the photo cannot be read.
        BundleError: the bundle has no head, fewer than two nameplates or no maps, or its index is damaged.
    """
    model.require_head()
    if not explainable(model):
        raise BundleError(f"'{model.bundle.manifest.name}' knows one nameplate alone: nothing speaks against another.")
    wanted = None if claimed is None else find_nameplate(model, claimed)
    source = as_source(photo, model.settings.limits)
    if not isinstance(source, np.ndarray):
        source = bytes_of(source, model.settings.limits)  # a file may be read only once
    shown = decode_photo(source, model.settings, (SHOWN // 2, SHOWN // 2))
    if isinstance(shown, UnreadablePhoto):
        raise PhotoError(shown.failure.reason, shown.failure.detail)
    [mapped] = photo_maps(model, [source])
    if isinstance(mapped, UnreadablePhoto):
        raise PhotoError(mapped.failure.reason, mapped.failure.detail)
    name = photo_name(photo, 0) if isinstance(photo, (str, os.PathLike)) else ""
    return replace(explain_mapped(model, mapped, shown.pixels, wanted), photo=name)


def explainable(model: Model) -> bool:
    """Whether a model knows two nameplates at least, so that something can speak for one and against the other."""
    return len(model.nameplates) > 1


def explain_mapped(model: Model, mapped: MappedPhoto, pixels: Pixels, wanted: int | None = None) -> Explanation:
    """`explain` for a photo whose map is computed.

    Args:
        model: with a head, of two nameplates at least.
        mapped: by this model's backbone.
        pixels: the upright photo to show, uint8 H×W×3, of any size.
        wanted: which of `model.nameplates` is claimed; None where none is.
    """
    photo = mapped.photo
    sides = photo.file.upright
    probs = model.probabilities(photo.embedding[None], photo.runtime)[0]
    ranked = np.argsort(-probs, kind="stable")[:TOP].tolist()
    index = read_index(model.bundle)

    def case(number: int) -> Case:
        grid = evidence(model, mapped.places, number, photo.runtime)
        box = hot_region(grid)
        faint = mean_inside(grid, box) < FAINT * np.abs(grid).max()
        region = None if faint else in_photo(box, *sides, model.bundle.manifest.preprocess)
        return Case(model.nameplates[number], float(probs[number]), grid, region)

    return Explanation(
        "",
        pixels,
        *sides,
        case(ranked[0]),
        None if wanted is None else case(wanted),
        with_flaws(model.judged("", probs, photo.embedding), flaws(photo.quality)).verdict,
        tuple((model.nameplates[i], float(probs[i])) for i in ranked),
        None if index is None else nearest(index, photo.embedding, NEIGHBOURS),
    )


def find_nameplate(model: Model, name: str) -> int:
    """Which nameplate is meant: by its class id, its name, or words that no other has.

    Raises:
        UsageError: the model knows none of that name, or several.
    """
    name, ids = nfc(name), [nfc(id_) for id_ in model.bundle.manifest.ids]
    if name in ids:
        return ids.index(name)
    meant = read_claim(name, model.nameplates, model.makes).nameplates
    if name not in meant and len(meant) > 1:
        raise UsageError(f"'{name}' may be any of {len(meant)} nameplates, such as {', '.join(meant[:3])}. Name one.")
    return model.nameplates.index(name if name in meant else meant[0])
