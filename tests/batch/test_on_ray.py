"""Jobs on Ray: the same bytes as on one machine, whatever dies; no process outlives them, none listens to others."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from nameplate.batch.job import JOB, LISTING, MANIFEST, Job, ShardRecord, open_job
from nameplate.batch.on_ray import TRIES, ShardWorker, WorkerConfig
from nameplate.batch.predict import JobResult, Options, find_output, predict_photos
from nameplate.demo import photos_folder
from nameplate.model.bundle import shipped
from nameplate.model.model import Model
from nameplate.types import Limits
from tests.leash import Leash, leashed, needs_ray

PART = 20
on_ray = [*needs_ray, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 130 photos, relative to it where they can be, one of them broken."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    paths: list[str | Path] = [*sorted(photos_folder("test").glob("*/*.jpg"))[:129]]
    paths.insert(70, "broken.jpg")
    (folder / "photos.csv").write_text("path\n" + "".join(f"{path}\n" for path in paths), "utf-8")
    return folder


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one machine writes where nothing interrupts it."""
    folder = tmp_path_factory.mktemp("whole")
    _plan(photos, folder / "out")
    return _bytes(folder / "out")


@pytest.fixture
def leash() -> Iterator[Leash]:
    with leashed() as held:
        yield held


@pytest.fixture(scope="module")
def begun(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job of which one part is done."""
    output = tmp_path_factory.mktemp("begun") / "out"
    with pytest.raises(KeyboardInterrupt):
        _plan(photos, output, stop=PART + 1)
    return open_job(output)


@pytest.fixture
def short() -> Iterator[Path]:
    """A temporary folder of few letters: Ray's sockets lie in such a one, and their paths may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="np-") as folder:
        yield Path(folder)


def _plan(photos: Path, output: Path, stop: int = 0) -> JobResult:
    """A job on this machine, interrupted after `stop` photos where that is said."""

    def progress(done: int, _: int) -> None:
        if done == stop:
            raise KeyboardInterrupt

    model = Model.load(runtime="onnxruntime")
    return predict_photos(
        model, [str(photos / "photos.csv")], find_output(output, "csv"), Options(shard_size=PART), progress=progress
    )


def _bytes(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(output.glob("part-*"))}


def _parts(output: Path) -> list[int]:
    """The parts in the ledger, in the order in which they were done."""
    if not (output / MANIFEST).exists():
        return []
    return [json.loads(line)["part"] for line in (output / MANIFEST).read_text("ascii").splitlines()]


def _start(leash: Leash, photos: Path, output: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "nameplate", "predict", "cars196", str(photos / "photos.csv"), "-o", str(output)]
    command += ["--format", "csv", "--part", str(PART), "--runtime", "onnxruntime", "--json", *more]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=leash.environment, stdout=pipe, stderr=pipe, text=True)


def _until_a_part_is_done(process: subprocess.Popen[str], output: Path) -> None:
    while not _parts(output):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def _listening(processes: list[int]) -> set[str]:
    """The addresses on which some processes wait for connections, as the kernel writes them."""
    open_files = [link for process in processes for link in Path(f"/proc/{process}/fd").glob("*") if link.is_symlink()]
    sockets = {str(link.readlink())[8:-1] for link in open_files if str(link.readlink()).startswith("socket:[")}
    rows = [line.split() for kind in ("tcp", "tcp6") for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in sockets}


