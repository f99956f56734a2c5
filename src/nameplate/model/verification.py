"""Claims: does an advert show the car that it names? From all its photos together.

A claim names one nameplate, or several ("BMW X5" where the model knows two of them), or a whole make. Its score is
the probability of these nameplates, averaged over the photos that show a car (a linear opinion pool: M. Stone, "The
Opinion Pool", 1961), so that neither an interior shot nor one odd photo sinks it. Where some photos show cars that the
model knows, those of cars that it does not know, as a detail may look, are left out too. A photo that surely shows
another car speaks against the advert however sure the others are: such an advert is never accepted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from nameplate.errors import UsageError, did_you_mean
from nameplate.storage import nfc
from nameplate.types import Flaw, Prediction, Verdict

ClaimVerdict = Literal["accept", "reject", "unsure"]
ClaimCode = Literal["score", "another car", "unknown car", "no car", "poor photo", "unreadable", "unknown claim"]
"""Why a claim got its verdict, in one word; `Verified.reason` says it in a sentence."""
Lies = Literal["mixed", "random", "same-make", "alike"]
"""Wrong claims that a rate of false accepts is of: half of them of the same make; of any other nameplate; of another
one of the same make; of the one that the model takes such photos for most often."""

RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Rates of false accepts, and of false rejects, for which a bundle holds thresholds."""
DEFAULT_RATE = 0.01
DEFAULT_LIES: Lies = "mixed"
NAMED = 3
"""Photos of other cars that a reason names; the rest are counted."""
MOST_PHOTOS = 4
"""Adverts of more photos are cut as those of so many."""


@dataclass(frozen=True, slots=True)
class ClaimThresholds:
    """Quantiles of the scores of claims, for adverts of 1 … `MOST_PHOTOS` photos that show a car, at each of
    `RATES`.
    """

    photos: int
    """Held-out photos that chose them."""
    accept: tuple[tuple[float, ...], ...]
    """A wrong claim's score is above it at that rate, half of the wrong claims being of the same make."""
    reject: tuple[tuple[float, ...], ...]
    """A true claim's score is below it at that rate."""
    lies: dict[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)
    """`accept` for other `Lies` than mixed ones; empty in bundles of before that was asked, and without "same-make"
    where no make has two nameplates."""

    @property
    def usable(self) -> bool:
        """Whether it has the right form."""
        tables = (self.accept, self.reject, *self.lies.values())
        return set(self.lies) <= set(get_args(Lies)) and all(
            len(table) == MOST_PHOTOS and all(len(row) == len(RATES) and np.isfinite(row).all() for row in table)
            for table in tables
        )

    def against(self, lies: Lies) -> tuple[tuple[float, ...], ...]:
        """`accept` for wrong claims of a kind.

        Raises:
            UsageError: the bundle does not say.
        """
        if lies == DEFAULT_LIES:
            return self.accept
        if lies not in self.lies:
            there = ", ".join((DEFAULT_LIES, *self.lies))
            raise UsageError(
                f"This model does not know how often {lies} wrong claims are accepted, only of these: {there}. "
                "Ask for one of them, or train it again."
            )
        return self.lies[lies]

    def at(self, photos: int, rate: float, lies: Lies = DEFAULT_LIES) -> tuple[float, float]:
        """Accept above the first, reject below the second, for an advert of so many photos and a rate between those
        of `RATES` (interpolated between logarithms).

        A claim is accepted where neither such a lie would score so high nor a true claim so low at that rate, and
        rejected where both would: what a false claim may cost is not spent where that gains nothing.
        """
        accept, reject = (_at(table, photos, rate) for table in (self.against(lies), self.reject))
        return max(accept, reject), min(accept, reject)

    def improbable(self, rate: float) -> float:
        """The probability that a claim has on less than that share of the single photos that do show it."""
        return _at(self.reject, 1, rate)

    def passed(self, photos: int, score: float) -> dict[str, float]:
        """Lies → share of such wrong claims that score above a number, within the first and the last of `RATES`."""
        found: dict[str, float] = {}
        for lies, table in {DEFAULT_LIES: self.accept, **self.lies}.items():
            falling = table[_place(photos)]
            log_rate = np.interp(score, falling[::-1], [math.log(rate) for rate in RATES[::-1]])
            found[lies] = float(f"{math.exp(float(log_rate)):.2g}")
        return found


def _place(photos: int) -> int:
    return min(max(photos, 1), MOST_PHOTOS) - 1


def _at(table: Sequence[Sequence[float]], photos: int, rate: float) -> float:
    return float(np.interp(math.log(rate), [math.log(each) for each in RATES], table[_place(photos)]))


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim says, in the model's own names."""

    claimed: str
    nameplates: tuple[str, ...]
    whole_make: bool
    """Whether these are all nameplates of a make, or more: then the thresholds for makes hold."""
    makes: tuple[str, ...] = ()
    """Of these nameplates, each once."""


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
    code: ClaimCode = "score"
    """What decided."""
    accept_above: float | None = None
    """The score that an advert of so many photos must have; None where there is no score."""
    reject_below: float | None = None
    false_accepts: dict[str, float] = field(default_factory=dict)
    """Lies → share of such wrong claims that score above `accept_above`, as told on held-out photos; empty where that
    is not known."""


