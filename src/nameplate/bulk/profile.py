"""Where a job's time went, and how far that is from what decoding and inference allow together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from nameplate.bulk.job import Job
from nameplate.bulk.work import Reader
from nameplate.models.model import Model
from nameplate.models.pipeline import AHEAD, PreparedPhoto, Settings, UnreadablePhoto, prepare_photo
from nameplate.models.runtime import BATCH
from nameplate.photos.parallel import ordered_map

STAGES = ("read", "decode", "resize", "infer", "judge", "write")
"""A photo's way; `judge` is the head, the verdict and the row."""
SAMPLE = 256
"""Photos of the job that decoding alone and inference alone are timed on."""
ROUNDS = 2
"""Times that each is timed; the faster counts."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the run."""

    stage: str
    seconds: float
    """Added up over all threads, waiting for a processor included."""
    share: float
    """Of the run's time on all its processors, 0–1 (more where threads waited for each other)."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the time went."""

    threads: int
    seconds: float
    """Of the run, photos alone."""
    stages: tuple[Stage, ...]
    photos_per_second: float
    decode_alone: float
    """Photos a second when nothing but reading, decoding and resizing runs, on all processors."""
    infer_alone: float
    """Photos a second when nothing but the runtime runs, on all processors."""
    floor: float
    """Photos a second that these two allow on the same processors: 1 / (1 / decode_alone + 1 / infer_alone)."""
    reached: float
    """Share of that which the run reached; above 1 where the machine was busier while it was measured."""


def measure(model: Model, job: Job, spent: Mapping[str, float], seconds: float, photos: int) -> Profile | None:
    """The profile of a run that has ended; None where no photo of the sample can be read.

    Args:
        model: that ran, its runtime open.
        job: whose photos are sampled.
        spent: seconds by stage.
        seconds: of the run.
        photos: that it named.
    """
    threads = model.settings.threads
    decoding, prepared = min((_decode(model, _sample(job)) for _ in range(ROUNDS)), key=lambda timed: timed[0])
    pictures = [photo.inputs[0] for photo in prepared if isinstance(photo, PreparedPhoto)]
    if not pictures:
        return None
    batches = [np.stack(pictures[start : start + BATCH]) for start in range(0, len(pictures), BATCH)]
    runtime = model.runtime.open(0)
    inferring = min(_timed(lambda: list(runtime.embed(iter(batches)))) for _ in range(ROUNDS))
    decode, infer, reached = len(prepared) / decoding, len(pictures) / inferring, photos / seconds
    floor = 1 / (1 / decode + 1 / infer)
    stages = tuple(
        Stage(name, round(spent[name], 3), round(spent[name] / seconds / threads, 3))
        for name in STAGES
        if name in spent
    )
    return Profile(
        threads,
        round(seconds, 3),
        stages,
        round(reached, 1),
        round(decode, 1),
        round(infer, 1),
        round(floor, 1),
        round(reached / floor, 3),
    )


def _sample(job: Job) -> list[str]:
    """Photos from all over the job, of no more than eight of its parts."""
    parts = sorted({round(place * (job.parts - 1) / 7) for place in range(8)})
    each = -(-SAMPLE // len(parts))
    found = []
    for part in parts:
        references = job.references(part)
        found += references[:: max(1, len(references) // each)][:each]
    return found


def _decode(model: Model, references: list[str]) -> tuple[float, list[PreparedPhoto | UnreadablePhoto]]:
    """How long all threads take to read, decode and resize some photos, and these."""
    size, settings = model.bundle.manifest.preprocess, Settings(limits=model.settings.limits)

    with Reader(settings.limits) as reader:
        start = time.perf_counter()
        sources = reader.sources(references)
        prepared = list(
            ordered_map(lambda source: prepare_photo(source, size, settings), sources, model.settings.threads, AHEAD)
        )
        return time.perf_counter() - start, prepared


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