class TestOnRay:
    pytestmark = on_ray

    def test_a_worker_that_is_killed_changes_nothing(
        self,
        leash: Leash,
        photos: Path,
        whole: dict[str, bytes],
        tmp_path: Path,
        short: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        (tmp_path / "home").mkdir()
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("TMPDIR", str(short))
        output = tmp_path / "out"
        process = _start(leash, photos, output, "--ray", "--workers", "1", "--threads", "1")
        _until_a_part_is_done(process, output)
        listening = _listening(leash.held())
        [worker] = leash.held("ray::MapWorker(MapBatches(ShardWorker)")
        os.kill(worker, signal.SIGKILL)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert not leash.wait()
        said = json.loads(out)
        assert (said["photos"], said["unreadable"], said["resumed"]) == (130, 1, 0)
        assert not re.search(r"ray|Traceback|WARN", err), err
        assert _bytes(output) == whole
        assert sorted(_parts(output)) == list(range(7))
        assert {path.name for path in output.iterdir()} == {JOB, LISTING, MANIFEST, ".lock", *whole}
        assert listening == {"0100007F", "0000000000000000FFFF00000100007F"}
        assert {path.name for path in (tmp_path / "home").iterdir()} <= {".cache"}  # not Ray's
        assert not list(short.glob("[!.]*"))  # .ses is the runtime's, not ours

    @pytest.mark.slow
    @pytest.mark.parametrize("then", [(), ("--ray", "--workers", "1", "--threads", "1")], ids=["alone", "on Ray"])
    def test_a_job_with_a_killed_driver_is_resumed(
        self, leash: Leash, photos: Path, whole: dict[str, bytes], tmp_path: Path, then: tuple[str, ...]
    ) -> None:
        output = tmp_path / "out"
        process = _start(leash, photos, output, "--ray", "--workers", "1", "--threads", "1")
        _until_a_part_is_done(process, output)
        process.kill()
        process.communicate()
        assert not leash.wait()
        before = _parts(output)
        assert 0 < len(before) < 7
        again = _start(leash, photos, output, *then)
        out, err = again.communicate(timeout=300)
        assert again.returncode == 0, err
        assert json.loads(out)["resumed"] >= PART * len(before) - PART
        assert _bytes(output) == whole
        assert _parts(output)[: len(before)] == before
        assert sorted(_parts(output)) == list(range(7))

    @pytest.mark.slow
    def test_a_job_that_one_machine_began_is_resumed(
        self, leash: Leash, photos: Path, whole: dict[str, bytes], tmp_path: Path
    ) -> None:
        output = tmp_path / "out"
        with pytest.raises(KeyboardInterrupt):
            _plan(photos, output, stop=PART + 5)
        assert _parts(output) == [0]
        process = _start(leash, photos, output, "--ray", "--workers", "2", "--threads", "1")
        _, err = process.communicate(timeout=300)
        if process.returncode == 2:
            pytest.skip("needs two processors")
        assert process.returncode == 0, err
        assert _bytes(output) == whole
        assert not list(output.glob(".part-*"))

    @pytest.mark.slow
    def test_an_error_that_stops_a_worker_stops_the_job_and_is_reported(
        self, leash: Leash, photos: Path, tmp_path: Path
    ) -> None:
        output = tmp_path / "out"
        with pytest.raises(KeyboardInterrupt):
            _plan(photos, output, stop=PART + 5)
        (output / LISTING / "00003.txt").unlink()
        process = _start(leash, photos, output, "--ray", "--workers", "1", "--threads", "1")
        _, err = process.communicate(timeout=300)
        assert process.returncode == 1
        assert "00003.txt" in err
        assert "Delete its folder to start again" in err
        assert "Traceback" not in err


class TestShardWorker:
    """A worker from inside, without Ray."""

    def test_it_makes_the_bytes_of_one_machine_and_leaves_nothing_else_in_the_job(
        self, begun: Job, whole: dict[str, bytes]
    ) -> None:
        made = _made(begun, 3)
        assert isinstance(made, ShardRecord)
        assert (made.part, made.rows, made.errors) == (3, PART, {"truncated": 1})
        assert begun.path(3).read_bytes() == whole["part-00003.csv"]
        assert {path.name for path in begun.root.glob(".part-00003*")} == {".part-00003.tries"}

    def test_a_part_that_kills_its_workers_is_given_up(self, begun: Job) -> None:
        (begun.root / ".part-00004.tries").write_bytes(b"." * TRIES)
        said = _made(begun, 4)
        assert isinstance(said, str)
        assert f"Part 4 took its worker with it {TRIES} times" in said
        assert "00004.txt" in said

    def test_a_node_with_other_versions_is_refused(self, begun: Job) -> None:
        terms = json.loads((begun.root / JOB).read_text("utf-8"))
        (begun.root / JOB).write_text(json.dumps(terms | {"versions": terms["versions"] | {"pillow": "1.0"}}), "utf-8")
        assert re.search(r"would write other rows: the job needs pillow 1\.0, not \d", str(_made(begun, 5)))
        (begun.root / JOB).write_text(json.dumps(terms), "utf-8")

    def test_another_bundle_is_refused(self, begun: Job) -> None:
        terms = json.loads((begun.root / JOB).read_text("utf-8"))
        (begun.root / JOB).write_text(json.dumps(terms | {"bundle": "0" * 64}), "utf-8")
        assert "has another bundle as 'cars196'" in str(_made(begun, 5))
        (begun.root / JOB).write_text(json.dumps(terms), "utf-8")

    def test_a_node_that_sees_no_job_says_so(self, begun: Job, tmp_path: Path) -> None:
        assert "put it on storage that all share" in str(_made(Job(tmp_path / "elsewhere", begun.spec), 0))


def _made(job: Job, part: int) -> ShardRecord | str:
    """What a worker that is new to a job makes of one of its shards: a record, or the error."""
    assert "cars196" in shipped()
    [outcome] = ShardWorker(WorkerConfig(str(job.root), "cars196", Limits(), 1))({"shard": [part]})["made"]
    found = msgspec.json.decode(outcome)
    return msgspec.convert(found["record"], ShardRecord) if found["record"] else str(found["error"])
