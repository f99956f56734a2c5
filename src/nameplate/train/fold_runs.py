"""Trains the network of one fold of a run in folds (`fit/fold_run.py`), each in a run of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from nameplate.fit.fold_run import TrainFold
from nameplate.fit.recipe import Recipe
from nameplate.fit.run import RUN
from nameplate.fit.split import Split
from nameplate.train.finetune import fine_tune, start
from nameplate.train.loop import OnStep


def network_fold(
    recipe: Recipe, threads: int, *, watch: OnStep = lambda _: None, say: Callable[[str], None] = lambda _: None
) -> TrainFold:
    """A function that trains the network of one fold, or goes on from its last checkpoint.

    Args:
        recipe: how to train.
        threads: number of processors to use.
        watch: called after each step.
        say: called with a short text at everything that is not a training step.
    """

    def train(here: Path, split: Split) -> None:
        if not (here / RUN).is_file():
            shutil.rmtree(here, ignore_errors=True)  # what an interruption left before the run had begun
            start(lambda: split, here, recipe, threads=threads)
        fine_tune(here, watch=watch, say=say)

    return train
