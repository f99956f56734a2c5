"""Verification of a claim: whether the photos of an advert, taken together, show the car that it names.

A claim names one nameplate, several ("BMW X5" where the model knows two of them), or a whole make. Its score is the
probability of these nameplates, averaged over the photos that show a car (a linear opinion pool: M. Stone, "The
Opinion Pool", 1961). So neither an interior nor a single odd photo decides alone. A detail of a car can look like an
unknown car; where other photos show known cars, unknown ones are therefore left out as well. One photo that certainly
shows another car is enough to prevent acceptance, however probable the claim is on the others.

The main car of each photo decides. A car in the background that may be the claimed one never accepts a claim; it only
turns a rejection into `unsure`, because the photographer may have meant that one. And a car of another make that stands
large beside the claimed one turns an acceptance into `unsure`.

The last part holds the JSON form of predictions and verified claims, which the command line, tables and HTTP share.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, get_args

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from nameplate.errors import UsageError, did_you_mean
from nameplate.storage import nfc
from nameplate.types import Flaw, PixelBox, Prediction, Verdict, Why

ClaimVerdict = Literal["accept", "reject", "unsure"]
ClaimCode = Literal[
    "score", "another car", "unknown car", "background", "no car", "poor photo", "unreadable", "unknown claim"
]
"""What decided on a claim, for programs; `Verified.reason` says it in a sentence."""
Lies = Literal["mixed", "random", "same-make", "alike"]
"""The kind of wrong claims that a false accept rate refers to: `random` names a nameplate of another make, `same-make`
another nameplate of the same make, `alike` the nameplate that the model confuses with the true one most often, and
`mixed` is `random` and `same-make` in equal parts."""

RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""The false accept rates, and false reject rates, for which a bundle holds thresholds."""
DEFAULT_RATE = 0.01
DEFAULT_LIES: Lies = "mixed"
NAMED = 3
"""A reason names so many photos of other cars, and counts the rest."""
CLAIM_CHARACTERS = 200
"""The most characters of a claim; every name of a car is shorter."""
BESIDE = 0.25
"""A car is shown as clearly as the main one, beside it and not in the background, if its box has at least this share of
the area. Of 191 scenes of real adverts, none has such a car."""
MOST_PHOTOS = 4
"""Adverts of more photos use the thresholds for so many."""


@dataclass(frozen=True, slots=True)
class ClaimThresholds:
    """Quantiles of the scores of claims: a row for adverts of 1 … `MOST_PHOTOS` photos that show a car, a column for
    each of `RATES`. The fields are keys in bundle.json, so their names stay.
    """

    photos: int
    """Number of held-out photos that they were chosen on."""
    accept: tuple[tuple[float, ...], ...]
    """At each rate, the score that this share of `mixed` wrong claims exceeds."""
    reject: tuple[tuple[float, ...], ...]
    """At each rate, the score that this share of true claims stays below."""
    lies: dict[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)
    """`accept` for the other kinds of wrong claims. It is empty in older bundles, and lacks "same-make" where no make
    has two nameplates."""

    @property
    def usable(self) -> bool:
        """Whether the tables have the right shape and hold finite numbers."""
        tables = (self.accept, self.reject, *self.lies.values())
        return set(self.lies) <= set(get_args(Lies)) and all(
            len(table) == MOST_PHOTOS and all(len(row) == len(RATES) and np.isfinite(row).all() for row in table)
            for table in tables
        )

    def against(self, lies: Lies) -> tuple[tuple[float, ...], ...]:
        """`accept` for a kind of wrong claims.

        Raises:
            UsageError: the bundle has no thresholds for this kind.
        """
        if lies == DEFAULT_LIES:
            return self.accept
        if lies not in self.lies:
            there = ", ".join((DEFAULT_LIES, *self.lies))
            raise UsageError(
                f"This model has no thresholds for wrong claims of the kind '{lies}', only for: {there}. "
                "Choose one of these, or train the model again."
            )
        return self.lies[lies]

    def at(self, photos: int, rate: float, lies: Lies = DEFAULT_LIES) -> tuple[float, float]:
        """The scores above which a claim is accepted, and below which it is rejected.

        Between two of `RATES` the thresholds are interpolated over the logarithm of the rate. A claim is accepted if
        its score is above both quantiles at this rate, that of wrong claims and that of true ones, and rejected if it
        is below both. So the allowed false accepts are not used up where they would hardly accept more true claims.

        Args:
            photos: number of photos that show a car.
            rate: of false accepts and of false rejects, within `RATES`.
            lies: the kind of wrong claims that the rate refers to.
        """
        accept, reject = (_at(table, photos, rate) for table in (self.against(lies), self.reject))
        return max(accept, reject), min(accept, reject)

    def improbable(self, rate: float) -> float:
        """The probability of a claim that only this share of the single photos that do show it fall below."""
        return _at(self.reject, 1, rate)

    def passed(self, photos: int, score: float) -> dict[str, float]:
        """Kind of wrong claims → the share of them that exceeds a score, clipped to the ends of `RATES`."""
        found: dict[str, float] = {}
        for lies, table in {DEFAULT_LIES: self.accept, **self.lies}.items():
            falling = table[_row(photos)]  # the higher the rate, the lower the score; `interp` wants rising values
            log_rate = np.interp(score, falling[::-1], [math.log(rate) for rate in RATES[::-1]])
            found[lies] = float(f"{math.exp(float(log_rate)):.2g}")
        return found


