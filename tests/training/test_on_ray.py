"""Two workers of Ray Train are two processes of torchrun: they train as one, and go on after one of them died."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nameplate.demo import photos_folder
from nameplate.models.runtime import available_cpus
from nameplate.training.recipe import Recipe, Stage, recipe_toml
from tests.leash import Leash, leashed, needs_ray

TRAIN = [
    name
    for name in ("torch", "timm", "accelerate", "onnx", "onnxscript", "tensorboard")
    if importlib.util.find_spec(name) is None
]
pytestmark = [
    *needs_ray,
    pytest.mark.torch,
    pytest.mark.skipif(bool(TRAIN), reason="needs the train extra"),
    pytest.mark.skipif(available_cpus() < 2, reason="needs two processors"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]
STAGE = Stage(height=32, width=48, epochs=2, batch=8, learning_rate=2e-3)
RECIPE = Recipe(  # no batch norm, which differs by process, and nothing drawn
    "plain", "for trying", "test_vit", (STAGE,), "none", precision="float32", holdout=0.3, seed=3, optimizer="sgd"
)


@pytest.fixture
def leash() -> Iterator[Leash]:
    with leashed() as held:
        yield held


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, one of them no photo, and a recipe."""
    root = tmp_path_factory.mktemp("training")
    for nameplate in sorted(photos_folder("test").iterdir())[:3]:
        (root / "photos" / nameplate.name).mkdir(parents=True)
        for path in sorted(nameplate.iterdir())[:10]:
            shutil.copy(path, root / "photos" / nameplate.name)
    (root / "plain.toml").write_text(recipe_toml(RECIPE), "utf-8")
    return root


def _command(folder: Path, run: Path, *more: str) -> list[str]:
    """Relative paths, which workers must understand too."""
    command = [sys.executable, "-m", "nameplate", "train", "photos", "--recipe", "plain.toml", "-o", str(run)]
    return [*command, "--threads", "1", "--json", *more]


def _metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _alone(folder: Path, run: Path) -> list[dict[str, str]]:
    subprocess.run(_command(folder, run), cwd=folder, check=True, capture_output=True)
    return _metrics(run)


def _same(rows: list[dict[str, str]], others: list[dict[str, str]]) -> None:
    for row, other in zip(rows, others, strict=True):
        assert row["validation_top1"] == other["validation_top1"]
        assert float(row["validation_loss"]) == pytest.approx(float(other["validation_loss"]), abs=1e-5)


def test_two_workers_train_as_one(leash: Leash, folder: Path, tmp_path: Path) -> None:
    command = _command(folder, tmp_path / "two", "--ray", "--workers", "2")
    done = subprocess.run(command, cwd=folder, env=leash.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not leash.wait()
    said = json.loads(done.stdout)
    assert (len(said["epochs"]), said["resumed"]) == (2, 0)
    assert "epoch 2, 32×48: loss" in done.stderr
    assert "Traceback" not in done.stderr
    assert "ray" not in done.stderr.lower()
    assert json.loads((tmp_path / "two" / "run.json").read_text("utf-8"))["processes"] == 2
    assert {path.name for path in tmp_path.iterdir()} == {"two"}
    _same(_metrics(tmp_path / "two"), _alone(folder, tmp_path / "one"))


@pytest.mark.slow
def test_a_batch_that_workers_cannot_share_is_wrong_usage(leash: Leash, folder: Path, tmp_path: Path) -> None:
    command = [*_command(folder, tmp_path / "run", "--ray", "--workers", "2"), "--set", "stages.batch=7"]
    done = subprocess.run(command, cwd=folder, env=leash.environment, capture_output=True, text=True, check=False)
    assert done.stderr.count("A batch of 7 cannot be shared evenly by 2 processes") == 1
    assert done.returncode == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_no_more_than_an_epoch(leash: Leash, folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [*_command(folder, run, "--ray", "--workers", "2"), "--set", "stages.epochs=30"]
    process = subprocess.Popen(
        command, cwd=folder, env=leash.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not (run / "checkpoint.safetensors").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.kill(leash.held("ray::RayTrainWorker")[0], signal.SIGKILL)
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    assert "a worker died; a new group goes on from the last checkpoint" in err
    said = json.loads(out)
    assert said["resumed"] > 0
    assert len(said["epochs"]) == 30
