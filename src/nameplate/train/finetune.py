"""`start` and `fine_tune`: a network trained in the stages of a recipe, from labelled photos to a bundle."""

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
    parts_of,
    refuse_gone,
    relocate,
    rows,
    save_run,
    versions,
)
from nameplate.fit.split import Split, split_parts
from nameplate.model.classifier import fit_head
from nameplate.model.embeddings import Progress, embed_photos
from nameplate.model.model import Model
from nameplate.runtime.select import available_cpus
from nameplate.storage import clear_folder, is_free, whole_file, working_in
from nameplate.train.backbones import build, find_backbone
from nameplate.train.checkpoint import State, load_checkpoint
from nameplate.train.data import in_order, plain_batches, unreadable
from nameplate.train.finish import Finished, finish
from nameplate.train.loop import VALIDATION_BATCH, StepEvent, TrainingJob, fit, kept
from nameplate.train.monitor import RunMonitor
from nameplate.train.network import Network, classifier_matrix, depthwise_in_float32, layer_numbers
from nameplate.train.schedule import faster_in_bfloat16, keep_memory
from nameplate.train.weights import load_weights
from nameplate.types import Preprocess

HEAD_START_PHOTOS = 20_000
"""Photos, at most, whose embeddings the classifier is fitted on before the first stage."""

Watch = Callable[[StepEvent], None]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class FineTuned:
    """What `fine_tune` made."""

    finished: Finished
    parts: Split
    state: State
    resumed: int
    """Steps that were done before this call."""


def start(
    read: Callable[[], Dataset],
    folder: Path,
    recipe: Recipe,
    *,
    threads: int | None = None,
    index: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda *_: None,
) -> None:
    """Read and split the photos and write the run's folder, which `fine_tune` then works in.

    Every process of a run calls it; the main one does it.

    Args:
        read: gives the labelled photos; the main process alone calls it. Where the data itself has parts, its
            validation (or test) part is held out.
        folder: the run's.
        recipe: how to train.
        threads: processors that each process uses; None takes those that it may use, shared evenly by the
            processes on this machine.
        index: put small pictures of the photos that train into the bundle, for `nameplate explain`.
        overwrite: replace a run that is there.
        progress: see `Progress`.

    Raises:
        DataError: fewer than two nameplates with readable photos to train on.
        NameplateError: `folder` is there already, is written by another run, or cannot be written; or the weights
            cannot be had.
        UsageError: an unknown backbone, or one that the recipe cannot train; or a batch, or all photos, that the
            processes cannot share.
    """
    accelerator = _accelerator()
    if accelerator.is_main_process:
        neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun's word for processes on this machine
        threads = threads or max(1, available_cpus() // neighbours)
        refuse_folder(folder, overwrite)
        with working_in(folder):
            refuse_folder(folder, overwrite)  # again: another run may have begun there meanwhile
            _start(accelerator, read, folder, recipe, threads, index, progress)
    accelerator.wait_for_everyone()


def look_elsewhere(folder: Path, sources: Sequence[Path], progress: Progress = lambda *_: None) -> Moved | None:
    """`relocate`, by the main process of those that work on a run; the others wait for it and get None.

    Raises:
        DataError: see `relocate`.
        NameplateError: see `relocate`.
    """
    accelerator = _accelerator()
    moved = relocate(folder, sources, progress) if accelerator.is_main_process else None
    accelerator.wait_for_everyone()
    return moved


def _accelerator() -> Accelerator:
    return Accelerator(cpu=not torch.accelerator.is_available())  # said, so that processes on CPUs meet too


def refuse_folder(folder: Path, overwrite: bool) -> None:
    """Keep a new run from a folder that holds something.

    Raises:
        NameplateError: it holds something else than a run, or a run and `overwrite` is false.
    """
    if is_free(folder):
        return
    if not (folder / RUN).is_file():
        raise NameplateError(f"'{folder}' is there and is no run, so it is not replaced. Choose another name.")
    if not overwrite:
        raise NameplateError(
            f"'{folder}' is there already. Go on with it (nameplate train --resume '{folder}'), "
            "choose another name, or pass --overwrite."
        )


def _start(
    accelerator: Accelerator,
    read: Callable[[], Dataset],
    folder: Path,
    recipe: Recipe,
    threads: int,
    index: bool,
    progress: Progress,
) -> None:
    _refuse_recipe(recipe, folder, accelerator.num_processes)
    keep_memory()
    torch.set_num_threads(threads)
    find_backbone(recipe.backbone)  # an unknown name is said before the photos are read
    dataset = read()
    embedded = embed_photos(dataset.photos, Model.load(threads=threads), progress)
    parts = split_parts(dataset, embedded, recipe.holdout, recipe.seed, progress)
    if parts.train.sum() < accelerator.num_processes:
        raise UsageError(f"{parts.train.sum()} training photos are too few for {accelerator.num_processes} processes.")
    network, origin = _network(recipe, len(parts.nameplates), recipe.weights)
    classifier_matrix(network)  # a classifier that no bundle can hold is refused now, not after hours
    layer_numbers(network)  # and a network that cannot be trained in stages
    run = Run(
        schema=SCHEMA,
        recipe=recipe,
        photos=rows(parts),
        nameplates=parts.nameplates,
        ids=parts.ids,
        unreadable=parts.unreadable,
        lost=parts.lost,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        bfloat16=_bfloat16(recipe, network, accelerator),
        threads=threads,
        processes=accelerator.num_processes,
        device=accelerator.device.type,
        weights=origin,
        versions=versions("accelerate", "numpy", "pillow", "simplejpeg", "timm", "torch"),
        index=index,
        begun_in=str(Path.cwd()),
        excluded=parts.excluded,
    )
    clear_folder(folder)
    save_run(folder, run)
    with whole_file(folder / RECIPE) as temporary:
        temporary.write_text(recipe_toml(recipe), "utf-8")


def _refuse_recipe(recipe: Recipe, folder: Path, processes: int) -> None:
    """Before any work, what would fail later: a batch that cannot be shared, weights that would be deleted."""
    for stage in recipe.stages:
        if stage.batch % processes:
            raise UsageError(f"A batch of {stage.batch} cannot be shared evenly by {processes} processes.")
    weights = Path(recipe.weights)
    if folder.exists() and weights.exists() and weights.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"The weights '{recipe.weights}' lie in '{folder}', which would be replaced. Choose another.")


