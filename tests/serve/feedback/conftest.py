"""Both databases, a store in each, and photos with their headers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from nameplate.demo import photos_folder
from nameplate.images.decode import read_header
from nameplate.serve.feedback.database import open_engine
from nameplate.serve.feedback.store import Correction, FeedbackStore

PHOTOS = sorted(photos_folder("train").glob("*/*.jpg"))


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that is not there, or is empty."""
    if request.param == "sqlite":
        return str(tmp_path / "feedback.sqlite")
    url: str = request.getfixturevalue("postgres")
    return url


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    """What talks to it."""
    made = open_engine(database, create=True)
    yield made
    made.dispose()


@pytest.fixture
def store(database: str) -> Iterator[FeedbackStore]:
    """A store in it."""
    with FeedbackStore.open(database) as opened:
        yield opened


def say(store: FeedbackStore, photo: int | bytes = 0, nameplate: str = "Lada Niva", client: str = "me") -> str:
    """Keep a correction of one of the embedded photos, or of some bytes."""
    data = photo if isinstance(photo, bytes) else PHOTOS[photo].read_bytes()
    return store.add(Correction(nameplate, client), data, read_header(PHOTOS[0].read_bytes()))
