"""Jobs on disk: killed, resumed, locked by one run at a time, and never mixed up."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nameplate.batch.job import MANIFEST, locked, open_job
from nameplate.batch.predict import JobResult, Options, find_output, predict_photos
from nameplate.batch.shards import make_shard
from nameplate.data.listing import NO_PHOTO
from nameplate.demo import photos_folder
from nameplate.errors import NameplateError, UsageError
from nameplate.model.model import Model

PART = 30


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load(runtime="onnxruntime")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 130 photos, one of them broken."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    paths = sorted(photos_folder("test").glob("*/*.jpg"))[:129]
    paths.insert(70, folder / "broken.jpg")
    table = folder / "photos.csv"
    table.write_text("path\n" + "".join(f"{path}\n" for path in paths), "utf-8")
    return table


def _predict(model: Model, photos: Path, output: Path, kind: str | None = None, stop: int = 0) -> JobResult:
    """A job, interrupted after `stop` photos where that is said."""

    def progress(done: int, _: int) -> None:
        if done == stop:
            raise KeyboardInterrupt

    return predict_photos(
        model,
        [str(photos)],
        find_output(output, kind),  # type: ignore[arg-type]
        Options(shard_size=PART),
        progress=progress,
    )


def _bytes(output: Path) -> dict[str, bytes]:
    """What a job wrote for its user."""
    files = [output] if output.is_file() else sorted(output.glob("part-*"))
    return {path.name: path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("kind", "folder"),
    [
        pytest.param("parquet", True, id="parquet folder"),
        pytest.param("csv", False, id="csv file"),
        pytest.param("parquet", False, id="parquet file", marks=pytest.mark.slow),
        pytest.param("csv", True, id="csv folder", marks=pytest.mark.slow),
        pytest.param("jsonl", True, id="jsonl folder", marks=pytest.mark.slow),
        pytest.param("jsonl", False, id="jsonl file", marks=pytest.mark.slow),
    ],
)
def test_a_job_killed_at_any_moment_gives_the_bytes_of_one_that_was_not(
    model: Model, photos: Path, tmp_path: Path, kind: str, folder: bool
) -> None:
    name = "out" if folder else f"out.{kind}"
    (tmp_path / "whole").mkdir()
    whole = _predict(model, photos, tmp_path / "whole" / name, kind if folder else None)
    output = tmp_path / name
    command = [sys.executable, "-m", "nameplate", "predict", "cars196", str(photos), "-o", str(output), "--json"]
    command += ["--runtime", "onnxruntime", "--part", str(PART), *(["--format", kind] if folder else [])]
    draw, killed = random.Random(f"{kind} {folder}"), 0
    root = output if folder else tmp_path / f".{name}.job"
    for _ in range(4):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (root / "job.json").exists():
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 1.2))
        killed += process.poll() is None
        process.kill()
        process.wait()
    assert killed, "no run was still at work when it was to be killed"
    done = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert _bytes(output) == _bytes(tmp_path / "whole" / name)
    assert (done["photos"], done["errors"], done["verdicts"]) == (130, whole.errors, whole.verdicts)
    assert not list(tmp_path.glob(".out*"))


def test_parts_join_into_the_file_that_one_part_would_be(model: Model, photos: Path, tmp_path: Path) -> None:
    for kind in ("csv", "jsonl"):
        _predict(model, photos, tmp_path / f"parts.{kind}")
        predict_photos(model, [str(photos)], find_output(tmp_path / f"one.{kind}"))
        assert (tmp_path / f"parts.{kind}").read_bytes() == (tmp_path / f"one.{kind}").read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "one.jsonl").read_bytes().splitlines()]
    assert list(rows[0])[:3] == ["photo", "sha256", "nameplate"]
    assert [row["photo"] for row in rows] == photos.read_text("utf-8").splitlines()[1:]
    assert (tmp_path / "one.csv").read_text("utf-8").startswith("photo,sha256,nameplate,confidence,verdict,make,")


def test_a_resumed_job_sees_the_photos_of_its_first_run(model: Model, photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "photos.csv"
    shutil.copy(photos, table)
    with pytest.raises(KeyboardInterrupt):
        _predict(model, table, tmp_path / "out", "jsonl", stop=65)
    table.write_text("path\nanother.jpg\n", "utf-8")
    done = _predict(model, table, tmp_path / "out", "jsonl")
    assert (done.photos, done.resumed, done.parts, done.resumed_parts) == (130, 60, 5, 2)
    again = _predict(model, table, tmp_path / "out", "jsonl")
    assert (again.photos, again.resumed, again.resumed_parts) == (130, 130, 5)
    assert again.verdicts == done.verdicts
    _predict(model, photos, tmp_path / "whole", "jsonl")
    assert _bytes(tmp_path / "out") == _bytes(tmp_path / "whole")


@pytest.fixture(scope="module")
def finished(model: Model, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished") / "out"
    _predict(model, photos, output, "csv")
    return output


@pytest.fixture
def output(finished: Path, tmp_path: Path) -> Iterator[Path]:
    """A finished job to spoil."""
    shutil.copytree(finished, tmp_path / "out")
    yield tmp_path / "out"
    assert _bytes(tmp_path / "out") == _bytes(finished)


def test_a_part_without_its_line_and_a_line_without_its_part_are_made_again(
    model: Model, photos: Path, output: Path
) -> None:
    lines = (output / MANIFEST).read_bytes().splitlines(keepends=True)
    (output / MANIFEST).write_bytes(b"".join([lines[0], *lines[2:4], lines[4][:-9]]))  # one lost, the last cut short
    (output / "part-00002.csv").write_bytes(b"short")
    (output / "part-00003.csv").unlink()
    assert _predict(model, photos, output, "csv").resumed_parts == 1
    assert _predict(model, photos, output, "csv").resumed_parts == 5


def test_a_part_is_made_from_its_listing_alone(model: Model, photos: Path, output: Path) -> None:
    before = _bytes(output)
    (output / "part-00002.csv").unlink()
    job = open_job(output)
    assert (job.spec.photos, job.shards, job.todo()) == (130, 5, [2])
    line = make_shard(model, job, 2)
    assert (line.part, line.rows, sum(line.errors.values())) == (2, 30, 1)
    assert _bytes(output) == before


def test_a_folder_of_another_job_or_of_something_else_is_refused(
    model: Model, photos: Path, output: Path, tmp_path: Path
) -> None:
    with pytest.raises(NameplateError, match="holds another job: its top is 5, not 2"):
        predict_photos(model, [str(photos)], find_output(output, "csv"), Options(shard_size=PART, top=2))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "dear.txt").write_text("dear")
    with pytest.raises(NameplateError, match="holds no job"):
        _predict(model, photos, tmp_path / "mine", "csv")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["dear.txt"]


def test_two_runs_do_not_write_one_job(model: Model, photos: Path, output: Path) -> None:
    with locked(output), pytest.raises(NameplateError, match="Another run is writing"):
        _predict(model, photos, output, "csv")


def test_what_an_output_may_be(tmp_path: Path) -> None:
    assert find_output(tmp_path / "a.CSV").format == "csv"
    assert find_output(tmp_path / "a").format == "parquet"
    assert find_output(tmp_path / "a.b", "csv").root == tmp_path / "a.b"
    for path, kind in ((tmp_path / "a.csv", "csv"), (tmp_path / "a", "xlsx"), (tmp_path / "a.xlsx", None)):
        with pytest.raises(UsageError):
            find_output(path, kind)  # type: ignore[arg-type]


def test_what_the_listing_left_out_is_reported_again_when_a_job_is_resumed(model: Model, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, path in enumerate(sorted(photos_folder("test").glob("*/*.jpg"))[: PART + 5]):
        shutil.copy(path, folder / f"{number:03d}.jpg")
    for number in range(3):
        (folder / f"{number}.txt").write_text("no photo")
    with pytest.raises(KeyboardInterrupt):
        _predict(model, folder, tmp_path / "out", "jsonl", stop=PART + 2)
    for path in folder.glob("*.txt"):
        path.unlink()  # the listing is that of the first run
    done = _predict(model, folder, tmp_path / "out", "jsonl")
    assert (done.photos, done.resumed, done.left_out.total) == (PART + 5, PART, 3)
    assert [Path(entry.name).name for entry in done.left_out.first] == ["0.txt", "1.txt", "2.txt"]
    assert done.left_out.reasons == {NO_PHOTO: 3}
    again = _predict(model, folder, tmp_path / "out", "jsonl")
    assert again.left_out == done.left_out


def test_a_job_does_not_write_over_its_list(model: Model, tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    table.write_text("path\na.jpg\n")
    for source in ("list.csv", "*.csv"):
        with pytest.raises(UsageError, match="is read, and would be written over"):
            predict_photos(model, [str(tmp_path / source)], find_output(table))
    assert table.read_text() == "path\na.jpg\n"
    assert [path.name for path in tmp_path.iterdir()] == ["list.csv"]
