"""Wrong answers, each with the training photos that it was near to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nameplate.evaluation.judge import Judged


@dataclass(frozen=True, slots=True)
class Mistake:
    """A photo that was named wrongly."""

    photo: str
    """Its path."""
    truth: str
    named: str
    confidence: float
    like_truth: str | None
    """The training photo of the true nameplate nearest to it; None where none is at hand."""
    like_named: str | None
    """The training photo of the nameplate that it was given nearest to it."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two nameplates that are taken for each other."""

    first: str
    second: str
    first_as_second: int
    """Photos of the first that were named the second."""
    second_as_first: int
    example: Mistake
    """The surest of them."""

    @property
    def photos(self) -> int:
        """Taken one for the other, both ways."""
        return self.first_as_second + self.second_as_first


def surest_mistakes(judged: Judged, count: int) -> tuple[Mistake, ...]:
    """The most confident wrong answers, at most `count` of them, the surest first."""
    wrong = np.flatnonzero(~judged.right)
    order = wrong[np.argsort(-judged.confidence[wrong], kind="stable")]
    return tuple(_mistake(judged, int(place)) for place in order[:count])


def worst_pairs(judged: Judged, count: int) -> tuple[Pair, ...]:
    """The pairs of nameplates with the most photos of one named as the other, at most `count` of them."""
    places: dict[tuple[int, int], list[int]] = {}
    truths, named = judged.truths.tolist(), judged.named.tolist()
    for place in np.flatnonzero(~judged.right).tolist():
        places.setdefault((min(truths[place], named[place]), max(truths[place], named[place])), []).append(place)
    worst = sorted(places.items(), key=lambda found: -len(found[1]))[:count]
    return tuple(_pair(judged, one, two, np.array(found)) for (one, two), found in worst)


def _pair(judged: Judged, one: int, two: int, places: NDArray[np.int64]) -> Pair:
    there = int((judged.truths[places] == one).sum())
    surest = places[judged.confidence[places].argmax()]
    names = judged.nameplates
    return Pair(names[one], names[two], there, len(places) - there, _mistake(judged, int(surest)))


def _mistake(judged: Judged, place: int) -> Mistake:
    truth, named = int(judged.truths[place]), int(judged.named[place])
    return Mistake(
        judged.photos[place].path,
        judged.nameplates[truth],
        judged.nameplates[named],
        float(judged.confidence[place]),
        _nearest(judged, place, truth),
        _nearest(judged, place, named),
    )


def _nearest(judged: Judged, place: int, column: int) -> str | None:
    """The training photo of a class whose embedding has the largest cosine with a photo's, but not the photo itself."""
    known = judged.training
    own = judged.photos[place].sha256
    rows = [row for row in np.flatnonzero(known.columns == column) if known.photos[row].sha256 != own]
    if not rows:
        return None
    embeddings = known.embeddings[rows]
    cosines = embeddings @ judged.embeddings[place] / np.maximum(np.linalg.norm(embeddings, axis=1), 1e-12)
    return known.photos[rows[int(cosines.argmax())]].path
