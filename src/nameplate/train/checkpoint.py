"""Checkpoints: all that a run needs to go on exactly where it was, in one file, without a pickle.

checkpoint.safetensors            network, moving average, best weights of the stage and of the run, the optimiser's
                                  moments; the `State` as JSON
checkpoint.previous.safetensors   the one before it

Nothing random needs to be kept: what is drawn depends on the seed and on where the run is (`State`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from nameplate.errors import NameplateError
from nameplate.storage import whole_file
from nameplate.types import Epoch

CHECKPOINT, PREVIOUS = "checkpoint.safetensors", "checkpoint.previous.safetensors"
SCHEMA = 1
"""Version of a checkpoint's form."""

Tensors = dict[str, torch.Tensor]


@dataclass(slots=True)
class State:
    """Where a run is."""

    stage: int = 0
    """Stages done."""
    stage_epoch: int = 0
    """Epochs done in this stage."""
    epoch: int = 0
    """Epochs done in all."""
    step: int = 0
    """Steps done in this epoch."""
    stage_steps: int = 0
    """Steps done in this stage."""
    steps: int = 0
    """Steps done in all."""
    loss: float = 0.0
    """Sum over this epoch's steps."""
    photos: int = 0
    """Photos seen in this epoch."""
    epoch_seconds: float = 0.0
    """Time spent in this epoch, before any interruption too."""
    seconds: float = 0.0
    """Time spent in all epochs that are done, validation included."""
    best: float | None = None
    """Best validation top-1 of this stage."""
    best_epoch: int = 0
    """Its epoch, counted over the run."""
    since_best: int = 0
    """Epochs of this stage since then."""
    history: list[Epoch] = field(default_factory=list)
    """Every epoch done."""
    lost: dict[str, str] = field(default_factory=dict)
    """Photos that could be read when the run began and could not later, and why."""
    kept_epoch: int = 0
    """The best epoch of all stages so far, where the recipe has its weights kept; 0: none."""


def save_checkpoint(run: Path, state: State, tensors: Tensors) -> None:
    """Write a checkpoint whole, the one before it kept.

    Raises:
        NameplateError: it cannot be written; the last good one is intact.
    """
    target = run / CHECKPOINT
    said = json.dumps(msgspec.to_builtins(state))  # json, not msgspec: file names need not be UTF-8
    metadata = {"schema": str(SCHEMA), "state": said}
    try:
        with whole_file(target) as temporary:
            save_file({name: part.detach().cpu().contiguous() for name, part in tensors.items()}, temporary, metadata)
            if target.exists():
                target.replace(run / PREVIOUS)
    except (OSError, SafetensorError, NameplateError) as error:
        raise NameplateError(
            f"Cannot write the checkpoint '{target}': {error}. The last good one is intact. "
            f"Make room, then go on: nameplate train --resume '{run}'."
        ) from None


def load_checkpoint(run: Path) -> tuple[State, Tensors] | None:
    """The newest checkpoint that is whole; None where there is none.

    Raises:
        NameplateError: there are checkpoints and none can be read.
    """
    problems = []
    for name in (CHECKPOINT, PREVIOUS):
        path = run / name
        if not path.exists():
            continue
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("schema") != str(SCHEMA):
                    raise ValueError(f"its schema is {metadata.get('schema')}, this Nameplate reads {SCHEMA}")
                state = msgspec.convert(json.loads(metadata["state"]), State)
                return state, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        except (OSError, SafetensorError, ValueError, KeyError, msgspec.ValidationError) as error:
            problems.append(f"'{path}': {error}")
    if problems:
        raise NameplateError(f"No checkpoint can be read: {'; '.join(problems)}. Train anew with another --output.")
    return None


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """The optimiser's moments under names, one for each parameter and moment."""
    return {
        f"optimizer.{number}.{name}": torch.as_tensor(value)
        for number, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Put them back, each laid out as its parameter is; a fused optimiser counts its steps where the parameter is."""
    parameters, fused = _parameters(optimizer), bool(optimizer.defaults.get("fused"))
    for key, value in tensors.items():
        if not key.startswith("optimizer."):
            continue
        _, number, name = key.split(".")
        parameter = parameters[int(number)]
        if value.shape == parameter.shape:
            kept = torch.empty_like(parameter).copy_(value)
        else:
            kept = value.to(parameter.device if fused else value.device, copy=True)
        optimizer.state[parameter][name] = kept


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def part(tensors: Tensors, prefix: str) -> Tensors:
    """Those tensors whose names begin with `prefix.`, without it."""
    return {key.removeprefix(f"{prefix}."): value for key, value in tensors.items() if key.startswith(f"{prefix}.")}
