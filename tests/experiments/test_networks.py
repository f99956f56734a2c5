"""Real runs with and without further photos."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from nameplate.data import read_dataset
from nameplate.experiments.verdict import Material
from tests.experiments import cases
from tests.tiny import TINY

pytestmark = pytest.mark.torch
for needed in ("torch", "timm", "accelerate", "onnx", "onnxscript", "tensorboard"):
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed}", allow_module_level=True)

from nameplate.experiments.networks import NetworkTrainer  # noqa: E402


def test_both_networks_of_a_seed_evaluate_the_same_photos_and_are_resumed(tmp_path: Path) -> None:
    photos = read_dataset(cases.base(tmp_path, 2, judging=2)).photos
    evaluation = tuple(photo for photo in photos if photo.split == "validation")
    train = tuple(photo for photo in photos if photo.split == "train")
    extra = tuple(p.with_(split="train") for p in read_dataset(cases.extra(tmp_path, 28)).photos)
    names = tuple(cases.rows())
    material = Material(train, extra, evaluation, names, {name: name for name in names})
    said: list[str] = []
    networks = NetworkTrainer(
        material, tmp_path, TINY, runtime="onnxruntime", threads=1, progress=lambda *_: None, say=said.append
    )
    result = networks.train_seed(33)
    assert len(result.without.named) == len(result.added.named) == len(evaluation)
    runs = {name: json.loads((tmp_path / f"runs/seed-33/{name}/run.json").read_text()) for name in ("without", "with")}
    assert {name: run["recipe"]["seed"] for name, run in runs.items()} == {"without": 33, "with": 33}
    trained = {name: {r["path"] for r in run["photos"] if r["split"] == "train"} for name, run in runs.items()}
    assert trained["with"] - trained["without"] == {photo.path for photo in extra}
    assert "seed 33, with the further photos" in said
    assert networks.train_seed(33) == result
    assert json.loads((tmp_path / "runs/seed-33/with/run.json").read_text())["made"] == runs["with"]["made"]
