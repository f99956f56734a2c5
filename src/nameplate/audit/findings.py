"""`Finding`: one thing that is wrong with photos of a data set."""

from __future__ import annotations

from dataclasses import dataclass

UNREADABLE, EXACT, NEAR, CROSS_CLASS, LEAK, LABEL, OUTLIER = KINDS = (
    "unreadable",
    "exact-duplicate",
    "near-duplicate",
    "cross-class-duplicate",
    "leak",
    "suspect-label",
    "outlier",
)
"""Of findings, in the order in which a report shows them."""
NO_CAR = 0.75
"""Score from which an outlier is what `identify` calls "not a car"; others are below it."""
SURE = {LABEL: 0.95, OUTLIER: NO_CAR}
"""Score from which findings of a kind are acted on unseen; the others are for eyes. All other kinds are sure."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, with the photos that it is of."""

    kind: str
    """One of `KINDS`."""
    photos: tuple[str, ...]
    """Paths, as `Photo.path`: all copies of one picture, or the one photo that it is of."""
    score: float
    """How sure it is, 0–1; comparable within a kind."""
    detail: str
    """One sentence: the reason, or the nameplate that it looks like."""
    for_eyes: bool = False
    """Whether what tells it is not to be relied on, whatever the score."""

    @property
    def sure(self) -> bool:
        """Whether to act on it unseen: `SURE`."""
        return not self.for_eyes and self.score >= SURE.get(self.kind, 0)
