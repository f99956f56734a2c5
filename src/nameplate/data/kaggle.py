"""The unpacked data of Kaggle's competition sf-dl-car-classification, and its submission file. The layout is:

train.csv               Id,Category           rows such as 100155.jpg,0
train/<Category>/<Id>
test_upload/<Id>
sample-submission.csv   Id,Category           the Ids of the test photos, in the order to submit
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nameplate.data.archive import Refused
from nameplate.data.listing import entries
from nameplate.data.tables import read_table, write_table
from nameplate.errors import DataError
from nameplate.storage import nfc, whole_file
from nameplate.types import Photo

TRAIN_TABLE, SAMPLE_TABLE = "train.csv", "sample-submission.csv"
TRAIN_FOLDERS = ("train/train", "train")
TEST_FOLDERS = ("test_upload", "test/test_upload", "test")


@dataclass(frozen=True, slots=True)
class Competition:
    """The tables and folders of the competition's data."""

    root: Path
    train: tuple[tuple[str, str], ...]
    """(Id, Category) of each row of train.csv, in the order of the file."""
    sample: tuple[str, ...]
    """The Ids of sample-submission.csv, in the order of the file; empty where there is no such file."""
    train_folder: Path | None
    test_folder: Path | None


def find_competition(folder: Path) -> Path | None:
    """The folder that contains train.csv: this one or its only subfolder; None where neither does."""
    if os.path.isfile(folder / TRAIN_TABLE):  # noqa: PTH113 - false, too, where it may not be asked
        return folder
    inside = entries(folder).folders
    if len(inside) == 1 and os.path.isfile(folder / inside[0] / TRAIN_TABLE):  # noqa: PTH113
        return folder / inside[0]
    return None


def read_competition(root: Path) -> Competition:
    """Read a competition's tables and find its folders.

    Raises:
        DataError: a table lacks the columns Id and Category, or an Id occurs twice or is a path.
    """
    train = tuple((row["Id"], row["Category"]) for row in _rows(root / TRAIN_TABLE))
    sample_table = root / SAMPLE_TABLE
    sample = tuple(row["Id"] for row in _rows(sample_table)) if sample_table.is_file() else ()
    return Competition(root, train, sample, _first(root, TRAIN_FOLDERS), _first(root, TEST_FOLDERS))


def train_photos(competition: Competition) -> tuple[list[Photo], list[Refused]]:
    """The photos of train.csv, and the rows of it that have no photo."""
    if competition.train_folder is None:
        raise DataError(f"'{competition.root}' has {TRAIN_TABLE} but no folder 'train'. Unpack train.zip beside it.")
    folder = competition.train_folder
    photos, refused = [], []
    there: dict[str, str] = {}  # Names may be NFC in the table and NFD on the disk.
    for class_ in entries(folder).folders:
        found = entries(folder / class_)
        there.update({nfc(path): path for path in (f"{class_}/{file}" for file in found.files)})
        if found.reason is not None:
            refused.append(Refused(str(folder / class_), found.reason))
    for name, category in competition.train:
        path = there.get(nfc(f"{category}/{name}"))
        if path is not None:
            photos.append(Photo(str(folder / path), category, source=competition.root.name))
        else:
            refused.append(Refused(f"{category}/{name}", "in train.csv, but there is no such photo"))
    return photos, refused


def test_photos(competition: Competition) -> list[Photo]:
    """The test photos, in the order of the sample submission.

    Raises:
        DataError: there is no sample submission or no test folder, or photos are missing from it.
    """
    if not competition.sample or competition.test_folder is None:
        missing = SAMPLE_TABLE if not competition.sample else "folder 'test_upload'"
        raise DataError(f"'{competition.root}' has no {missing}, so there is nothing to submit.")
    there = {nfc(name): name for name in entries(competition.test_folder).files}
    missing_photos = [name for name in competition.sample if nfc(name) not in there]
    if missing_photos:
        raise DataError(
            f"{len(missing_photos):,} of {len(competition.sample):,} photos of {SAMPLE_TABLE} are not in "
            f"'{competition.test_folder}', first of all '{missing_photos[0]}'. Unpack test.zip whole."
        )
    folder = competition.test_folder
    return [Photo(str(folder / there[nfc(name)]), source=competition.root.name) for name in competition.sample]


def write_submission(competition: Competition, categories: Sequence[str], target: Path) -> None:
    """Write a submission: the Ids of the sample in its order, each with its category.

    The file is read back before it takes its name, so that a full disk leaves no damaged submission.

    Raises:
        DataError: the number of categories is not that of the Ids, or train.csv lacks a category.
    """
    known = {nfc(category): category for _, category in competition.train}
    strange = sorted(set(map(nfc, categories)) - set(known))
    if strange:
        raise DataError(
            f"The model names '{strange[0]}', which is no Category of {TRAIN_TABLE} "
            f"({', '.join(sorted(known.values())[:12])}). Train it on this competition's photos."
        )
    if len(categories) != len(competition.sample):
        raise DataError(f"{len(categories):,} answers for {len(competition.sample):,} Ids; nothing was written.")
    categories = [known[nfc(category)] for category in categories]  # In the spelling of the table.
    rows = [{"Id": name, "Category": category} for name, category in zip(competition.sample, categories, strict=True)]
    with whole_file(target) as temporary:
        write_table(temporary, ("Id", "Category"), rows)
        written = [(row["Id"], row["Category"]) for row in _rows(temporary)]
        if written != list(zip(competition.sample, categories, strict=True)):
            raise DataError(f"'{target}' did not read back as it was written; is the disk full?")


def _rows(table: Path) -> list[dict[str, str]]:
    rows = read_table(table, suffix=".csv", wanted=("id", "category"))
    if rows and not {"Id", "Category"} <= rows[0].keys():
        raise DataError(f"'{table}' has the columns {', '.join(rows[0])}; a competition's has Id and Category.")
    seen: set[str] = set()
    for number, row in enumerate(rows, start=2):
        name = row["Id"]
        if name in seen or not name or not _is_plain(name):
            raise DataError(f"'{table}', line {number}: the Id '{name}' occurs twice or is not a plain file name.")
        if not _is_plain(row["Category"]):
            raise DataError(f"'{table}', line {number}: the Category '{row['Category']}' is no folder's name.")
        seen.add(name)
    return rows


def _is_plain(name: str) -> bool:
    return name != ".." and Path(name).name == name and "\0" not in name


def _first(root: Path, names: tuple[str, ...]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)
