"""Paired tests of candidates that were evaluated on the same photos, and the sentences on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nameplate.evaluate.significance import LEVEL, holm, paired
from nameplate.report.compare import ComparisonRow, Pair
from nameplate.types import Floats, Metric, Photo

PairedOutcome = Literal["better", "worse", "within noise"]
"""The result of a paired test for one of the two candidates."""


@dataclass(frozen=True, slots=True)
class PairedAnswers:
    """The answers of one candidate to photos that did not train it.

    The field names are keys of judged/NAME.json, so they must not change.
    """

    photos: tuple[str, ...]
    """The keys of the photos, see `photo_keys`."""
    truths: tuple[str, ...]
    """The true nameplates."""
    named: tuple[str, ...]
    """The predicted nameplates."""
    chances: tuple[float, ...]
    """The calibrated probabilities of the true nameplates."""

    @property
    def right(self) -> dict[str, bool]:
        """Key of a photo → whether its prediction is right."""
        return {key: a == b for key, a, b in zip(self.photos, self.truths, self.named, strict=True)}


def answers(keys: Sequence[str], probs: Floats, classes: NDArray[np.int64], nameplates: Sequence[str]) -> PairedAnswers:
    """Make the answers from probabilities.

    Args:
        keys: the keys of the N photos.
        probs: float32 N×C.
        classes: int64 (N,), the true classes.
        nameplates: the nameplates of the C classes.
    """
    of_truth = probs[np.arange(len(classes)), classes]
    return PairedAnswers(
        tuple(keys),
        tuple(nameplates[c] for c in classes),
        tuple(nameplates[c] for c in probs.argmax(1)),
        tuple(round(float(prob), 6) for prob in of_truth),
    )


def photo_keys(photos: Sequence[Photo]) -> list[str]:
    """A key for each photo that does not depend on its path: its SHA-256, and a number if that occurs again."""
    seen: dict[str, int] = {}
    keys = []
    for photo in photos:
        digest = str(photo.sha256)
        seen[digest] = seen.get(digest, 0) + 1
        keys.append(digest if seen[digest] == 1 else f"{digest} {seen[digest]}")
    return keys


def pairs(found: Mapping[str, PairedAnswers], groups: Mapping[str, int], base: str | None = None) -> tuple[Pair, ...]:
    """Test every pair of candidates, or each candidate against a base, on the photos that both answered.

    Args:
        found: name → answers.
        groups: key of a photo → its group; the photos of a group count as one.
        base: the candidate that all others are tested against; None tests all pairs.
    """
    wanted = combinations(found, 2) if base is None else ((base, name) for name in found if name != base)
    raw = [pair for first, second in wanted if (pair := _pair(first, second, found, groups)) is not None]
    # Only tested pairs count: with a base there are fewer of them, and the correction is smaller.
    raised = holm([pair.p for pair in raw])
    return tuple(replace(pair, raised=float(p), told=bool(p < LEVEL)) for pair, p in zip(raw, raised, strict=True))


def _pair(first: str, second: str, found: Mapping[str, PairedAnswers], groups: Mapping[str, int]) -> Pair | None:
    one, two = found[first].right, found[second].right
    both = [key for key in one if key in two]
    if not both:
        return None
    test = paired([one[key] for key in both], [two[key] for key in both], [groups[key] for key in both])
    return Pair(
        first=first,
        second=second,
        photos=len(both),
        difference=test.difference,
        better=test.better,
        worse=test.worse,
        p=test.p,
        raised=test.p,
        told=test.significant,
        photos_to_tell=test.photos_to_tell,
    )


def ordered(rows: Sequence[ComparisonRow]) -> tuple[ComparisonRow, ...]:
    """The rows, best first (the lower log-loss decides between equals), and rows with errors last."""
    return tuple(sorted(rows, key=lambda row: (-row.top1.value, row.log_loss or 0) if row.top1 else (1, 0)))


def one_speed(rows: Sequence[ComparisonRow]) -> tuple[ComparisonRow, ...]:
    """The rows, in which all rows of one network at one input size get the highest speed that was measured for it."""
    # The speed is measured again for each row, and other load on the machine only makes it slower.
    best: dict[tuple[str, int | None, float | None], float] = {}
    for row in rows:
        network = row.backbone, row.parameters, row.gmacs
        best[network] = max(best.get(network, 0.0), row.photos_per_second or 0.0)
    return tuple(replace(row, photos_per_second=best[row.backbone, row.parameters, row.gmacs] or None) for row in rows)


def with_verdicts(
    rows: Sequence[ComparisonRow], found: Sequence[Pair], reference: str, base: bool
) -> tuple[ComparisonRow, ...]:
    """The rows, each with a sentence on its test against the reference."""
    return tuple(row if row.error else replace(row, verdict=_verdict(row.name, found, reference, base)) for row in rows)


def with_ranks(rows: Sequence[ComparisonRow], found: Sequence[Pair], base: bool) -> tuple[ComparisonRow, ...]:
    """The rows with their ranks, see `ComparisonRow.rank`; without any where they were tested against a base alone."""
    if base:
        return tuple(rows)
    better_than = {row.name: 0 for row in rows if row.error is None}
    for pair in found:
        if pair.told:
            better_than[pair.first if pair.difference.value > 0 else pair.second] += 1
    places = list(better_than.values())
    ranks = {name: f"{1 + place}{'=' * (places.count(place) > 1)}" for name, place in better_than.items()}
    return tuple(replace(row, rank=ranks.get(row.name, "")) for row in rows)


def _verdict(name: str, found: Sequence[Pair], reference: str, base: bool) -> str:
    if name == reference:
        return "the base" if base else "the best"
    pair = _test_of(name, found, reference)
    if pair is None:
        return ""
    away = _away(name, pair)
    outcome = _outcome(name, pair)
    if outcome == "within noise":
        return f"within noise of {reference} ({_points(away.value)} points, p {pair.raised:.2g})"
    points = abs(100 * away.value)
    return f"{outcome} than {reference} by {points:.1f} points ({_points(away.low)} to {_points(away.high)})"


def _test_of(name: str, found: Sequence[Pair], reference: str) -> Pair | None:
    return next((pair for pair in found if {pair.first, pair.second} == {name, reference}), None)


def _outcome(name: str, pair: Pair) -> PairedOutcome:
    if not pair.told:
        return "within noise"
    return "better" if _away(name, pair).value > 0 else "worse"


def _away(name: str, pair: Pair) -> Metric:
    """The top-1 of `name` minus that of the other candidate."""
    return pair.difference if pair.second == name else _turned(pair.difference)


def _turned(difference: Metric) -> Metric:
    return Metric(-difference.value, -difference.high, -difference.low)


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


def summary(rows: Sequence[ComparisonRow], found: Sequence[Pair], reference: str, base: bool) -> str:
    """One sentence: which candidate is best and which are within noise of it, or what each change of a base did."""
    others = [row.name for row in rows if row.error is None and row.name != reference]
    if not others:
        return f"Only {reference} could be evaluated, so there is nothing to compare it with."
    by_outcome: dict[PairedOutcome, list[str]] = {"better": [], "worse": [], "within noise": []}
    for name in others:
        if (pair := _test_of(name, found, reference)) is not None:
            by_outcome[_outcome(name, pair)].append(name)
    alike = by_outcome.pop("within noise")
    if base:
        parts = [f"{how} than {reference}: {', '.join(names)}" for how, names in by_outcome.items() if names]
        parts += [f"within noise of {reference}: {', '.join(alike)}"] if alike else []
        text = "; ".join(parts)
        return f"{text[:1].upper()}{text[1:]}."
    best = f"The best is {reference}"
    tie = f"{best}, in a tie: within noise of it {'are' if len(alike) > 1 else 'is'} {', '.join(alike)}."
    return tie if alike else f"{best}, and all others are worse."
