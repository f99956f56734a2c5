"""Clients take turns."""

from __future__ import annotations

from nameplate.serve.turns import Turns


def test_a_client_with_many_items_delays_another_by_one() -> None:
    turns: Turns[int] = Turns()
    for number in range(4):
        turns.put("many", number)
    assert turns.take() == 0
    turns.put("few", 10)
    turns.put("few", 11)
    assert [turns.take() for _ in range(5)] == [1, 10, 2, 11, 3]
