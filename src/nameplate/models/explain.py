"""`explain`: what in a photo speaks for the nameplate that it is given, or for one that is claimed."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nameplate.errors import BundleError, PhotoError, UsageError
from nameplate.models.claim import read_claim
from nameplate.models.index import Neighbour, nearest, read_index
from nameplate.models.maps import Floats, MappedPhoto, evidence, hot_region, in_photo, mean_inside, photo_maps
from nameplate.models.model import Model
from nameplate.models.pipeline import Pixels, UnreadablePhoto, bytes_of, decode_photo
from nameplate.models.sources import PhotoLike, as_source, photo_name
from nameplate.models.verdict import with_flaws
from nameplate.photos.quality import flaws
from nameplate.storage import nfc
from nameplate.types import TOP, Verdict

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
    chances = model.probabilities(photo.embedding[None], photo.runtime)[0]
    ranked = np.argsort(-chances, kind="stable")[:TOP].tolist()
    index = read_index(model.bundle)

    def case(number: int) -> Case:
        grid = evidence(model, mapped.places, number, photo.runtime)
        box = hot_region(grid)
        faint = mean_inside(grid, box) < FAINT * np.abs(grid).max()
        region = None if faint else in_photo(box, *sides, model.bundle.manifest.preprocess)
        return Case(model.nameplates[number], float(chances[number]), grid, region)

    return Explanation(
        "",
        pixels,
        *sides,
        case(ranked[0]),
        None if wanted is None else case(wanted),
        with_flaws(model.judged("", chances, photo.embedding), flaws(photo.quality)).verdict,
        tuple((model.nameplates[i], float(chances[i])) for i in ranked),
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
