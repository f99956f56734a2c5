"""What all tests share: real photos where `NAMEPLATE_PHOTOS` says that they are, the run's own cache, and markers.

Most markers are given here, by the fixtures that a test takes and by the place and the imports of its module.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from tests.postgres import find_binaries, server
from tests.serve.browsing import QUIET

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PHOTOS = "NAMEPLATE_PHOTOS"
"""Names the folder that holds the real photos, which may not be shipped."""
FOLDERS = {
    "cars196": "cars196",
    "europe20": "data/europe20",
    "russian10": "data/russian10",
    "not_cars": "data/not_cars",
    "competition_tables": "original",
}
"""Fixture → where its files lie in that folder. Tests that take one are marked `photos`, and differ in nothing else."""


BY_FIXTURE = {
    **dict.fromkeys(FOLDERS, "photos"),
    **dict.fromkeys(("chromium", "runtime_of_sites"), "browser"),
    "postgres_server": "database",
}
"""Fixture → the marker of the tests that take it, also by way of another fixture."""
BY_IMPORT = {
    "torch": r"^(import|from) torch\b|\bmark\.torch\b",
    "ray": r"\bneeds_ray\b",
    "server": r"^from tests\.serve\.(running|guarded) import|\bmark\.server\b",
}
"""Marker → the lines of a module by which all tests in it get the marker."""
BY_PLACE = (
    "audit/",
    "batch/test_job.py",
    "batch/test_memory.py",
    "batch/test_predict.py",
    "cli/",
    "demo/",
    "experiments/test_extra_data.py",
    "fit/test_finalize.py",
    "fit/test_int8.py",
    "fit/test_linear_probe.py",
    "model/test_proof.py",
    "model/test_runtime_choice.py",
    "model/test_tta.py",
    "serve/feedback/",
    "serve/test_engine.py",
)
"""Folders and modules whose tests run whole commands, jobs or trainings, and are marked `whole`."""
LONGEST_FIRST = (
    "tools/test_notebook_guide.py",
    "demo/test_tour.py",  # embeds all photos that ship, for others to find them in the cache
    "cli/test_train.py",
    "cli/test_torchrun.py",
    "serve/test_app_page.py",
    "cli/test_app.py",
    "cli/test_evaluate.py",
    "experiments/test_auto.py",
    "experiments/test_compare.py",
    "experiments/test_networks.py",
    "train/test_finetune.py",
    "train/test_export.py",
    "cli/test_export.py",
    "cli/test_cars.py",
    "experiments/test_extra_data.py",
    "batch/test_on_ray.py",
    "serve/test_chaos.py",
    "batch/test_predict.py",
    "batch/test_memory.py",
    "train/test_headless.py",
    "train/test_fold_runs.py",
    "train/test_backbones_original.py",
    "audit/test_inspect.py",
    "report/test_audit.py",
    "cli/test_auto.py",
    "cli/test_experiments.py",
    "cli/test_experiments_extra_data.py",
    "cli/test_feedback.py",
    "serve/test_app_server.py",
    "serve/jobs/test_runner.py",
    "test_docs.py",
    "model/test_runtime_choice.py",
    "batch/test_job.py",
    "fit/test_int8.py",
    "train/test_monitor.py",
)
"""Modules that take 15 seconds and more. They run first, since a worker runs a module whole: one that began last would
leave the other worker idle. pytest-xdist's own order is by the number of tests, which says little of the time."""
HEAVY = {"slow", "whole", *BY_FIXTURE.values(), *BY_IMPORT}
"""The markers of tests that `--fast` leaves out."""

if "PYTEST_XDIST_WORKER" in os.environ:
    # Several workers share the processors, so each computes on one thread. With as many threads as processors in each,
    # they wait for one another. It must be said before numpy and torch are imported; child processes inherit it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--fast`, for `make check`."""
    parser.addoption("--fast", action="store_true", help=f"leave out tests that need one of {', '.join(sorted(HEAVY))}")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `--fast`, do not even import modules whose tests are all left out: torch alone takes seconds."""
    if config.getoption("--fast") and collection_path.suffix == ".py" and _of_module(collection_path):
        return True
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark each test by what it needs."""
    markers = {path: _of_module(path) for path in {item.path for item in items}}
    for item in items:
        fixtures = item.fixturenames if isinstance(item, pytest.Function) else ()
        for marker in markers[item.path] | {BY_FIXTURE[name] for name in fixtures if name in BY_FIXTURE}:
            item.add_marker(marker)
    items.sort(key=_turn)  # stable: all others keep their order
    if config.getoption("--fast"):
        heavy = [item for item in items if HEAVY & {mark.name for mark in item.iter_markers()}]
        config.hook.pytest_deselected(items=heavy)
        left_out = set(heavy)
        items[:] = [item for item in items if item not in left_out]


def _turn(item: pytest.Item) -> int:
    """The place of a test's module in `LONGEST_FIRST`; all others come after."""
    here = Path(__file__).parent
    place = item.path.relative_to(here).as_posix() if here in item.path.parents else ""
    return LONGEST_FIRST.index(place) if place in LONGEST_FIRST else len(LONGEST_FIRST)


def _of_module(path: Path) -> set[str]:
    """The markers that a module's place and text give to all its tests."""
    here = Path(__file__).parent
    if not path.name.startswith("test_") or here not in path.parents:
        return set()
    text, place = path.read_text("utf-8"), path.relative_to(here).as_posix()
    whole = {"whole"} if place.startswith(BY_PLACE) else set()
    return whole | {marker for marker, line in BY_IMPORT.items() if re.search(line, text, re.MULTILINE)}


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
def europe20() -> Path:
    """1,342 photos of 20 European nameplates, a folder per class; not part of the repository."""
    return _folder("europe20")


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


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Browser]:
    """The browser, started."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def runtime_of_sites() -> dict[str, bytes]:
    """The files of ONNX Runtime Web, downloaded by npm."""
    from nameplate.errors import NameplateError
    from nameplate.web.onnxruntime_web import onnxruntime_web

    try:
        return onnxruntime_web()
    except NameplateError as error:
        return _absent(f"onnxruntime-web from npm: {error}")


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
