"""`train_head` from photos to a bundle: the split, the records, and that a repetition gives the same."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nameplate.data import read_dataset
from nameplate.data.dataset import Dataset
from nameplate.data.labels import makes_of
from nameplate.demo import photos_folder
from nameplate.errors import DataError, NameplateError
from nameplate.evaluate import evaluate
from nameplate.evaluate.calibration import MIN_CALIBRATION
from nameplate.evaluate.evaluator import evaluate_model
from nameplate.fit import linear_probe
from nameplate.fit.linear_probe import Trained, train_head
from nameplate.fit.split import photos_csv
from nameplate.model.bundle import BACKBONE, HEAD, PHOTOS, SCHEMA, Bundle, Manifest, load_bundle, save_bundle
from nameplate.model.classifier import fit_temperature
from nameplate.model.embeddings import embed_photos
from nameplate.model.model import Model
from nameplate.model.verdict import Thresholds
from nameplate.storage import sha256
from nameplate.types import HeadRecipe, Photo, Preprocess


def message(*fields: tuple[int, int | str | bytes]) -> bytes:
    """A protobuf message (protobuf.dev, "Encoding") of (field, number, text or message)."""

    def varint(number: int) -> bytes:
        return bytes([number]) if number < 128 else bytes([number & 127 | 128, number >> 7])

    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts.append(varint(number << 3) + varint(value))
        else:
            data = value if isinstance(value, bytes) else value.encode()
            parts.append(varint(number << 3 | 2) + varint(len(data)) + data)
    return b"".join(parts)


def mean_colours() -> bytes:
    """An ONNX file of 48 numbers a photo: the mean colours of 4×4 parts of a picture of 56×56."""

    def node(kind: str, taken: str, given: str, *attributes: bytes) -> tuple[int, bytes]:
        return 1, message((1, taken), (2, given), (4, kind), *((5, one) for one in attributes))

    def value(name: str, kind: int, *dims: int) -> bytes:
        rows = message((1, message((2, "N"))), *((1, message((1, size))) for size in dims))
        return message((1, name), (2, message((1, message((1, kind), (2, rows))))))

    def numbers(name: str, *values: int) -> bytes:
        return message((1, name), *((8, value) for value in values), (20, 7))

    graph = message(
        node("Cast", "photos", "x", message((1, "to"), (3, 1), (20, 2))),
        node("Transpose", "x", "y", numbers("perm", 0, 3, 1, 2)),
        node("AveragePool", "y", "z", numbers("kernel_shape", 14, 14), numbers("strides", 14, 14)),
        node("Flatten", "z", "embedding"),
        (2, "mean colours"),
        (11, value("photos", 2, 56, 56, 3)),
        (12, value("embedding", 1, 48)),
    )
    return message((1, 8), (7, graph), (8, message((1, ""), (2, 18))))


@pytest.fixture(scope="module")
def real() -> Model:
    return Model.load("cars196", runtime="onnxruntime", threads=2)


@pytest.fixture(scope="module")
def model(real: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A backbone of few numbers, on which a head is fitted at once."""
    manifest = Manifest(
        schema=SCHEMA,
        name="colours",
        nameplates=(),
        ids=(),
        preprocess=Preprocess(56, 56),
        embedding=48,
        temperature=1.0,
        files={},
        bfloat16=real.bundle.manifest.bfloat16,
        provenance=real.bundle.manifest.provenance,
    )
    folder = tmp_path_factory.mktemp("small") / "colours"
    save_bundle(folder, Bundle(manifest, mean_colours()))
    return Model.load(folder, runtime="onnxruntime", threads=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 photos of each of ten designs, copies of some of them, and three files that are no photos."""
    root = tmp_path_factory.mktemp("data") / "designs"
    for design in sorted(photos_folder("train").iterdir()):
        (root / design.name).mkdir(parents=True)
        paths = sorted(design.glob("*.jpg"))[:20]
        for path in paths:
            shutil.copy(path, root / design.name)
        with Image.open(paths[3]) as image:
            image.resize((200, 150)).save(root / design.name / "smaller.jpg", quality=80)
        with Image.open(paths[4]) as image:
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / design.name / "mirrored.jpg")
        shutil.copy(paths[5], root / design.name / "same.jpg")
    (root / "Corvane Lark" / "empty.jpg").write_bytes(b"")
    (root / "Corvane Lark" / "text.jpg").write_text("no photo")
    (root / "Ostrel Tarn" / "cut.jpg").write_bytes((root / "Ostrel Tarn" / "same.jpg").read_bytes()[:2000])
    return root


@pytest.fixture(scope="module")
def dataset(data: Path) -> Dataset:
    return read_dataset(data)


@pytest.fixture(scope="module")
def trained(dataset: Dataset, model: Model, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained]:
    target = tmp_path_factory.mktemp("made") / "designs"
    return target, train_head(dataset, target, model=model)


@pytest.fixture
def few(dataset: Dataset) -> Dataset:
    """40 photos of two designs."""
    names = dataset.nameplates[:2]
    photos = [p for p in dataset.photos if p.label in names and Path(p.path).stem.isdecimal()]
    return replace(dataset, photos=tuple(photos), nameplates=names)


def table(data: bytes | None) -> list[dict[str, str]]:
    assert data is not None
    return list(csv.DictReader(io.StringIO(data.decode())))


def test_the_bundle_on_disk_is_the_one_returned(trained: tuple[Path, Trained]) -> None:
    target, made = trained
    loaded = load_bundle(target)
    assert loaded.manifest.files == made.bundle.manifest.files
    assert loaded.manifest.name == "designs"
    assert len(loaded.manifest.nameplates) == 10
    assert loaded.weight is not None
    assert made.bundle.weight is not None
    assert np.array_equal(loaded.weight, made.bundle.weight)


def test_a_notebook_shows_what_was_trained_with_its_figures(trained: tuple[Path, Trained]) -> None:
    _, made = trained
    shown = made._repr_html_()
    assert f"designs: trained on {made.photos:,} photos" in shown
    assert made.evaluation is not None
    assert made.evaluation.top1.percent in shown
    assert "<table>" in replace(made, evaluation=None)._repr_html_()


def test_the_small_backbone_gives_mean_colours(model: Model) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (56, 56, 3), np.uint8)
    means = pixels.reshape(4, 14, 4, 14, 3).mean((1, 3)).transpose(2, 0, 1).ravel()
    assert model.embed([pixels])[0] == pytest.approx(means, abs=1e-3)


def test_the_backbone_that_ships_learns_cars_that_it_never_saw(dataset: Dataset, real: Model, tmp_path: Path) -> None:
    names = ("Corvane Lark", "Halden Pine", "Ostrel Tarn", "Vessoro Borda")
    assert set(names) < set(dataset.nameplates)
    photos = tuple(photo for photo in dataset.photos if photo.label in names)
    made = train_head(
        replace(dataset, photos=photos, nameplates=names),
        tmp_path / "b",
        model=real,
        recipe=HeadRecipe(holdout=0.3, folds=2, mirror=False),
    )
    assert made.evaluation is not None
    assert made.evaluation.top1.low > 1 / 4
    held = [row for row in table(made.bundle.photos) if row["split"] == "validation"]
    answers = Model.load(tmp_path / "b", runtime="onnxruntime").predict([row["path"] for row in held])
    right = np.mean([answer.nameplate == row["label"] for answer, row in zip(answers, held, strict=True)])
    assert right == pytest.approx(made.evaluation.top1.value)


def test_unreadable_photos_are_listed_and_not_fatal(trained: tuple[Path, Trained]) -> None:
    _, made = trained
    found = {Path(path).name: why.split(":")[0] for path, why in made.unreadable}
    assert found == {"empty.jpg": "empty", "text.jpg": "not a photo", "cut.jpg": "truncated"}
    assert len(table(made.bundle.photos)) == 230
    assert made.bundle.manifest.provenance["data"]["unreadable"] == 3  # type: ignore[index]


def test_no_group_is_in_both_parts(trained: tuple[Path, Trained]) -> None:
    _, made = trained
    rows = table(made.bundle.photos)
    sides: dict[str, set[str]] = defaultdict(set)
    groups = {}
    for row in rows:
        sides[row["group"]].add(row["split"])
        groups[f"{row['label']}/{Path(row['path']).stem}"] = row["group"]
    assert all(len(side) == 1 for side in sides.values())
    for design in made.bundle.manifest.nameplates:
        paths = sorted((Path(p) for p in groups if p.startswith(f"{design}/")), key=str)
        originals = [path.name for path in paths if path.name.isdecimal()]
        for copy, original in (("smaller", 3), ("mirrored", 4), ("same", 5)):
            assert groups[f"{design}/{copy}"] == groups[f"{design}/{originals[original]}"]
    assert made.copies == len(rows) - len(sides) >= 30


def test_every_nameplate_gives_its_share_to_the_holdout(trained: tuple[Path, Trained]) -> None:
    _, made = trained
    rows = table(made.bundle.photos)
    held = Counter(row["label"] for row in rows if row["split"] == "validation")
    assert set(held) == set(made.bundle.manifest.nameplates)
    assert all(1 <= count <= 4 for count in held.values())  # 15 % of 23 are 3.45
    assert made.photos == len(rows) - sum(held.values())
    assert made.evaluation is not None
    assert made.evaluation.photos == sum(held.values())


def test_the_table_of_photos_can_be_read_again_split_and_all(
    trained: tuple[Path, Trained], data: Path, tmp_path: Path
) -> None:
    target, made = trained
    again = read_dataset(target / PHOTOS)
    rows = table(made.bundle.photos)
    assert [(p.path, p.label, p.split, p.group, p.source) for p in again.photos] == [
        (r["path"], r["label"], r["split"], r["group"], r["source"]) for r in rows
    ]
    assert {p.source for p in again.photos} == {"designs"}
    for row in rows:
        content = Path(row["path"]).read_bytes()
        assert row["sha256"] == sha256(content)
        with Image.open(row["path"]) as image:
            assert (row["width"], row["height"]) == (str(image.width), str(image.height))


def test_training_on_that_table_makes_the_same_head(
    trained: tuple[Path, Trained], model: Model, tmp_path: Path
) -> None:
    target, made = trained
    again = train_head(read_dataset(target / PHOTOS), tmp_path / "again", model=model)
    assert (tmp_path / "again" / HEAD).read_bytes() == (target / HEAD).read_bytes()
    assert again.evaluation == made.evaluation


def test_a_second_run_makes_the_same_head_to_the_byte(
    trained: tuple[Path, Trained], dataset: Dataset, model: Model, tmp_path: Path
) -> None:
    target, _ = trained
    train_head(dataset, tmp_path / "again", model=model)
    for name in (HEAD, PHOTOS, BACKBONE):
        assert (tmp_path / "again" / name).read_bytes() == (target / name).read_bytes()
    first, second = (dict(load_bundle(folder).manifest.provenance) for folder in (target, tmp_path / "again"))
    del first["made"], second["made"]
    assert first == second


def test_the_provenance_is_complete(trained: tuple[Path, Trained], model: Model) -> None:
    target, made = trained
    said: dict[str, Any] = json.loads((target / "bundle.json").read_text())["provenance"]
    head = made.bundle.manifest
    assert said["recipe"]["name"] == "head"
    assert {key: said["recipe"][key] for key in asdict(HeadRecipe())} == asdict(HeadRecipe())
    assert said["recipe"]["seed"] == 20
    assert str(said["recipe"]["C"]) in said["cross_validation"]
    assert made.evaluation is not None
    assert said["metrics"]["top1"] == made.evaluation.top1.value
    assert said["metrics"]["top1_interval"] == list(made.evaluation.top1.interval)
    assert said["metrics"]["photos"] == made.evaluation.photos
    assert said["metrics"].keys() == {"photos", "top1", "top1_interval", "top5", "macro_f1", "log_loss"}
    assert said.get("licence") == model.bundle.manifest.provenance.get("licence")
    assert said["data"]["photos"] == 230
    assert said["data"]["sources"] == ["designs"]
    rows = table(made.bundle.photos)
    lines = sorted(f"{row['sha256']} {row['label']} {row['split']}" for row in rows)
    assert said["data"]["sha256"] == sha256("\n".join(lines).encode())
    assert said["runtime"] == made.runtime == "onnxruntime"
    assert said["backbone"].startswith("tf_efficientnet_lite0")
    assert said["versions"]["numpy"] == version("numpy")
    assert {"nameplate", "python", "onnxruntime", "pillow", "simplejpeg"} <= set(said["versions"])
    assert said["made"].endswith("+00:00")
    assert head.temperature > 0


def test_the_figures_are_those_of_photos_that_were_held_out(
    trained: tuple[Path, Trained], dataset: Dataset, model: Model
) -> None:
    target, made = trained
    mine = Model.load(target, runtime="onnxruntime")
    embedded = embed_photos(dataset.photos, model)
    split = {row["path"]: row["split"] for row in table(made.bundle.photos)}
    held = np.array([split[photo.path] == "validation" for photo in embedded.photos])
    y_true = np.array([mine.nameplates.index(str(photo.label)) for photo in embedded.photos])
    assert evaluate(
        mine.probabilities(embedded.embeddings[held], "onnxruntime"), y_true[held], mine.nameplates
    ).top1 == (made.evaluation.top1 if made.evaluation else None)
    seen = evaluate(mine.probabilities(embedded.embeddings[~held], "onnxruntime"), y_true[~held], mine.nameplates)
    assert made.evaluation is not None
    assert seen.top1.value > made.evaluation.top1.value


def test_the_temperature_is_fitted_on_the_photos_held_out_where_they_are_enough(
    trained: tuple[Path, Trained], dataset: Dataset, model: Model, tmp_path: Path
) -> None:
    assert trained[1].evaluation is not None
    assert trained[1].evaluation.photos < MIN_CALIBRATION
    assert trained[1].bundle.manifest.temperatures == {}
    made = train_head(dataset, tmp_path / "b", model=model, recipe=HeadRecipe(holdout=0.4, mirror=False))
    manifest = made.bundle.manifest
    assert manifest.temperatures == {"onnxruntime": manifest.temperature}
    assert made.evaluation is not None
    mine = Model(made.bundle, model.settings)
    found = evaluate_model(mine, replace(dataset, photos=tuple(made_photos(made))))
    assert found.evaluation.log_loss == pytest.approx(made.evaluation.log_loss)
    assert manifest.temperature == pytest.approx(fit_temperature(mine.logits(found.embeddings), found.y_true), rel=1e-3)


def test_thresholds_are_chosen_on_held_out_photos_and_on_other_folds_where_these_are_few(
    trained: tuple[Path, Trained], dataset: Dataset, model: Model, few: Dataset, tmp_path: Path
) -> None:
    manifest = trained[1].bundle.manifest
    assert manifest.makes == makes_of(manifest.nameplates)
    assert trained[1].evaluation is not None
    assert manifest.thresholds.photos == trained[1].photos + trained[1].evaluation.photos
    assert manifest.thresholds.near is not None
    assert manifest.thresholds.nameplate is None  # heads of other folds are less sure than the one that is kept
    assert manifest.claims is not None
    enough = train_head(dataset, tmp_path / "b", model=model, recipe=HeadRecipe(holdout=0.4, mirror=False))
    assert enough.evaluation is not None
    assert enough.bundle.manifest.thresholds.photos == enough.evaluation.photos
    assert enough.bundle.manifest.thresholds.nameplate is not None
    little = train_head(few, tmp_path / "c", model=model, recipe=HeadRecipe(holdout=0, mirror=False))
    found = little.bundle.manifest.thresholds
    assert replace(found, near=None, middle=1.0, spread=1.0) == Thresholds()  # too few for sets
    assert found.near is not None
    assert little.bundle.manifest.claims is None


def test_a_head_inherits_which_photos_are_no_cars(few: Dataset, real: Model, tmp_path: Path) -> None:
    made = train_head(few, tmp_path / "b", model=real, recipe=HeadRecipe(mirror=False))
    assert made.bundle.ood_detector is not None
    assert real.bundle.ood_detector is not None
    assert made.bundle.ood_detector.backbone_class_means is not None
    assert np.array_equal(made.bundle.ood_detector.backbone_class_means, real.bundle.ood_detector.class_means)
    assert made.bundle.manifest.thresholds.far == real.bundle.manifest.thresholds.far
    black = Model.load(tmp_path / "b", runtime="onnxruntime").predict([np.zeros((200, 300, 3), np.uint8)])
    assert black[0].verdict == "not a car"


def made_photos(made: Trained) -> list[Photo]:
    """The photos that a bundle held out."""
    rows = [row for row in table(made.bundle.photos) if row["split"] == "validation"]
    return [Photo(row["path"], row["label"]) for row in rows]


@pytest.mark.parametrize("part", ["validation", "test"])
def test_the_datas_own_split_is_kept(few: Dataset, model: Model, tmp_path: Path, part: Any) -> None:
    photos = tuple(p.with_(split=part if n % 4 == 0 else "train") for n, p in enumerate(few.photos))
    made = train_head(replace(few, photos=photos), tmp_path / "b", model=model)
    assert [row["split"] for row in table(made.bundle.photos)] == [photo.split for photo in photos]
    assert (made.photos, made.evaluation.photos if made.evaluation else None) == (30, 10)


def test_photos_without_a_split_are_trained_on(few: Dataset, model: Model, tmp_path: Path) -> None:
    photos = tuple(p.with_(split="validation" if n % 4 == 0 else None) for n, p in enumerate(few.photos))
    made = train_head(replace(few, photos=photos), tmp_path / "b", model=model)
    assert Counter(row["split"] for row in table(made.bundle.photos)) == {"train": 30, "validation": 10}


def test_without_held_out_photos_there_are_no_figures(few: Dataset, model: Model, tmp_path: Path) -> None:
    made = train_head(few, tmp_path / "b", model=model, recipe=HeadRecipe(holdout=0))
    assert made.evaluation is None
    assert made.photos == 40
    assert load_bundle(tmp_path / "b").manifest.provenance["metrics"] is None


def test_mirroring_balancing_and_the_seed_change_the_head(few: Dataset, model: Model, tmp_path: Path) -> None:
    uneven = replace(few, photos=few.photos[:26])
    plain = HeadRecipe(mirror=False)
    recipes = [plain, replace(plain, mirror=True), replace(plain, balanced=True), replace(plain, seed=21)]
    heads = set()
    for number, recipe in enumerate(recipes):
        train_head(uneven, tmp_path / str(number), model=model, recipe=recipe)
        heads.add((tmp_path / str(number) / HEAD).read_bytes())
        said: Any = load_bundle(tmp_path / str(number)).manifest.provenance["recipe"]
        assert {key: said[key] for key in asdict(recipe)} == asdict(recipe)
    assert len(heads) == 4


def test_a_photo_and_its_mirror_image_are_never_in_two_folds(model: Model, tmp_path: Path) -> None:
    """Symmetrical pictures, labels by lot: nothing can be learnt, unless from a photo's own mirror image."""
    random = np.random.default_rng(0)
    photos = []
    for number in range(60):
        half = random.integers(0, 256, (16, 8, 3), np.uint8)
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.concatenate([half, half[:, ::-1]], 1).repeat(7, 0).repeat(7, 1)).save(path)
        photos.append(Photo(str(path), "ab"[number % 2], "train"))
    train_head(Dataset(tuple(photos), ("a", "b")), tmp_path / "b", model=model, recipe=HeadRecipe(mirror=True))
    said: Any = load_bundle(tmp_path / "b").manifest.provenance["cross_validation"]
    assert max(judged["top1"] for judged in said.values()) < 0.75