class UnknownClaimError(UsageError):
    """The model knows nothing of the name that is claimed, so that it can say nothing of it."""


def read_claim(claimed: str, nameplates: Sequence[str], makes: Sequence[str]) -> Claimed:
    """Find the nameplates that a claim may mean: the one of that name, else all that have each of its words.

    Raises:
        UnknownClaimError: none has; names the nearest.
    """
    exact = [name for name in nameplates if _words(name) == _words(claimed)]
    wanted = set(_words(claimed))
    found = exact or [name for name in nameplates if wanted and wanted <= set(_words(name))]
    if not found:
        raise UnknownClaimError(
            f"The model knows no nameplate '{claimed}'.{did_you_mean(claimed, nameplates)} "
            "It can verify only what it was trained on, or a make of it."
        )
    of_make = {make for name, make in zip(nameplates, makes, strict=True) if name in found}
    whole = all(name in found for name, make in zip(nameplates, makes, strict=True) if make in of_make)
    return Claimed(claimed, tuple(found), whole, tuple(sorted(of_make)))


def _words(text: str) -> list[str]:
    """Letters and digits that stand together, in any case, composed alike; an underscore parts words like a space."""
    return re.findall(r"[^\W_]+", nfc(text).casefold())


def check_rate(rate: float, lies: Lies = DEFAULT_LIES, thresholds: ClaimThresholds | None = None) -> None:
    """
    Raises:
        UsageError: not between the least and the greatest of `RATES`, no kind of lies, or one of which these thresholds
            say nothing.
    """
    if lies not in get_args(Lies):
        raise UsageError(f"Unknown wrong claims '{lies}'. There are {', '.join(get_args(Lies))}.")
    if thresholds is not None:
        thresholds.against(lies)
    if not RATES[0] <= rate <= RATES[-1]:
        raise UsageError(f"The rate of false accepts is {rate}; give one from {RATES[0]} to {RATES[-1]}.")


def decide(
    claim: Claimed,
    photos: Sequence[tuple[Prediction, float | None]],
    thresholds: ClaimThresholds | None,
    rate: float = DEFAULT_RATE,
    lies: Lies = DEFAULT_LIES,
) -> Verified:
    """Judge a claim by all photos of an advert.

    Args:
        claim: what it says.
        photos: each photo's prediction, and the probability that it shows what is claimed (None: unreadable).
        thresholds: of nameplates, or of makes where the claim is one; None where nothing chose them: then a score of
            1 - rate is accepted and one of `rate` rejected.
        rate: of false accepts, and of false rejects.
        lies: the wrong claims that the rate is of.

    Raises:
        UsageError: the thresholds say nothing of such lies.
    """
    usable = _usable([p for p, _ in photos])
    used = [(p, chance) for p, chance in photos if chance is not None and p.verdict in usable]
    shown = tuple((p, chance if p.verdict in usable else None) for p, chance in photos)
    if not used:
        code, why = _without_score([p for p, _ in photos])
        return Verified(claim.claimed, claim.nameplates, "unsure", None, why, shown, code)
    score = float(np.mean([chance for _, chance in used]))
    accept, reject = thresholds.at(len(used), rate, lies) if thresholds else (1 - rate, rate)
    verdict: ClaimVerdict = "accept" if score > accept else "reject" if score < reject else "unsure"
    reason = (
        f"{score:.3f} on {len(used)} of {len(photos)} photos; accepted above {accept:.3g}, rejected below {reject:.3g}"
    )
    improbable = thresholds.improbable(rate) if thresholds else rate
    verdict, code, but = _held_back(claim, verdict, used, improbable)
    return Verified(
        claim.claimed,
        claim.nameplates,
        verdict,
        score,
        f"{reason}; {but}" if but else reason,
        shown,
        code,
        accept,
        reject,
        thresholds.passed(len(used), accept) if thresholds else {},
    )


def _without_score(photos: Sequence[Prediction]) -> tuple[ClaimCode, str]:
    """Why no photo of an advert counts: in one word, and as a sentence."""
    if all(photo.verdict == "unreadable" for photo in photos):
        return "unreadable", "no photo can be read"
    poor = [photo.flawed for photo in photos if photo.verdict == "poor photo"]
    if poor:
        return "poor photo", f"no photo is good enough to judge by: {', '.join(dict.fromkeys(poor))}"
    return "no car", "no photo shows a car"


def _held_back(
    claim: Claimed, verdict: ClaimVerdict, photos: Sequence[tuple[Prediction, float]], improbable: float
) -> tuple[ClaimVerdict, ClaimCode, str]:
    """The verdict, less an acceptance that single photos speak against; what decided, and that in words."""
    others = [
        (photo, other)
        for photo, chance in photos
        if (other := _surely_other(claim, photo, improbable=chance < improbable)) is not None
    ]
    held = "unsure" if verdict == "accept" else verdict
    if others:
        named = [f"'{photo.photo}' shows {other}" for photo, other in others[:NAMED]]
        more = [f"{len(others) - NAMED:,} more show other cars"] if len(others) > NAMED else []
        return held, "another car", "but " + ", and ".join([*named, *more])
    if verdict == "accept" and all(photo.verdict == "unknown car" for photo, _ in photos):
        return held, "unknown car", "but every photo looks like a car that the model does not know"
    return verdict, "score", ""


