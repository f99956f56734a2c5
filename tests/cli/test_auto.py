"""`train --time-limit`, as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nameplate.demo import photos_folder
from tests.cli.run import nameplate

DATA = photos_folder("test")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--time-limit", "0"), "--time-limit '0': give a time from one second to 30 days"),
        (("--time-limit", "20 parsecs"), "--time-limit '20 parsecs' is no time"),
        (("--time-limit", "20m", "--preset", "quick"), "--preset quick: give one of fast, good, best"),
        (("--preset", "good"), "--preset says how to use a --time-limit"),
        (("--time-limit", "20m", "--recipe", "few"), "--time-limit chooses recipe, size, epochs and folds itself"),
        (("--time-limit", "20m", "--folds", "3"), "--time-limit chooses recipe, size, epochs and folds itself"),
    ],
)
def test_what_means_nothing_is_refused_in_one_line(options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = nameplate("train", DATA, "-o", tmp_path / "run", *options, check=2)
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_fast_reports_what_it_took_and_resumes_to_the_same(tmp_path: Path) -> None:
    run = tmp_path / "run"
    fast = ("--preset", "fast", "--time-limit", "10m", "--runtime", "onnxruntime")
    said = json.loads(nameplate("train", DATA, "-o", run, *fast, "--json").stdout)
    assert said["chosen"] == "head"
    assert said["limit"] == 600
    assert 0 < sum(each["seconds"] for each in said["tried"]) <= said["seconds"] < 600
    assert said["evaluation"]["photos"] == 30
    nameplate("identify", "--model", run, next(DATA.rglob("*.jpg")))
    again = nameplate("train", "--resume", run).stdout
    assert "a head on the frozen backbone" in again
    assert "10 min 00 s" in again
    refused = nameplate("train", DATA, "-o", run, *fast, check=1)
    assert "--resume" in refused.stderr
