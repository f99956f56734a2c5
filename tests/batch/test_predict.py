"""`predict_photos` into one file: restartable, one row per photo."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nameplate.batch.job import MANIFEST
from nameplate.batch.predict import JobResult, Options, find_output, predict_photos
from nameplate.demo import photos_folder
from nameplate.errors import NameplateError, UsageError
from nameplate.model.model import Model


@pytest.fixture(scope="module")
def model() -> Model:
    """The model that ships, on the runtime that is always there."""
    return Model.load(runtime="onnxruntime")


def _photos(count: int) -> list[str]:
    return [str(path) for path in sorted(photos_folder("test").glob("*/*.jpg"))[:count]]


def _predict(model: Model, photos: list[str], target: Path, stop: int = 0) -> JobResult:
    """A job in parts of ten photos, interrupted after `stop` of them where that is said."""

    def progress(done: int, _: int) -> None:
        if done == stop:
            raise KeyboardInterrupt

    return predict_photos(model, photos, find_output(target), Options(shard_size=10), progress=progress)


def test_an_interrupted_run_goes_on_and_gives_the_same_table(model: Model, tmp_path: Path) -> None:
    photos, target = _photos(40), tmp_path / "answers.jsonl"
    _predict(model, photos, tmp_path / "whole.jsonl")
    with pytest.raises(KeyboardInterrupt):
        _predict(model, photos, target, stop=17)
    assert not target.exists()
    done = _predict(model, photos, target)
    assert (done.resumed, done.resumed_parts) == (10, 1)  # the part under way is lost, and no more
    assert target.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    photos, target = _photos(80), tmp_path / "answers.csv"
    listed = tmp_path / "photos.csv"
    listed.write_text("path\n" + "\n".join(photos * 4) + "\n", "utf-8")
    command = [sys.executable, "-m", "nameplate", "predict", "cars196", str(listed), "-o", str(target)]
    command += ["--runtime", "onnxruntime", "--part", "20", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ledger = tmp_path / ".answers.csv.job" / MANIFEST
    while not ledger.exists() and process.poll() is None:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not target.exists()
    done = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert done["photos"] == 320
    assert 0 < done["resumed"] < 320
    assert len(target.read_text("utf-8").splitlines()) == 321


def test_another_job_is_not_resumed(model: Model, tmp_path: Path) -> None:
    target = tmp_path / "answers.jsonl"
    with pytest.raises(KeyboardInterrupt):
        _predict(model, _photos(20), target, stop=15)
    assert _predict(model, _photos(19), target).resumed == 0
    assert len(target.read_bytes().splitlines()) == 19


def test_other_suffixes_and_unwritable_folders_are_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must end in"):
        _predict(model, _photos(1), tmp_path / "answers.txt")
    (tmp_path / "file").write_text("")
    with pytest.raises(NameplateError, match="Cannot write"):
        _predict(model, _photos(1), tmp_path / "file" / "answers.csv")


@pytest.mark.skipif(sys.platform != "linux", reason="file names that are no UTF-8")
def test_a_file_name_that_is_no_utf8_gets_its_row(model: Model, tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xcf\xf0\xe8.jpg")
    Path(name).write_bytes(Path(_photos(1)[0]).read_bytes())
    _predict(model, [name], tmp_path / "answers.jsonl")
    [row] = map(json.loads, (tmp_path / "answers.jsonl").read_bytes().splitlines())
    assert row["photo"].endswith(r"\xcf\xf0\xe8.jpg")
    assert row["nameplate"]


def test_a_job_with_other_views_starts_again(model: Model, tmp_path: Path) -> None:
    photos, target = _photos(30), tmp_path / "answers.csv"
    with pytest.raises(KeyboardInterrupt):
        _predict(model, photos, target, stop=19)
    with pytest.raises(KeyboardInterrupt):
        _predict(model.with_settings(tta="mirror"), photos, target, stop=29)
    assert _predict(model.with_settings(tta="mirror"), photos, target).resumed == 20