def _row(photos: int) -> int:
    return min(max(photos, 1), MOST_PHOTOS) - 1


def _at(table: Sequence[Sequence[float]], photos: int, rate: float) -> float:
    return float(np.interp(math.log(rate), [math.log(each) for each in RATES], table[_row(photos)]))


@dataclass(frozen=True, slots=True)
class Claimed:
    """A claim in terms of the model's nameplates."""

    claimed: str
    nameplates: tuple[str, ...]
    whole_make: bool
    """Whether these are all nameplates of one or more makes; then the thresholds for makes apply."""
    makes: tuple[str, ...] = ()
    """The makes of these nameplates, each once."""


@dataclass(frozen=True, slots=True)
class Verified:
    """The outcome of verifying a claim."""

    claimed: str
    nameplates: tuple[str, ...]
    """The model's nameplates that the claim may mean."""
    verdict: ClaimVerdict
    score: float | None
    """Mean probability of the claim over the photos that show a car, 0–1; None where no photo does."""
    reason: str
    photos: tuple[tuple[Prediction, float | None], ...]
    """Each photo's prediction, and the claim's probability on it; None where the photo was left out."""
    code: ClaimCode = "score"
    """What decided, for programs."""
    accept_above: float | None = None
    """The score that a claim must exceed to be accepted; None where there is no score."""
    reject_below: float | None = None
    false_accepts: dict[str, float] = field(default_factory=dict)
    """Kind of wrong claims → the share of them that exceeds `accept_above`, measured on held-out photos; empty where
    that was not measured."""


class UnknownClaimError(UsageError):
    """The model knows no nameplate that the claim may mean, so it cannot verify the claim."""


def read_claim(claimed: str, nameplates: Sequence[str], makes: Sequence[str]) -> Claimed:
    """Find the nameplates that a claim may mean: the one of that name, otherwise all that contain each of its words.

    Raises:
        UnknownClaimError: there is none, and the message suggests the most similar name; or the claim is too long.
    """
    if len(claimed) > CLAIM_CHARACTERS:
        raise UnknownClaimError(
            f"The claim has {len(claimed):,} characters; {CLAIM_CHARACTERS} are the most. Give the car's name alone."
        )
    words = _words(claimed)
    known = _words_of(tuple(nameplates))
    exact = [name for name, its in zip(nameplates, known, strict=True) if its == words]
    # An exact name comes first: "BMW 3" must not also mean a "BMW 3 Series Wagon".
    found = exact or [name for name, its in zip(nameplates, known, strict=True) if words and set(words) <= set(its)]
    if not found:
        raise UnknownClaimError(
            f"The model knows no nameplate '{claimed}'.{did_you_mean(claimed, nameplates)} "
            "It can verify only what it was trained on, or a make of it."
        )
    # The thresholds for makes apply only if the claim covers every nameplate of its makes.
    of_make = {make for name, make in zip(nameplates, makes, strict=True) if name in found}
    whole = all(name in found for name, make in zip(nameplates, makes, strict=True) if make in of_make)
    return Claimed(claimed, tuple(found), whole, tuple(sorted(of_make)))


def _words(text: str) -> list[str]:
    """Words of letters and digits, in lower case and normal form C; an underscore separates words as a space does."""
    return re.findall(r"[^\W_]+", nfc(text).casefold())


