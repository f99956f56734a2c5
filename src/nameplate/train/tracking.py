"""Sends the figures of a run to Weights & Biases or MLflow (`open_tracker`); both also work without a network.

A run that goes on is the same run there: its identity is made of what never changes in run.json.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from nameplate.errors import NameplateError
from nameplate.fit.run import Run, Tracking
from nameplate.storage import sha256
from nameplate.types import Epoch

PROJECT = "nameplate"
"""Name of the project (W&B) or experiment (MLflow) where their own variables name no other."""
IDENTITY = "nameplate.run"
"""The tag by which a run is found again in MLflow."""
FILE_STORE = "MLFLOW_ALLOW_FILE_STORE"
"""MLflow refuses folders of files without this variable, since it develops its databases only."""


class Tracker(Protocol):
    """Where the figures of a run go."""

    def write(self, figures: dict[str, float], step: int) -> None:
        """Write figures that belong to a step of the run, counted from 1.

        Raises:
            NameplateError: the tracker refuses them; `close` raises it, too.
        """

    def close(self, figures: dict[str, float], *, finished: bool) -> None:
        """Write the figures of the whole run, and whether it has finished, and let go."""


def epoch_figures(epoch: Epoch) -> dict[str, float]:
    """The figures of an epoch under the names that every tracker and TensorBoard have; None is left out."""
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
    return {name: float(value) for name, value in figures.items() if value is not None}


def step_figures(loss: float, learning_rate: float) -> dict[str, float]:
    """The figures of a step under the names that every tracker and TensorBoard have."""
    return {"step/loss": loss, "step/learning-rate": learning_rate}


def open_tracker(kind: Tracking, folder: Path, run: Run) -> Tracker:
    """Open or go on with a run in a tracker.

    Args:
        kind: wandb or mlflow.
        folder: the folder of the run; what is written without a network goes into it.
        run: its settings, which become the run's configuration.

    Raises:
        NameplateError: the package is missing, or the tracker cannot be reached or written to.
    """
    return _Wandb(folder, run) if kind == "wandb" else _Mlflow(folder, run)


def _identity(run: Run) -> str:
    """Sixteen letters that stay the same when a run goes on."""
    return sha256("\n".join([run.made, run.begun_in, *(photo.sha256 for photo in run.photos)]).encode())[:16]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Tables and lists within a recipe under dotted names; stages count from 1."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple) and value and isinstance(value[0], dict):
            found |= _flat({str(number): each for number, each in enumerate(value, 1)}, f"{prefix}{name}.")
        else:
            found[prefix + name] = str(value)
    return found


@contextmanager
def _answered(name: str, advice: str) -> Iterator[None]:
    """Turn whatever a tracker raises into an error that says what to do."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise NameplateError(
            f"Tracking by {name} needs more packages ('{error.name}' is missing): pip install 'nameplate[track]'."
        ) from None
    except Exception as error:  # neither package has a base for its errors and those of its connection
        said = " ".join(str(error).split()) or type(error).__name__
        raise NameplateError(f"{name}: {said[:300]}. {advice}") from None


def _has_wandb_key() -> bool:
    """Whether this user has logged in to W&B: by a variable, or by `wandb login`, which writes to .netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    try:
        return netrc().authenticators(host) is not None
    except (OSError, NetrcParseError):
        return False


class _Wandb:
    """A run at Weights & Biases, or in `folder/wandb` for `wandb sync` where no key is known."""

    ADVICE = "Log in (wandb login), or set WANDB_MODE=offline and send the run later (wandb sync)."

    def __init__(self, folder: Path, run: Run) -> None:
        with _answered("W&B", self.ADVICE):
            import wandb

            mode = os.environ.get("WANDB_MODE") or ("online" if _has_wandb_key() else "offline")
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or PROJECT,
                name=folder.resolve().name,
                id=_identity(run),
                resume="allow",
                dir=str(folder.resolve()),
                config=asdict(run.recipe),
                mode=mode,
                # Neither the console, the command, the machine's load nor the user's git repository are sent.
                settings=wandb.Settings(
                    console="off", silent=True, x_disable_stats=True, x_disable_meta=True, disable_git=True
                ),
            )
            # A step of its own: W&B's refuses what a resumed run writes again.
            self._run.define_metric("*", step_metric="step")

    def write(self, figures: dict[str, float], step: int) -> None:
        with _answered("W&B", self.ADVICE):
            self._run.log({**figures, "step": step})

    def close(self, figures: dict[str, float], *, finished: bool) -> None:
        with _answered("W&B", self.ADVICE):
            self._run.summary.update(figures)
            self._run.finish(exit_code=0 if finished else 1)


class _Mlflow:
    """A run at MLFLOW_TRACKING_URI, else in `folder/mlruns`."""

    ADVICE = "Set MLFLOW_TRACKING_URI to a server that answers, or unset it for a folder in the run."

    def __init__(self, folder: Path, run: Run) -> None:
        with _answered("MLflow", self.ADVICE):
            uri = os.environ.get("MLFLOW_TRACKING_URI") or (folder.resolve() / "mlruns").as_uri()
            if uri.startswith("file:"):
                os.environ.setdefault(FILE_STORE, "true")
            from mlflow import MlflowClient

            self._client = MlflowClient(tracking_uri=uri)
            name, identity = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT, _identity(run)
            known = self._client.get_experiment_by_name(name)
            experiment = known.experiment_id if known else self._client.create_experiment(name)
            found = self._client.search_runs([experiment], f"tags.`{IDENTITY}` = '{identity}'")
            if found:
                self._id = found[0].info.run_id
                self._client.update_run(self._id, status="RUNNING")
            else:
                made = self._client.create_run(
                    experiment, run_name=folder.resolve().name, tags={IDENTITY: identity, "weights": run.weights}
                )
                self._id = made.info.run_id
                for key, value in _flat(asdict(run.recipe)).items():
                    self._client.log_param(self._id, key, value)

    def write(self, figures: dict[str, float], step: int) -> None:
        with _answered("MLflow", self.ADVICE):
            from mlflow.entities import Metric

            now = int(1000 * time.time())
            self._client.log_batch(self._id, metrics=[Metric(key, value, now, step) for key, value in figures.items()])

    def close(self, figures: dict[str, float], *, finished: bool) -> None:
        if figures:
            self.write(figures, 0)
        with _answered("MLflow", self.ADVICE):
            self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")
