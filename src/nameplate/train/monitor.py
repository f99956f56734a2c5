"""Writes the reports of a training run: metrics.csv, TensorBoard events, index.html, and what a tracker gets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from nameplate.errors import NameplateError, PhotoError
from nameplate.fit.notebook import RECIPE, VALIDATION
from nameplate.fit.recipe import recipe_toml
from nameplate.fit.run import EVALUATION_RUNTIME, EVENTS, METRICS, PAGE, SHEET, Run
from nameplate.fit.split import Split
from nameplate.images.decode import decode
from nameplate.report.run import FINISHED, RUNNING, ConfusedPair, RunPage, metrics_csv, write_run_page
from nameplate.report.sheet import augmented_sheet, examples
from nameplate.storage import whole_file
from nameplate.train.checkpoint import State
from nameplate.train.finish import Finished
from nameplate.train.loop import OnStep, StepEvent, Training
from nameplate.train.tracking import epoch_figures, open_tracker, step_figures
from nameplate.types import Epoch

FLUSH_SECONDS = 10
"""Longest time in seconds before TensorBoard writes a value to disk."""


class Board:
    """Writes event files that `tensorboard --logdir FOLDER` reads; only one process of a run opens a board.

    The x-axis of every curve is the step of the run, not the epoch. So a resumed run replaces the events that the
    interrupted run wrote after its last checkpoint, and curves of different recipes are comparable.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        """Open a new event file in `folder`.

        Args:
            folder: the folder for event files; it may hold earlier ones of the same run.
            purge_step: the first step after resuming; TensorBoard discards earlier events from this step on. None for
                a run from the beginning.

        Raises:
            NameplateError: the package of TensorBoard is missing, or the folder cannot be written to.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise NameplateError("TensorBoard's files need more packages: pip install 'nameplate[train]'.") from None
        self._folder = folder
        with self._writing():
            self._writer = SummaryWriter(str(folder), purge_step=purge_step, flush_secs=FLUSH_SECONDS)

    def write_step(self, step: int, loss: float, learning_rate: float) -> None:
        """Write the values of one training step, counted from 1 over the whole run.

        Raises:
            NameplateError: the files cannot be written, such as on a full disk; `write` and `close` raise it, too.
        """
        self._scalars(step, step_figures(loss, learning_rate))

    def write(self, epoch: Epoch, step: int) -> None:
        """Write the values of an epoch, which ended with `step`; they are on disk when this returns."""
        self._scalars(step, epoch_figures(epoch))
        with self._writing():
            self._writer.flush()

    def close(self) -> None:
        """Write pending values and close the event file."""
        with self._writing():
            self._writer.close()

    def _scalars(self, step: int, figures: dict[str, float]) -> None:
        with self._writing():
            for tag, value in figures.items():
                self._writer.add_scalar(tag, value, step)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise NameplateError(f"Cannot write '{self._folder}': {error.strerror or error}.") from None


PHOTOS, TIMES = 4, 6
"""Number of training photos that the report shows augmented, and number of variants of each."""
PAIRS = 6
"""Number of confused pairs in the report."""
LISTED = 20
"""Number of left-out photos that the report lists."""
BOARD_STEPS = 10
"""Number of steps between two points of TensorBoard's step curves."""


