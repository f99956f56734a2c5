"""The engine: its answers, its cap, and what happens to photos when workers die or stall, or nobody waits for them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nameplate.demo import photos_folder
from nameplate.errors import NameplateError
from nameplate.model.model import Model
from nameplate.model.pipeline import Settings, prepare_photo
from nameplate.model.reference import ReferenceAnswer
from nameplate.serve import engine as engine_module
from nameplate.serve.engine import DISPLACED, KILLER, Engine
from nameplate.serve.errors import Problem
from nameplate.serve.ipc import JobOptions, WorkerProcess, WorkerResult
from nameplate.serve.settings import ServeSettings
from nameplate.types import Limits
from tests.images import torture
from tests.outcomes import prepared

PHOTOS = [path.read_bytes() for path in sorted(photos_folder("test").glob("*/*.jpg"))[::10]]
SLOW = torture.many_scans(side=8192, planes=8)
"""A photo that takes more than ten seconds to decode."""


class Seen:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.done: list[WorkerResult] = []
        self.events: list[tuple[str, dict[str, object]]] = []

    def answered(self, model: str, done: WorkerResult) -> None:  # noqa: ARG002
        self.done.append(done)

    def event(self, name: str, **facts: object) -> None:
        self.events.append((name, facts))

    def count(self, name: str) -> int:
        return [event for event, _ in self.events].count(name)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load(runtime="onnxruntime")


@asynccontextmanager
async def running(model: Model, seen: Seen | None = None, **changes: object) -> AsyncIterator[Engine]:
    # On a slow machine a wait that is bounded would refuse what these tests send at once.
    settings = replace(ServeSettings(), **{"queue_seconds": 600.0, **changes})  # type: ignore[arg-type]
    engine = Engine(model, settings, seen or Seen())
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def run(work: Callable[[], Coroutine[object, object, None]]) -> None:
    asyncio.run(work())


async def until(true: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("workers", [1, 2])
def test_many_at_once_get_the_answers_that_each_would_get_alone(model: Model, workers: int) -> None:
    expected = model.predict(PHOTOS)

    async def work() -> None:
        async with running(model, workers=workers) as engine:
            found = await asyncio.gather(
                *(
                    engine.answer([photo], [f"photo {i}"], JobOptions(embedding=True))
                    for i, photo in enumerate(PHOTOS, start=1)
                )
            )
        for [answer], wanted, embedding in zip(found, expected, model.embed(PHOTOS), strict=True):
            assert replace(answer.prediction, photo="") == replace(wanted, photo="")
            assert answer.embedding is not None
            assert np.array_equal(answer.embedding, embedding)
            assert answer.probs is not None
            assert float(answer.probs.max()) == wanted.confidence

    run(work)


def test_model_inputs_that_are_prepared_already_get_the_same_answers(model: Model) -> None:
    size = model.bundle.manifest.preprocess
    made = [prepared(prepare_photo(photo, size, Settings())) for photo in PHOTOS[:3]]
    inputs = [photo.car.inputs[0].tobytes() for photo in made]

    async def work() -> None:
        async with running(model) as engine:
            files = await engine.answer(PHOTOS[:3], ["a", "b", "c"])
            given = await engine.answer(inputs, ["a", "b", "c"], JobOptions("input"))
        for file, prepared_input in zip(files, given, strict=True):
            assert file.prediction is not None
            assert prepared_input.prediction is not None
            assert prepared_input.prediction.top == file.prediction.top
            # Of a model input nobody knows from where in a photo it was cropped, nor how good the photo was.
            assert (prepared_input.prediction.box, prepared_input.prediction.flaws) == (None, ())

    run(work)


def test_beyond_the_cap_all_of_a_request_is_refused_and_what_was_taken_is_answered(model: Model) -> None:
    async def work() -> None:
        async with running(model, queue_photos=10) as engine:
            taken = [asyncio.create_task(engine.answer(PHOTOS[:4], list("abcd"))) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(Problem, match="8 of 10 photos are under way") as refused:
                await engine.answer(PHOTOS[:4], list("abcd"))
            assert refused.value.status == 503
            assert refused.value.retry_after is not None
            assert all(len(answers) == 4 for answers in await asyncio.gather(*taken))
            assert engine.photos == 0
            assert len(await engine.answer(PHOTOS[:10], list("abcdefghij"))) == 10

    run(work)


def test_a_cancelled_photo_never_reaches_the_network(model: Model) -> None:
    seen = Seen()

    async def work() -> None:
        async with running(model, seen, threads=1, queue_photos=500) as engine:
            wanted = engine.window * 3
            asked = [asyncio.create_task(engine.answer([PHOTOS[0]], ["x"])) for _ in range(wanted)]
            await asyncio.sleep(0)
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            await until(lambda: engine.photos == 0)
            assert len(seen.done) < wanted / 3  # but for the few that were in work at that moment
            [answer] = await engine.answer([PHOTOS[0]], ["x"])
            assert answer.prediction.error is None

    run(work)


def test_a_late_photo_is_given_up(model: Model) -> None:
    async def work() -> None:
        async with running(model, threads=1, request_seconds=0.2) as engine:
            with pytest.raises(Problem, match="No answer within 0.2 s") as refused:
                await engine.answer([SLOW], ["slow"])
            assert refused.value.status == 503

    run(work)


def test_workers_that_die_are_replaced_and_no_answer_is_lost(model: Model) -> None:
    seen = Seen()

    async def work() -> None:
        async with running(model, seen) as engine:
            asked = [asyncio.create_task(engine.answer([photo], ["x"])) for photo in PHOTOS]
            await asyncio.sleep(0.02)
            os.kill(engine.workers[0].pid, signal.SIGKILL)
            await until(lambda: not engine.ready)
            found = await asyncio.gather(*asked)
            assert engine.ready
            expected = [replace(each, photo="x") for each in model.predict(PHOTOS)]
            assert [answer.prediction for [answer] in found] == expected
        assert seen.count("worker died") == 1

    run(work)


def test_a_photo_that_kills_two_workers_is_refused_and_takes_no_others_with_it(model: Model) -> None:
    async def work() -> None:
        async with running(model, threads=2, request_seconds=60) as engine:
            killer = asyncio.create_task(engine.answer([SLOW], ["killer"]))
            others = [asyncio.create_task(engine.answer([photo], ["x"])) for photo in PHOTOS[:5]]
            for _ in range(2):
                await until(lambda: engine.ready and bool(engine.workers[0].jobs))
                pid = engine.workers[0].pid
                await asyncio.sleep(1.0 if killer.done() else 0.3)
                os.kill(pid, signal.SIGKILL)
                await until(lambda pid=pid: all(worker.pid != pid for worker in engine.workers))  # type: ignore[misc]
            [answer] = await killer
            assert answer.prediction.error == f"damaged: {KILLER}"
            assert all(found.prediction.error is None for [found] in await asyncio.gather(*others))

    run(work)


def test_an_abandoned_decoder_ends_with_its_worker(model: Model) -> None:
    seen = Seen()

    async def work() -> None:
        async with running(model, seen, limits=Limits(seconds=0.3)) as engine:
            pid = engine.workers[0].pid
            [answer] = await engine.answer([SLOW], ["slow"])
            assert answer.prediction.failure is not None
            assert answer.prediction.failure.reason == "too slow"
            await until(lambda: engine.ready and engine.workers[0].pid != pid)
            assert seen.count("worker killed") == 1
            [answer] = await engine.answer([PHOTOS[0]], ["x"])
            assert answer.prediction.error is None

    run(work)


def test_a_killed_worker_that_is_slow_to_end_is_killed_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    listen = WorkerProcess.listen

    async def listen_longer(
        worker: WorkerProcess, done: Callable[[WorkerResult, bytes], None], slow: Callable[[int], None]
    ) -> None:
        await listen(worker, done, slow)
        await asyncio.sleep(1)  # as if its socket had closed a second later: five looks of the engine

    monkeypatch.setattr(WorkerProcess, "listen", listen_longer)
    seen = Seen()

    async def work() -> None:
        async with running(model, seen) as engine:
            worker = engine.workers[0]
            worker.leaving = True  # as a decoder that was left behind has it
            await until(lambda: seen.count("worker died") == 1)
            assert seen.count("worker killed") == 1
            await until(lambda: engine.ready and engine.workers[0] is not worker)
            [answer] = await engine.answer([PHOTOS[0]], ["x"])  # and the engine still watches
            assert answer.prediction.error is None

    run(work)


def test_a_worker_that_stalls_is_killed_and_its_photo_tried_again(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "STALL_SECONDS", 0.0)
    seen = Seen()

    async def work() -> None:
        async with running(model, seen, limits=Limits(seconds=0.5)) as engine:
            os.kill(engine.workers[0].pid, signal.SIGSTOP)
            [answer] = await engine.answer([PHOTOS[0]], ["x"])
            assert answer.prediction.error is None
            assert ("stalled", True) in [item for _, facts in seen.events for item in facts.items()]

    run(work)


def test_it_is_not_ready_if_the_reference_image_gets_another_answer(model: Model) -> None:
    async def work() -> None:
        engine = Engine(model, ServeSettings(), Seen(), reference=ReferenceAnswer((("Jeep Liberty SUV 2012", 0.9),)))
        with pytest.raises(NameplateError, match="does not answer as it should"):
            await engine.start()
        assert not engine.ready
        assert not engine.workers
        with pytest.raises(Problem) as refused:
            await engine.answer([PHOTOS[0]], ["x"])
        assert refused.value.kind == "not-ready"

    run(work)


def test_stopping_answers_what_is_under_way(model: Model) -> None:
    async def work() -> None:
        async with running(model) as engine:
            asked = [asyncio.create_task(engine.answer([photo], ["x"])) for photo in PHOTOS]
            await asyncio.sleep(0)
            await engine.stop(20)
            assert all(found.prediction.error is None for [found] in await asyncio.gather(*asked))
            with pytest.raises(Problem, match="not ready"):
                await engine.answer([PHOTOS[0]], ["x"])

    run(work)


def test_a_missing_bundle_makes_it_not_ready_with_the_reason(model: Model, tmp_path: Path) -> None:
    import shutil

    assert model.bundle.folder is not None
    copy = tmp_path / "copy"
    shutil.copytree(model.bundle.folder, copy)
    seen = Seen()

    async def work() -> None:
        async with running(Model.load(copy, runtime="onnxruntime"), seen) as engine:
            (copy / "backbone.onnx").write_bytes(b"damaged")
            start = time.monotonic()
            os.kill(engine.workers[0].pid, signal.SIGKILL)
            await until(lambda: seen.count("worker failed") > 1)
            with pytest.raises(Problem, match="not ready"):
                await engine.answer([PHOTOS[0]], ["x"])
            assert time.monotonic() - start < 20
            assert "backbone.onnx" in str(seen.events)

    run(work)


def test_in_a_full_queue_the_client_with_the_most_photos_gives_way(model: Model) -> None:
    async def check() -> None:
        async with running(model, queue_photos=20, photos=10, threads=1) as engine:
            for worker in engine.workers:
                os.kill(worker.pid, signal.SIGSTOP)
            many = [asyncio.create_task(engine.answer([PHOTOS[0]], ["x"], client="many")) for _ in range(20)]
            await asyncio.sleep(0)
            with pytest.raises(Problem, match="under way"):
                engine.require_room(1, "many")
            few = [asyncio.create_task(engine.answer(PHOTOS[:1], ["few"], client="few")) for _ in range(12)]
            await asyncio.sleep(0.01)
            for worker in engine.workers:
                os.kill(worker.pid, signal.SIGCONT)
            answered = await asyncio.gather(*few, return_exceptions=True)
            refused = [
                each for each in await asyncio.gather(*many, return_exceptions=True) if not isinstance(each, list)
            ]
            # Those that are with the worker already are answered; of the rest each client keeps its half at most.
            assert all(isinstance(each, Problem) and each.detail == DISPLACED for each in refused)
            assert sum(isinstance(each, list) for each in answered) == len(refused) > 0

    run(check)


def test_where_the_wait_would_be_long_the_queue_is_short_and_still_shared(model: Model) -> None:
    async def check() -> None:
        async with running(model, queue_seconds=0.5, threads=1) as engine:
            engine._throughput.seconds = 0.05
            assert engine.room == 10
            # A request of many photos is taken as long as its first one may be answered in time.
            whole = asyncio.create_task(engine.answer(PHOTOS[:20], ["x"] * 20))
            await asyncio.sleep(0)
            assert engine.photos == 20
            await whole
            for worker in engine.workers:
                os.kill(worker.pid, signal.SIGSTOP)
            engine._throughput.seconds = 0.05
            many = [asyncio.create_task(engine.answer([PHOTOS[0]], ["x"], client="many")) for _ in range(10)]
            await asyncio.sleep(0)
            with pytest.raises(Problem, match=r"10 of 128 photos are under way, which take some 0\.5 s"):
                engine.require_room(1, "many")
            few = asyncio.create_task(engine.answer([PHOTOS[0]], ["few"], client="few"))
            await asyncio.sleep(0.01)
            for worker in engine.workers:
                os.kill(worker.pid, signal.SIGCONT)
            [answer] = await few
            assert answer.prediction.error is None
            refused = [
                each for each in await asyncio.gather(*many, return_exceptions=True) if isinstance(each, Problem)
            ]
            assert [each.detail for each in refused] == [DISPLACED]

    run(check)


def test_photos_that_take_long_to_decode_fill_no_room_of_quick_ones(model: Model) -> None:
    async def check() -> None:
        async with running(model, queue_seconds=0.5, threads=1, request_seconds=60) as engine:
            engine._throughput.seconds = 0.1
            slow = [asyncio.create_task(engine.answer([SLOW], ["slow"], client="slow")) for _ in range(8)]
            await until(lambda: engine.photos == 8 and engine.quick == 0)
            assert engine.room == 8
            [answer] = await engine.answer([PHOTOS[0]], ["x"], client="slow")
            assert answer.prediction.error is None
            for task in slow:
                task.cancel()
            await asyncio.gather(*slow, return_exceptions=True)

    run(check)


def test_the_client_with_fewer_photos_at_the_workers_is_next(model: Model) -> None:
    async def check() -> None:
        done: list[str] = []
        async with running(model, threads=1) as engine:

            async def ask(client: str) -> None:
                await engine.answer([PHOTOS[0]], ["x"], client=client)
                done.append(client)

            many = [asyncio.create_task(ask("many")) for _ in range(60)]
            await asyncio.sleep(0)
            await asyncio.gather(ask("few"))
            assert done.count("many") < 40
            await asyncio.gather(*many)

    run(check)
