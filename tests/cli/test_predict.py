"""`nameplate predict`, as a user runs it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from nameplate.demo import photos_folder

from .run import nameplate

FAST = ("--runtime", "onnxruntime")
PHOTOS = sorted(photos_folder("test").glob("*/*.jpg"))


def test_json_is_one_value_with_all_that_was_done(tmp_path: Path) -> None:
    (tmp_path / "no.jpg").write_bytes(b"no photo")
    output = tmp_path / "out"
    arguments: tuple[str | Path, ...] = (
        "predict",
        "cars196",
        *PHOTOS[:50],
        tmp_path / "no.jpg",
        "gone.jpg",
        "-o",
        output,
        *FAST,
    )
    done = json.loads(nameplate(*arguments, "--format", "jsonl", "--part", "20", "--profile", "--json").stdout)
    assert (done["photos"], done["unreadable"], done["parts"], done["resumed"]) == (52, 2, 3, 0)
    assert done["errors"] == {"not a photo": 1, "missing": 1}
    assert sum(done["verdicts"].values()) == 52
    assert done["verdicts"]["unreadable"] == 2
    assert done["photos_per_second"] > 0
    profile = done["profile"]
    stages = ["read", "decode", "locate", "resize", "infer", "judge", "write"]
    assert [stage["stage"] for stage in profile["stages"]] == stages
    assert all(stage["seconds"] > 0 for stage in profile["stages"])
    together = 1 / (1 / profile["decode_alone"] + 1 / profile["infer_alone"])
    assert profile["floor"] == pytest.approx(together, rel=0.01)
    assert sorted(path.name for path in output.iterdir() if path.name.startswith("part-")) == [
        f"part-0000{number}.jsonl" for number in range(3)
    ]
    again = json.loads(nameplate(*arguments, "--format", "jsonl", "--part", "20", "--json").stdout)
    assert (again["resumed"], again["resumed_parts"], again["profile"]) == (52, 3, None)
    assert again["verdicts"] == done["verdicts"]


def test_a_profile_and_a_summary_are_shown(tmp_path: Path) -> None:
    done = nameplate("predict", "cars196", photos_folder("test"), "-o", tmp_path / "a.csv", "--profile", *FAST)
    for word in ("200 photos, 0 unreadable", "Verdicts", "infer", "thread-seconds", "decoding alone"):
        assert word in done.stdout


def test_patterns_archives_and_standard_input_join_in_their_order(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "shard.zip", "w") as archive:
        archive.write(PHOTOS[2], "in/2.jpg")
    for number in range(2):
        (tmp_path / f"{number}.jpg").write_bytes(PHOTOS[number].read_bytes())
    command = [sys.executable, "-m", "nameplate", "predict", "cars196", "*.jpg", "shard.zip", "-", "-o", "a.csv", *FAST]
    subprocess.run(command, cwd=tmp_path, input=os.fsencode(PHOTOS[3]), check=True, capture_output=True)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["photo"] for row in rows] == ["0.jpg", "1.jpg", "shard.zip::in/2.jpg", str(PHOTOS[3])]
    assert all(row["nameplate"] and len(row["sha256"]) == 64 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("x.jpg", "-o", "out", "--format", "xlsx"), 2, "Unknown format 'xlsx'"),
        (("x.jpg", "-o", "out.csv", "--format", "csv"), 2, "give one of the two"),
        (("http://host/x.jpg", "-o", "out.csv"), 2, "'http://' are not read"),
        (("nothing*.jpg", "-o", "out.csv"), 1, "There are no photos in 'nothing*.jpg'"),
        (("s3://me:secret@bucket/x", "-o", "out.csv"), 2, "leave the password out"),
    ],
)
def test_impossible_requests_are_refused(arguments: tuple[str, ...], code: int, said: str, tmp_path: Path) -> None:
    done = nameplate("predict", "cars196", *arguments, check=code, cwd=tmp_path)
    assert said in done.stderr
    assert "secret" not in done.stderr
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())
