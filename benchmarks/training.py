"""Training side by side: our `fine-tune` and `few`, our `original`, and fastai's `fine_tune` with its own defaults.

    pip install fastai
    python benchmarks/training.py CARS196 --nameplates 20

The same backbone (EfficientNet-Lite0 with the same ImageNet weights), the same split and the same cores, one
after another in one run; fastai gets the epochs that take as many pixels through the network as `fine-tune`
does. Prints each side's accuracy and time, and the time that each took to reach `original`'s final accuracy.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nameplate.data import read_dataset
from nameplate.data.dataset import Dataset
from nameplate.fit.recipe import Recipe, load_recipe
from nameplate.fit.run import load_run, split_of
from nameplate.runtime.select import available_cpus
from nameplate.train.backbones import build, find_backbone
from nameplate.train.finetune import fine_tune, start
from nameplate.train.schedule import keep_memory
from nameplate.train.weights import load_weights

BACKBONE = "Lite0"
FASTAI_SIZE = 224
"""Of the side, in pixels: what its tutorials train at."""

Curve = list[tuple[float, float]]
"""(seconds, validation top-1) after each epoch."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--nameplates", type=int, default=20, help="how many, spread over the alphabet")
    parser.add_argument("--holdout", type=float, default=0.3)
    parser.add_argument("--scale", type=float, default=1.0, help="of every side's photo sizes")
    parser.add_argument("--sides", nargs="+", default=["original", "fine-tune", "few", "fastai"])
    parser.add_argument("--runs", type=Path, default=None, help="where to keep our runs")
    arguments = parser.parse_args()
    dataset = read_dataset(arguments.photos)
    chosen = [dataset.nameplates[int(i)] for i in np.linspace(0, len(dataset.nameplates) - 1, arguments.nameplates)]
    dataset = replace(
        dataset,
        nameplates=tuple(chosen),
        photos=tuple(photo for photo in dataset.photos if photo.label in chosen),
    )
    keep_memory()
    with tempfile.TemporaryDirectory() as temporary:
        runs = arguments.runs or Path(temporary)
        sides: dict[str, Callable[[], Curve]] = {
            name: lambda name=name: ours(dataset, runs / name, recipe(name, arguments))  # type: ignore[misc]
            for name in ("original", "fine-tune", "few")
        }
        sides["fastai"] = lambda: fastai(dataset, recipe("fine-tune", arguments), arguments, runs)
        curves = {}
        for name in arguments.sides:
            curves[name] = sides[name]()
            print(f"{name}: " + ", ".join(f"{t:.0f} s {100 * a:.1f} %" for t, a in curves[name]), flush=True)
    report(curves)


def recipe(name: str, arguments: argparse.Namespace) -> Recipe:
    """One of ours on the common backbone, its photo sizes scaled."""
    found = load_recipe(name, [f"holdout={arguments.holdout}"])
    assert isinstance(found, Recipe)
    stages = tuple(
        replace(s, height=_scaled(s.height, arguments.scale), width=_scaled(s.width, arguments.scale))
        for s in found.stages
    )
    return replace(found, backbone=BACKBONE, stages=stages)


def _scaled(side: int, scale: float) -> int:
    return side if scale == 1 else max(32, round(side * scale / 16) * 16)


def ours(dataset: Dataset, run: Path, plan: Recipe) -> Curve:
    """A run of ours; validation is in its time, and so is the measuring of precisions."""
    begun = time.monotonic()
    start(lambda: dataset, run, plan, overwrite=True)
    before = time.monotonic() - begun
    made = fine_tune(run)
    assert made is not None
    return [(before + row.seconds, row.validation_top1 or 0.0) for row in made.state.history]


def fastai(dataset: Dataset, plan: Recipe, arguments: argparse.Namespace, runs: Path) -> Curve:
    """`vision_learner` … `fine_tune` as its documentation shows it, on the split that our run made."""
    import torch
    from fastai.vision.all import (
        Callback,
        ImageDataLoaders,
        Normalize,
        Resize,
        accuracy,
        aug_transforms,
        vision_learner,
    )

    if not (runs / "fine-tune" / "run.json").exists():
        start(lambda: dataset, runs / "fine-tune", plan)
    parts = split_of(load_run(runs / "fine-tune"))
    import pandas

    table = pandas.DataFrame(
        {
            "name": [str(Path(photo.path).absolute()) for photo in parts.photos],
            "label": [photo.label for photo in parts.photos],
            "is_valid": parts.holdout,
        }
    )[parts.train | parts.holdout]
    side = _scaled(FASTAI_SIZE, arguments.scale)
    epochs = max(1, round(sum(s.epochs * s.height * s.width for s in plan.stages) / side**2))
    torch.set_num_threads(available_cpus())
    backbone = find_backbone(BACKBONE)
    begun = time.monotonic()
    loaders = ImageDataLoaders.from_df(
        table,
        path="/",
        valid_col="is_valid",
        item_tfms=Resize(side),
        batch_tfms=[*aug_transforms(), Normalize.from_stats(backbone.mean, backbone.std)],
        bs=32,
        num_workers=1,
        device=torch.device("cpu"),
    )
    learner = vision_learner(loaders, backbone.timm, metrics=accuracy, pretrained=False, normalize=False)
    body = build(backbone, 1, dropout=0.0, drop_path=0.0)
    load_weights(body, backbone, "auto")
    missing = learner.model[0].model.load_state_dict(body.state_dict(), strict=False)
    assert not missing.missing_keys, missing
    curve: Curve = []

    class Clock(Callback):  # type: ignore[misc]  # fastai is read as Any
        order = 60  # after the recorder, which has 50

        def after_epoch(self) -> None:
            curve.append((time.monotonic() - begun, float(self.recorder.values[-1][-1])))

    learner.freeze()
    with contextlib.redirect_stdout(io.StringIO()), learner.no_bar(), learner.no_logging():
        learner.fine_tune(epochs, cbs=Clock())
    return curve


def report(curves: dict[str, Curve]) -> None:
    """The table."""
    goal = curves["original"][-1][1] if "original" in curves else math.nan
    goal = max((a for _, a in curves.get("original", [])), default=goal)
    print(f"\n{'side':10} {'top-1':>7} {'seconds':>8} {'to original':>12} {'share of its time':>18}")
    whole = reached(curves.get("original", []), goal)
    for name, curve in curves.items():
        took = reached(curve, goal)
        share = took / whole if whole else math.nan
        print(f"{name:10} {100 * curve[-1][1]:6.1f}% {curve[-1][0]:8.0f} {took:12.0f} {share:18.2f}")
    print(json.dumps(curves))


def reached(curve: Sequence[tuple[float, float]], goal: float) -> float:
    """Seconds until `goal` was first reached; not a number where it never was."""
    return next((seconds for seconds, accuracy in curve if accuracy >= goal), math.nan)


if __name__ == "__main__":
    main()
