"""Training within a time limit: what is chosen, interruptions, and what is written."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nameplate.data import read_dataset
from nameplate.data.dataset import Dataset
from nameplate.demo import photos_folder
from nameplate.errors import NameplateError
from nameplate.experiments import auto, time_plan
from nameplate.experiments.auto import AutoState, Screen, load_state, resume_within, train_within
from nameplate.experiments.time_plan import Option, Speed
from nameplate.fit.fold_run import begin_run
from nameplate.fit.folds import fold_folder, load_plan
from nameplate.model.bundle import IN_RUN, load_bundle
from nameplate.model.model import Model
from nameplate.types import HeadRecipe
from tests.tiny import TINY

SMALL = replace(TINY, locate="ssd", stages=(replace(TINY.stages[0], height=192, width=288),))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six photos of each of three designs, and three of each in a test part."""
    root = tmp_path_factory.mktemp("data") / "designs"
    for design in sorted(photos_folder("train").iterdir())[:3]:
        paths = sorted(design.glob("*.jpg"))
        for part, chosen in (("train", paths[:6]), ("test", paths[10:13])):
            (root / part / design.name).mkdir(parents=True)
            for path in chosen:
                shutil.copy(path, root / part / design.name)
    return read_dataset(root)


@pytest.fixture(autouse=True)
def three_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three folds in place of five, which take less time."""
    monkeypatch.setattr(auto, "FOLDS", 3)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load(runtime="onnxruntime", threads=1)


def test_without_torch_the_heads_are_the_result_and_that_is_said(
    dataset: Dataset, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nameplate.train.fold_runs", None)
    made = train_within(lambda: dataset, tmp_path / "run", 600, model=model)
    assert made.state.chosen == "heads"
    assert any("pip install 'nameplate[train]'" in note for note in made.state.notes)
    assert made.state.held_out is not None
    assert made.state.held_out.photos == 9
    assert [each.name for each in made.state.candidates] == ["heads"]
    assert load_bundle(made.bundle).digest == model.bundle.digest
    page = (tmp_path / "run" / "index.html").read_text("utf-8")
    assert "pip install" in page
    assert "heads" in made._repr_html_()
    with pytest.raises(NameplateError, match="--resume"):
        train_within(lambda: dataset, tmp_path / "run", 600, model=model)
    assert resume_within(tmp_path / "run").state == made.state  # nothing is left to do


def test_fast_is_one_head_and_needs_no_folds(dataset: Dataset, model: Model, tmp_path: Path) -> None:
    made = train_within(lambda: dataset, tmp_path / "run", 600, "fast", model=model)
    assert made.state.chosen == "head"
    assert not (tmp_path / "run" / "heads").exists()
    assert Model.load(str(tmp_path / "run")).nameplates == load_bundle(made.bundle).manifest.nameplates


def test_too_few_photos_for_folds_still_give_a_head(model: Model, dataset: Dataset, tmp_path: Path) -> None:
    kept = [
        [photo for photo in dataset.photos if photo.label == name and photo.split == "train"][:1]
        for name in dataset.nameplates
    ]
    few = replace(dataset, photos=tuple(photo.with_(split=None) for photos in kept for photo in photos))
    made = train_within(lambda: few, tmp_path / "run", 600, model=model)
    assert made.state.chosen == "head"
    assert any("do not fill two folds" in note for note in made.state.notes)


def test_a_folder_with_something_else_is_not_replaced(dataset: Dataset, model: Model, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(NameplateError, match="not replaced"):
        train_within(lambda: dataset, tmp_path / "mine", 600, model=model, overwrite=True)


TORCH = all(importlib.util.find_spec(n) for n in ("torch", "timm", "accelerate", "onnx", "onnxscript", "tensorboard"))


@pytest.mark.torch
@pytest.mark.skipif(not TORCH, reason="needs torch and its kin")
def test_networks_are_planned_interrupted_resumed_and_the_best_is_written(
    dataset: Dataset, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "load_recipe", lambda _: SMALL)
    monkeypatch.setitem(time_plan.LADDERS, "good", (Option(2, 1),))
    monkeypatch.setattr(auto, "KEEP_SECONDS", 0.0)
    run, steps = tmp_path / "run", 0

    @contextmanager
    def stopping() -> Iterator[tuple[object, object]]:
        def watch(_: object) -> None:
            nonlocal steps
            steps += 1
            if (run / "networks" / "fold-2").is_dir():
                raise KeyboardInterrupt

        yield watch, lambda _: None

    with pytest.raises(KeyboardInterrupt):
        train_within(lambda: dataset, run, 3600, model=model, screen=Screen(training=stopping))  # type: ignore[arg-type]
    assert (run / IN_RUN / "bundle.json").is_file()  # the heads are saved already
    stopped = load_state(run)
    assert stopped.speed is not None
    assert stopped.speed.fixed > 0
    assert stopped.used > 0
    assert (load_plan(run / "networks").first, stopped.chosen) == (1, None)
    first = (fold_folder(run / "networks", 1) / IN_RUN / "backbone.onnx").stat().st_mtime_ns

    # As if most of the limit had been used: the second network goes on, a third is not begun.
    state = json.loads((run / "auto.json").read_text())
    state["limit"] = state["used"] + 60
    (run / "auto.json").write_text(json.dumps(state))
    made = resume_within(run)
    assert made.state.used > stopped.used
    assert (fold_folder(run / "networks", 1) / IN_RUN / "backbone.onnx").stat().st_mtime_ns == first
    assert {each.name for each in made.state.candidates} == {"heads", "networks", "both"}
    best = min(made.state.candidates, key=lambda each: each.log_loss)
    assert made.state.chosen == best.name
    assert made.state.held_out is not None
    Model.load(str(run)).predict([dataset.photos[0].path])
    assert not (run / "trial").exists()


def test_a_network_is_given_up_once_it_is_clear_that_it_would_end_too_late(
    tmp_path: Path, dataset: Dataset, model: Model
) -> None:
    plan = begin_run(lambda: dataset, tmp_path / "heads", HeadRecipe(holdout=0.0), 3, model=model)
    speed = Speed(fixed=1.0, per_pixel=(1e-9,))
    state = AutoState(auto.SCHEMA, "good", limit=100.0, made="", threads=1, used=10.0, speed=speed)
    clock = auto._Clock(tmp_path, state, None)
    watch = auto._watch(clock, replace(plan, recipe=SMALL), 2, lambda _: None)
    watch(_event(left=1e6))  # the first estimate of a fold is not relied on
    clock.begun -= 40  # as if so many seconds had passed
    watch(_event(left=50.0))
    with pytest.raises(auto._OutOfTimeError, match="too long"):
        watch(_event(left=60.0))


def _event(left: float) -> Any:
    """What the watch reads of a `StepEvent`, whose module needs torch."""
    return SimpleNamespace(left=left)


@pytest.mark.torch
@pytest.mark.skipif(not TORCH, reason="needs torch and its kin")
def test_a_trial_that_takes_too_long_is_given_up_and_the_heads_are_the_result(
    dataset: Dataset, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "load_recipe", lambda _: SMALL)
    monkeypatch.setattr(auto, "TRIAL_SHARE", 0.0)
    made = train_within(lambda: dataset, tmp_path / "run", 3600, model=model)
    assert made.state.chosen == "heads"
    assert any("a trial on some photos took too long" in note for note in made.state.notes)
    assert [each.name for each in made.state.tried if each.name.endswith("unfinished")] == [
        "a trial of the training on some photos, unfinished"
    ]
    assert not (tmp_path / "run" / "trial").exists()