def test_the_classes_keep_the_ids_that_the_data_gave_them(few: Dataset, model: Model, tmp_path: Path) -> None:
    first, second = few.nameplates
    train_head(replace(few, ids={first: "7", second: "0"}), tmp_path / "b", model=model)
    manifest = load_bundle(tmp_path / "b").manifest
    assert dict(zip(manifest.nameplates, manifest.ids, strict=True)) == {first: "7", second: "0"}


def keep_one(data: Dataset) -> Dataset:
    return replace(data, photos=data.photos[:20], nameplates=data.nameplates[:1])


def break_one(data: Dataset) -> Dataset:
    """The other nameplate's photos are gone."""
    gone = [p.with_(path=f"{p.path}.gone") for p in data.photos[20:]]
    return replace(data, photos=(*data.photos[:20], *gone))


def hold_one_out(data: Dataset) -> Dataset:
    held = [p.with_(split="test") for p in data.photos[20:]]
    return replace(data, photos=(*(p.with_(split="train") for p in data.photos[:20]), *held))


@pytest.mark.parametrize("change", [keep_one, break_one, hold_one_out])
def test_one_nameplate_cannot_be_trained(
    few: Dataset, model: Model, tmp_path: Path, change: Callable[[Dataset], Dataset]
) -> None:
    with pytest.raises(DataError, match="Only 1 nameplate with readable photos"):
        train_head(change(few), tmp_path / "b", model=model)
    assert list(tmp_path.iterdir()) == []


