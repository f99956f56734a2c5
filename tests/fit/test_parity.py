"""The gate of exports."""

from __future__ import annotations

import pytest

from nameplate.errors import DataError, NameplateError
from nameplate.fit.parity import FileParity, parity


def test_the_gate() -> None:
    assert FileParity(1000, 999, 0.005).holds
    assert not FileParity(1000, 998, 0.001).holds
    assert not FileParity(1000, 1000, 0.0051).holds
    assert not FileParity(1000, 1000, float("nan")).holds


def test_a_refusal_has_the_figures() -> None:
    FileParity(1000, 999, 0.005).refuse("The site", "cars")
    with pytest.raises(NameplateError, match=r"^The site does .* 3 of 1,000 .* is 0\.25\. At most 0\.1% and 0\.005"):
        FileParity(1000, 997, 0.25).refuse("The site", "cars")


def test_one_photo_without_numbers_is_enough() -> None:
    assert not parity([True, True], [0.0, float("nan")], []).holds
    assert parity([True, False], [0.0, 0.25], []) == FileParity(2, 1, 0.25)
    with pytest.raises(DataError, match="None of 1 photos can be read"):
        parity([], [], [("a.jpg", "no photo")])
