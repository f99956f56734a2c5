"""Fixtures: real photos where this checkout has them, and a cache of the test run's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _folder(variable: str, beside: str) -> Path:
    folder = Path(os.environ.get(variable, ROOT.parent / "shared" / beside))
    if not folder.is_dir():
        pytest.skip(f"needs real photos that may not be shipped: set {variable} to their folder")
    return folder


@pytest.fixture(scope="session")
def cars196() -> Path:
    """6,922 photos of 196 nameplates, a folder per class; not part of the repository."""
    return _folder("NAMEPLATE_CARS196", "cars196")


@pytest.fixture(scope="session")
def russian10() -> Path:
    """798 photos of 10 nameplates from Russian adverts, a folder per class; not part of the repository."""
    return _folder("NAMEPLATE_RUSSIAN10", "data/russian10")


@pytest.fixture(scope="session")
def competition_tables() -> Path:
    """The competition's real train.csv and sample-submission.csv; not part of the repository."""
    return _folder("NAMEPLATE_COMPETITION_TABLES", "original")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test run's own cache, also for the processes that it starts; runs of one session share it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "nameplate-cache"
    os.environ["NAMEPLATE_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def not_cars() -> Path:
    """330 photos of anything but cars; not part of the repository."""
    return _folder("NAMEPLATE_NOT_CARS", "data/not_cars")
