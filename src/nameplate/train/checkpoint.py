"""Reads and writes checkpoints, from which a run resumes with exactly the same results. No pickle is used.

checkpoint.safetensors            network, moving average, best weights of the stage and of the run, moments of the
                                  optimiser; the `State` as JSON in the metadata
checkpoint.previous.safetensors   the checkpoint before it

The state of random generators is not stored: all random numbers depend only on the seed and on the `State`.
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
"""Version of the format of checkpoints."""

Tensors = dict[str, torch.Tensor]


@dataclass(slots=True)
class State:
    """The progress of a run. The field names are keys of the JSON in a checkpoint, so they must not change."""

    stage: int = 0
    """Number of completed stages."""
    stage_epoch: int = 0
    """Number of completed epochs in the current stage."""
    epoch: int = 0
    """Number of completed epochs in the run."""
    step: int = 0
    """Number of completed steps in the current epoch."""
    stage_steps: int = 0
    """Number of completed steps in the current stage."""
    steps: int = 0
    """Number of completed steps in the run."""
    loss: float = 0.0
    """Sum of the losses of the steps of the current epoch."""
    photos: int = 0
    """Number of photos that the network has seen in the current epoch."""
    epoch_seconds: float = 0.0
    """Time spent in the current epoch in seconds, including the time before an interruption."""
    seconds: float = 0.0
    """Time spent in all completed epochs in seconds, including validation."""
    best: float | None = None
    """Best validation top-1 of the current stage, 0–1."""
    best_epoch: int = 0
    """The epoch with that top-1, counted over the run from 1."""
    since_best: int = 0
    """Number of epochs of the current stage after it."""
    history: list[Epoch] = field(default_factory=list)
    """All completed epochs."""
    lost: dict[str, str] = field(default_factory=dict)
    """Path → reason of each photo that could be read at the beginning of the run and not later."""
    kept_epoch: int = 0
    """The best epoch of the run so far, if the recipe keeps the best weights; otherwise 0."""


def save_checkpoint(run: Path, state: State, tensors: Tensors) -> None:
    """Write a checkpoint atomically; the one before it stays as `PREVIOUS`.

    Raises:
        NameplateError: the checkpoint cannot be written; the last one is intact.
    """
    target = run / CHECKPOINT
    text = json.dumps(msgspec.to_builtins(state))  # json escapes file names that are not valid UTF-8; msgspec fails
    metadata = {"schema": str(SCHEMA), "state": text}
    try:
        with whole_file(target) as temporary:
            save_file({name: part.detach().cpu().contiguous() for name, part in tensors.items()}, temporary, metadata)
            # The old checkpoint is renamed only after the new one is complete. A crash between the two renames leaves
            # `PREVIOUS`, which `load_checkpoint` finds.
            if target.exists():
                target.replace(run / PREVIOUS)
    except (OSError, SafetensorError, NameplateError) as error:
        raise NameplateError(
            f"Cannot write the checkpoint '{target}': {error}. The last good one is intact. "
            f"Make room, then go on: nameplate train --resume '{run}'."
        ) from None


def load_checkpoint(run: Path) -> tuple[State, Tensors] | None:
    """Load the newest checkpoint that can be read; None where there is no checkpoint.

    Raises:
        NameplateError: there are checkpoints, but none can be read.
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
    """The moments of the optimiser, named by the number of the parameter and the name of the moment."""
    return {
        f"optimizer.{number}.{name}": torch.as_tensor(value)
        for number, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Restore the moments of `optimizer_tensors`, each with the device and memory format of its parameter.

    The step counters are scalars. A fused optimiser needs them on the device of the parameter, others on the CPU.
    """
    parameters, fused = _parameters(optimizer), bool(optimizer.defaults.get("fused"))
    for key, value in tensors.items():
        if not key.startswith("optimizer."):
            continue
        _, number, name = key.split(".")
        parameter = parameters[int(number)]
        # `empty_like` keeps the memory format (channels_last); a plain copy would be contiguous.
        if value.shape == parameter.shape:
            kept = torch.empty_like(parameter).copy_(value)
        else:
            kept = value.to(parameter.device if fused else value.device, copy=True)
        optimizer.state[parameter][name] = kept


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    """All parameters in the order of the groups, which is the same in a resumed run."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def part(tensors: Tensors, prefix: str) -> Tensors:
    """The tensors whose names begin with `prefix.`, with that prefix removed."""
    return {key.removeprefix(f"{prefix}."): value for key, value in tensors.items() if key.startswith(f"{prefix}.")}
