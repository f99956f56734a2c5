"""Prepared, embedded and unreadable photos by their type, for tests."""

from __future__ import annotations

from collections.abc import Iterable

from nameplate.model.cam import MappedPhoto
from nameplate.model.pipeline import EmbeddedPhoto, PreparedPhoto, UnreadablePhoto


def prepared(photo: object) -> PreparedPhoto:
    """The photo, which must be prepared."""
    assert isinstance(photo, PreparedPhoto), photo
    return photo


def embedded(photo: object) -> EmbeddedPhoto:
    """The photo, which must be embedded."""
    assert isinstance(photo, EmbeddedPhoto), photo
    return photo


def all_embedded(photos: Iterable[object]) -> list[EmbeddedPhoto]:
    """The photos, all of which must be embedded."""
    return [embedded(photo) for photo in photos]


def all_mapped(photos: Iterable[object]) -> list[MappedPhoto]:
    """The photos, all of which must have maps."""
    found = []
    for photo in photos:
        assert isinstance(photo, MappedPhoto), photo
        found.append(photo)
    return found


def unreadable(photo: object) -> UnreadablePhoto:
    """The photo, which must be unreadable."""
    assert isinstance(photo, UnreadablePhoto), photo
    return photo
