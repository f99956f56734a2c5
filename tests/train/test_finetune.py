"""From labelled photos to the folder and the bundle of a run, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nameplate.data import read_dataset
from nameplate.defaults import DEFAULT_BUNDLE
from nameplate.demo import photos_folder
from nameplate.errors import DataError, NameplateError, UsageError
from nameplate.fit.recipe import Recipe, load_recipe
from nameplate.model.bundle import load_bundle
from nameplate.model.cam import photo_maps
from nameplate.model.model import Model
from nameplate.model.neighbours import nearest, read_index
from nameplate.runtime.select import ON_CPU

pytestmark = pytest.mark.torch
for needed in ("torch", "timm", "accelerate", "onnx", "onnxscript", "tensorboard"):
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed}", allow_module_level=True)

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from nameplate.fit.run import load_run  # noqa: E402
from nameplate.train import finish  # noqa: E402
from nameplate.train.checkpoint import load_checkpoint, part  # noqa: E402
from nameplate.train.data import PhotoBatch, plain_batches  # noqa: E402
from nameplate.train.finetune import FineTuned, fine_tune, refuse_folder, start  # noqa: E402
from nameplate.train.weights import terms_of  # noqa: E402
from tests.outcomes import all_mapped  # noqa: E402
from tests.tiny import TINY  # noqa: E402

torch.set_num_threads(1)


def photos(target: Path, classes: int, each: int) -> Path:
    """Embedded photos that a test may spoil."""
    for folder in sorted(photos_folder("test").iterdir())[:classes]:
        (target / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[:each]:
            shutil.copy(path, target / folder.name)
    return target


def begin(data: Path, run: Path, recipe: Recipe, overwrite: bool = False, index: bool = False) -> None:
    start(lambda: read_dataset(data), run, recipe, threads=1, overwrite=overwrite, index=index)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = photos(tmp_path_factory.mktemp("data") / "photos", 4, 8)
    broken = folder / "Corvane Lark" / "000.jpg"
    broken.write_bytes(broken.read_bytes()[:2000])
    return folder


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FineTuned]:
    run = tmp_path_factory.mktemp("runs") / "finished"
    stage = replace(TINY.stages[0], train="head", learning_rate=1e-4)
    begin(data, run, replace(TINY, stages=(stage,), ema=0.9, head_start=True, holdout=0.25), index=True)
    made = fine_tune(run)
    assert made is not None
    return run, made


def test_a_run_leaves_what_it_says(finished: tuple[Path, FineTuned]) -> None:
    run, made = finished
    assert made.finished.evaluation is not None
    assert made.finished.evaluation.top1.percent in made._repr_html_()
    names = {path.name for path in run.iterdir()}
    assert names == {
        *("run.json", "recipe.toml", "checkpoint.safetensors", "weights.safetensors"),
        *("metrics.csv", "events", "index.html", "augmented.jpg", "bundle"),
    }
    assert load_recipe(str(run / "recipe.toml")) == load_run(run).recipe
    saved = load_checkpoint(run)
    assert saved is not None
    assert saved[0].history == made.state.history
    kept, weights = part(saved[1], "average.body"), load_file(run / "weights.safetensors")
    assert kept.keys() == weights.keys()
    assert all(torch.allclose(kept[name].float(), weights[name].float(), rtol=1e-3, atol=1e-4) for name in kept)


def test_the_bundle_names_photos_and_says_how_it_was_made(finished: tuple[Path, FineTuned], data: Path) -> None:
    run, made = finished
    [broken] = made.split.unreadable
    assert broken[0].endswith("000.jpg")
    assert broken[1].startswith("truncated")
    provenance = json.loads((run / "bundle" / "bundle.json").read_text("utf-8"))["provenance"]
    assert provenance["recipe"]["backbone"] == "test_efficientnet"
    assert (provenance["epochs"], provenance["steps"]) == (1, made.state.steps)
    assert provenance["data"]["unreadable"] == 1
    assert {each.runtime for each in made.finished.parity} >= {"onnxruntime"}
    assert all(each.same == each.photos for each in made.finished.parity)
    assert made.finished.evaluation is not None
    held = [made.split.photos[place] for place in made.finished.indices]
    assert len(held) == made.finished.evaluation.photos == int(made.split.holdout.sum())
    answers = Model.load(str(run)).predict([photo.path for photo in held], top=1)
    right = sum(answer.nameplate == photo.label for answer, photo in zip(answers, held, strict=True))
    assert right / len(held) == made.finished.evaluation.top1.value


def test_a_training_from_the_network_that_ships_carries_its_terms(data: Path, tmp_path: Path) -> None:
    small = ("stages.height=32", "stages.width=48", "stages.epochs=1", "precision=float32", "holdout=0.25")
    begin(data, tmp_path / "run", load_recipe("few", small))  # type: ignore[arg-type]  # no recipe of a head
    assert fine_tune(tmp_path / "run") is not None
    shipped, made = (load_bundle(each).manifest.provenance for each in (DEFAULT_BUNDLE, tmp_path / "run"))
    assert str(made["backbone"]).startswith("tf_efficientnet_lite0.in1k, bundle cars196, SHA-256 ")
    assert "research use" in str(made["licence"])
    assert made["licence"] == shipped["licence"]
    assert terms_of(str(tmp_path / "run")) == shipped["licence"]  # a further training would carry them, too


def test_held_out_photos_are_prepared_once_for_all_runtimes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[str] = []

    def counting(paths: Sequence[str], *rest: Any) -> Iterator[PhotoBatch]:
        prepared.extend(paths)
        return plain_batches(paths, *rest)

    monkeypatch.setattr(finish, "plain_batches", counting)
    begin(data, tmp_path / "run", replace(TINY, holdout=0.25))
    made = fine_tune(tmp_path / "run")
    assert made is not None
    held = [photo.path for photo, is_held in zip(made.split.photos, made.split.holdout, strict=True) if is_held]
    assert sorted(prepared) == sorted(held)
    assert {each.runtime for each in made.finished.parity} >= {"onnxruntime"}


def test_the_bundle_has_a_map_and_the_index_that_was_asked_for(finished: tuple[Path, FineTuned]) -> None:
    run, made = finished
    model = Model.load(str(run), threads=1)
    index = read_index(model.bundle)
    assert index is not None
    trained = [photo for photo in made.split.photos if photo.split == "train"]
    assert len(index.paths) == len(trained)
    [mapped] = all_mapped(photo_maps(model, [trained[0].path]))
    [same] = nearest(index, mapped.photo.embedding, 1)
    assert same.similarity == pytest.approx(1, abs=1e-2)
    assert trained[0].path.endswith(same.path)
    assert load_run(run).index


def test_the_classifier_begins_on_what_the_backbone_says(finished: tuple[Path, FineTuned]) -> None:
    begun, cold = finished[1].state.history[0].train_loss, 1.3863  # ln 4: every class alike
    assert begun < cold


def test_resuming_a_finished_run_trains_nothing_and_says_so(finished: tuple[Path, FineTuned], tmp_path: Path) -> None:
    run = tmp_path / "again"
    shutil.copytree(finished[0], run)
    (run / ".checkpoint.safetensors.x.part").write_bytes(b"half written")
    shutil.rmtree(run / "bundle")
    said: list[str] = []
    made = fine_tune(run, say=said.append)
    assert made is not None
    assert said[0] == "all epochs were completed before"
    assert (made.resumed, made.state.history) == (made.state.steps, finished[1].state.history)
    first, second = (load_file(each / "weights.safetensors") for each in (run, finished[0]))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (run / "bundle" / "backbone.onnx").read_bytes() == (finished[0] / "bundle" / "backbone.onnx").read_bytes()
    assert not list(run.glob(".*"))


def test_two_nameplates_of_two_photos_and_nothing_held_out_end_with_a_bundle(tmp_path: Path) -> None:
    begin(photos(tmp_path / "photos", 2, 2), tmp_path / "run", replace(TINY, holdout=0.0, head_start=True))
    made = fine_tune(tmp_path / "run")
    assert made is not None
    assert made.finished.evaluation is None
    [epoch] = made.state.history
    assert (epoch.validation_loss, epoch.validation_top1, made.state.steps) == (None, None, 1)
    assert Model.load(str(tmp_path / "run")).nameplates == ("Corvane Lark", "Corvane Lark II")


def test_one_nameplate_is_refused_and_no_folder_is_left(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Only 1 nameplate"):
        begin(photos(tmp_path / "photos", 1, 4), tmp_path / "run", TINY)
    assert not (tmp_path / "run").exists()


def test_photos_that_vanish_before_the_first_stage_end_the_run_with_a_clear_error(tmp_path: Path) -> None:
    data = photos(tmp_path / "photos", 2, 3)
    begin(data, tmp_path / "run", replace(TINY, head_start=True))
    shutil.rmtree(data)
    with pytest.raises(NameplateError, match="None of 4 photos can be read any more"):
        fine_tune(tmp_path / "run")


def test_an_unknown_backbone_is_refused_before_the_photos_are_read(tmp_path: Path) -> None:
    def read() -> object:
        raise AssertionError("read")

    with pytest.raises(UsageError, match="EfficientNetB7"):
        start(read, tmp_path / "run", replace(TINY, backbone="EfficentNetB7"), threads=1)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_a_folder_is_replaced_only_where_it_is_a_run_and_that_is_wanted(tmp_path: Path) -> None:
    mine, file, run, empty = tmp_path / "mine", tmp_path / "file", tmp_path / "run", tmp_path / "empty"
    for folder in (mine, run, empty):
        folder.mkdir()
    (mine / "photo.jpg").write_bytes(b"dear")
    (run / "run.json").write_text("{}")
    file.write_text("dear")
    for other in (mine, file):
        with pytest.raises(NameplateError, match="is not a run, so it is not replaced"):
            refuse_folder(other, overwrite=True)
    with pytest.raises(NameplateError, match="--resume '.*run'.*--overwrite"):
        refuse_folder(run, overwrite=False)
    refuse_folder(run, overwrite=True)
    refuse_folder(empty, overwrite=False)
    refuse_folder(tmp_path / "new", overwrite=False)


def test_a_new_run_takes_an_old_ones_place_whole(finished: tuple[Path, FineTuned], data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    begin(data, run, replace(TINY, seed=7), overwrite=True)
    assert {path.name for path in run.iterdir()} == {"run.json", "recipe.toml"}
    assert load_run(run).recipe.seed == 7


def test_another_number_of_processes_is_refused(finished: tuple[Path, FineTuned], tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    said = json.loads((finished[0] / "run.json").read_text("ascii"))
    (run / "run.json").write_text(json.dumps(said | {"processes": 2}), "ascii")
    with pytest.raises(UsageError, match="began with 2 processes, not 1"):
        fine_tune(run)


def test_a_run_starts_from_another_runs_weights(finished: tuple[Path, FineTuned], data: Path, tmp_path: Path) -> None:
    begin(data, tmp_path / "run", replace(TINY, weights=str(finished[0])))
    assert str(finished[0]) in load_run(tmp_path / "run").weights


def test_a_run_does_not_replace_the_weights_that_it_starts_from(
    finished: tuple[Path, FineTuned], data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    with pytest.raises(UsageError, match="would be replaced"):
        begin(data, run, replace(TINY, weights=str(run)), overwrite=True)
    assert (run / "weights.safetensors").is_file()


def test_each_runtime_gets_its_temperature_where_enough_photos_are_held_out(tmp_path: Path) -> None:
    begin(photos(tmp_path / "photos", 10, 12), tmp_path / "run", replace(TINY, holdout=0.5))
    made = fine_tune(tmp_path / "run")
    assert made is not None
    manifest = made.finished.bundle.manifest
    assert manifest.temperatures["onnxruntime"] == manifest.temperature != 1
    assert set(manifest.temperatures) <= set(ON_CPU)
    assert (manifest.bfloat16 is not None) == ("openvino-bf16" in manifest.temperatures)