@lru_cache(maxsize=16)
def _words_of(names: tuple[str, ...]) -> tuple[list[str], ...]:
    """`_words` of each name, which are computed once for each model."""
    return tuple(map(_words, names))


def check_rate(rate: float, lies: Lies = DEFAULT_LIES, thresholds: ClaimThresholds | None = None) -> None:
    """Check a rate and a kind of wrong claims before any work is done.

    Raises:
        UsageError: the rate is outside `RATES`, there is no such kind, or the thresholds do not cover it.
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
    """Decide on a claim from all photos of an advert.

    Args:
        claim: what is claimed.
        photos: each photo's prediction, and the probability that it shows what is claimed (None: unreadable).
        thresholds: those for nameplates, or those for makes if a make is claimed. None where there were no photos to
            choose them on: then a score above 1 - rate is accepted and one below `rate` rejected.
        rate: of false accepts, and of false rejects.
        lies: the kind of wrong claims that the rate refers to.

    Raises:
        UsageError: the thresholds do not cover such wrong claims.
    """
    usable = _usable([p for p, _ in photos])
    used = [(p, prob) for p, prob in photos if prob is not None and p.verdict in usable]
    shown = tuple((p, prob if p.verdict in usable else None) for p, prob in photos)
    if not used:
        code, why = _without_score([p for p, _ in photos])
        return Verified(claim.claimed, claim.nameplates, "unsure", None, why, shown, code)
    score = float(np.mean([prob for _, prob in used]))
    accept, reject = thresholds.at(len(used), rate, lies) if thresholds else (1 - rate, rate)
    # Both comparisons are strict: a score at a threshold is `unsure`.
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
    """Why no photo of an advert counts: the code, and a sentence."""
    if all(photo.verdict == "unreadable" for photo in photos):
        return "unreadable", "no photo can be read"
    poor = [photo.flawed for photo in photos if photo.verdict == "poor photo"]
    if poor:
        return "poor photo", f"no photo is good enough to judge by: {', '.join(dict.fromkeys(poor))}"
    return "no car", "no photo shows a car"


def _held_back(
    claim: Claimed, verdict: ClaimVerdict, photos: Sequence[tuple[Prediction, float]], improbable: float
) -> tuple[ClaimVerdict, ClaimCode, str]:
    """Turn an acceptance into `unsure` where a single photo contradicts it, and a rejection where the claimed car may
    be in the background of one.

    Returns:
        The verdict, what decided, and a clause for the reason, which is empty where nothing contradicts.
    """
    others = [
        (photo, other)
        for photo, prob in photos
        if (other := _surely_other(claim, photo, improbable=prob < improbable)) is not None
    ]
    background = [photo.photo for photo, _ in photos if _in_background(claim, photo)]
    if verdict == "reject" and background:
        return "unsure", "background", f"but it may be another car in the background of '{background[0]}'"
    if verdict == "accept":
        others += [(photo, f"{other} too") for photo, _ in photos for other in _beside(claim, photo)]
    held = "unsure" if verdict == "accept" else verdict  # a rejection stays a rejection
    if others:
        named = [f"'{photo.photo}' shows {other}" for photo, other in others[:NAMED]]
        more = [f"{len(others) - NAMED:,} more show other cars"] if len(others) > NAMED else []
        return held, "another car", "but " + ", and ".join([*named, *more])
    if verdict == "accept" and all(photo.verdict == "unknown car" for photo, _ in photos):
        return held, "unknown car", "but every photo looks like a car that the model does not know"
    return verdict, "score", ""


def _in_background(claim: Claimed, photo: Prediction) -> bool:
    """Whether a car besides the main one may be the claimed one: a nameplate of the claim is in its prediction set."""
    return any(set(car.candidates) & set(claim.nameplates) for car in (photo.cars or ())[1:])


def _beside(claim: Claimed, photo: Prediction) -> list[str]:
    """The cars of other makes that a photo certainly shows beside its main car, about as large."""
    main, *more = photo.cars or (photo,)
    large = [car for car in more if _area(car.box) >= BESIDE * _area(main.box) > 0]
    return [other for car in large if (other := _surely_other(claim, car, improbable=False)) is not None]


def _area(box: PixelBox | None) -> int:
    return 0 if box is None else (box.right - box.left) * (box.bottom - box.top)


def _surely_other(claim: Claimed, photo: Prediction, *, improbable: bool) -> str | None:
    """The car outside the claim that a photo certainly shows: a nameplate or a make; None where there is none.

    An answer of another make is certain by itself. Another nameplate of the same make, or a make without a nameplate,
    is certain only where the claim is `improbable` on this photo. Otherwise one true photo in twenty would contradict
    its own claim, because a prediction set misses the truth that often.
    """
    if photo.verdict == "answer" and photo.nameplate not in claim.nameplates:
        return photo.nameplate if improbable or photo.make not in claim.makes else None
    if photo.verdict == "unsure" and photo.make is not None and photo.make not in claim.makes:
        return f"some {photo.make}" if improbable else None
    return None


def _usable(photos: Sequence[Prediction]) -> tuple[str, ...]:
    """The verdicts whose photos count.

    A detail or an interior may be taken for an unknown car, so unknown cars count only where no photo shows a known
    one. A poor photo never counts: it is evidence neither for nor against a claim.
    """
    known = ("answer", "unsure")
    return known if any(photo.verdict in known for photo in photos) else ("unknown car",)


def unreadable_claim(claimed: str, photos: Sequence[Prediction], reason: str) -> Verified:
    """The outcome for a claim that cannot be verified, in a job that continues with other adverts."""
    shown = tuple((prediction, None) for prediction in photos)
    return Verified(claimed, (), "unsure", None, f"unknown claim: {reason}", shown, "unknown claim")


# The JSON form of predictions and claims. The service's OpenAPI document is generated from these structs. Fields appear
# in the JSON in this order, and a field that is `UNSET` is left out of it.


class Ranked(msgspec.Struct, frozen=True):
    """A nameplate and its calibrated probability."""

    nameplate: str
    confidence: float


class HeatMap(msgspec.Struct, frozen=True):
    """Where in the photo the evidence for a nameplate lies."""

    nameplate: str
    region: PixelBox | None
    width: int
    height: int
    evidence: list[list[float]]
    png: bytes


class Car(msgspec.Struct, frozen=True, kw_only=True):
    """One car of a photo; `box` is null where the whole photo was named."""

    nameplate: str | None
    confidence: float | None
    verdict: Verdict
    candidates: tuple[str, ...]
    make: str | None
    make_confidence: float | None
    model: str | None
    model_confidence: float | None
    body: str | None
    years: str | None
    top: tuple[Ranked, ...]
    box: PixelBox | None
    flaws: tuple[Flaw, ...] | UnsetType = UNSET


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One photo, as `nameplate identify --json` prints it; `cars` is there where all cars were asked for."""

    photo: str
    nameplate: str | None
    confidence: float | None
    verdict: Verdict
    candidates: tuple[str, ...]
    make: str | None
    make_confidence: float | None
    model: str | None
    model_confidence: float | None
    body: str | None
    years: str | None
    top: tuple[Ranked, ...]
    box: PixelBox | None
    why: Why | UnsetType = UNSET
    flaws: tuple[Flaw, ...] | UnsetType = UNSET
    error: str | UnsetType = UNSET
    cars: tuple[Car, ...] | UnsetType = UNSET
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
    """The JSON form of a prediction; `heatmap` is left out unless one was asked for, and is then a heat map or null."""
    return Row(
        photo=prediction.photo,
        **msgspec.structs.asdict(_car_json(prediction)),
        why=prediction.why or UNSET,
        error=prediction.error or UNSET,
        cars=UNSET if prediction.cars is None else tuple(map(_car_json, prediction.cars)),
        heatmap=heatmap,
    )


def _car_json(prediction: Prediction) -> Car:
    return Car(
        nameplate=prediction.nameplate,
        confidence=prediction.confidence,
        verdict=prediction.verdict,
        candidates=prediction.candidates,
        make=prediction.make,
        make_confidence=prediction.make_confidence,
        model=prediction.model,
        model_confidence=prediction.model_confidence,
        body=prediction.body,
        years=prediction.years,
        top=tuple(Ranked(name, probability) for name, probability in prediction.top),
        box=prediction.box,
        flaws=prediction.flaws or UNSET,
    )


def verified_json(found: Verified) -> VerifiedAdvert:
    """The JSON form of a verified claim: claim, verdict, and each photo's prediction and score."""
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
