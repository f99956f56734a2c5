"""The training loop for a CPU, a GPU, or several GPUs or machines (started by torchrun or accelerate).

All random numbers depend only on the seed and the step, and a checkpoint holds everything else. So a run that was
killed continues as if it had not been interrupted.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch.nn import functional

from nameplate.errors import NameplateError
from nameplate.fit.recipe import Recipe, Stage
from nameplate.train.checkpoint import State, Tensors, optimizer_tensors, part, restore_optimizer, save_checkpoint
from nameplate.train.data import PhotoBatch, epoch_batches, in_order, mix, plain_batches, training_batches, unreadable
from nameplate.train.network import Network, freeze, parameter_groups, train_mode
from nameplate.train.schedule import learning_rate_now
from nameplate.types import Epoch, Exported, Floats, Preprocess

CHECKPOINT_SECONDS = 300.0
"""Time in seconds between two checkpoints within an epoch; each epoch ends with one as well."""
VALIDATION_BATCH = 64
"""Batch size of the validation."""
EMA_WARMUP = 10
"""Warm-up of the moving average: after n steps its decay is at most (1 + n) / (EMA_WARMUP + n)."""


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """What is trained, and on which photos."""

    recipe: Recipe
    run: Path
    """The folder of the run."""
    paths: tuple[str, ...]
    """The training photos."""
    classes: NDArray[np.int64]
    """int64 (N,): their classes."""
    holdout_paths: tuple[str, ...]
    """The held-out photos for validation; empty where none are held out."""
    holdout_classes: NDArray[np.int64]
    """int64: their classes."""
    threads: int
    """Number of threads that prepare photos."""
    bfloat16: bool
    """Whether the network is trained in bfloat16."""


@dataclass(frozen=True, slots=True)
class StepEvent:
    """The progress after a step, for progress bars and TensorBoard."""

    state: State
    stage: Stage
    steps: int
    """Number of steps in the epoch."""
    loss: float
    """Mean training loss of the epoch so far."""
    learning_rate: float
    """Learning rate of the backbone's last layer."""
    accuracy: float
    """Accuracy on the last batches, which are augmented and mixed, 0–1."""
    photos_per_second: float
    left: float
    """Estimated time to the end of the run in seconds, in proportion to the remaining pixels."""


@dataclass(slots=True)
class Training:
    """Everything that changes during the training."""

    network: Network
    average: Network | None
    """The moving average of the weights; None without one."""
    state: State
    best: Tensors | None = None
    """The weights of the best epoch of the stage, if the stage restores them."""
    chosen: Tensors | None = None
    """The weights of `State.kept_epoch`, if there is one."""
    optimizer: torch.optim.Optimizer | None = None


class DivergedError(NameplateError):
    """A loss or a weight is not finite."""


OnStep = Callable[[StepEvent], None]
OnEpochEnd = Callable[[Training], None]


def fit(
    job: TrainingJob,
    network: Network,
    accelerator: Accelerator,
    saved: tuple[State, Tensors] | None,
    watch: OnStep,
    on_epoch_end: OnEpochEnd | None,
) -> Training:
    """Train through all stages, or through the rest of them after a checkpoint.

    Args:
        job: what to train.
        network: the network with its first weights, on the device of the accelerator.
        accelerator: the processes that train together.
        saved: the checkpoint to resume from; None begins at the first stage.
        watch: called after each step.
        on_epoch_end: called after each epoch.

    Returns:
        The training; the weights of the epoch `exported` are in `average`, or in `network` where there is no average.

    Raises:
        NameplateError: a loss or a weight is not finite, no photo of a batch can be read, or a checkpoint cannot be
            written.
    """
    training = Training(network, copy.deepcopy(network) if job.recipe.ema else None, State())
    if saved is not None:
        _restore(training, *saved)
    while training.state.stage < len(job.recipe.stages):
        stage = job.recipe.stages[training.state.stage]
        stepped = begin_stage(job, training, accelerator, saved[1] if saved else None)
        saved = None
        while training.state.stage_epoch < stage.epochs and not _patience_over(training.state, stage):
            _epoch(job, training, stepped, accelerator, watch)
            _validate(job, training, accelerator)
            _save(job, training, accelerator)
            if on_epoch_end is not None:
                on_epoch_end(training)
        _end_stage(training, stage)
    if training.chosen is not None:
        kept(training).load_state_dict(training.chosen)
    return training


