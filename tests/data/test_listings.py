"""Folders as other tools export them: ImageFolder with metadata, COCO, FiftyOne, Label Studio, Parquet shards."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nameplate.data import Dataset, read_dataset
from nameplate.data.exports import read_export
from nameplate.errors import DataError
from tests.data.test_dataset import JPEG, make


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAMEPLATE_CACHE", str(tmp_path.with_name(f"{tmp_path.name}-cache")))


def write(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), "utf-8")
    return path


def found(dataset: Dataset, folder: Path) -> dict[str, tuple[str | None, str | None]]:
    return {str(Path(photo.path).relative_to(folder)): (photo.label, photo.split) for photo in dataset.photos}


# --- ImageFolder with metadata ------------------------------------------------------------------------


def test_metadata_labels_the_photos_of_its_folder(tmp_path: Path) -> None:
    make(tmp_path, "train/1.jpg", "train/2.jpg", "test/3.jpg")
    write(tmp_path, "metadata.csv", "file_name,label\ntrain/1.jpg,BMW M3\ntrain/2.jpg,Audi A4\ntest/3.jpg,Audi A4\n")
    dataset = read_dataset(tmp_path)
    assert found(dataset, tmp_path) == {
        "train/1.jpg": ("BMW M3", "train"),
        "train/2.jpg": ("Audi A4", "train"),
        "test/3.jpg": ("Audi A4", "test"),
    }
    assert dataset.kinds == ("table with file_name and label",)


def test_metadata_in_each_part_and_as_json_lines(tmp_path: Path) -> None:
    make(tmp_path, "train/1.jpg", "valid/2.jpg")
    write(tmp_path, "train/metadata.jsonl", '{"file_name": "1.jpg", "label": "BMW M3", "year": 2010}\n')
    rows = '{"caption": "none"}\n{"file_name": "2.jpg", "label": "Audi A4"}\n'
    write(tmp_path, "valid/metadata.jsonl", rows)
    # The first row has no label column, so that the second table is not one of labels.
    assert found(read_dataset(tmp_path), tmp_path) == {"train/1.jpg": ("BMW M3", "train")}
    write(tmp_path, "valid/metadata.jsonl", "\n".join(reversed(rows.strip().split("\n"))) + "\n")
    dataset = read_dataset(tmp_path)
    assert found(dataset, tmp_path)["valid/2.jpg"] == ("Audi A4", "validation")
    assert "no path or no label" in dataset.refused[0].reason


def test_captions_are_no_labels_and_folders_count(tmp_path: Path) -> None:
    make(tmp_path, "BMW M3/1.jpg", "Audi A4/2.jpg")
    write(tmp_path, "metadata.csv", "file_name,text\nBMW M3/1.jpg,a car\n")
    assert read_dataset(tmp_path).kinds == ("folder per class",)


def test_json_lines_are_a_table(tmp_path: Path) -> None:
    table = write(tmp_path, "cars.jsonl", '{"path": "1.jpg", "label": 7}\n{"path": "2.jpg"}\n')
    dataset = read_dataset(table)
    assert [photo.label for photo in dataset.photos] == ["7"]
    assert [entry.name for entry in dataset.refused] == ["2.jpg"]
    with pytest.raises(DataError, match="'label' is a list"):
        read_dataset(write(tmp_path, "lists.jsonl", '{"path": "1.jpg", "label": ["a"]}\n'))


# --- COCO ---------------------------------------------------------------------------------------------

COCO = {
    "images": [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}, {"id": 3, "file_name": "gone.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 7, "bbox": [0, 0, 5, 5]},
        {"id": 2, "image_id": 1, "category_id": 7, "bbox": [5, 5, 2, 2]},
        {"id": 3, "image_id": 2, "category_id": 7},
        {"id": 4, "image_id": 2, "category_id": 9},
        {"id": 5, "image_id": 3, "category_id": 9},
    ],
    "categories": [{"id": 7, "name": "BMW M3"}, {"id": 9, "name": "Audi A4"}],
}


def test_coco_of_roboflow_lies_in_each_part(tmp_path: Path) -> None:
    make(tmp_path, "train/1.jpg", "train/2.jpg", "valid/1.jpg", "valid/4.jpg")
    write(tmp_path, "train/_annotations.coco.json", COCO)
    four = COCO | {"images": [{"id": 1, "file_name": "4.jpg"}]}
    write(tmp_path, "valid/_annotations.coco.json", four)
    dataset = read_dataset(tmp_path)
    assert found(dataset, tmp_path) == {"train/1.jpg": ("BMW M3", "train"), "valid/4.jpg": ("BMW M3", "validation")}
    assert [(entry.name, entry.reason.split(",")[0]) for entry in dataset.refused] == [
        ("2.jpg", "it has two labels"),
        ("gone.jpg", "'_annotations.coco.json' names it"),
    ]


def test_coco_in_a_folder_of_annotations_and_as_a_file(tmp_path: Path) -> None:
    make(tmp_path, "val2017/1.jpg", "train2017/1.jpg")
    file = write(tmp_path, "annotations/instances_val2017.json", COCO)
    with pytest.raises(DataError, match="None of the 3 photos of .* can be used.*more than one"):
        read_dataset(file)  # 1.jpg is there twice
    precise = COCO | {"images": [{"id": 1, "file_name": "val2017/1.jpg"}]}
    write(tmp_path, "annotations/instances_val2017.json", precise)
    assert found(read_dataset(tmp_path), tmp_path) == {"val2017/1.jpg": ("BMW M3", "validation")}
    assert read_dataset(file).kinds == ("COCO in instances_val2017.json",)


# --- FiftyOne -----------------------------------------------------------------------------------------


def test_fiftyone_classification_names_photos_without_suffix(tmp_path: Path) -> None:
    make(tmp_path, "data/a.jpg", "data/b.png", "data/c.jpg", "data/d.jpg")
    labels = {"a": 1, "b": "Audi A4", "c": None, "d": {"label": 0, "confidence": 0.9}}
    write(tmp_path, "labels.json", {"classes": ["Audi A4", "BMW M3"], "labels": labels})
    dataset = read_dataset(tmp_path)
    assert {name: label for name, (label, _) in found(dataset, tmp_path).items()} == {
        "data/a.jpg": "BMW M3",
        "data/b.png": "Audi A4",
        "data/d.jpg": "Audi A4",
    }
    assert [entry.reason for entry in dataset.refused] == ["it has no label in 'labels.json'"]
    write(tmp_path, "labels.json", {"classes": ["Audi A4"], "labels": {"a": 5}})
    with pytest.raises(DataError, match="'a': 5 is neither a label nor the index of a class"):
        read_dataset(tmp_path)


def test_fiftyone_samples_have_a_field_of_labels_and_tags_of_parts(tmp_path: Path) -> None:
    make(tmp_path, "data/a.jpg", "data/b.jpg")
    samples = [
        {"filepath": "data/a.jpg", "tags": ["new", "train"], "car": {"_cls": "Classification", "label": "BMW M3"}},
        {
            "filepath": "/home/me/photos/data/b.jpg",
            "tags": ["test"],
            "car": {"_cls": "Detections", "detections": [{"_cls": "Detection", "label": "Audi A4"}]},
        },
    ]
    write(tmp_path, "samples.json", {"samples": samples})
    assert found(read_dataset(tmp_path), tmp_path) == {
        "data/a.jpg": ("BMW M3", "train"),
        "data/b.jpg": ("Audi A4", "test"),
    }
    samples[0]["guess"] = {"_cls": "Classification", "label": "Kia Rio"}
    write(tmp_path, "samples.json", {"samples": samples})
    with pytest.raises(DataError, match=r"labels in several fields \(car, guess\)"):
        read_dataset(tmp_path)


# --- Label Studio -------------------------------------------------------------------------------------


def choice(*names: str, cancelled: bool = False) -> dict[str, object]:
    return {"was_cancelled": cancelled, "result": [{"type": "choices", "value": {"choices": list(names)}}]}


def test_label_studio_addresses_photos_of_its_own_disk(tmp_path: Path) -> None:
    make(tmp_path, "upload/1/0a1b-a.jpg", "photos/x y/b.jpg", "c.jpg")
    tasks = [
        {"data": {"image": "/data/upload/1/0a1b-a.jpg"}, "annotations": [choice("BMW M3")]},
        {"data": {"image": "/data/local-files/?d=photos/x%20y/b.jpg"}, "annotations": [choice("Audi A4")]},
        {"data": {"image": "https://cars.example/c.jpg"}, "annotations": [choice("Kia Rio", cancelled=True)]},
        {"data": {"image": "s3://bucket/far.jpg"}, "annotations": [choice("Audi A4")]},
    ]
    dataset = read_dataset(write(tmp_path, "project-1.json", tasks))
    assert {name: label for name, (label, _) in found(dataset, tmp_path).items()} == {
        "upload/1/0a1b-a.jpg": "BMW M3",
        "photos/x y/b.jpg": "Audi A4",
    }
    assert [entry.name for entry in dataset.refused] == ["https://cars.example/c.jpg", "s3://bucket/far.jpg"]


def test_label_studio_in_its_small_form(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    tasks = [
        {"image": "/data/upload/1/a.jpg", "choice": "BMW M3"},
        {"image": "/data/upload/1/b.jpg", "choice": {"choices": ["BMW M3", "Audi A4"]}},
        {"image": "/data/upload/1/c.jpg"},
    ]
    dataset = read_dataset(write(tmp_path, "min.json", tasks))
    assert [photo.label for photo in dataset.photos] == ["BMW M3"]
    assert len(dataset.refused) == 2


# --- Parquet shards -----------------------------------------------------------------------------------


def shards() -> dict[str, bytes]:
    """Two Parquet files with pictures inside, as `Dataset.push_to_hub` writes them."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    features = {"features": {"label": {"_type": "ClassLabel", "names": ["Audi A4", "BMW M3"]}}}
    made = {}
    for name, labels in (("train-00000-of-00001", [0, 1]), ("test-00000-of-00001", [1])):
        pictures = [{"bytes": JPEG + bytes([label, len(labels)]), "path": f"{label}.jpg"} for label in labels]
        table = pyarrow.table({"image": pictures, "label": labels})
        file = io.BytesIO()
        parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps({"info": features})}), file)
        made[f"data/{name}.parquet"] = file.getvalue()
    return made


