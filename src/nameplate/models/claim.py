"""Claims: does an advert show the car that it names? From all its photos together.

A claim names one nameplate, or several ("BMW X5" where the model knows two of them), or a whole make. Its score is
the probability of these nameplates, averaged over the photos that show a car (a linear opinion pool: M. Stone, "The
Opinion Pool", 1961), so that neither an interior shot nor one odd photo sinks it. Where some photos show cars that the
model knows, those of cars that it does not know, as a detail may look, are left out too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nameplate.errors import UsageError, did_you_mean
from nameplate.storage import nfc
from nameplate.types import Prediction

ClaimVerdict = Literal["accept", "reject", "unsure"]

RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Rates of false accepts, and of false rejects, for which a bundle holds thresholds."""
DEFAULT_RATE = 0.01
MOST_PHOTOS = 4
"""Adverts of more photos are cut as those of so many."""


@dataclass(frozen=True, slots=True)
class ClaimThresholds:
    """Where scores of claims are cut, for adverts of 1 … `MOST_PHOTOS` photos that show a car, at each of `RATES`."""

    photos: int
    """Held-out photos that chose them."""
    accept: tuple[tuple[float, ...], ...]
    """A wrong claim's score is above it at that rate, half of the wrong claims being of the same make."""
    reject: tuple[tuple[float, ...], ...]
    """A true claim's score is below it at that rate."""

    @property
    def usable(self) -> bool:
        """Whether it has the right form."""
        rows = (*self.accept, *self.reject)
        return len(self.accept) == len(self.reject) == MOST_PHOTOS and all(
            len(row) == len(RATES) and bool(np.isfinite(row).all()) for row in rows
        )

    def at(self, photos: int, rate: float) -> tuple[float, float]:
        """Accept above the first, reject below the second, for an advert of so many photos and a rate between those
        of `RATES` (interpolated between logarithms).
        """
        place = min(max(photos, 1), MOST_PHOTOS) - 1
        x = [math.log(each) for each in RATES]
        accept, reject = (float(np.interp(math.log(rate), x, row[place])) for row in (self.accept, self.reject))
        return accept, min(reject, accept)


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim says, in the model's own names."""

    claimed: str
    nameplates: tuple[str, ...]
    whole_make: bool
    """Whether these are all nameplates of a make, or more: then the thresholds for makes hold."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What became of a claim."""

    claimed: str
    nameplates: tuple[str, ...]
    """The model's nameplates that it may mean."""
    verdict: ClaimVerdict
    score: float | None
    """Probability of the claim over the photos that show a car, 0–1; None where none does."""
    reason: str
    photos: tuple[tuple[Prediction, float | None], ...]
    """Each photo's prediction, and the claim's probability on it; None where the photo was left out."""


def read_claim(claimed: str, nameplates: Sequence[str], makes: Sequence[str]) -> Claimed:
    """Find the nameplates that a claim may mean: the one of that name, else all that have each of its words.

    Raises:
        UsageError: none has; names the nearest.
    """
    exact = [name for name in nameplates if _words(name) == _words(claimed)]
    wanted = set(_words(claimed))
    found = exact or [name for name in nameplates if wanted and wanted <= set(_words(name))]
    if not found:
        raise UsageError(
            f"The model knows no nameplate '{claimed}'.{did_you_mean(claimed, nameplates)} "
            "It can verify only what it was trained on, or a make of it."
        )
    of_make = {make for name, make in zip(nameplates, makes, strict=True) if name in found}
    whole = all(name in found for name, make in zip(nameplates, makes, strict=True) if make in of_make)
    return Claimed(claimed, tuple(found), whole)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", nfc(text).casefold())


def check_rate(rate: float) -> None:
    """
    Raises:
        UsageError: not between the least and the greatest of `RATES`.
    """
    if not RATES[0] <= rate <= RATES[-1]:
        raise UsageError(f"The rate of false accepts is {rate}; give one from {RATES[0]} to {RATES[-1]}.")


def decide(
    claim: Claimed,
    photos: Sequence[tuple[Prediction, float | None]],
    thresholds: ClaimThresholds | None,
    rate: float = DEFAULT_RATE,
) -> Verified:
    """Judge a claim by all photos of an advert.

    Args:
        claim: what it says.
        photos: each photo's prediction, and the probability that it shows what is claimed (None: unreadable).
        thresholds: of nameplates, or of makes where the claim is one; None where nothing chose them: then a score of
            1 - rate is accepted and one of `rate` rejected.
        rate: of false accepts, and of false rejects.
    """
    usable = _usable([p for p, _ in photos])
    used = [(p, chance) for p, chance in photos if chance is not None and p.verdict in usable]
    shown = tuple((p, chance if p.verdict in usable else None) for p, chance in photos)
    if not used:
        unreadable = all(p.verdict == "unreadable" for p, _ in photos)
        why = "no photo can be read" if unreadable else "no photo shows a car"
        return Verified(claim.claimed, claim.nameplates, "unsure", None, why, shown)
    score = float(np.mean([chance for _, chance in used]))
    accept, reject = thresholds.at(len(used), rate) if thresholds else (1 - rate, rate)
    verdict: ClaimVerdict = "accept" if score > accept else "reject" if score < reject else "unsure"
    reason = (
        f"{score:.3f} on {len(used)} of {len(photos)} photos; accepted above {accept:.3g}, rejected below {reject:.3g}"
    )
    if verdict == "accept" and all(p.verdict == "unknown car" for p, _ in used):
        verdict, reason = "unsure", f"{reason}; but every photo looks like a car that the model does not know"
    return Verified(claim.claimed, claim.nameplates, verdict, score, reason, shown)


def _usable(photos: Sequence[Prediction]) -> tuple[str, ...]:
    """Verdicts of the photos that count: a detail or an interior, which may pass for a car that is not known, does not
    where another photo shows a known one.
    """
    known = ("answer", "unsure")
    return known if any(photo.verdict in known for photo in photos) else ("unknown car",)


def unreadable_claim(claimed: str, photos: Sequence[Prediction], reason: str) -> Verified:
    """What becomes of a claim that cannot be judged, for a job that goes on."""
    return Verified(claimed, (), "unsure", None, reason, tuple((prediction, None) for prediction in photos))