def completed(recipe: Recipe, state: State) -> bool:
    """Whether a run has no epoch left; the checkpoint of its last epoch was written before the last stage ended."""
    last = len(recipe.stages) - 1
    if state.stage != last:
        return state.stage > last
    return state.stage_epoch >= recipe.stages[last].epochs or _patience_over(state, recipe.stages[last])


def exported(recipe: Recipe, state: State) -> Exported:
    """The epoch whose weights a completed run exports."""
    chosen = state.kept_epoch or (state.best_epoch if recipe.stages[-1].restore_best else 0)
    best: Epoch | None = None
    for row in state.history:
        if row.validation_top1 is not None and (best is None or _better(row, best)):
            best = row
    epochs = len(state.history)
    return Exported(state.history[(chosen or state.epoch) - 1], epochs, bool(chosen) and epochs > 1, best)


def kept(training: Training) -> Network:
    """The network that is validated and exported: the moving average where there is one."""
    return training.average or training.network


def evaluate_network(
    network: Network, paths: Sequence[str], settings: Preprocess, accelerator: Accelerator, threads: int
) -> tuple[Floats, NDArray[np.int64]]:
    """Logits of photos that are prepared as for the bundle. The processes share the photos, each photo once.

    Returns:
        Logits float32 N×C, and the indices of their photos int64 (N,), ascending; unreadable photos are left out.
    """
    mine = np.arange(accelerator.process_index, len(paths), accelerator.num_processes)
    network.eval()
    found: list[tuple[NDArray[np.int64], Floats]] = []
    with torch.inference_mode():
        for batch in plain_batches(paths, in_order(mine, VALIDATION_BATCH), settings, threads):
            if len(batch.indices):
                logits = network(torch.from_numpy(batch.photos).to(accelerator.device))
                found.append((batch.indices, logits.float().cpu().numpy()))
    # Every process gets all parts, so all of them take the same decisions on patience and the best epoch.
    found = gather_object(found)
    indices = np.concatenate([part for part, _ in found]) if found else np.zeros(0, np.int64)
    logits = np.concatenate([part for _, part in found]) if found else np.zeros((0, 0), np.float32)
    order = np.argsort(indices)
    return logits[order], indices[order]


def begin_stage(
    job: TrainingJob, training: Training, accelerator: Accelerator, saved: Tensors | None
) -> torch.nn.Module:
    """Freeze layers and make the optimiser of a stage; returns the network as it is called in each step."""
    recipe, number = job.recipe, training.state.stage
    stage = recipe.stages[number]
    freeze(training.network, stage.train)
    groups = parameter_groups(training.network, recipe.weight_decay, stage.layer_decay, stage.head_factor)
    previous = training.optimizer
    training.optimizer = _optimizer(recipe, groups, accelerator)
    before = recipe.stages[number - 1] if number else None
    if saved is not None:
        restore_optimizer(training.optimizer, saved)
    elif previous is not None and before and not before.restore_best and before.train == stage.train:
        # The same parameters are trained and none was restored, so that the moments are still valid.
        training.optimizer.state.update(previous.state)
    stepped = torch.compile(training.network, dynamic=False) if recipe.compile else training.network
    return accelerator.prepare_model(stepped) if accelerator.num_processes > 1 else stepped


def _optimizer(recipe: Recipe, groups: list[dict[str, object]], accelerator: Accelerator) -> torch.optim.Optimizer:
    """The optimiser of a recipe; each step sets its learning rates, so that they begin at 0."""
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=0.0, amsgrad=recipe.amsgrad, fused=accelerator.device.type in ("cpu", "cuda"))


