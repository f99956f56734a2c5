"""Searches for a learning rate (`find_rate`): a short trial training whose rate rises until the loss explodes.

The range test is L. Smith's ("Cyclical Learning Rates for Training Neural Networks", 2017; arXiv 2015), with fastai's
smoothing, stopping rule and proposals.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from nameplate.data.dataset import Dataset
from nameplate.errors import DataError, NameplateError, UsageError
from nameplate.fit.recipe import Recipe
from nameplate.report.rates import rates_plot
from nameplate.runtime.select import available_cpus
from nameplate.train.checkpoint import State
from nameplate.train.data import PhotoBatch, epoch_batches, training_batches
from nameplate.train.finetune import first_network, main_accelerator, whether_bfloat16
from nameplate.train.loop import DivergedError, Training, TrainingJob, begin_stage, train_step
from nameplate.train.network import Network, depthwise_in_float32, train_mode
from nameplate.train.schedule import keep_memory

LOWEST, HIGHEST = 1e-7, 10.0
"""The rates of the first and of the last step, as in fastai."""
STEPS = 100
"""Number of steps of a search, as in fastai."""
FEWEST = 10
"""Least number of steps from which a proposal can be drawn."""
SMOOTHING = 0.98
"""Decay of the moving average of the loss, as in fastai."""
EXPLODED = 4.0
"""The search stops where the smoothed loss is this many times its least, as in fastai."""

FLAT = 0.05
"""A loss that falls by less than this share has taught nothing about the rate."""

PLATEAU = 0.05
"""Share of its whole fall by which the loss has fallen where its descent begins."""

BELOW = 3.0
"""The proposal is at most the rate of the least loss divided by this. Where few steps lead down steeply, the descent is
too short to have a middle."""

OnRate = Callable[[int, float, float], None]
"""Called after each step with its number from 1, its rate and its smoothed loss."""


@dataclass(frozen=True, slots=True, eq=False)
class RateSearch:
    """The rates that were tried, and the proposals."""

    stage: int
    """Number of the recipe's stage from 1 whose photo size, batch and layers were tried."""
    rates: tuple[float, ...]
    """The learning rate of each step, ascending."""
    losses: tuple[float, ...]
    """The smoothed loss after each step."""
    valley: float
    """The rate half-way down the longest descent of the loss, as fastai proposes, and at most `minimum` / `BELOW`."""
    steepest: float
    """The rate at which the loss fell fastest: a lower bound."""
    minimum: float
    """The rate at the least loss: too high to train with; a tenth of it is a common rule."""

    @property
    def fell(self) -> float:
        """By what share of the first loss the least one lies below it; below `FLAT` no proposal means anything."""
        return 1 - min(self.losses) / self.losses[0]

    def plot(self, *, dark: bool = False) -> bytes:
        """The loss against the rate as PNG bytes, with the proposal marked."""
        return rates_plot(self.rates, self.losses, self.valley, dark=dark)

    def _repr_png_(self) -> bytes:
        """The plot, as a notebook shows it."""
        return self.plot()


def find_rate(
    dataset: Dataset,
    recipe: Recipe,
    *,
    stage: int = 1,
    steps: int = STEPS,
    threads: int | None = None,
    watch: OnRate = lambda *_: None,
) -> RateSearch:
    """Train for some steps at a rate that rises from `LOWEST` to `HIGHEST`; what was trained is thrown away.

    Photos, augmentation, mixing, optimiser and the rates of the layers relative to each other are the recipe's, so the
    proposal is for `stages.N.learning_rate`. The network begins with the recipe's weights.

    Args:
        dataset: labelled photos; those of a validation or test part are left out.
        recipe: what to train.
        stage: number of the recipe's stage from 1.
        steps: number of steps, at least `FEWEST`; the search stops sooner where the loss explodes.
        threads: number of processors; None takes all that this process may use.
        watch: called after each step.

    Raises:
        DataError: fewer than two nameplates to train on.
        NameplateError: the weights cannot be loaded, no photo can be read, or the loss explodes in the first steps.
        UsageError: the backbone is unknown, or a number is out of range.
    """
    if not 1 <= stage <= len(recipe.stages):
        raise UsageError(f"There is no stage {stage}: recipe '{recipe.name}' has {len(recipe.stages)}.")
    if steps < FEWEST:
        raise UsageError(f"{steps} steps are too few to see a curve: take at least {FEWEST}.")
    keep_memory()
    threads = threads or available_cpus()
    torch.set_num_threads(threads)
    # Alone in the recipe, the stage's cosine and its step counts are its own; the rate is set here in any case.
    alone = replace(recipe, stages=(recipe.stages[stage - 1],), ema=None)
    job = _job(dataset, alone, threads)
    accelerator = main_accelerator()
    network, _ = first_network(alone, len(dataset.nameplates), alone.weights)
    network.to(accelerator.device, memory_format=torch.channels_last)
    job = replace(job, bfloat16=whether_bfloat16(alone, network, accelerator))
    if accelerator.device.type == "cpu":
        depthwise_in_float32(network)
    rates = np.geomspace(LOWEST, HIGHEST, steps).tolist()
    losses = list(_sweep(job, network, accelerator, rates, watch))
    if len(losses) < FEWEST:
        raise NameplateError(
            f"The loss exploded after {len(losses)} steps, at a rate of {rates[len(losses)]:.1e}: too soon to propose "
            "one. Take more steps (--steps 200), or other weights (--set weights=…)."
        )
    return _search(stage, rates[: len(losses)], losses)


