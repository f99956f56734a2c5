"""Recipes of networks, trained as `nameplate train` does and judged on the photos held out. With torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from nameplate.datasets.sources import Dataset
from nameplate.errors import NameplateError
from nameplate.experiments.contenders import Tuned
from nameplate.experiments.frozen_backbone import Cost, load_network, measure, with_cost
from nameplate.experiments.judged import Answers, answers, photo_keys
from nameplate.fit.parts import Parts
from nameplate.models.collection import Progress
from nameplate.reports.compare import Row
from nameplate.training.backbones import find_backbone
from nameplate.training.fine_tune import Say, Watch, fine_tune, start
from nameplate.training.run import RUN, load_run


def start_run(contender: Tuned, parts: Parts, run: Path, threads: int, progress: Progress) -> None:
    """Write a run's folder, where there is none yet.

    Args:
        contender: what is trained.
        parts: the photos, each in its part; every run takes them so.
        run: the run's folder.
        threads: processors.
        progress: see `Progress`.

    Raises:
        NameplateError: see `training.fine_tune.start`.
    """
    if (run / RUN).is_file():
        return
    dataset = Dataset(
        tuple(photo.with_(group=str(group)) for photo, group in zip(parts.photos, parts.groups, strict=True)),
        parts.nameplates,
        dict(zip(parts.nameplates, parts.ids, strict=True)),
    )
    start(lambda: dataset, run, contender.recipe, threads=threads, progress=progress)


def judge_tuned(contender: Tuned, parts: Parts, run: Path, *, watch: Watch, say: Say) -> tuple[Row, Answers]:
    """Train a run to its end, or what is left of it, and judge it on the held-out photos.

    Args:
        contender: what is trained.
        parts: the photos of the comparison.
        run: a folder that `start_run` wrote.
        watch: called after each step.
        say: called with what is being done when no step is.

    Raises:
        NameplateError: see `training.fine_tune.fine_tune`.
    """
    made = fine_tune(run, watch=watch, say=say)
    if made is None or made.finished.evaluation is None:
        raise NameplateError("No held-out photo could be judged.")
    places, judged = made.finished.places, made.finished.evaluation
    backbone = find_backbone(contender.recipe.backbone)
    row = Row(
        name=contender.name,
        backbone=backbone.timm,
        photos=judged.photos,
        top1=judged.top1,
        log_loss=judged.log_loss,
        licence=backbone.licence,
        seconds=made.state.seconds,
    )
    keys = np.array(photo_keys(made.parts.photos))[places]
    found = answers(keys.tolist(), made.finished.probabilities, made.parts.classes[places], parts.nameplates)
    return with_cost(row, _cost(contender, len(parts.nameplates), load_run(run).threads)), found


def _cost(contender: Tuned, classes: int, threads: int) -> Cost:
    """Of the network as its last stage sees photos; what it costs does not depend on its weights."""
    last = contender.recipe.stages[-1]
    with torch.random.fork_rng():
        network, _ = load_network(
            find_backbone(contender.recipe.backbone), classes, (last.height, last.width), threads, weights="none"
        )
    return measure(network, last.height, last.width)
