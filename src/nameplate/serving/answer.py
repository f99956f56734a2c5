"""What the service knows of a photo: while it waits, and when it is answered."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nameplate.errors import Failure
from nameplate.models.answer_json import HeatMap
from nameplate.serving.supervisor import Worker
from nameplate.serving.wire import Done, Job
from nameplate.types import Prediction


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service knows of one photo."""

    prediction: Prediction
    chances: NDArray[np.float32] | None = None
    """Probabilities of all nameplates, (C,); None where the photo is unreadable."""
    embedding: NDArray[np.float32] | None = None
    """(D,), where it was asked for."""
    heatmap: HeatMap | None = None


@dataclass(slots=True)
class Waiting:
    """A job until it is answered."""

    job: Job
    photo: bytes
    until: float
    """When it is late, on the monotonic clock."""
    answer: asyncio.Future[Answer]
    worker: Worker | None = None
    """Who has it; None while it waits."""
    tries: int = 0


def read_answer(done: Done, body: bytes) -> Answer:
    """A worker's answer, its numbers read off the frame."""
    assert done.prediction is not None
    chances = np.frombuffer(body[: done.chances], np.float32) if done.chances else None
    rest = body[done.chances :]
    return Answer(done.prediction, chances, np.frombuffer(rest, np.float32) if rest else None, done.heatmap)


def late(waiting: Waiting) -> Answer:
    """The answer to a job that waited until its time was over."""
    return Answer(Prediction(waiting.job.name, failure=Failure("too slow", "its turn did not come in time")))
