"""Batches: no photo waits for long, no batch is larger than allowed, free runners share the photos."""

from __future__ import annotations

import threading
import time

import pytest

from nameplate.serve import worker
from nameplate.serve.worker import Batches


def _filled(batches: Batches[int], count: int) -> None:
    for number in range(count):
        batches.expect()
        batches.put(number)


def test_a_photo_that_is_alone_waits_for_nothing() -> None:
    batches: Batches[int] = Batches(8, wait=60)
    _filled(batches, 1)
    start = time.monotonic()
    assert batches.take() == [0]
    assert time.monotonic() - start < 5


def test_a_photo_waits_for_those_that_are_being_decoded_but_not_for_long() -> None:
    batches: Batches[int] = Batches(8, wait=0.2)
    _filled(batches, 1)
    batches.expect()  # and never comes
    start = time.monotonic()
    assert batches.take() == [0]
    assert time.monotonic() - start >= 0.19


def test_a_photo_stops_waiting_when_the_expected_one_is_given_up() -> None:
    batches: Batches[int] = Batches(8, wait=60)
    _filled(batches, 1)
    batches.expect()
    threading.Timer(0.1, batches.give_up).start()
    start = time.monotonic()
    assert batches.take() == [0]
    assert time.monotonic() - start < 5


def test_no_batch_is_larger_than_the_size_and_the_order_stays() -> None:
    batches: Batches[int] = Batches(4, wait=0)
    _filled(batches, 10)
    assert [batches.take() for _ in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_free_runners_share_the_waiting_photos() -> None:
    batches: Batches[int] = Batches(8, wait=0.5)
    taken: list[list[int]] = []
    runners = [threading.Thread(target=lambda: taken.append(batches.take())) for _ in range(2)]
    for runner in runners:
        runner.start()
    time.sleep(0.2)  # both wait
    for _ in range(4):
        batches.expect()
    for number in range(4):
        batches.put(number)
    for runner in runners:
        runner.join(10)
    assert sorted(map(len, taken)) == [2, 2]
    assert sorted(number for batch in taken for number in batch) == [0, 1, 2, 3]


def test_a_photo_of_many_cars_fills_a_batch_and_lets_others_pass() -> None:
    batches: Batches[int] = Batches(4, wait=60, cars_of=lambda cars: cars)
    for cars in (1, 2, 10, 1, 3, 2, 1):
        batches.expect()
        batches.put(cars)
    batches.expect()  # so that nothing but a full batch is taken at once
    assert [batches.take() for _ in range(4)] == [[1, 1, 1], [2, 2], [3], [10]]


def test_no_photo_lets_others_pass_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "YIELD_SECONDS", 0.001)
    batches: Batches[int] = Batches(4, wait=0, cars_of=lambda cars: cars)
    batches.expect()
    batches.put(10)
    time.sleep(0.1)
    _filled(batches, 2)  # photos 0 and 1, which count as so many cars
    assert batches.take() == [10]
