"""Shares of the bytes in memory, and the pace at which bodies must arrive."""

from __future__ import annotations

import asyncio

import pytest

from nameplate.serve import budget as budget_module
from nameplate.serve.budget import Arrival, Budget
from nameplate.serve.errors import Problem


def test_a_client_may_fill_as_many_bytes_as_it_leaves_free() -> None:
    budget = Budget(120)
    with budget.hold("a") as first:
        first.take(60)
        with pytest.raises(Problem, match="60 of them this client's"):
            first.take(1)
        with budget.hold("b") as second:
            second.take(30)
            with pytest.raises(Problem):
                second.take(1)
        assert budget.used == 60
    assert budget.used == 0
    assert not budget.clients


def _seconds_of(pieces: list[int], pause: float, most: float = 60.0) -> tuple[int, str]:
    """How many pieces of a body arrive, with pauses between, before it is given up; and why it was."""
    seen = 0

    async def read() -> str:
        nonlocal seen
        arrival = Arrival(most)
        try:
            async with arrival.timeout:
                for piece in pieces:
                    await asyncio.sleep(pause)
                    arrival.came(piece)
                    seen += 1
        except TimeoutError:
            return arrival.why
        return ""

    why = asyncio.run(read())
    return seen, why


def test_a_body_must_arrive_at_some_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_module, "PATIENCE", 0.2)
    monkeypatch.setattr(budget_module, "SLOWEST", 1000)
    assert _seconds_of([100] * 10, 0.05) == (10, "")
    seen, why = _seconds_of([10] * 20, 0.05)
    assert seen < 8
    assert "less than 1,000 bytes/s" in why
    assert _seconds_of([10**6], 0.15) == (1, "")
    assert _seconds_of([10**6], 0.3)[0] == 0
    assert "longer than 0.3 s" in _seconds_of([10**6] * 20, 0.05, most=0.3)[1]