def fine_tune(folder: Path, *, watch: Watch = lambda _: None, say: Say = lambda _: None) -> FineTuned | None:
    """Train a run to its end, from its last checkpoint on, and write its bundle.

    Args:
        folder: of a run that `start` made.
        watch: called after each step.
        say: called with what is being done when no step is.

    Returns:
        What was made; None in all processes but the main one.

    Raises:
        NameplateError: no run, one that another process works on, a loss that is no number, photos that are gone, a
            full disk, an exported network that is not the trained one, or another process of the run that has ended.
        UsageError: another number of processes than the run began with.
    """
    run = load_run(folder)
    refuse_gone(folder, run)
    accelerator = _accelerator()
    if accelerator.num_processes != run.processes:
        raise UsageError(f"'{folder}' began with {run.processes} processes, not {accelerator.num_processes}.")
    with working_in(folder) if accelerator.is_main_process else nullcontext(), _together(folder, accelerator):
        return _fine_tune(folder, run, accelerator, watch, say)


@contextmanager
def _together(folder: Path, accelerator: Accelerator) -> Iterator[None]:
    """Say how to go on where another process of the run has ended, or cannot be reached.

    Raises:
        NameplateError: in place of what the library for communication raised.
    """
    try:
        yield
    except RuntimeError as error:
        # NCCL and the store raise a type of their own. Gloo raises a plain RuntimeError, which its name alone tells
        # from a fault of ours.
        lost = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        if accelerator.num_processes == 1 or not lost:
            raise
        raise NameplateError(
            f"Another of the {accelerator.num_processes} processes has ended, or cannot be reached: see its messages. "
            f"Go on from the last checkpoint with as many processes: nameplate train --resume '{folder}'."
        ) from error


