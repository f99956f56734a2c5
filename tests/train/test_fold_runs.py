"""Networks in folds: each sees its own photos, an interruption costs a fold's last steps, and their ensemble is one."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from nameplate.data import read_dataset
from nameplate.fit.fold_run import begin_run, continue_run
from nameplate.fit.folds import fold_folder, load_plan, out_of_fold
from nameplate.fit.run import load_run
from nameplate.model.bundle import BACKBONE, IN_RUN, load_bundle
from nameplate.model.model import Model

pytestmark = pytest.mark.torch
for needed in ("torch", "timm", "accelerate", "onnx", "onnxscript", "tensorboard"):
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed}", allow_module_level=True)

from dataclasses import replace  # noqa: E402

import torch  # noqa: E402

from nameplate.train.fold_runs import network_fold  # noqa: E402
from nameplate.train.loop import StepEvent  # noqa: E402
from tests.tiny import TINY  # noqa: E402
from tests.train.test_finetune import photos  # noqa: E402

torch.set_num_threads(1)
RECIPE = replace(TINY, holdout=0.0, keep_best=False)


def test_networks_in_folds_are_interrupted_resumed_and_joined(tmp_path: Path) -> None:
    data, run = photos(tmp_path / "photos", 3, 8), tmp_path / "run"
    model = Model.load(runtime="onnxruntime", threads=1)
    begin_run(lambda: read_dataset(data), run, RECIPE, 2, model=model)
    plan = load_plan(run)
    steps = 0

    def stop(_: StepEvent) -> None:
        nonlocal steps
        steps += 1
        if steps == 2:  # each fold has 12 photos, so one step: this is the second fold's
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        continue_run(run, network_fold(RECIPE, 1, watch=stop))
    first = fold_folder(run, 1) / IN_RUN / BACKBONE
    made = first.stat().st_mtime_ns
    begun: list[int] = []
    result = continue_run(run, network_fold(RECIPE, 1), begun=begun.append)
    assert begun == [2]
    assert result.resumed == 1
    assert first.stat().st_mtime_ns == made
    for fold in (1, 2):
        held = {row.path for row in load_run(fold_folder(run, fold)).photos if row.split == "validation"}
        assert held == {row.path for row, number in zip(plan.photos, plan.folds, strict=True) if number == fold}
    assert result.backbones == 2
    assert result.scores.whole.photos == 24
    # The ensemble is one bundle, and answers as the mean of the calibrated logits.
    folds = [load_bundle(fold_folder(run, fold)) for fold in (1, 2)]
    whole = Model.load(run, runtime="onnxruntime", threads=1)
    paths = [row.path for row in plan.photos[:10]]
    embeddings = whole.embed(paths)
    assert embeddings.shape[1] == sum(each.manifest.embedding for each in folds)
    temperatures = [each.temperature for each in out_of_fold(run, plan)]
    members = [Model.load(fold_folder(run, fold), runtime="onnxruntime", threads=1) for fold in (1, 2)]
    logits = [each.logits(each.embed(paths)) / t for each, t in zip(members, temperatures, strict=True)]
    assert whole.logits(embeddings) == pytest.approx(np.mean(logits, axis=0), abs=1e-3)
