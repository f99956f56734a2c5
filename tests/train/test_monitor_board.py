"""The files for TensorBoard, read with TensorBoard's own reader."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from nameplate.errors import NameplateError
from nameplate.train.monitor import Board
from nameplate.types import Epoch

pytestmark = pytest.mark.torch
EPOCH = Epoch(1, 1, 160, 240, 4e-4, 2.5, None, 0.5, 32.0, 60.0)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag → (step, value), as TensorBoard shows them."""
    reader: Any = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_steps_and_epochs_come_back(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.write_step(1, 3.0, 0.125)
    board.write_step(2, 2.0, 0.25)
    board.write(EPOCH, 2)
    assert scalars(tmp_path)["epoch/train-loss"] == [(2, 2.5)]  # on disk before the file is closed
    board.write_step(3, float("nan"), 0.25)
    board.close()
    read = scalars(tmp_path)
    assert read["step/loss"][:2] == [(1, 3.0), (2, 2.0)]
    assert read["step/loss"][2][0] == 3
    assert read["step/learning-rate"][:2] == [(1, 0.125), (2, 0.25)]
    assert read["epoch/validation-top-1"] == [(2, 0.5)]
    assert read["epoch/photos-per-second"] == [(2, 32.0)]
    assert read["epoch/learning-rate"][0][1] == pytest.approx(4e-4)
    assert "epoch/validation-loss" not in read


def test_a_resumed_run_hides_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    first = Board(tmp_path)
    for step in range(1, 6):
        first.write_step(step, float(step), 0.5)
    first.write(EPOCH, 5)
    first.close()
    time.sleep(1.1)  # files are read in the order of their names, which hold the second
    second = Board(tmp_path, purge_step=4)
    second.write_step(4, 40.0, 0.5)
    second.close()
    read = scalars(tmp_path)
    assert read["step/loss"] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]
    assert read.get("epoch/train-loss", []) == []


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "events").write_text("a file")
    with pytest.raises(NameplateError, match="Cannot write '.*events'"):
        Board(tmp_path / "events")
