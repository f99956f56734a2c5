"""Texts that users may send."""

from __future__ import annotations

import pytest

from nameplate.errors import UsageError
from nameplate.serve.feedback.store import clean_comment, clean_nameplate, known_spelling


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("  BMW \t M3\n2012 ", "BMW M3 2012"),
        ("Citroe\u0308n C3", "Citroën C3"),
        ("Лада\u00a0Нива", "Лада Нива"),
        ("x" * 200, "x" * 200),
        ("e\u0301" * 200, "é" * 200),
    ],
)
def test_a_name_is_normalised(text: str, kept: str) -> None:
    assert clean_nameplate(text) == kept


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        (" \n ", "is empty"),
        ("x" * 201, "has 201 characters; 200"),
        ("x" * 100_000, "has 100,000 characters"),
        ("BMW\0", r"U\+0000"),
        ("BMW\x1b[31m", r"U\+001B"),
        ("BMW\u202eM3", r"U\+202E"),
        ("B\u200bMW", r"U\+200B"),
        ("\ud800", r"U\+D800"),
        (" =1+1", "as a formula does"),
        ("@SUM(A1)", "as a formula does"),
    ],
)
def test_an_invalid_name_is_refused(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        clean_nameplate(text)


def test_a_comment_keeps_its_lines() -> None:
    assert clean_comment(" the  badge\r\nsays so \n\n 👩‍🔧 ") == "the badge\nsays so\n\n👩‍🔧"
    assert clean_comment(" \n") == ""
    assert len(clean_comment("x" * 2_000)) == 2_000


@pytest.mark.parametrize("text", ["x" * 2_001, "no\0", "\x07"])
def test_an_invalid_comment_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="'comment'"):
        clean_comment(text)


def test_a_nameplate_is_spelt_as_the_model_does() -> None:
    assert known_spelling("bmw m3", ["Audi", "BMW M3"]) == "BMW M3"
    assert known_spelling("lada niva", ["Audi", "BMW M3"]) == "lada niva"
