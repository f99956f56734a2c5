"""Journals: what an interrupted job leaves, and which job may resume it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from nameplate.batch.job import journal
from nameplate.batch.tables import AnsweredPhoto
from nameplate.errors import Failure
from nameplate.types import Prediction

BAD = AnsweredPhoto(Prediction("a.jpg", failure=Failure("truncated", "JPEG: premature end")), None)


def _interrupted(target: Path) -> Path:
    with pytest.raises(KeyboardInterrupt), journal(target, "job", AnsweredPhoto) as kept:
        kept.add(BAD)
        raise KeyboardInterrupt
    return target.with_name(f".{target.name}.journal")


def test_an_interrupted_job_finds_reasons_again(tmp_path: Path) -> None:
    target = tmp_path / "answers.jsonl"
    _interrupted(target)
    with journal(target, "job", AnsweredPhoto) as kept:
        assert (kept.done, kept.resumed) == ([BAD], 1)
        assert kept.done[0].reason == "truncated"
    assert not list(tmp_path.iterdir())


def test_a_journal_of_another_job_is_not_resumed(tmp_path: Path) -> None:
    target = tmp_path / "answers.jsonl"
    _interrupted(target)
    with journal(target, "another job", AnsweredPhoto) as kept:
        assert (kept.done, kept.resumed) == ([], 0)


def test_a_journal_with_a_truncated_last_line_is_resumed(tmp_path: Path) -> None:
    target = tmp_path / "answers.jsonl"
    path = _interrupted(target)
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines(keepends=True)[1][:-10])
    with pytest.raises(KeyboardInterrupt), journal(target, "job", AnsweredPhoto) as kept:
        assert kept.done == [BAD]
        raise KeyboardInterrupt
    assert path.read_bytes() == whole


def test_a_journal_of_another_format_is_not_resumed(tmp_path: Path) -> None:
    """Its lines may hold fields that would be dropped silently: once, an error was a text."""
    target = tmp_path / "answers.jsonl"
    path = _interrupted(target)
    heading, *lines = path.read_bytes().splitlines(keepends=True)
    older = {key: value for key, value in msgspec.json.decode(heading).items() if key != "format"}
    path.write_bytes(msgspec.json.encode(older) + b"\n" + b"".join(lines))
    with journal(target, "job", AnsweredPhoto) as kept:
        assert kept.resumed == 0
