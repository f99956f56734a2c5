"""What is kept on disk, the bounds of it, and how uploads are split."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import msgspec
import pytest

from nameplate.errors import DataError, NameplateError
from nameplate.model.verification import prediction_json
from nameplate.serve.errors import Problem
from nameplate.serve.jobs.store import RECORD, RESULTS, Job, JobStore
from nameplate.serve.jobs.upload import PIECE, Place, Spool, stored_photos
from nameplate.serve.requests import FIELD_BYTES, FormReader
from nameplate.serve.settings import JobLimits
from nameplate.types import Limits, Prediction
from tests.serve.jobs.test_runner import zipped

LIMITS = JobLimits(bytes_in_all=1000, of_client=3, in_all=4)


def made(store: JobStore, number: int, owner: str = "ann", **facts: object) -> Job:
    job = Job(f"{number:032x}", owner, "cars196", "digest", photos=3, created=float(number + 1), **facts)  # type: ignore[arg-type]
    store.folder_of(job).mkdir()
    store.save(job)
    store.jobs[job.id] = job
    return job


def rows(*names: str) -> list[object]:
    return [prediction_json(Prediction(name)) for name in names]


def test_a_client_has_so_many_jobs_and_all_have_so_many(tmp_path: Path) -> None:
    store = JobStore.open(tmp_path, LIMITS)
    for number in range(2):
        made(store, number)
    with store.arriving("ann"):
        with pytest.raises(Problem, match="3 of 4 jobs, 3 of them this client's") as own, store.arriving("ann"):
            pass
        with store.arriving("bob"), pytest.raises(Problem, match="4 of 4 jobs, 0 of them") as others:
            store.arriving("eve").__enter__()
    assert (own.value.status, others.value.status) == (429, 503)
    with store.arriving("ann"), store.arriving("bob"):  # what is no longer received does not count
        pass
    store.close()


def test_a_client_may_fill_as_many_bytes_as_it_leaves_free(tmp_path: Path) -> None:
    store = JobStore.open(tmp_path, LIMITS)
    made(store, 1, "bob", upload_bytes=150, result_bytes=50)
    with store.arriving("ann") as arriving:
        store.take_room(arriving, 400)  # leaves 400
        with pytest.raises(Problem, match=r"Jobs fill 600 of 1,000 bytes, 400 of them this client's"):
            store.take_room(arriving, 1)
        with store.arriving("eve") as other:
            store.take_room(other, 200)  # there is room for a newcomer
    store.close()


def test_rows_that_no_record_counts_are_dropped(tmp_path: Path) -> None:
    store = JobStore.open(tmp_path, LIMITS)
    job = store.append(made(store, 1), rows("a", "b"))  # type: ignore[arg-type]
    first = (store.folder_of(job) / RESULTS).read_bytes()
    with (store.folder_of(job) / RESULTS).open("ab") as file:
        file.write(b'{"photo": "half')
    store.close()
    store = JobStore.open(tmp_path, LIMITS)
    [job] = store.jobs.values()
    assert (job.done, job.state) == (2, "running")
    job = store.finish(store.append(job, rows("c")))  # type: ignore[arg-type]
    lines = (store.folder_of(job) / RESULTS).read_bytes()
    assert lines.startswith(first)
    assert [msgspec.json.decode(line)["photo"] for line in lines.splitlines()] == ["a", "b", "c"]
    assert job.result_bytes == len(lines)
    store.close()


def test_rows_that_a_disk_has_lost_are_computed_again(tmp_path: Path) -> None:
    store = JobStore.open(tmp_path, LIMITS)
    job = store.append(made(store, 1), rows("a", "b"))  # type: ignore[arg-type]
    (store.folder_of(job) / RESULTS).write_bytes(b"")
    store.close()
    store = JobStore.open(tmp_path, LIMITS)
    assert [each.done for each in store.jobs.values()] == [0]
    store.close()


def test_a_job_is_kept_for_a_time_after_its_end(tmp_path: Path) -> None:
    store = JobStore.open(tmp_path, JobLimits(kept_seconds=100))
    old, new, running = made(store, 1, finished=time.time() - 101), made(store, 2, finished=time.time()), made(store, 3)
    assert store.expired() == [old]
    with pytest.raises(Problem, match="no such job"):
        store.find(old.id, "ann")
    assert store.find(new.id, "ann") is new
    assert store.find(running.id, "ann") is running
    assert store.of("ann") == [running, new]
    assert store.of("bob") == []
    with pytest.raises(Problem, match="no such job"):
        store.find(new.id, "bob")
    store.remove(old)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [new.id, running.id]
    store.close()


def test_a_folder_is_one_services_and_what_is_no_job_in_it_is_named(tmp_path: Path) -> None:
    store = JobStore.open(tmp_path, LIMITS)
    with pytest.raises(NameplateError, match="Another run"):
        JobStore.open(tmp_path, LIMITS)
    job = made(store, 1)
    (store.folder_of(job) / RECORD).write_bytes(b"{}")
    store.close()
    for _ in range(2):  # the lock is given back
        with pytest.raises(DataError, match=f"{job.id}/{RECORD}' is no job"):
            JobStore.open(tmp_path, LIMITS)


def spool(folder: Path, *chunks: bytes, places: list[Place] | None = None) -> None:
    async def write() -> None:
        written = Spool(folder)
        for chunk in chunks:
            written.add(chunk)
            await written.write()
        await written.end(places)
        written.close()

    asyncio.run(write())


def test_photos_are_read_back_as_they_came(tmp_path: Path) -> None:
    big = bytes(range(256)) * (PIECE // 100)
    places = [Place("a", 0, 1), Place("b", 1, 2), Place("empty", 3, 0), Place("big", 3, len(big))]
    spool(tmp_path, b"abc", big, b"", places=places)
    found = {photo.name: photo.read() for photo in stored_photos(tmp_path, Limits(), 10)}
    assert found == {"a": b"a", "b": b"bc", "empty": b"", "big": big}


def test_a_photo_of_a_zip_that_unpacks_to_too_much_is_refused_alone(tmp_path: Path) -> None:
    spool(tmp_path, zipped({"a.jpg": b"x" * 100, "b.jpg": b"x" * 101}))
    photos = stored_photos(tmp_path, Limits(bytes=100), 10)
    assert next(photos).read() == b"x" * 100
    with pytest.raises(NameplateError, match="the limit is 100"):
        next(photos).read()


def form(*parts: tuple[str, bytes]) -> bytes:
    heads = [f"--x\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() for head, _ in parts]
    return b"".join(head + body + b"\r\n" for head, (_, body) in zip(heads, parts, strict=True)) + b"--x--\r\n"


PARTS = (
    ('name="photos"; filename="a.jpg"', b"one\r\n--"),
    ('name="note"', b"text"),
    ('name="photos"; filename=""', b""),
    ('name="photos"; filename="b"', b"two"),
)


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_a_forms_files_go_to_a_sink_in_whatever_chunks_they_come(step: int) -> None:
    body = form(*PARTS)
    sunk: list[bytes] = []
    reader = FormReader(b"x", sunk.append)
    for start in range(0, len(body), step):
        reader.write(body[start : start + step])
    found = reader.form()
    assert b"".join(sunk) == b"one\r\n--two"
    assert [(file.name, file.size) for file in found.files] == [("a.jpg", 7), ("", 0), ("b", 3)]
    assert not any(file.data for file in found.files)
    assert found.fields == {"note": "text"}


def test_with_a_sink_a_field_is_bounded_while_it_arrives() -> None:
    reader = FormReader(b"x", lambda _: None)
    reader.write(form(('name="note"', b"y" * 100))[:60])
    for _ in range(100):
        reader.write(b"y" * FIELD_BYTES)
    assert sum(map(len, reader.parts._chunks)) <= FIELD_BYTES
    with pytest.raises(Problem, match="too long"):
        reader.write(b"\r\n--x--\r\n")