def _surely_other(claim: Claimed, photo: Prediction, *, improbable: bool) -> str | None:
    """The car outside the claim that a photo surely shows: its one nameplate, or its make; None where it may be it.

    An answer of another make is sure by itself. A sister nameplate, or a make without a nameplate, is so where the
    claim is as improbable as it is on few photos that do show it: else one honest photo in twenty would speak
    against itself.
    """
    if photo.verdict == "answer" and photo.nameplate not in claim.nameplates:
        return photo.nameplate if improbable or photo.make not in claim.makes else None
    if photo.verdict == "unsure" and photo.make is not None and photo.make not in claim.makes:
        return f"some {photo.make}" if improbable else None
    return None


def _usable(photos: Sequence[Prediction]) -> tuple[str, ...]:
    """Verdicts of the photos that count: a detail or an interior, which may pass for a car that is not known, does not
    where another photo shows a known one. A poor photo never counts: it speaks neither for a claim nor against it.
    """
    known = ("answer", "unsure")
    return known if any(photo.verdict in known for photo in photos) else ("unknown car",)


def unreadable_claim(claimed: str, photos: Sequence[Prediction], reason: str) -> Verified:
    """What becomes of a claim that cannot be judged, for a job that goes on."""
    shown = tuple((prediction, None) for prediction in photos)
    return Verified(claimed, (), "unsure", None, f"unknown claim: {reason}", shown, "unknown claim")


# JOINED Answers as JSON shows them: on the command line, in tables and over HTTP alike.
#
# JOINED The structs are both what is encoded and what the service's OpenAPI document describes. A field that is `UNSET` is left
# JOINED out of the JSON; the fields stand in the JSON's order.


class Ranked(msgspec.Struct, frozen=True):
    """A nameplate and its calibrated probability."""

    nameplate: str
    confidence: float


class Region(msgspec.Struct, frozen=True):
    """A box in pixels of the upright photo."""

    left: int
    top: int
    right: int
    bottom: int


class HeatMap(msgspec.Struct, frozen=True):
    """What in the photo speaks for the nameplate."""

    nameplate: str
    region: Region | None
    width: int
    height: int
    evidence: list[list[float]]
    png: bytes


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One photo, as `nameplate identify --json` prints it."""

    photo: str
    nameplate: str | None
    confidence: float | None
    verdict: Verdict
    candidates: tuple[str, ...]
    make: str | None
    make_confidence: float | None
    top: tuple[Ranked, ...]
    flaws: tuple[Flaw, ...] | UnsetType = UNSET
    error: str | UnsetType = UNSET
    heatmap: HeatMap | UnsetType | None = UNSET


class VerifiedRow(Row, frozen=True, kw_only=True):
    """One photo of an advert; `score` is null where it was left out."""

    score: float | None


class VerifiedAdvert(msgspec.Struct, frozen=True, kw_only=True):
    """A claim that was verified, as `nameplate verify --json` prints it."""

    claimed: str
    nameplates: tuple[str, ...]
    verdict: ClaimVerdict
    code: ClaimCode
    score: float | None
    accept_above: float | None
    reject_below: float | None
    false_accepts: dict[str, float]
    reason: str
    photos: tuple[VerifiedRow, ...]


def prediction_json(prediction: Prediction, heatmap: HeatMap | UnsetType | None = UNSET) -> Row:
    """A prediction as JSON shows it everywhere; with a `heatmap`, which may be null, only where one was asked for."""
    return Row(
        photo=prediction.photo,
        nameplate=prediction.nameplate,
        confidence=prediction.confidence,
        verdict=prediction.verdict,
        candidates=prediction.candidates,
        make=prediction.make,
        make_confidence=prediction.make_confidence,
        top=tuple(Ranked(name, chance) for name, chance in prediction.top),
        flaws=prediction.flaws or UNSET,
        error=prediction.error or UNSET,
        heatmap=heatmap,
    )


def verified_json(found: Verified) -> VerifiedAdvert:
    """A verified claim as JSON shows it everywhere: claim, verdict, and each photo's prediction and score."""
    return VerifiedAdvert(
        claimed=found.claimed,
        nameplates=found.nameplates,
        verdict=found.verdict,
        code=found.code,
        score=found.score,
        accept_above=found.accept_above,
        reject_below=found.reject_below,
        false_accepts=found.false_accepts,
        reason=found.reason,
        photos=tuple(_scored(prediction, score) for prediction, score in found.photos),
    )


def _scored(prediction: Prediction, score: float | None) -> VerifiedRow:
    return VerifiedRow(**msgspec.structs.asdict(prediction_json(prediction)), score=score)