def _epoch(
    job: TrainingJob, training: Training, stepped: torch.nn.Module, accelerator: Accelerator, watch: OnStep
) -> None:
    """Train the rest of an epoch, from the current step of the state."""
    state, recipe = training.state, job.recipe
    stage = recipe.stages[state.stage]
    whole = epoch_batches(len(job.paths), stage.batch, recipe.seed, state.epoch)
    # The batches are those of a run with one process; each process takes its part of each. A resumed epoch leaves out
    # the steps that are done.
    mine = [np.array_split(b, accelerator.num_processes)[accelerator.process_index] for b in whole[state.step :]]
    size = recipe.preprocess(stage.height, stage.width)
    stream = training_batches(job.paths, mine, size, recipe.augmentation, recipe.seed, state.epoch, job.threads)
    # MixUp and CutMix are off in the last epochs, so that the network ends on unmixed photos.
    mixed = state.epoch < recipe.mixing.until * sum(s.epochs for s in recipe.stages)
    train_mode(training.network)
    before, begun, saved_at, right, seen = state.epoch_seconds, time.monotonic(), time.monotonic(), 0.0, 0
    try:
        for batch in stream:
            state.lost.update(batch.lost)
            if not len(batch.indices):
                raise NameplateError(_none_readable(job, batch.lost))
            rate = learning_rate_now(recipe, len(job.paths), state.stage, state.stage_steps)
            try:
                loss, accuracy = train_step(job, training, stepped, accelerator, batch, rate, mixed)
            except torch.OutOfMemoryError:
                raise NameplateError(_too_large(job, stage)) from None
            # `accuracy` and `loss` are those of this process. The processes share batches evenly, so photos are counted
            # times their number.
            state.loss += loss
            state.photos += len(batch.indices) * accelerator.num_processes
            state.step, state.steps, state.stage_steps = state.step + 1, state.steps + 1, state.stage_steps + 1
            now = time.monotonic()
            state.epoch_seconds = before + now - begun
            right, seen = right + accuracy * len(batch.indices), seen + len(batch.indices)
            speed = state.photos / max(state.epoch_seconds, 1e-9)
            left = _left(job, state, speed)
            watch(StepEvent(state, stage, len(whole), state.loss / state.step, rate, right / seen, speed, left))
            if now - saved_at > CHECKPOINT_SECONDS and state.step < len(whole):
                _save(job, training, accelerator)
                saved_at = now
    finally:
        stream.close()  # type: ignore[attr-defined]  # a generator: its threads end


def train_step(
    job: TrainingJob,
    training: Training,
    stepped: torch.nn.Module,
    accelerator: Accelerator,
    batch: PhotoBatch,
    rate: float,
    mixed: bool,
) -> tuple[float, float]:
    """One step of the optimiser; the batch's loss and accuracy."""
    recipe, state, optimizer = job.recipe, training.state, training.optimizer
    assert optimizer is not None
    # The step is counted over the whole run, so that a resumed run draws the same numbers.
    seed = [recipe.seed, state.steps, accelerator.process_index]
    draw = np.random.default_rng(seed)
    torch.manual_seed(int(draw.integers(2**62)))  # dropout and stochastic depth
    photos, first = torch.from_numpy(batch.photos), torch.from_numpy(job.classes[batch.indices])
    second, share = first, 1.0
    if mixed:
        photos, second, share = mix(photos, first, recipe.mixing, draw)
    photos, first, second = (each.to(accelerator.device, non_blocking=True) for each in (photos, first, second))
    with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=job.bfloat16):
        logits = stepped(photos)
    # The loss is computed in float32, because bfloat16 has only three significant digits.
    logits = logits.float()
    loss = share * functional.cross_entropy(logits, first, label_smoothing=recipe.label_smoothing)
    if share < 1:
        loss = loss + (1 - share) * functional.cross_entropy(logits, second, label_smoothing=recipe.label_smoothing)
    value = float(loss.detach())
    # Checked before the update, so that the weights and the last checkpoint remain usable.
    if not math.isfinite(value):
        raise DivergedError(_diverged(job, state, f"The loss is {value}", rate))
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    optimizer.zero_grad(set_to_none=True)
    accelerator.backward(loss)
    if recipe.clip is not None:
        torch.nn.utils.clip_grad_norm_(training.network.parameters(), recipe.clip)
    optimizer.step()
    if training.average is not None and recipe.ema is not None:
        _update_average(
            training.average, training.network, min(recipe.ema, (1 + state.steps) / (EMA_WARMUP + state.steps))
        )
    likely = first if share >= 0.5 else second
    return value, float((logits.detach().argmax(1) == likely).float().mean())


