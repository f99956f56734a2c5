"""Fixtures: real photos where `NAMEPLATE_PHOTOS` says that they are, and a cache of the test run's own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.postgres import find_binaries, server

PHOTOS = "NAMEPLATE_PHOTOS"
"""Names the folder that holds the real photos, which may not be shipped."""
FOLDERS = {
    "cars196": "cars196",
    "russian10": "data/russian10",
    "not_cars": "data/not_cars",
    "competition_tables": "original",
}
"""Fixture → where its files lie in that folder. Tests that take one are marked `photos`, and differ in nothing else."""


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", f"photos: needs real photos ({PHOTOS}); given to tests by the fixtures they take"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs real photos, so that `-m photos` runs just that."""
    for item in items:
        if isinstance(item, pytest.Function) and FOLDERS.keys() & set(item.fixturenames):
            item.add_marker("photos")


def _folder(fixture: str) -> Path:
    root = os.environ.get(PHOTOS)
    if not root:
        pytest.skip(f"needs real photos that may not be shipped: set {PHOTOS} to their folder")
    folder = Path(root) / FOLDERS[fixture]
    return folder if folder.is_dir() else _absent(f"'{folder}', the real photos that {PHOTOS} promises")


@pytest.fixture(scope="session")
def cars196() -> Path:
    """6,922 photos of 196 nameplates, a folder per class; not part of the repository."""
    return _folder("cars196")


@pytest.fixture(scope="session")
def russian10() -> Path:
    """798 photos of 10 nameplates from Russian adverts, a folder per class; not part of the repository."""
    return _folder("russian10")


@pytest.fixture(scope="session")
def not_cars() -> Path:
    """330 photos of anything but cars; not part of the repository."""
    return _folder("not_cars")


@pytest.fixture(scope="session")
def competition_tables() -> Path:
    """The competition's real train.csv and sample-submission.csv; not part of the repository."""
    return _folder("competition_tables")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test run's own cache, also for the processes that it starts; runs of one session share it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "nameplate-cache"
    os.environ["NAMEPLATE_CACHE"] = str(folder)
    return folder


def _absent(needed: str) -> NoReturn:
    """Skip; where NAMEPLATE_NO_SKIPS=1, as in CI, fail: there it must not go unnoticed."""
    if os.environ.get("NAMEPLATE_NO_SKIPS") == "1":
        pytest.fail(f"needs {needed}, and NAMEPLATE_NO_SKIPS=1 forbids to skip")
    pytest.skip(f"needs {needed}")


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The browser's program."""
    found = (
        os.environ.get("NAMEPLATE_CHROMIUM")
        or shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    return Path(found) if found else _absent("the browser Chromium: apt-get install chromium")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server where databases may be made: NAMEPLATE_TEST_POSTGRES, or one of our own."""
    if importlib.util.find_spec("psycopg") is None:
        _absent("psycopg: pip install 'nameplate[postgres]'")
    if given := os.environ.get("NAMEPLATE_TEST_POSTGRES"):
        yield given
        return
    binaries = find_binaries()
    if binaries is None:
        _absent("PostgreSQL: apt-get install postgresql, or set NAMEPLATE_TEST_POSTGRES to a server's URL")
    with server(binaries) as url:
        yield url


@pytest.fixture
def postgres(postgres_server: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database of the test's own."""
    import psycopg
    from sqlalchemy import make_url

    name = f"nameplate_{uuid.uuid4().hex}"
    url = make_url(postgres_server).set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield url.set(database=name).render_as_string(hide_password=False)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
