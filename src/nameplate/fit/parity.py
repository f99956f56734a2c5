"""Whether another form of a model answers as the bundle does: the gate of `export --onnx` and `export --web`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nameplate.errors import DataError, NameplateError

MOST_DIFFERENT, LARGEST_GAP = 0.001, 0.005
"""The largest share of photos with another most probable nameplate, and the largest difference of a probability."""
FULL = (1 << 20, 1 << 20)
"""A least size of decoded photos that none reaches: an export is compared without our decoder's reduced scales."""


@dataclass(frozen=True, slots=True)
class FileParity:
    """How closely the exported model agrees with `Model`, on the same decoded pixels."""

    photos: int
    same: int
    """Number of photos with the same most probable nameplate."""
    gap: float
    """The largest difference between two probabilities."""

    @property
    def holds(self) -> bool:
        """Whether the export may be written; never where a probability is NaN."""
        return self.photos - self.same <= MOST_DIFFERENT * self.photos and self.gap <= LARGEST_GAP

    def refuse(self, what: str, bundle: str) -> None:
        """Refuse an export that may not be written.

        Args:
            what: the export, as the error's first words name it.
            bundle: the bundle's name.

        Raises:
            NameplateError: the gate is not passed.
        """
        if not self.holds:
            raise NameplateError(
                f"{what} does not answer as '{bundle}' does: {self.photos - self.same:,} of {self.photos:,} photos get "
                f"another nameplate, and the largest difference of a probability is {self.gap:.2g}. At most "
                f"{MOST_DIFFERENT:.1%} and {LARGEST_GAP:g} are allowed, so nothing is written."
            )


def parity(same: Sequence[bool], gaps: Sequence[float], refused: Sequence[tuple[str, str]]) -> FileParity:
    """The agreement on some photos.

    Args:
        same: for each photo, whether it got the same answer.
        gaps: for each photo, the largest difference of a probability.
        refused: path and reason of each photo that could not be read.

    Raises:
        DataError: none of the photos can be read.
    """
    if not gaps:
        raise DataError(f"None of {len(refused):,} photos can be read, so there is nothing to compare.", list(refused))
    return FileParity(len(gaps), sum(same), math.nan if any(map(math.isnan, gaps)) else max(gaps))