def _update_average(average: Network, network: Network, keep: float) -> None:
    """Move the weights and batch norm statistics of the average towards those of the network."""
    with torch.no_grad():
        mine, theirs = average.state_dict(), network.state_dict()
        floats = [name for name, value in mine.items() if value.is_floating_point()]
        torch._foreach_lerp_([mine[n] for n in floats], [theirs[n] for n in floats], 1 - keep)
        # Integer buffers, such as the number of batches that a batch norm has seen, cannot be averaged.
        for name in mine.keys() - set(floats):
            mine[name].copy_(theirs[name])


def _validate(job: TrainingJob, training: Training, accelerator: Accelerator) -> None:
    """Validate the network, and add the epoch to the state."""
    state, recipe = training.state, job.recipe
    stage = recipe.stages[state.stage]
    begun, loss, top1 = time.monotonic(), None, None
    if job.holdout_paths:
        settings = recipe.preprocess(stage.height, stage.width)
        logits, indices = evaluate_network(kept(training), job.holdout_paths, settings, accelerator, job.threads)
        if not len(indices):
            raise unreadable(job.holdout_paths)
        y_true = torch.from_numpy(job.holdout_classes[indices])
        loss = float(functional.cross_entropy(torch.from_numpy(logits), y_true))
        top1 = float((logits.argmax(1) == y_true.numpy()).mean())
    speed = state.photos / max(state.epoch_seconds, 1e-9)
    state.seconds += state.epoch_seconds + time.monotonic() - begun
    rate = learning_rate_now(recipe, len(job.paths), state.stage, state.stage_steps)
    if loss is not None and not math.isfinite(loss):
        raise DivergedError(_diverged(job, state, f"The validation loss is {loss}", stage.learning_rate))
    mean = state.loss / max(1, state.step)
    state.epoch, state.stage_epoch = state.epoch + 1, state.stage_epoch + 1
    row = Epoch(state.epoch, state.stage + 1, stage.height, stage.width, rate, mean, loss, top1, speed, state.seconds)
    state.history.append(row)
    if top1 is not None and (state.best is None or top1 > state.best):
        state.best, state.best_epoch, state.since_best = top1, state.epoch, 0
        if stage.restore_best:
            training.best = _copy(kept(training))
    else:
        state.since_best += 1
    if (
        recipe.keep_best
        and top1 is not None
        and (not state.kept_epoch or _better(row, state.history[state.kept_epoch - 1]))
    ):
        state.kept_epoch, training.chosen = state.epoch, _copy(kept(training))
    # The counters of the epoch start again; those of the run and of the stage go on.
    state.step, state.loss, state.photos, state.epoch_seconds = 0, 0.0, 0, 0.0


def _better(row: Epoch, other: Epoch) -> bool:
    """Whether an epoch has a higher validation top-1 than another, or the same at a lower loss."""
    one, two = ((each.validation_top1 or 0.0, -(each.validation_loss or 0.0)) for each in (row, other))
    return one > two


def _copy(network: Network) -> Tensors:
    return {name: value.clone() for name, value in network.state_dict().items()}


