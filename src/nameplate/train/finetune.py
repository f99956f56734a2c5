"""Trains a network by a recipe, from labelled photos to a bundle: `start` makes the run, `fine_tune` trains it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from nameplate.data.dataset import Dataset
from nameplate.data.split import folds
from nameplate.errors import NameplateError, UsageError
from nameplate.fit.recipe import Recipe, recipe_toml
from nameplate.fit.run import (
    RECIPE,
    RUN,
    SCHEMA,
    Moved,
    Run,
    load_run,
    refuse_gone,
    relocate,
    rows,
    save_run,
    split_of,
    versions,
)
from nameplate.fit.split import Split, split_photos
from nameplate.model.bundle import shipped
from nameplate.model.classifier import fit_head
from nameplate.model.embeddings import Progress, embed_photos
from nameplate.model.model import Model
from nameplate.runtime.select import available_cpus
from nameplate.storage import clear_folder, is_free, whole_file, working_in
from nameplate.train.backbones import build, find_backbone
from nameplate.train.checkpoint import State, load_checkpoint
from nameplate.train.data import in_order, plain_batches, unreadable
from nameplate.train.finish import Finished, finish
from nameplate.train.loop import VALIDATION_BATCH, OnStep, TrainingJob, completed, fit, kept
from nameplate.train.monitor import RunMonitor
from nameplate.train.network import Network, classifier_matrix, depthwise_in_float32, layer_numbers
from nameplate.train.schedule import faster_in_bfloat16, keep_memory
from nameplate.train.weights import load_weights, terms_of

HEAD_START_PHOTOS = 20_000
"""Largest number of photos for `Recipe.head_start`."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class FineTuned:
    """The result of `fine_tune`."""

    finished: Finished
    split: Split
    state: State
    """The state at the end of the training."""
    resumed: int
    """Number of steps that were completed before this call."""

    def _repr_html_(self) -> str:
        return self.finished.evaluation._repr_html_() if self.finished.evaluation is not None else repr(self)


