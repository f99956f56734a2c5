"""What a job would name: the photos of a listing, without what is left out of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nameplate.bulk.references import list_entries
from nameplate.datasets.listing import LeftOut


def list_references(sources: Iterable[str]) -> Iterator[str]:
    """The photos alone."""
    return LeftOut().sift(list_entries(sources))
