"""Memory: the same for many photos as for few."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nameplate.demo import photos_folder

MEASURED = """
import json, resource, sys
from nameplate.batch.predict import Options, find_output, predict_photos
from nameplate.model.model import Model
from pathlib import Path
model = Model.load(runtime="onnxruntime")
done = predict_photos(model, sys.argv[1:2], find_output(Path(sys.argv[2]), "csv"), Options(shard_size=1000))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"photos": done.photos, "unreadable": done.unreadable, "peak": peak}))
"""
MEGABYTES = 25
"""More than this is growth, and not chance: the names alone of ten thousand photos more are less."""


def _run(source: Path, output: Path) -> dict[str, float]:
    command = [sys.executable, "-c", MEASURED, str(source), str(output)]
    done: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return done


def _links(folder: Path, count: int) -> Path:
    """A folder of folders of links to the same few photos."""
    photos = sorted(photos_folder("test").glob("*/*.jpg"))[:50]
    for number in range(count):
        below = folder / f"{number // 1000:04d}"
        if number % 1000 == 0:
            below.mkdir(parents=True)
        (below / f"{number % 1000:03d}.jpg").symlink_to(photos[number % len(photos)])
    return folder


def test_a_hundred_times_the_photos_take_no_more_memory(tmp_path: Path) -> None:
    peaks = []
    for count in (1_000, 100_000):
        listed = tmp_path / f"{count}.csv"
        listed.write_text("path\n" + "".join(f"gone/{number:07d}.jpg\n" for number in range(count)), "utf-8")
        done = _run(listed, tmp_path / f"out-{count}")
        assert (done["photos"], done["unreadable"]) == (count, count)
        peaks.append(done["peak"])
    assert peaks[1] - peaks[0] < MEGABYTES, peaks


@pytest.mark.slow
def test_links_to_the_same_photos_take_no_more_memory_however_many(tmp_path: Path) -> None:
    few = _run(_links(tmp_path / "few", 1_000), tmp_path / "out-few")
    many = _run(_links(tmp_path / "many", 20_000), tmp_path / "out-many")
    assert (few["photos"], many["photos"], many["unreadable"]) == (1_000, 20_000, 0)
    assert many["peak"] - few["peak"] < MEGABYTES, (few, many)