def test_photos_that_are_all_one_group_cannot_be_cross_validated(few: Dataset, model: Model, tmp_path: Path) -> None:
    photos = tuple(photo.with_(group="advert 1") for photo in few.photos)
    with pytest.raises(DataError, match="two groups of photos"):
        train_head(replace(few, photos=photos), tmp_path / "b", model=model)


def test_two_photos_are_enough(few: Dataset, model: Model, tmp_path: Path) -> None:
    made = train_head(replace(few, photos=(few.photos[0], few.photos[20])), tmp_path / "b", model=model)
    assert (made.photos, made.evaluation) == (2, None)
    [answer] = Model.load(tmp_path / "b", runtime="onnxruntime").predict([few.photos[0].path])
    assert answer.nameplate == few.photos[0].label


@pytest.mark.parametrize("step", ["embed", "fit"])
def test_an_interrupted_run_leaves_nothing_behind(few: Dataset, model: Model, tmp_path: Path, step: str) -> None:
    def interrupt(name: str, done: int, all_: int) -> None:
        if name == step and done > all_ // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_head(few, tmp_path / "b", model=model, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_bundle_is_not_replaced_without_overwrite(few: Dataset, model: Model, tmp_path: Path) -> None:
    target = tmp_path / "b"
    train_head(few, target, model=model)
    before = (target / HEAD).read_bytes()
    with pytest.raises(NameplateError, match="is there already"):
        train_head(few, target, model=model, recipe=HeadRecipe(seed=5))
    assert (target / HEAD).read_bytes() == before
    train_head(few, target, model=model, recipe=HeadRecipe(seed=5), overwrite=True)
    assert (target / HEAD).read_bytes() != before
    assert [entry.name for entry in tmp_path.iterdir()] == ["b"]


