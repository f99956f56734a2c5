"""The files that a run leaves agree with the checkpoint, whatever interrupted the run."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nameplate.data import read_dataset
from nameplate.demo import photos_folder
from nameplate.errors import NameplateError
from nameplate.fit.recipe import Recipe, Stage
from nameplate.report.run import metrics_csv

pytestmark = pytest.mark.torch
for needed in ("torch", "timm", "accelerate", "onnx", "tensorboard"):
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed}", allow_module_level=True)

import torch  # noqa: E402

from nameplate.fit.run import load_run, split_of  # noqa: E402
from nameplate.train import finetune as module  # noqa: E402
from nameplate.train.checkpoint import State, load_checkpoint  # noqa: E402
from nameplate.train.finetune import fine_tune, start  # noqa: E402
from nameplate.train.loop import StepEvent  # noqa: E402
from nameplate.train.monitor import RunMonitor  # noqa: E402

torch.set_num_threads(1)

STAGE = Stage(height=32, width=48, epochs=3, batch=10, learning_rate=2e-3)
TINY = Recipe("tiny", "for trying", "test_efficientnet", (STAGE,), weights="none", precision="float32", holdout=0.5)


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag → (step, value), as TensorBoard shows them."""
    reader: Any = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(run / "events"))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def state(run: Path) -> State:
    saved = load_checkpoint(run)
    assert saved is not None
    return saved[0]


def stop_at(step: int, error: BaseException) -> Any:
    def watch(event: StepEvent) -> None:
        if event.state.steps == step:
            raise error

    return watch


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 10 steps an epoch, ended in its third epoch."""
    run = tmp_path_factory.mktemp("runs") / "run"
    start(lambda: read_dataset(photos_folder("test")), run, TINY, threads=1)
    with pytest.raises(NameplateError):
        fine_tune(run, watch=stop_at(25, NameplateError("the <disk> is full")))
    return run


def test_table_events_and_page_agree_with_the_checkpoint(stopped: Path) -> None:
    history = state(stopped).history
    assert [row.epoch for row in history] == [1, 2]
    assert (stopped / "metrics.csv").read_bytes() == metrics_csv(history)
    read = scalars(stopped)
    for tag, values in (
        ("epoch/train-loss", [row.train_loss for row in history]),
        ("epoch/validation-top-1", [row.validation_top1 for row in history]),
        ("epoch/learning-rate", [row.learning_rate for row in history]),
    ):
        assert [step for step, _ in read[tag]] == [10, 20]
        assert [value for _, value in read[tag]] == pytest.approx(values)
    assert [step for step, _ in read["step/loss"]] == [10, 20]
    page = (stopped / "index.html").read_text("utf-8")
    assert "stopped: the &lt;disk&gt; is full" in page
    assert 'http-equiv="refresh"' not in page
    assert len(re.findall("data:image/jpeg", page)) == 1  # the augmented photos
    assert (stopped / "augmented.jpg").read_bytes()[:3] == b"\xff\xd8\xff"


def test_a_process_killed_before_it_wrote_an_epochs_row_leaves_it_to_the_next(stopped: Path) -> None:
    run, saved = load_run(stopped), state(stopped)
    (stopped / "metrics.csv").unlink()
    monitor = RunMonitor(stopped, run, split_of(run), saved)
    monitor.stopped("again")
    assert (stopped / "metrics.csv").read_bytes() == metrics_csv(saved.history)
    read = scalars(stopped)
    assert [step for step, _ in read["epoch/train-loss"]] == [10, 20]


def test_an_interrupted_run_goes_on_and_its_page_says_finished(stopped: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fine_tune(stopped, watch=stop_at(24, KeyboardInterrupt()))
    assert "stopped: interrupted" in (stopped / "index.html").read_text("utf-8")
    made = fine_tune(stopped)
    assert made is not None
    assert made.resumed == 20
    page = (stopped / "index.html").read_text("utf-8")
    assert "finished" in page
    assert "stopped:" not in page
    assert (stopped / "metrics.csv").read_bytes() == metrics_csv(state(stopped).history)
    assert [step for step, _ in scalars(stopped)["epoch/train-loss"]] == [10, 20, 30]


def test_the_reason_why_a_run_ended_is_reported_though_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    start(
        lambda: read_dataset(photos_folder("test")), run, replace(TINY, stages=(replace(STAGE, epochs=1),)), threads=1
    )

    def full(*_: object) -> None:
        raise NameplateError("Cannot write the checkpoint")

    def no_page(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "fit", full)
    monkeypatch.setattr("nameplate.train.monitor.write_run_page", no_page)
    with pytest.raises(NameplateError, match="Cannot write the checkpoint"):
        fine_tune(run)
