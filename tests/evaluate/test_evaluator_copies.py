"""All modules agree on which photos are copies of one image, on renders and copies made of them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from nameplate.data import read_dataset
from nameplate.data.split import near_pairs
from nameplate.demo import photos_folder
from nameplate.evaluate.evaluator import evaluate_model, same_picture, trained_digests
from nameplate.fit.linear_probe import train_head
from nameplate.fit.split import split_photos
from nameplate.model.embeddings import DatasetEmbeddings, embed_photos
from nameplate.model.model import Model
from nameplate.storage import sha256_of
from nameplate.types import HeadRecipe, Photo

TRAIN = Path(str(photos_folder("train")))
DESIGNS = ("Corvane Lark", "Ostrel Tarn")


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load(runtime="onnxruntime")


def varied(path: Path, target: Path, *, mirror: bool) -> None:
    """A copy of a picture: 13 % of it cut off at the left and at the top, mirrored, compressed again."""
    with Image.open(path) as image:
        left, top = round(0.07 * image.width), round(0.07 * image.height)
        cut = image.convert("RGB").crop((left, top, image.width, image.height))
        (ImageOps.mirror(cut) if mirror else cut).save(target, quality=50)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve renders of each of two designs, and a copy of every other one."""
    folder = tmp_path_factory.mktemp("copies")
    for design in DESIGNS:
        (folder / design).mkdir()
        for number, path in enumerate(sorted((TRAIN / design).glob("*.jpg"))[:12]):
            shutil.copy(path, folder / design / f"{number}.jpg")
            if number % 2:
                varied(path, folder / design / f"{number}-copy.jpg", mirror=number % 4 == 1)
    return folder


@pytest.fixture(scope="module")
def embedded(folder: Path, model: Model) -> DatasetEmbeddings:
    return embed_photos(read_dataset(folder).photos, model)


def picture(photo: Photo) -> str:
    """What a photo shows, the same for a render and its copy."""
    return f"{photo.label} {Path(photo.path).stem.removesuffix('-copy')}"


def test_copies_that_hashes_miss_are_one_group_and_renders_of_one_design_are_not(embedded: DatasetEmbeddings) -> None:
    assert len(near_pairs(embedded.hashes)) == 0
    groups: dict[int, set[str]] = {}
    for photo, group in zip(embedded.photos, same_picture(embedded).tolist(), strict=True):
        groups.setdefault(group, set()).add(picture(photo))
    assert len(embedded.photos) == 36
    assert len(groups) == 24
    assert all(len(pictures) == 1 for pictures in groups.values())


def test_groups_of_the_data_and_copies_are_joined(embedded: DatasetEmbeddings) -> None:
    photos = tuple(photo.with_(group="a") if picture(photo).endswith(" 1") else photo for photo in embedded.photos)
    found = same_picture(replace(embedded, photos=photos))
    assert len(np.unique(found)) == 23  # a picture of either design, with their copies


def test_a_photo_that_vanished_meanwhile_is_no_copy(embedded: DatasetEmbeddings) -> None:
    gone = tuple(photo.with_(path="gone.jpg", sha256=f"{place:064x}") for place, photo in enumerate(embedded.photos))
    assert len(np.unique(same_picture(replace(embedded, photos=gone)))) == len(gone)


@pytest.mark.parametrize("seed", range(4))
def test_the_split_never_separates_an_image_from_its_copy(folder: Path, embedded: DatasetEmbeddings, seed: int) -> None:
    parts = split_photos(read_dataset(folder), embedded, 0.3, seed)
    trained = {picture(photo) for photo in parts.photos if photo.split == "train"}
    assert parts.holdout.any()
    assert not trained & {picture(photo) for photo in parts.photos if photo.split == "validation"}


def test_copies_of_training_photos_do_not_evaluate_the_model(folder: Path, model: Model, tmp_path: Path) -> None:
    everything = read_dataset(folder)
    originals = tuple(photo for photo in everything.photos if "-copy" not in photo.path)
    recipe = HeadRecipe(holdout=0.3, mirror=False)
    made = train_head(replace(everything, photos=originals), tmp_path / "mine", model=model, recipe=recipe)
    mine = Model(made.bundle, model.settings)
    taught = trained_digests(made.bundle)
    trained = {picture(photo) for photo in originals if sha256_of(photo.path) in taught}
    copies = [photo for photo in everything.photos if "-copy" in photo.path]
    judged = evaluate_model(mine, everything)
    assert judged.leaked == sum(picture(photo) in trained for photo in copies) > 0
    assert judged.trained == len(trained)
    assert not trained & {picture(photo) for photo in judged.photos}
    assert len(judged.photos) == len(everything.photos) - judged.trained - judged.leaked
    all_judged = evaluate_model(mine, everything, include_trained=True)
    assert (len(all_judged.photos), all_judged.leaked) == (len(everything.photos), 0)