def test_progress_reports_each_step_to_its_end(few: Dataset, model: Model, tmp_path: Path) -> None:
    last: dict[str, tuple[int, int]] = {}
    train_head(
        few,
        tmp_path / "b",
        model=model,
        recipe=HeadRecipe(mirror=True),
        progress=lambda name, done, all_: last.update({name: (done, all_)}),
    )
    assert last.keys() == {"embed", "look for copies", "compare copies", "embed mirrored", "fit"}
    assert all(done == all_ for done, all_ in last.values())


def test_a_file_name_that_is_not_utf8_is_recorded(few: Dataset, model: Model, tmp_path: Path) -> None:
    strange = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")
    shutil.copy(few.photos[0].path, strange)
    photos = (few.photos[0].with_(path=strange), *few.photos[1:])
    made = train_head(replace(few, photos=photos), tmp_path / "b", model=model)
    assert table(made.bundle.photos)[0]["path"].endswith(r"caf\xe9.jpg")
    assert len(read_dataset(tmp_path / "b" / PHOTOS).photos) == 40


def test_names_with_commas_quotes_and_cyrillic_survive_the_table(tmp_path: Path) -> None:
    photos = [Photo(f"/data/{name}.jpg", name, "train", "adverts") for name in ("a,b", 'c "d"', "ВАЗ-2109")]
    (tmp_path / "photos.csv").write_bytes(photos_csv(photos, np.arange(3)))
    again = read_dataset(tmp_path / "photos.csv").photos
    assert [(p.path, p.label, p.source) for p in again] == [(p.path, p.label, p.source) for p in photos]