class RunMonitor:
    """Keeps metrics.csv, the events and the report of a run up to date; only the main process has one."""

    def __init__(self, folder: Path, run: Run, split: Split, resumed: State | None) -> None:
        self._folder, self._run, self._split = folder, run, split
        at_end = resumed is not None and bool(resumed.history) and resumed.step == 0  # the checkpoint ends an epoch
        self._board = Board(folder / EVENTS, purge_step=resumed.steps + (not at_end) if resumed else None)
        self._trackers = [open_tracker(kind, folder, run) for kind in run.track]
        self._sheet = self._draw_sheet()
        self._state = resumed or State()
        if at_end:  # the run may have been killed between the checkpoint and these reports
            self._write()

    def __call__(self, training: Training) -> None:
        """Write the reports after an epoch."""
        self._state = training.state
        self._write()

    def watch(self, watch: OnStep) -> OnStep:
        """A callback that calls `watch` and also writes steps to TensorBoard."""

        def both(event: StepEvent) -> None:
            if event.state.steps % BOARD_STEPS == 0:
                self._board.write_step(event.state.steps, event.loss, event.learning_rate)
                for tracker in self._trackers:
                    tracker.write(step_figures(event.loss, event.learning_rate), event.state.steps)
            watch(event)

        return both

    def stopped(self, reason: str) -> None:
        """Write that the run stopped early; a failure to write is ignored, because it would hide the first error."""
        with suppress(NameplateError, OSError):
            self._page(f"stopped: {reason}")
        with suppress(NameplateError, OSError):
            self._board.close()
        for tracker in self._trackers:
            with suppress(NameplateError, OSError):
                tracker.close({}, finished=False)

    def finished(self, state: State, made: Finished) -> None:
        """Write the final report, after the bundle was written."""
        self._state = state
        self._page(FINISHED, made)
        self._board.close()
        for tracker in self._trackers:
            top1 = {} if made.evaluation is None else {"bundle/top-1": made.evaluation.top1.value}
            tracker.close({**top1, "bundle/epoch": float(made.exported.epoch.epoch)}, finished=True)

    def _write(self) -> None:
        with whole_file(self._folder / METRICS) as temporary:
            temporary.write_bytes(metrics_csv(self._state.history))
        self._board.write(self._state.history[-1], self._state.steps)
        for tracker in self._trackers:
            tracker.write(epoch_figures(self._state.history[-1]), self._state.steps)
        self._page(RUNNING)

    def _draw_sheet(self) -> bytes | None:
        """A contact sheet of augmented training photos; None where no photo can be read."""
        recipe, stage = self._run.recipe, self._run.recipe.stages[-1]
        chosen = [photo for photo, train in zip(self._split.photos, self._split.train, strict=True) if train]
        found, _ = examples(chosen, max(PHOTOS, TIMES + 1), (stage.height, stage.width))
        if not found:
            return None
        sheet = augmented_sheet(found, recipe, stage, (PHOTOS, TIMES), "JPEG")
        with whole_file(self._folder / SHEET) as temporary:
            temporary.write_bytes(sheet)
        return sheet

    def _page(self, state: str, made: Finished | None = None) -> None:
        write_run_page(
            self._folder / PAGE,
            RunPage(
                title=self._folder.resolve().name,
                state=state,
                epochs=self._state.history,
                recipe=recipe_toml(self._run.recipe),
                facts=self._facts(),
                augmented=self._sheet,
                evaluation=made.evaluation if made else None,
                confusions=self._confused(made) if made else (),
                parity=_parity(made) if made else (),
                exported=made.exported if made else None,
                reference=VALIDATION if self._run.recipe.name == RECIPE else (),
                notes=self._notes(),
            ),
        )

    def _facts(self) -> list[tuple[str, str]]:
        run, split = self._run, self._split
        return [
            ("photos", f"{int(split.train.sum()):,} to train on, {int(split.holdout.sum()):,} held out"),
            ("nameplates", f"{len(split.nameplates):,}"),
            ("copies", f"{split.copies:,}, kept on one side of the split"),
            ("backbone", f"{run.recipe.backbone}, {run.weights}"),
            ("device", f"{run.device}, {run.processes} × {run.threads} threads"),
            ("precision", "bfloat16" if run.bfloat16 else "float32"),
            ("evaluated by", EVALUATION_RUNTIME),
            ("seed", str(run.recipe.seed)),
            ("begun", run.made),
            ("data", f"SHA-256 {split.digest}"),
            ("versions", ", ".join(f"{name} {number}" for name, number in run.versions.items())),
        ]

    def _notes(self) -> list[str]:
        left_out = [*self._split.unreadable, *self._state.lost.items()]
        notes = [f"{path}: {reason}" for path, reason in left_out[:LISTED]]
        if len(left_out) > LISTED:
            notes.append(f"… and {len(left_out) - LISTED:,} more photos left out")
        notes += self._split.notes
        return notes

    def _confused(self, made: Finished) -> list[ConfusedPair]:
        """The most frequent confusions, each with a misclassified photo and a training photo of the wrong nameplate.

        Pairs whose photos can no longer be read are left out.
        """
        if made.evaluation is None:
            return []
        y_pred, pairs = made.probabilities.argmax(1), []
        for pair in made.evaluation.confusions[:PAIRS]:
            truth, wrong = (self._split.nameplates.index(name) for name in (pair.truth, pair.named))
            taken = made.indices[(self._split.classes[made.indices] == truth) & (y_pred == wrong)]
            alike = np.flatnonzero(self._split.train & (self._split.classes == wrong))
            try:
                photo, example = (decode(self._split.photos[found[0]].path) for found in (taken, alike))
            except PhotoError:
                continue
            pairs.append(ConfusedPair(pair.truth, pair.named, pair.photos, photo, example))
        return pairs


def _parity(made: Finished) -> list[tuple[str, str]]:
    """Runtime → a sentence on how closely it agrees with torch."""
    return [
        (each.runtime, f"{each.same:,} of {each.photos:,} photos as torch, largest gap of a probability {each.gap:.1e}")
        for each in made.parity
    ]
