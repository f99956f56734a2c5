"""`Board`: a run's figures for TensorBoard, as event files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nameplate.errors import NameplateError
from nameplate.types import Epoch

FLUSH_SECONDS = 10
"""How long a figure may wait in memory."""


class Board:
    """Writes to a folder that `tensorboard --logdir FOLDER` reads; one process of a run opens one.

    Every curve is drawn over the run's steps, so that resuming hides what the interrupted run wrote past its
    checkpoint, and curves of different recipes compare.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        """Open a new event file in `folder`.

        Args:
            folder: Where earlier event files of the same run may lie.
            purge_step: The first step that is (again) to come after resuming; TensorBoard forgets older events
                from this step on. None for a run from the beginning.

        Raises:
            NameplateError: TensorBoard's package is missing, or the folder cannot be written to.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise NameplateError("TensorBoard's files need more packages: pip install 'nameplate[train]'.") from None
        self._folder = folder
        with self._writing():
            self._writer = SummaryWriter(str(folder), purge_step=purge_step, flush_secs=FLUSH_SECONDS)

    def write_step(self, step: int, loss: float, learning_rate: float) -> None:
        """One training step, counted from 1 over the whole run.

        Raises:
            NameplateError: the disk is full, or otherwise not to be written to. So do `write` and `close`.
        """
        self._scalars(step, {"step/loss": loss, "step/learning-rate": learning_rate})

    def write(self, epoch: Epoch, step: int) -> None:
        """One epoch, which ended with `step`; it is on disk when this returns."""
        figures = {
            "epoch/epoch": epoch.epoch,
            "epoch/stage": epoch.stage,
            "epoch/height": epoch.height,
            "epoch/width": epoch.width,
            "epoch/learning-rate": epoch.learning_rate,
            "epoch/train-loss": epoch.train_loss,
            "epoch/validation-loss": epoch.validation_loss,
            "epoch/validation-top-1": epoch.validation_top1,
            "epoch/photos-per-second": epoch.photos_per_second,
        }
        self._scalars(step, figures)
        with self._writing():
            self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        with self._writing():
            self._writer.close()

    def _scalars(self, step: int, figures: dict[str, float] | dict[str, float | None]) -> None:
        with self._writing():
            for tag, value in figures.items():
                if value is not None:
                    self._writer.add_scalar(tag, value, step)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise NameplateError(f"Cannot write '{self._folder}': {error.strerror or error}.") from None