# --- bfloat16 -----------------------------------------------------------------------------------------


@pytest.fixture
def half(model: Model) -> Model:
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("needs the fast extra")
    from nameplate.runtime.openvino import import_openvino

    if "BF16" not in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor does not compute in bfloat16")
    return model.with_settings(runtime="openvino-bf16")


def test_what_bfloat16_costs_is_measured_on_the_photos_held_out(
    few: Dataset, half: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear_probe, "MAX_BFLOAT16_COST", 1.0)  # then no cost is too much
    made = train_head(few, tmp_path / "b", model=half, recipe=HeadRecipe(holdout=0.5))
    assert made.runtime == "openvino-bf16"
    bundle = load_bundle(tmp_path / "b")
    check = bundle.manifest.bfloat16
    assert check is not None
    assert check != half.bundle.manifest.bfloat16
    held = [row for row in table(bundle.photos) if row["split"] == "validation"]
    assert check.photos == len(held) == 20

    def right(runtime: str) -> float:
        answers = Model(bundle, half.settings).with_settings(runtime=runtime).predict([r["path"] for r in held])
        return float(np.mean([a.nameplate == row["label"] for a, row in zip(answers, held, strict=True)]))

    assert (check.top1_float32, check.top1_bfloat16) == (right("openvino"), right("openvino-bf16"))


