"""The documentation: every page is in the site's navigation, every link leads somewhere, and getting started works."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools.gallery import few
from tools.links import anchors, links, target

from tests.cli.run import nameplate

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *DOCS.rglob("*.md")))
STARTED = [DOCS / "getting-started.md", DOCS / "ru" / "getting-started.md"]


TAGGED = re.compile(r"!(?:!python/|ENV).*")
"""What mkdocs.yml says in tags of its own; it does not matter here."""


def listed(entry: object) -> list[str]:
    """The pages of a part of the navigation; patterns are expanded."""
    if isinstance(entry, str):
        return sorted(path.relative_to(DOCS).as_posix() for path in DOCS.glob(entry)) if "*" in entry else [entry]
    below = entry.values() if isinstance(entry, dict) else entry
    assert isinstance(below, (list, type({}.values())))
    return [page for each in below for page in listed(each)]


def test_every_page_is_in_the_navigation_once() -> None:
    pages = listed(yaml.safe_load(TAGGED.sub("", (ROOT / "mkdocs.yml").read_text("utf-8")))["nav"])
    made = {"reference/cli.md", "reference/changelog.md", "reference/contributing.md"}  # tools/docs_site.py
    there = [*DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb")]
    assert sorted(set(pages) - made) == sorted(path.relative_to(DOCS).as_posix() for path in there)
    assert len(pages) == len(set(pages))


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: str) -> None:
    dead = []
    for path, anchor in links((ROOT / page).read_text("utf-8")):
        meant = ROOT / target(path, page)
        if not meant.exists() or (anchor and anchor not in anchors(meant.read_text("utf-8"))):
            dead.append(f"{path}#{anchor}")
    assert dead == []


def commands(page: Path) -> list[str]:
    """The commands of a page, in its order."""
    return "".join(re.findall(r"```sh\n(.*?)```", page.read_text("utf-8"), re.DOTALL)).splitlines()


@pytest.fixture
def copy_of_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like a copy of the repository, with fewer photos; it is where the test runs."""
    for part, each in (("train", 5), ("test", 1)):
        few(part, each, tmp_path / "src" / "nameplate" / "demo" / "photos" / part)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_getting_started_works_as_it_is_written(copy_of_repository: Path) -> None:
    setup, used = commands(STARTED[0])[:3], commands(STARTED[0])[3:]
    assert setup[-1] == "pip install '.[fast]'"
    assert "\nfast = [" in (ROOT / "pyproject.toml").read_text("utf-8")
    said = []
    for command in used:
        program, *words = shlex.split(command)
        assert program == "nameplate"
        said.append(nameplate(*words).stdout)
    assert "unknown car" in said[0].splitlines()[1]
    assert all((copy_of_repository / page).stat().st_size > 10_000 for page in ("look.html", "evaluation.html"))
    assert (copy_of_repository / "explain.html").is_file()
    assert "Ostrel Tarn" in said[3]
    [block] = re.findall(r"```python\n(.*?)```", STARTED[0].read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block, os.fspath(STARTED[0]), "exec"), names)
    assert names["answer"].nameplate == "Ostrel Tarn"


def test_getting_started_in_russian_has_the_same_commands_and_code() -> None:
    english, russian = (re.findall(r"```\w*\n.*?```", page.read_text("utf-8"), re.DOTALL) for page in STARTED)
    assert english == russian
