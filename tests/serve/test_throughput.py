"""The time of one photo, estimated from the times between answers."""

from __future__ import annotations

import pytest

from nameplate.serve.throughput import LONGEST, Throughput


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("nameplate.serve.throughput.time.monotonic", lambda: now[0])
    return now


def test_batches_count_as_their_photos_do(clock: list[float]) -> None:
    found = Throughput()
    found.begin()
    for _ in range(40):
        clock[0] += 0.8  # then a batch of eight is answered
        for _ in range(8):
            found.answered(busy=True)
    assert found.seconds == pytest.approx(0.1, rel=0.3)


def test_time_without_work_does_not_count(clock: list[float]) -> None:
    found = Throughput(0.1)
    for _ in range(40):
        clock[0] += 60
        found.begin()
        for _ in range(5):
            clock[0] += 0.1
            found.answered(busy=True)
        clock[0] += 60
        found.answered(busy=False)  # one photo alone, as slow as it likes
    assert found.seconds == pytest.approx(0.1)


def test_one_pause_is_soon_forgotten(clock: list[float]) -> None:
    found = Throughput(0.1)
    found.begin()
    clock[0] += 3600
    found.answered(busy=True)
    assert found.seconds < 0.1 + 0.06 * LONGEST