def test_where_bfloat16_costs_too_much_float32_is_used_and_the_cost_is_recorded(
    few: Dataset, half: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear_probe, "MAX_BFLOAT16_COST", -2.0)  # then any cost is too much
    made = train_head(few, tmp_path / "b", model=half)
    assert made.runtime == "onnxruntime"
    check = load_bundle(tmp_path / "b").manifest.bfloat16
    assert check is not None
    assert made.evaluation is not None
    assert check.photos == made.evaluation.photos  # of this head, not of the bundle that gave the backbone


def test_without_bfloat16_the_bundle_keeps_the_check_of_its_parent(trained: tuple[Path, Trained], model: Model) -> None:
    assert load_bundle(trained[0]).manifest.bfloat16 == model.bundle.manifest.bfloat16


def test_a_photo_that_vanishes_while_training_does_not_stop_it(dataset: Dataset, model: Model, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    copied = []
    for number, photo in enumerate(dataset.photos[:60]):
        target = folder / f"{number}.jpg"
        folder.mkdir(exist_ok=True)
        shutil.copy(photo.path, target)
        copied.append(photo.with_(path=str(target)))
    own = replace(dataset, photos=tuple(copied))
    order = iter(sorted(folder.iterdir()))

    def vanish(step: str, done: int, total: int) -> None:
        if step == "embed" and done == total:
            for _ in range(20):
                next(order).unlink()

    made = train_head(own, tmp_path / "bundle", model=model, progress=vanish)
    assert made.bundle.weight is not None
    assert np.isfinite(made.bundle.weight).all()
