"""Output on a terminal: without control characters, and of limited length."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace
from typing import get_args

import pytest
from rich.table import Table
from rich.text import Text

from nameplate.cli import screen
from nameplate.data import Refused
from nameplate.data.listing import KEPT, LeftOut
from nameplate.errors import DataError
from nameplate.types import Verdict


def test_nothing_that_is_shown_drives_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b[2J\x9b31m\u202eb"
    table = Table("car")
    table.add_row(Text(name))
    for shown in (name, Text(name), table):
        screen.out.print(shown)
    screen.step("Wrote", f"{name}\nx")
    screen.note(name, f"{name}\nx")
    screen.tell_error(DataError(f"no {name}", [(name, "it is no photo")]))
    said = capsys.readouterr()
    for text in (said.out, said.err):
        assert not set("\x1b\x9b\u202e") & set(text)
    shown = r"a\x1b[2J\x9b31m\u202eb"
    assert said.out.count(shown) == 4
    assert said.err.splitlines() == [
        rf"{shown} {shown}\nx",
        f"left out {shown}: it is no photo",
        f"error no {shown}",
    ]


@pytest.mark.parametrize("what", ["left out", "unreadable"])
def test_ten_are_listed_and_many_are_counted_by_reason(capsys: pytest.CaptureFixture[str], what: str) -> None:
    screen.tell_refused([(f"{n}.txt", "none") for n in range(10)], what)
    assert capsys.readouterr().err.splitlines() == [f"{what} {n}.txt: none" for n in range(10)]
    pairs = [("x.txt", "odd"), *((f"{n}.txt", "none") for n in range(300)), ("y.txt", "strange")]
    screen.tell_refused(pairs, what)
    assert capsys.readouterr().err.splitlines() == [
        f"{what} 300 files, the first 0.txt: none",
        f"{what} x.txt: odd",
        f"{what} y.txt: strange",
    ]
    screen.tell_refused([(f"{n}.txt", f"reason {n}") for n in range(300)], what)
    told = capsys.readouterr().err.splitlines()
    assert (len(told), told[-1]) == (11, f"… and 290 more {what}")


def test_entries_that_were_only_counted_are_reported_by_number(capsys: pytest.CaptureFixture[str]) -> None:
    left_out = LeftOut()
    for number in range(KEPT):
        left_out.add(Refused(f"{number}.txt", "none"))
    left_out.add(Refused("last.txt", "odd"))
    screen.tell_counted(left_out)
    assert capsys.readouterr().err.splitlines() == [
        "left out 1,000 files, the first 0.txt: none",
        "left out 1 file: odd",
        "1,001 left out in all",
    ]


def test_json_of_names_that_are_no_text_is_json(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    screen.print_json({"photo": "\udccf.jpg", "all": [Refused("\ud83d", "\x1b")], "ок": ("车",)})
    assert json.loads(capfdbinary.readouterr().out) == {
        "photo": r"\xcf.jpg",
        "all": [{"name": r"\ud83d", "reason": "\x1b"}],
        "ок": ["车"],
    }


def test_one_item_is_counted_in_the_singular() -> None:
    assert [screen.counted(n, "advert") for n in (0, 1, 1_000)] == ["0 adverts", "1 advert", "1,000 adverts"]


def test_a_step_that_comes_again_has_a_rate_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = itertools.count(0, 20)
    monkeypatch.setattr(screen, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    with screen.progress() as report:
        for done, total in ((400, 800), (800, 800), (100, 300), (300, 300)):
            report("compare", done, total)
    assert capsys.readouterr().err.splitlines() == ["compare: 800 of 800, 20/s", "compare: 300 of 300, 10/s"]


def test_a_slow_rate_has_decimals_and_a_long_log_has_few_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(screen, "time", SimpleNamespace(monotonic=lambda: now))
    with screen.progress() as report:
        for done in range(10_801):  # three hours, at a photo a second
            now = float(done)
            report("embed", done, 10_800)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "embed: 11 of 10,800, 1.0/s, 10789 s left"
    assert lines[1].startswith("embed: 21 of")
    assert 60 < len(lines) < 150
    gaps = [int(line.split()[1].replace(",", "")) for line in lines]
    assert max(later - earlier for earlier, later in itertools.pairwise(gaps)) <= screen.LOG_MOST


def test_every_verdict_has_a_colour() -> None:
    assert set(screen.VERDICT_STYLES) == set(get_args(Verdict))