def _fine_tune(folder: Path, run: Run, accelerator: Accelerator, watch: Watch, say: Say) -> FineTuned | None:
    keep_memory()
    torch.set_num_threads(run.threads)
    recipe, parts = run.recipe, parts_of(run)
    if accelerator.is_main_process:
        _clear(folder)
    saved = load_checkpoint(folder)
    network, _ = _network(recipe, len(parts.nameplates), "none" if saved else _weights(run))
    network.to(accelerator.device, memory_format=torch.channels_last)
    if recipe.head_start and saved is None:
        say("fit the classifier on the frozen backbone")
        _head_start(network, run, parts)
    if accelerator.device.type == "cpu":
        depthwise_in_float32(network)
    job = _job(folder, run, parts)
    resumed = saved[0].steps if saved else 0
    if not accelerator.is_main_process:
        fit(job, network, accelerator, saved, watch, None)
        return None
    monitor = RunMonitor(folder, run, parts, saved[0] if saved else None)
    try:
        training = fit(job, network, accelerator, saved, monitor.watch(watch), monitor)
        if saved and training.state.steps == resumed:
            say("all epochs were done before")
        made = finish(folder, run, parts, kept(training), training.state, say)
    except BaseException as error:
        monitor.stopped("interrupted" if isinstance(error, KeyboardInterrupt) else str(error))
        raise
    monitor.finished(training.state, made)
    return FineTuned(made, parts, training.state, resumed)


def _weights(run: Run) -> str:
    """What a run begins with; a file that it names by a relative path is meant from where it was begun."""
    file = Path(run.begun_in) / run.recipe.weights
    return str(file) if run.begun_in and file.exists() else run.recipe.weights


def _clear(folder: Path) -> None:
    """Remove what a killed process had half written."""
    for left in (*folder.glob(".*.part"), *folder.glob(".*.old-*")):
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def _network(recipe: Recipe, classes: int, weights: str) -> tuple[Network, str]:
    """The network at its beginning, the same each time, and what its weights are."""
    torch.manual_seed(recipe.seed)
    backbone, last = find_backbone(recipe.backbone), recipe.stages[-1]
    body = build(backbone, classes, dropout=recipe.dropout, drop_path=recipe.drop_path, size=(last.height, last.width))
    network = Network(body, backbone.mean, backbone.std)
    for parameter in network.classifier.parameters():
        torch.nn.init.zeros_(parameter)  # every class alike
    return network, load_weights(body, backbone, weights)


def _job(folder: Path, run: Run, parts: Split) -> TrainingJob:
    return TrainingJob(
        recipe=run.recipe,
        run=folder,
        paths=tuple(photo.path for photo, train in zip(parts.photos, parts.train, strict=True) if train),
        classes=parts.classes[parts.train],
        held_paths=tuple(photo.path for photo, held in zip(parts.photos, parts.held, strict=True) if held),
        held_classes=parts.classes[parts.held],
        threads=run.threads,
        bfloat16=run.bfloat16,
    )


def _bfloat16(recipe: Recipe, network: Network, accelerator: Accelerator) -> bool:
    if recipe.precision != "auto":
        return recipe.precision == "bfloat16"
    stage = recipe.stages[-1]
    batch = max(2, stage.batch // accelerator.num_processes)
    return faster_in_bfloat16(network, accelerator.device, stage.height, stage.width, batch)


def _head_start(network: Network, run: Run, parts: Split) -> None:
    """Fit the classifier on what the frozen backbone says of the training photos, as the first stage sees them."""
    recipe, stage = run.recipe, run.recipe.stages[0]
    settings = Preprocess(stage.height, stage.width, recipe.fit, recipe.interpolation)
    chosen = np.flatnonzero(parts.train)
    chosen = chosen[:: -(-len(chosen) // HEAD_START_PHOTOS)]
    paths = [parts.photos[i].path for i in chosen]
    network.eval()
    device = next(network.parameters()).device
    embeddings, places = [], []
    with torch.inference_mode():
        for batch in plain_batches(paths, in_order(np.arange(len(paths)), VALIDATION_BATCH), settings, run.threads):
            if len(batch.places):
                embeddings.append(network.embed(torch.from_numpy(batch.photos).to(device)).float().cpu().numpy())
                places.append(batch.places)
    if not places:
        raise unreadable(paths)
    there = chosen[np.concatenate(places)]
    photos = [parts.photos[i] for i in there]
    fold = folds([str(p.label) for p in photos], [str(p.sha256) for p in photos], parts.groups[there], 3, recipe.seed)
    head = fit_head(np.concatenate(embeddings), parts.classes[there], fold)
    weight, bias = classifier_matrix(network)
    with torch.no_grad():  # in the calibrated scale, so that the first steps are small
        weight.copy_(torch.from_numpy(head.weight.T / head.temperature).to(device))
        bias.copy_(torch.from_numpy(head.bias / head.temperature).to(device))
