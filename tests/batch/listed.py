"""The photos of a listing, without the entries that are left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nameplate.batch.uris import list_entries
from nameplate.data.listing import LeftOut


def list_references(sources: Iterable[str]) -> Iterator[str]:
    """The photos alone."""
    return LeftOut().sift(list_entries(sources))
