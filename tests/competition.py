"""Lays photos out as the original competition did: two tables, train.zip and test.zip, zipped once more."""

from __future__ import annotations

import csv
import shutil
import zipfile
from pathlib import Path

CYRILLIC = (
    "Приора", "Ford Focus", "Самара", "ВАЗ-2110", "Жигули", "Нива", "Калина", "ВАЗ-2109",
    "Volkswagen Passat", "ВАЗ-21099",
)  # fmt: skip
"""The competition's nameplates, in the order of their ids."""


def lay_out(classes: list[Path], root: Path, *, each: int | None = None, test_each: int = 3) -> Path:
    """Make the unpacked competition of photos in folders; the last `test_each` of each are the test part."""
    rows, sample = [], []
    for number, folder in enumerate(classes):
        photos = sorted(folder.iterdir())[:each]
        (root / "train" / str(number)).mkdir(parents=True)
        (root / "test_upload").mkdir(exist_ok=True)
        for place, photo in enumerate(photos):
            name = f"{number}{place:05}{photo.suffix}"
            if place < len(photos) - test_each:
                shutil.copy(photo, root / "train" / str(number) / name)
                rows.append((name, number))
            else:
                shutil.copy(photo, root / "test_upload" / name)
                sample.append((name, 0))
    sample.reverse()  # an order that no listing has
    for table, content in (("train.csv", rows), ("sample-submission.csv", sample)):
        with (root / table).open("w", newline="") as file:
            csv.writer(file).writerows([("Id", "Category"), *content])
    return root


def zip_up(root: Path, target: Path, *, top: str = "") -> Path:
    """The competition's archive: the tables, train.zip and test.zip, perhaps below a top folder."""
    for inner, folder in (("train.zip", "train"), ("test.zip", "test_upload")):
        with zipfile.ZipFile(target.with_name(inner), "w") as archive:
            for path in sorted((root / folder).rglob("*")):
                archive.write(path, path.relative_to(root))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for table in ("train.csv", "sample-submission.csv"):
            archive.write(root / table, f"{top}{table}")
        for inner in ("train.zip", "test.zip"):
            archive.write(target.with_name(inner), f"{top}{inner}")
            target.with_name(inner).unlink()
    return target


def write_names(path: Path, names: tuple[str, ...] = CYRILLIC) -> Path:
    """The file for `--names`."""
    path.write_text("\n".join(names) + "\n", "utf-8")
    return path