def test_parquet_shards_hold_photos_and_parts(tmp_path: Path) -> None:
    for name, data in shards().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    dataset = read_dataset(tmp_path)
    assert sorted((photo.label, photo.split) for photo in dataset.photos) == [
        ("Audi A4", "train"),
        ("BMW M3", "test"),
        ("BMW M3", "train"),
    ]
    assert all(Path(photo.path).is_file() for photo in dataset.photos)


# --- all of them --------------------------------------------------------------------------------------


def test_an_archive_of_an_export(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "cars.zip", "w") as archive:
        archive.writestr("data/a.jpg", JPEG)
        archive.writestr("labels.json", json.dumps({"classes": None, "labels": {"a": "BMW M3"}}))
    dataset = read_dataset(tmp_path / "cars.zip")
    assert [photo.label for photo in dataset.photos] == ["BMW M3"]


def test_paths_do_not_leave_the_folder_and_other_json_is_no_data(tmp_path: Path) -> None:
    make(tmp_path, "out.jpg", "data/in.jpg")
    outside = {"classes": None, "labels": {"../out": "BMW M3", "in": "Audi A4"}}
    write(tmp_path, "data/labels.json", outside)
    dataset = read_dataset(tmp_path / "data")
    assert found(dataset, tmp_path / "data") == {"in.jpg": ("Audi A4", None)}
    with pytest.raises(DataError, match="no export of COCO, FiftyOne or Label Studio"):
        read_dataset(write(tmp_path, "other.json", {"a": 1}))
    with pytest.raises(DataError, match="Cannot read"):
        read_dataset(write(tmp_path, "broken.json", '{"images": [}'))
    make(tmp_path / "cars", "BMW M3/1.jpg")
    write(tmp_path / "cars", "labels.json", {"0": "BMW M3"})  # names of classes, as many data sets have them
    assert read_dataset(tmp_path / "cars").kinds == ("folder per class",)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner, max_size=2),
    max_leaves=4,
)
keys = ["images", "annotations", "categories", "labels", "classes", "samples", "data", "image", "id", "file_name"]


@given(
    st.dictionaries(st.sampled_from(keys), json_values) | st.lists(st.dictionaries(st.sampled_from(keys), json_values))
)
def test_whatever_json_says_it_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    file = write(tmp_path_factory.mktemp("json"), "labels.json", value)
    try:
        read_export(file)
    except DataError as error:
        assert str(file) in str(error)
