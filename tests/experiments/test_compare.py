"""Comparisons of real networks on embedded photos: figures, errors, resuming."""

from __future__ import annotations

import importlib.util
import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nameplate.data import read_dataset
from nameplate.demo import photos_folder
from nameplate.errors import DataError, NameplateError, UsageError
from nameplate.experiments.candidates import Candidate, Frozen, Tuned, of_bundle
from nameplate.experiments.compare import Plan, at_most, compare, photos_to_evaluate
from nameplate.fit.linear_probe import train_head
from nameplate.fit.recipe import Recipe, Stage
from nameplate.model.model import Model
from nameplate.report.compare import Comparison
from nameplate.types import HeadRecipe

HEAD = HeadRecipe(folds=2)


def frozen(name: str, backbone: str, weights: str = "none", head: HeadRecipe = HEAD) -> Frozen:
    return Frozen(name, backbone, 32, 48, head, weights)


def tuned(name: str, **changes: object) -> Tuned:
    stage = Stage(height=32, width=48, epochs=1, batch=8, learning_rate=2e-3)
    recipe = Recipe("tiny", "for trying", "test_efficientnet", (stage,), weights="none", precision="float32")
    return Tuned(name, replace(recipe, **changes))  # type: ignore[arg-type]


def photos(target: Path, classes: int, each: int) -> Path:
    for folder in sorted(photos_folder("train").iterdir())[:classes]:
        (target / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[:each]:
            shutil.copy(path, target / folder.name)
    return target


def run(data: Path, target: Path, *candidates: Candidate, said: list[str] | None = None, **options: bool) -> Comparison:
    plan = Plan("frozen" if isinstance(candidates[0], Frozen) else "recipes", candidates, threads=1)
    return compare(
        read_dataset(data),
        plan,
        target,
        bars=lambda: nullcontext(lambda *_: None),
        training=lambda: nullcontext((lambda _: None, lambda _: None)),
        say=(said if said is not None else []).append,
        **options,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = photos(tmp_path_factory.mktemp("data") / "photos", 3, 10)
    broken = folder / "Corvane Lark" / "000.jpg"
    broken.write_bytes(broken.read_bytes()[:2000])
    return folder


def test_heads_are_evaluated_on_the_training_part_and_networks_on_the_validation_part(data: Path) -> None:
    everything = read_dataset(data)
    parts = [*["train"] * 16, *["validation"] * 7, *["test"] * 7]
    order = np.random.default_rng(0).permutation(30)
    dataset = replace(
        everything,
        photos=tuple(p.with_(split=parts[order[n]]) for n, p in enumerate(everything.photos)),
    )
    heads = photos_to_evaluate(dataset, Plan("frozen", (frozen("a", "x"),)), lambda *_: None)
    networks = photos_to_evaluate(dataset, Plan("recipes", (tuned("a"),)), lambda *_: None)
    held = {photo.path for photo, part in zip(dataset.photos, order, strict=True) if part >= 16}
    assert not {photo.path for photo in heads.photos} & held
    assert heads.train.all()
    assert 0 < int(networks.holdout.sum()) <= 7
    assert len(networks.photos) <= 23
    only_test = replace(dataset, photos=tuple(p.with_(split="test") for p in dataset.photos))
    with pytest.raises(DataError, match="a test part alone"):
        photos_to_evaluate(only_test, Plan("frozen", (frozen("a", "x"),)), lambda *_: None)


def test_a_limit_takes_so_many_of_each_and_the_same_again(data: Path) -> None:
    few = at_most(read_dataset(data), 4, 1)
    assert [sum(p.label == name for p in few.photos) for name in few.nameplates] == [4, 4, 4]
    assert few == at_most(read_dataset(data), 4, 1)
    assert few != at_most(read_dataset(data), 4, 2)


def test_a_folder_of_something_else_is_left_alone(data: Path, tmp_path: Path) -> None:
    (tmp_path / "dear.txt").write_text("dear")
    with pytest.raises(NameplateError, match="is no comparison"):
        run(data, tmp_path, frozen("a", "x"), frozen("b", "y"), overwrite=True)
    assert (tmp_path / "dear.txt").read_text() == "dear"


for needed in ("torch", "timm", "accelerate", "onnx", "onnxscript", "tensorboard"):
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed}", allow_module_level=True)

ONE, TWO = frozen("one", "test_efficientnet"), frozen("two", "test_resnet")
NONE = frozen("none", "ResNet152V2", weights="auto")


@pytest.fixture(scope="module")
def compared(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison]:
    target = tmp_path_factory.mktemp("compared") / "out"
    return target, run(data, target, ONE, NONE, TWO)


@pytest.mark.torch
def test_every_backbone_gets_a_row_and_one_without_weights_says_why(compared: tuple[Path, Comparison]) -> None:
    target, made = compared
    rows = {row.name: row for row in made.rows}
    assert made.rows[-1].name == "none"
    assert "no pretrained weights of 'ResNet152V2'" in str(rows["none"].error)
    assert "--backbones ResNet152V2=FILE" in str(rows["none"].error)
    for name in ("one", "two"):
        row = rows[name]
        assert row.photos == 29
        assert row.top1 is not None
        assert row.top1.low <= row.top1.value <= row.top1.high
        assert None not in (row.parameters, row.gmacs, row.photos_per_second, row.megabytes, row.licence, row.seconds)
    [pair] = made.pairs
    assert {pair.first, pair.second} == {"one", "two"}
    assert pair.photos == 29
    assert made.reference in ("one", "two")
    [broken] = made.unreadable
    assert broken[0].endswith("000.jpg")
    said = json.loads((target / "compare.json").read_text("utf-8"))
    assert said["settings"]["seed"] == HEAD.seed
    assert len(said["data"]["sha256"]) == 64
    assert "torch" in said["versions"]
    assert {path.name for path in target.iterdir()} == {
        *("settings.json", "judged", "compare.json", "compare.csv", "index.html")
    }


@pytest.mark.torch
def test_it_goes_on_where_it_was_and_what_was_done_is_not_done_again(
    compared: tuple[Path, Comparison], data: Path, tmp_path: Path
) -> None:
    target = tmp_path / "again"
    shutil.copytree(compared[0], target)
    (target / "judged" / "two.json").write_bytes(b"{")  # as by another program: it is judged anew
    said: list[str] = []
    made = run(data, target, ONE, TWO, NONE, said=said)
    assert [text.endswith("evaluated before") for text in said] == [True, False, False]
    assert made.waiting == ()
    before, after = ({row.name: row for row in each.rows} for each in (compared[1], made))
    assert after["one"] == before["one"]
    assert (after["two"].top1, after["two"].log_loss) == (before["two"].top1, before["two"].log_loss)
    assert made.pairs[0].p == compared[1].pairs[0].p


@pytest.mark.torch
def test_another_comparison_is_not_mixed_in(compared: tuple[Path, Comparison], data: Path, tmp_path: Path) -> None:
    target = tmp_path / "other"
    shutil.copytree(compared[0], target)
    with pytest.raises(UsageError, match=r"folds 2, not 3.*--overwrite"):
        run(data, target, frozen("one", "test_efficientnet", head=HeadRecipe(folds=3)), TWO)
    with pytest.raises(UsageError, match="another 'one'"):
        run(data, target, frozen("one", "test_resnet"), TWO)
    fewer = photos(tmp_path / "fewer", 3, 8)
    with pytest.raises(UsageError, match="a comparison with data"):
        run(fewer, target, ONE, TWO)
    made = run(fewer, target, ONE, TWO, overwrite=True)
    assert made.rows[0].photos == 24


@pytest.mark.torch
def test_answers_are_out_of_fold(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", 3, 10)
    every = sorted(folder.glob("*/*.jpg"))
    random = np.random.default_rng(0)
    for number, path in enumerate(every):
        path.rename(path.with_name(f"{number}.moved"))
    names = sorted(path.name for path in folder.iterdir())
    moved = sorted(folder.glob("*/*.moved"))
    for place, path in zip(random.permutation(len(moved)), moved, strict=True):
        path.rename(folder / names[place % 3] / f"{path.stem}.jpg")
    made = run(folder, tmp_path / "out", ONE, TWO)
    for row in made.rows:  # labels drawn by lot: nobody who has not seen them can know
        assert row.top1 is not None
        assert row.top1.value < 0.7


@pytest.mark.torch
def test_copies_are_never_in_two_folds(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", 2, 7)
    for path in sorted(folder.glob("*/*.jpg")):
        shutil.copy(path, path.with_name(f"copy-{path.name}"))
    run(folder, tmp_path / "out", frozen("one", "Lite0", "auto"), TWO)
    done = json.loads((tmp_path / "out" / "judged" / "one.json").read_text("utf-8"))
    found = dict(zip(done["answers"]["photos"], done["answers"]["chances"], strict=True))
    assert len(found) == 28
    assert np.std(list(found.values())) > 0.01
    assert all(abs(found[key] - found[f"{key} 2"]) < 1e-4 for key in found if " " not in key)


@pytest.mark.torch
def test_networks_are_trained_and_one_that_fails_says_why(data: Path, tmp_path: Path) -> None:
    one, two = tuned("one"), tuned("dropout=0.5", dropout=0.5)
    bad = tuned("bad", backbone="ResNet152V2", weights="auto")
    target = tmp_path / "out"
    made = run(data, target, one, two, bad)
    rows = {row.name: row for row in made.rows}
    assert "no pretrained weights" in str(rows["bad"].error)
    assert (target / "runs" / "dropout=0.5" / "bundle" / "bundle.json").is_file()
    assert rows["one"].photos == rows["dropout=0.5"].photos > 0
    assert made.pairs[0].photos == rows["one"].photos
    assert "held out" in made.judged
    weights = target / "runs" / "one" / "weights.safetensors"
    before = weights.stat().st_mtime_ns
    (target / "judged" / "one.json").unlink()  # as if it had been interrupted after training
    again = run(data, target, one, two, bad)
    assert {row.name: row.top1 for row in again.rows} == {row.name: row.top1 for row in made.rows}
    assert weights.stat().st_mtime_ns > before
    with pytest.raises(UsageError, match="another 'one'"):
        run(data, target, tuned("one", dropout=0.1), two)


@pytest.mark.torch
def test_a_network_costs_what_its_layers_do() -> None:
    import torch
    from torch import nn

    from nameplate.train.backbones import find_backbone
    from nameplate.train.frozen_network import load_network, measure

    lite0, _ = load_network(find_backbone("Lite0"), 1000, (224, 224), 1, "none")
    cost = measure(lite0, 224, 224)
    counted = 0

    def count(layer: nn.Module, _: object, given: torch.Tensor) -> None:
        nonlocal counted
        counted += given.numel() * layer.weight[0].numel()  # what one output number takes

    for layer in lite0.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(count)
    with torch.no_grad():
        lite0(torch.zeros(1, 224, 224, 3, dtype=torch.uint8))
    assert cost.gmacs == pytest.approx(counted / 1e9, rel=1e-6)
    assert cost.gmacs == pytest.approx(0.407, rel=0.07)  # published, which counts norms as well
    assert cost.parameters == 4_652_008
    assert cost.megabytes == pytest.approx(4 * 4.652, rel=0.02)
    assert cost.photos_per_second > 0


def test_a_bundle_stands_beside_others_and_photos_that_trained_it_are_refused(data: Path, tmp_path: Path) -> None:
    ours = of_bundle("cars196", HEAD)
    assert ours is not None
    train_head(read_dataset(data), tmp_path / "mine", model=Model.load(threads=1), recipe=HEAD)
    own = of_bundle(str(tmp_path / "mine"), HEAD)
    assert own is not None
    made = run(data, tmp_path / "out", ours, own)
    rows = {row.name: row for row in made.rows}
    assert rows["cars196"].top1 is not None
    assert rows["cars196"].rank == "1"
    assert rows["cars196"].photos_per_second
    assert "or copies of them, trained 'mine'" in str(rows["mine"].error)
    assert of_bundle("Lite0", HEAD) is None
    said: list[str] = []
    run(data, tmp_path / "out", ours, own, said=said)
    assert any("cars196" in line and "evaluated before" in line for line in said)
