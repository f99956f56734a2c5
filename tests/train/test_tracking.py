"""Runs in W&B and MLflow, without a network: written, and gone on with as the same run."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nameplate.errors import NameplateError
from nameplate.fit.recipe import load_recipe
from nameplate.fit.run import Run, RunPhoto
from nameplate.types import Epoch

pytestmark = pytest.mark.torch
pytest.importorskip("torch")

from nameplate.train.tracking import epoch_figures, open_tracker, step_figures  # noqa: E402

EPOCH = Epoch(1, 1, 160, 240, 4e-4, 2.5, None, 0.5, 32.0, 60.0)


def a_run() -> Run:
    recipe = load_recipe("few")
    photo = RunPhoto("/a.jpg", "A", "train", 0, "", "00" * 32, 9, 9)
    return Run(1, recipe, (photo,), ("A", "B"), ("A", "B"), (), "2026-01-01", False, 1, 1, "cpu", "none: random")  # type: ignore[arg-type]


def test_figures_have_the_names_of_tensorboard_and_leave_out_what_is_none() -> None:
    figures = epoch_figures(EPOCH)
    assert figures["epoch/train-loss"] == 2.5
    assert "epoch/validation-loss" not in figures
    assert step_figures(1.0, 0.5) == {"step/loss": 1.0, "step/learning-rate": 0.5}


@pytest.mark.filterwarnings("ignore")
def test_mlflow_keeps_a_run_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    first = open_tracker("mlflow", tmp_path, a_run())
    first.write(step_figures(3.0, 0.1), 10)
    first.write(epoch_figures(EPOCH), 20)
    first.close({}, finished=False)
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    [experiment] = [each for each in client.search_experiments() if each.name == "nameplate"]
    [stopped] = client.search_runs([experiment.experiment_id])
    assert stopped.info.status == "KILLED"
    second = open_tracker("mlflow", tmp_path, a_run())
    second.write(step_figures(2.0, 0.1), 30)
    second.close({"bundle/top-1": 0.75}, finished=True)
    [run] = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", tmp_path.name)
    assert run.data.params["stages.2.batch"] == "8"
    assert run.data.metrics["bundle/top-1"] == 0.75
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "step/loss")] == [
        (10, 3.0),
        (30, 2.0),
    ]
    other = open_tracker("mlflow", tmp_path, replace(a_run(), made="2026-01-02"))
    other.close({}, finished=True)
    assert len(client.search_runs([experiment.experiment_id])) == 2


@pytest.mark.filterwarnings("ignore")
def test_wandb_writes_a_run_offline_under_the_same_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no .netrc: without a key it is offline
    for loss in (3.0, 2.0):
        tracker = open_tracker("wandb", tmp_path, a_run())
        tracker.write({**step_figures(loss, 0.1), **epoch_figures(EPOCH)}, 10)
        tracker.close({"bundle/top-1": 0.75}, finished=True)
    files = list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len({file.name for file in files}) == 1
    text = b"".join(file.read_bytes() for file in files)
    assert b"epoch/train-loss" in text
    assert b"label_smoothing" in text


def test_a_missing_package_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules.update(wandb=None, mlflow=None)\n"
        "from pathlib import Path; from tests.train.test_tracking import a_run\n"
        "from nameplate.train.tracking import open_tracker; open_tracker(sys.argv[1], Path(sys.argv[2]), a_run())"
    )
    for kind in ("wandb", "mlflow"):
        done = subprocess.run(
            [sys.executable, "-c", code, kind, tmp_path], capture_output=True, text=True, check=False, cwd=Path.cwd()
        )
        assert f"{NameplateError.__name__}: Tracking by" in done.stderr
        assert "pip install 'nameplate[track]'" in done.stderr
