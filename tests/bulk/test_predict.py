"""`predict_table`: restartable, one row a photo."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nameplate.bulk.predict import predict_table
from nameplate.demo import photos_folder
from nameplate.errors import NameplateError, UsageError
from nameplate.models.model import Model


@pytest.fixture(scope="module")
def model() -> Model:
    """The model that ships, on the runtime that is always there."""
    return Model.load(runtime="onnxruntime")


def _photos(count: int) -> list[str]:
    return [str(path) for path in sorted(photos_folder("test").glob("*/*.jpg"))[:count]]


def test_an_interrupted_run_goes_on_and_gives_the_same_table(model: Model, tmp_path: Path) -> None:
    photos = _photos(40)
    predict_table(model, photos, tmp_path / "whole.jsonl")

    def stop(done: int, _: int) -> None:
        if done == 17:
            raise KeyboardInterrupt

    target = tmp_path / "answers.jsonl"
    with pytest.raises(KeyboardInterrupt):
        predict_table(model, photos, target, progress=stop)
    assert not target.exists()
    done = predict_table(model, photos, target)
    assert done.resumed == 17
    assert target.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    photos, target = _photos(80), tmp_path / "answers.csv"
    listed = tmp_path / "photos.csv"
    listed.write_text("path\n" + "\n".join(photos * 4) + "\n", "utf-8")
    command = [sys.executable, "-m", "nameplate", "predict", "cars196", str(listed), "-o", str(target)]
    command += ["--runtime", "onnxruntime", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = tmp_path / ".answers.csv.job" / ".part-00000.csv.journal"
    for _ in range(600):
        if journal.exists() and journal.stat().st_size > 1000:
            break
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not target.exists()
    done = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert done["photos"] == 320
    assert 0 < done["resumed"] < 320
    assert len(target.read_text("utf-8").splitlines()) == 321


def test_a_journal_of_another_job_is_not_gone_on_from(model: Model, tmp_path: Path) -> None:
    target = tmp_path / "answers.jsonl"

    def stop(done: int, _: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_table(model, _photos(10), target, progress=stop)
    assert predict_table(model, _photos(9), target).resumed == 0
    assert len(target.read_bytes().splitlines()) == 9


def test_a_journal_with_a_last_line_cut_short_is_gone_on_from(model: Model, tmp_path: Path) -> None:
    photos, target = _photos(10), tmp_path / "answers.jsonl"

    def stop(done: int, _: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_table(model, photos, target, progress=stop)
    journal = tmp_path / ".answers.jsonl.job" / ".part-00000.jsonl.journal"
    journal.write_bytes(journal.read_bytes()[:-10])
    assert predict_table(model, photos, target).resumed == 5
    assert [json.loads(line)["photo"] for line in target.read_bytes().splitlines()] == photos


def test_other_suffixes_and_unwritable_folders_are_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must end in"):
        predict_table(model, _photos(1), tmp_path / "answers.txt")
    (tmp_path / "file").write_text("")
    with pytest.raises(NameplateError, match="Cannot write"):
        predict_table(model, _photos(1), tmp_path / "file" / "answers.csv")


@pytest.mark.skipif(sys.platform != "linux", reason="file names that are no UTF-8")
def test_a_file_name_that_is_no_utf8_gets_its_row(model: Model, tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xcf\xf0\xe8.jpg")
    Path(name).write_bytes(Path(_photos(1)[0]).read_bytes())
    predict_table(model, [name], tmp_path / "answers.jsonl")
    [row] = map(json.loads, (tmp_path / "answers.jsonl").read_bytes().splitlines())
    assert row["photo"].endswith(r"\xcf\xf0\xe8.jpg")
    assert row["nameplate"]


def test_a_job_with_other_looks_starts_afresh(model: Model, tmp_path: Path) -> None:
    photos, target = _photos(20), tmp_path / "answers.csv"

    def stop(done: int, _: int) -> None:
        if done == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_table(model, photos, target, progress=stop)
    with pytest.raises(KeyboardInterrupt):
        predict_table(model.with_settings(tta="mirror"), photos, target, progress=stop)
    assert predict_table(model.with_settings(tta="mirror"), photos, target).resumed == 9