def _patience_over(state: State, stage: Stage) -> bool:
    return stage.patience is not None and state.best is not None and state.since_best >= stage.patience


def _end_stage(training: Training, stage: Stage) -> None:
    if stage.restore_best and training.best is not None:
        training.network.load_state_dict(training.best)
        if training.average is not None:
            training.average.load_state_dict(training.best)
    state = training.state
    training.best = None
    state.stage, state.stage_epoch, state.stage_steps = state.stage + 1, 0, 0
    state.best, state.since_best = None, 0


def _save(job: TrainingJob, training: Training, accelerator: Accelerator) -> None:
    """Write a checkpoint in the main process; the others wait for it in the next step."""
    if accelerator.is_main_process:
        # A checkpoint with a NaN would make the run impossible to continue, so it is not written.
        if not all(bool(weight.isfinite().all()) for weight in training.network.parameters()):
            rate = job.recipe.stages[training.state.stage].learning_rate
            raise DivergedError(_diverged(job, training.state, "A weight is not finite", rate))
        save_checkpoint(job.run, training.state, dict(_tensors(training)))


def _tensors(training: Training) -> Iterator[tuple[str, torch.Tensor]]:
    yield from ((f"network.{name}", value) for name, value in training.network.state_dict().items())
    if training.average is not None:
        yield from ((f"average.{name}", value) for name, value in training.average.state_dict().items())
    if training.best is not None:
        yield from ((f"best.{name}", value) for name, value in training.best.items())
    if training.chosen is not None:
        yield from ((f"chosen.{name}", value) for name, value in training.chosen.items())
    if training.optimizer is not None:
        yield from optimizer_tensors(training.optimizer).items()


def _restore(training: Training, state: State, tensors: Tensors) -> None:
    training.state = state
    training.network.load_state_dict(part(tensors, "network"))
    if training.average is not None:
        training.average.load_state_dict(part(tensors, "average"))
    training.best, training.chosen = part(tensors, "best") or None, part(tensors, "chosen") or None


def _left(job: TrainingJob, state: State, photos_per_second: float) -> float:
    """Estimated seconds to the end of the last stage, in proportion to the pixels; patience may end it sooner."""
    stages = job.recipe.stages
    here = stages[state.stage]
    done = state.photos / max(1, len(job.paths))
    epochs = [float(stage.epochs) for stage in stages]
    epochs[: state.stage] = [0.0] * state.stage
    epochs[state.stage] -= state.stage_epoch + min(1.0, done)
    pixels = sum(epoch * stage.height * stage.width for epoch, stage in zip(epochs, stages, strict=True))
    return pixels * len(job.paths) / (here.height * here.width * photos_per_second)


def _diverged(job: TrainingJob, state: State, what: str, rate: float) -> str:
    return (
        f"{what} in stage {state.stage + 1}, epoch {state.epoch + 1}, step {state.step + 1}, at a learning "
        f"rate of {rate:.2g}. The checkpoint before it in '{job.run}' is intact. Train anew with a lower rate "
        f"(--set stages.learning_rate={rate / 3:.1g}), with --set clip=1 or --set precision=float32."
    )


def _too_large(job: TrainingJob, stage: Stage) -> str:
    return (
        f"A batch of {stage.batch} photos of {stage.height}×{stage.width} does not fit into the accelerator's memory. "
        f"The last checkpoint in '{job.run}' is intact. Train anew with a smaller batch and a rate in proportion "
        f"(--set stages.batch={max(2, stage.batch // 2)} --set stages.learning_rate={stage.learning_rate / 2:.2g})."
    )


def _none_readable(job: TrainingJob, lost: Sequence[tuple[str, str]]) -> str:
    return (
        f"None of {len(lost)} photos of a batch can be read any more; the first, '{lost[0][0]}': {lost[0][1]}. "
        f"The last checkpoint is intact. When the photos are back: nameplate train --resume '{job.run}'."
    )