def _sweep(
    job: TrainingJob, network: Network, accelerator: Accelerator, rates: Sequence[float], watch: OnRate
) -> Iterator[float]:
    """Train a step at each rate; yields the smoothed losses until they explode or the rates end."""
    training = Training(network, None, State())
    stepped = begin_stage(job, training, accelerator, None)
    train_mode(network)
    average, least = 0.0, math.inf
    with contextlib.closing(_batches(job)) as batches:
        for number, (rate, batch) in enumerate(zip(rates, batches, strict=False), 1):
            try:
                loss, _ = train_step(job, training, stepped, accelerator, batch, rate, mixed=True)
            except DivergedError:
                return
            training.state.steps += 1
            average = SMOOTHING * average + (1 - SMOOTHING) * loss
            smooth = average / (1 - SMOOTHING**number)
            if smooth > EXPLODED * least:
                return
            least = min(least, smooth)
            watch(number, rate, smooth)
            yield smooth


def _search(stage: int, rates: Sequence[float], losses: Sequence[float]) -> RateSearch:
    """The proposals that a curve makes."""
    slopes = np.gradient(np.asarray(losses), np.log(rates))
    least = int(np.argmin(losses))
    highest = max(0, int(np.searchsorted(rates, rates[least] / BELOW, side="right")) - 1)
    return RateSearch(
        stage,
        tuple(rates),
        tuple(losses),
        valley=rates[min(_proposal(losses), highest)],
        steepest=rates[int(slopes.argmin())],
        minimum=rates[least],
    )


def _proposal(losses: Sequence[float]) -> int:
    """The index of `valley`, without the plateau before the descent.

    Here a new classifier begins at zero, so the loss at the first rates is smooth and falls a little at every step. The
    longest descent would begin in the middle of the plateau, where with fastai's random classifiers noise breaks it.
    """
    first, least = losses[0], min(losses)
    begin = next((i for i, loss in enumerate(losses) if loss < first - PLATEAU * (first - least)), 0)
    return begin + valley(losses[begin : int(np.argmin(losses)) + 1])


def valley(losses: Sequence[float]) -> int:
    """The index half-way into the second third of the longest descent (fastai's `valley`).

    The descent is the longest subsequence of losses, each below the one before; losses between them may be higher.

    >>> valley([5.0, 5.0, 4.0, 3.0, 2.0, 1.0, 2.0, 9.0])
    1
    """
    length = [1] * len(losses)
    for i, loss in enumerate(losses):
        length[i] += max((length[j] for j in range(i) if losses[j] > loss), default=0)
    end = int(np.argmax(length))
    begin = end - length[end]
    third = (end - begin) / 3
    return max(0, begin + int(third) + int(third / 2))


def _job(dataset: Dataset, recipe: Recipe, threads: int) -> TrainingJob:
    """The training photos of a data set as a job without a folder and without held-out photos."""
    photos = [photo for photo in dataset.photos if photo.label is not None and photo.split in (None, "train")]
    if len({photo.label for photo in photos}) < 2:
        raise DataError("A search needs photos of at least two nameplates to train on.")
    classes = [dataset.nameplates.index(str(photo.label)) for photo in photos]
    return TrainingJob(
        recipe=recipe,
        run=Path(),
        paths=tuple(photo.path for photo in photos),
        classes=np.array(classes, np.int64),
        holdout_paths=(),
        holdout_classes=np.zeros(0, np.int64),
        threads=threads,
        bfloat16=False,
    )


def _batches(job: TrainingJob) -> Generator[PhotoBatch, None, None]:
    """Augmented batches of the job's photos without end, epoch after epoch; batches without a readable photo are left
    out.

    Raises:
        NameplateError: no photo of a whole epoch can be read.
    """
    recipe, stage = job.recipe, job.recipe.stages[0]
    size = recipe.preprocess(stage.height, stage.width)
    for epoch in itertools.count():
        batches = epoch_batches(len(job.paths), stage.batch, recipe.seed, epoch)
        stream = training_batches(job.paths, batches, size, recipe.augmentation, recipe.seed, epoch, job.threads)
        readable = False
        for batch in stream:
            if len(batch.indices):
                readable = True
                yield batch
        if not readable:
            raise NameplateError(f"None of {len(job.paths):,} photos can be read; the first, '{job.paths[0]}'.")