def start(
    read: Callable[[], Dataset | Split],
    folder: Path,
    recipe: Recipe,
    *,
    threads: int | None = None,
    index: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda *_: None,
) -> None:
    """Read and split the photos, and write the folder of the run for `fine_tune`.

    All processes of a run call this function; the main process does the work.

    Args:
        read: returns the labelled photos; only the main process calls it. Where the data set has parts, its validation
            (or test) part is held out. It may return photos that are split already, as those of a fold are.
        folder: the folder of the run.
        recipe: how to train.
        threads: number of processors for each process; None shares the available ones evenly between the processes on
            this machine.
        index: whether to put the neighbour index of the training photos into the bundle, for `nameplate explain`.
        overwrite: whether to replace a run that is at `folder`.
        progress: see `Progress`.

    Raises:
        DataError: fewer than two nameplates with readable photos to train on.
        NameplateError: `folder` exists and `overwrite` is false, another run writes it, or it cannot be written; or the
            weights cannot be loaded.
        UsageError: the backbone is unknown, or the recipe cannot train it; or there are too few photos, or the batch is
            not divisible, for this number of processes.
    """
    accelerator = main_accelerator()
    if accelerator.is_main_process:
        local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torchrun: the processes on this machine
        threads = threads or max(1, available_cpus() // local)
        refuse_folder(folder, overwrite)
        with working_in(folder):
            refuse_folder(folder, overwrite)  # again under the lock: another run may have begun there in between
            _start(accelerator, read, folder, recipe, threads, index, progress)
    accelerator.wait_for_everyone()


def look_elsewhere(folder: Path, sources: Sequence[Path], progress: Progress = lambda *_: None) -> Moved | None:
    """Call `relocate` in the main process of a run; the other processes wait for it and return None.

    Raises:
        DataError: see `relocate`.
        NameplateError: see `relocate`.
    """
    accelerator = main_accelerator()
    moved = relocate(folder, sources, progress) if accelerator.is_main_process else None
    accelerator.wait_for_everyone()
    return moved


def main_accelerator() -> Accelerator:
    """The processes of this run and their device."""
    # `cpu` must be explicit: otherwise processes on CPUs would not form a group.
    return Accelerator(cpu=not torch.accelerator.is_available())


def refuse_folder(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that a new run must not write to.

    Raises:
        NameplateError: the folder holds something that is not a run, or a run and `overwrite` is false.
    """
    if is_free(folder):
        return
    if not (folder / RUN).is_file():
        raise NameplateError(f"'{folder}' exists and is not a run, so it is not replaced. Choose another name.")
    if not overwrite:
        raise NameplateError(
            f"'{folder}' is there already. Resume it (nameplate train --resume '{folder}'), "
            "choose another name, or pass --overwrite."
        )


def _start(
    accelerator: Accelerator,
    read: Callable[[], Dataset | Split],
    folder: Path,
    recipe: Recipe,
    threads: int,
    index: bool,
    progress: Progress,
) -> None:
    _refuse_recipe(recipe, folder, accelerator.num_processes)
    keep_memory()
    torch.set_num_threads(threads)
    find_backbone(recipe.backbone)  # an unknown name is refused before the photos are read
    split = _split(read(), recipe, threads, progress)
    if split.train.sum() < accelerator.num_processes:
        raise UsageError(f"{split.train.sum()} training photos are too few for {accelerator.num_processes} processes.")
    network, origin = first_network(recipe, len(split.nameplates), recipe.weights)
    classifier_matrix(network)  # refuse a classifier that a bundle cannot store now, not after hours
    layer_numbers(network)  # the same for a network that cannot be trained in stages
    run = Run(
        schema=SCHEMA,
        recipe=recipe,
        photos=rows(split),
        nameplates=split.nameplates,
        ids=split.ids,
        unreadable=split.unreadable,
        lost=split.lost,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        bfloat16=whether_bfloat16(recipe, network, accelerator),
        threads=threads,
        processes=accelerator.num_processes,
        device=accelerator.device.type,
        weights=origin,
        versions=versions("accelerate", "numpy", "pillow", "simplejpeg", "timm", "torch"),
        index=index,
        begun_in=str(Path.cwd()),
        excluded=split.excluded,
        licence=terms_of(recipe.weights),
    )
    clear_folder(folder)
    save_run(folder, run)
    with whole_file(folder / RECIPE) as temporary:
        temporary.write_text(recipe_toml(recipe), "utf-8")


def _split(found: Dataset | Split, recipe: Recipe, threads: int, progress: Progress) -> Split:
    """The split of a data set; copies are found by their embeddings."""
    if isinstance(found, Split):
        return found
    embedded = embed_photos(found.photos, Model.load(threads=threads), progress)
    return split_photos(found, embedded, recipe.holdout, recipe.seed, progress)


def _refuse_recipe(recipe: Recipe, folder: Path, processes: int) -> None:
    """Check first what would fail later: a batch that cannot be shared, or weights that would be deleted."""
    for stage in recipe.stages:
        if stage.batch % processes:
            raise UsageError(f"A batch of {stage.batch} cannot be shared evenly by {processes} processes.")
    weights = Path(recipe.weights)
    if folder.exists() and weights.exists() and weights.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"The weights '{recipe.weights}' lie in '{folder}', which would be replaced. Choose another.")


def fine_tune(folder: Path, *, watch: OnStep = lambda _: None, say: Say = lambda _: None) -> FineTuned | None:
    """Train a run from its last checkpoint to its end, and write its bundle.

    Args:
        folder: the folder of a run, from `start`.
        watch: called after each step.
        say: called with a short text at everything that is not a training step.

    Returns:
        The result in the main process; None in the others.

    Raises:
        NameplateError: `folder` is no run, another process works on it, the loss is not finite, all photos of a batch
            are missing, the disk is full, the exported network disagrees with the trained one, or another process of
            the run has ended.
        UsageError: the number of processes is not the one that the run began with.
    """
    run = load_run(folder)
    refuse_gone(folder, run)
    accelerator = main_accelerator()
    if accelerator.num_processes != run.processes:
        raise UsageError(f"'{folder}' began with {run.processes} processes, not {accelerator.num_processes}.")
    with working_in(folder) if accelerator.is_main_process else nullcontext(), _together(folder, accelerator):
        return _fine_tune(folder, run, accelerator, watch, say)


@contextmanager
def _together(folder: Path, accelerator: Accelerator) -> Iterator[None]:
    """Explain how to resume when another process of the run has ended or cannot be reached.

    Raises:
        NameplateError: in place of the error of the communication library.
    """
    try:
        yield
    except RuntimeError as error:
        # NCCL and the store raise types of their own. Gloo raises a plain RuntimeError, which only its text
        # distinguishes from an error of this program.
        lost = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        if accelerator.num_processes == 1 or not lost:
            raise
        raise NameplateError(
            f"Another of the {accelerator.num_processes} processes has ended, or cannot be reached: see its messages. "
            f"Resume from the last checkpoint with the same number of processes: nameplate train --resume '{folder}'."
        ) from error


def _fine_tune(folder: Path, run: Run, accelerator: Accelerator, watch: OnStep, say: Say) -> FineTuned | None:
    """`fine_tune`, within the lock on the folder."""
    keep_memory()
    torch.set_num_threads(run.threads)
    recipe, split = run.recipe, split_of(run)
    if accelerator.is_main_process:
        _clear(folder)
    saved = load_checkpoint(folder)
    network, _ = first_network(recipe, len(split.nameplates), "none" if saved else _weights(run))
    network.to(accelerator.device, memory_format=torch.channels_last)
    if recipe.head_start and saved is None:
        say("fit the classifier on the frozen backbone")
        _head_start(network, run, split)
    if accelerator.device.type == "cpu":
        depthwise_in_float32(network)
    job = _job(folder, run, split)
    resumed = saved[0].steps if saved else 0
    if not accelerator.is_main_process:
        fit(job, network, accelerator, saved, watch, None)
        return None
    if saved and not completed(recipe, saved[0]):
        say(_going_on(saved[0], recipe))
    monitor = RunMonitor(folder, run, split, saved[0] if saved else None)
    try:
        training = fit(job, network, accelerator, saved, monitor.watch(watch), monitor)
        if saved and training.state.steps == resumed:
            say("all epochs were completed before")
        made = finish(folder, run, split, kept(training), training.state, say)
    except BaseException as error:
        monitor.stopped("interrupted" if isinstance(error, KeyboardInterrupt) else str(error))
        raise
    monitor.finished(training.state, made)
    return FineTuned(made, split, training.state, resumed)


def _going_on(state: State, recipe: Recipe) -> str:
    """Where a resumed run goes on, as a line for the user."""
    step = f", after its step {state.step:,}" if state.step else ""
    return f"going on from epoch {state.epoch + 1} of at most {sum(stage.epochs for stage in recipe.stages)}{step}"


def _weights(run: Run) -> str:
    """The weights that a run begins with; a relative path starts at the folder where the run was begun."""
    weights = run.recipe.weights
    file = Path(run.begun_in) / weights
    # A folder of photos may have the name of a bundle that ships.
    return str(file) if run.begun_in and file.exists() and weights not in shipped() else weights


def _clear(folder: Path) -> None:
    """Remove incomplete files that a killed process left behind."""
    for left in (*folder.glob(".*.part"), *folder.glob(".*.old-*")):
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def first_network(recipe: Recipe, classes: int, weights: str) -> tuple[Network, str]:
    """The network before training, the same each time, and a line on the origin of its weights."""
    torch.manual_seed(recipe.seed)
    backbone, last = find_backbone(recipe.backbone), recipe.stages[-1]
    body = build(backbone, classes, dropout=recipe.dropout, drop_path=recipe.drop_path, size=(last.height, last.width))
    network = Network(body, backbone.mean, backbone.std)
    for parameter in network.classifier.parameters():
        torch.nn.init.zeros_(parameter)  # all classes begin with equal probability
    return network, load_weights(body, backbone, weights)


def _job(folder: Path, run: Run, split: Split) -> TrainingJob:
    """The job of the training loop."""
    return TrainingJob(
        recipe=run.recipe,
        run=folder,
        paths=tuple(photo.path for photo, train in zip(split.photos, split.train, strict=True) if train),
        classes=split.classes[split.train],
        holdout_paths=tuple(photo.path for photo, held in zip(split.photos, split.holdout, strict=True) if held),
        holdout_classes=split.classes[split.holdout],
        threads=run.threads,
        bfloat16=run.bfloat16,
    )


def whether_bfloat16(recipe: Recipe, network: Network, accelerator: Accelerator) -> bool:
    """Whether to train in bfloat16: as the recipe says, or what is faster here."""
    if recipe.precision != "auto":
        return recipe.precision == "bfloat16"
    stage = recipe.stages[-1]
    batch = max(2, stage.batch // accelerator.num_processes)
    return faster_in_bfloat16(network, accelerator.device, stage.height, stage.width, batch)


def _head_start(network: Network, run: Run, split: Split) -> None:
    """Fit the classifier on embeddings of the frozen backbone, at the input size of the first stage."""
    recipe, stage = run.recipe, run.recipe.stages[0]
    settings = recipe.preprocess(stage.height, stage.width)
    chosen = np.flatnonzero(split.train)
    chosen = chosen[:: -(-len(chosen) // HEAD_START_PHOTOS)]
    paths = [split.photos[i].path for i in chosen]
    network.eval()
    device = next(network.parameters()).device
    embeddings, indices = [], []
    with torch.inference_mode():
        for batch in plain_batches(paths, in_order(np.arange(len(paths)), VALIDATION_BATCH), settings, run.threads):
            if len(batch.indices):
                embeddings.append(network.embed(torch.from_numpy(batch.photos).to(device)).float().cpu().numpy())
                indices.append(batch.indices)
    if not indices:
        raise unreadable(paths)
    there = chosen[np.concatenate(indices)]
    photos = [split.photos[i] for i in there]
    fold = folds([str(p.label) for p in photos], [str(p.sha256) for p in photos], split.groups[there], 3, recipe.seed)
    head = fit_head(np.concatenate(embeddings), split.classes[there], fold)
    weight, bias = classifier_matrix(network)
    with torch.no_grad():  # divided by the temperature: calibrated logits give small first gradients
        weight.copy_(torch.from_numpy(head.weight.T / head.temperature).to(device))
        bias.copy_(torch.from_numpy(head.bias / head.temperature).to(device))
