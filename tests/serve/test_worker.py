"""Batches: no photo waits for long, no batch is larger than allowed, free runners share the photos. And a fault that
one photo shows fails that photo alone.
"""

from __future__ import annotations

import queue
import threading
import time

import pytest

from nameplate.defaults import DEFAULT_BUNDLE, NO_TTA
from nameplate.demo import photo
from nameplate.model.bundle import load_bundle
from nameplate.serve import worker
from nameplate.serve.ipc import Fault, Frame, JobOptions, Setup, WorkerJob, WorkerResult, for_service, frame
from nameplate.serve.worker import Batches, Worker
from nameplate.types import Limits


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


def test_a_fault_that_one_photo_shows_fails_that_photo_alone() -> None:
    bundle = load_bundle(DEFAULT_BUNDLE)
    answers: queue.Queue[WorkerResult] = queue.Queue()
    faults: list[str] = []

    def reply(answer: Frame) -> None:
        message = for_service(answer.head)
        if isinstance(message, Fault):
            faults.append(message.traceback)
        else:
            assert isinstance(message, WorkerResult)
            answers.put(message)

    one = Worker(Setup(str(bundle.folder), "onnxruntime", 1, Limits(), NO_TTA, "main", 0.0), reply)
    # The service lets no such body through, so decoding it is a fault that nobody foresaw.
    jobs = [(WorkerJob(1, "a", 60, JobOptions("input")), b"too short"), (WorkerJob(2, "b", 60), photo().read_bytes())]
    received = iter([(frame(job).head, body) for job, body in jobs])
    one.run(lambda: next(received, None))
    found = {answer.id: answer.prediction for answer in (answers.get(timeout=60), answers.get(timeout=60))}
    failed, named = found[1], found[2]
    assert failed is not None
    assert failed.failure is not None
    assert "a fault in Nameplate" in failed.failure.detail
    assert named is not None
    assert named.nameplate
    assert len(faults) == 1
    assert "ValueError" in faults[0]
