"""Labels in JSON as other tools export them: FiftyOne, COCO (Roboflow, CVAT, …) and Label Studio.

Only the label of each photo is read: a box stands for the car that it shows, and Nameplate finds the car itself. A
photo with two different labels is left out. The form of a file is recognised by its content. The formats:
https://docs.voxel51.com/user_guide/export_datasets.html, https://cocodataset.org/#format-data and
https://labelstud.io/guide/export.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from nameplate.data.archive import Refused
from nameplate.data.layouts import split_of
from nameplate.data.listing import walk
from nameplate.data.tables import TABLE_BYTES
from nameplate.errors import DataError
from nameplate.storage import nfc, open_regular
from nameplate.types import Photo, SplitName

EXPORT_NAMES = ("labels.json", "samples.json", "_annotations.coco.json", "result.json", "annotations.json")
"""Names that the tools give to such a file in the folder that they export."""
PHOTO_FIELDS = ("image", "img", "photo", "filepath", "file_name", "path")
"""Keys under which a task of Label Studio has its photo; the first that it has is used."""
Id = int | str


@dataclass(frozen=True, slots=True)
class Labelled:
    """What an export says of one photo."""

    name: str
    """The path, the address or the name of the photo, as it is written."""
    labels: tuple[str, ...]
    split: SplitName | None = None


@dataclass(frozen=True, slots=True)
class Export:
    """The content of such a file."""

    kind: str
    rows: list[Labelled]


class _Image(msgspec.Struct):
    id: Id
    file_name: str


class _Annotation(msgspec.Struct):
    image_id: Id
    category_id: Id


class _Category(msgspec.Struct):
    id: Id
    name: str


class _Coco(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


class _FiftyOneLabels(msgspec.Struct):
    labels: dict[str, Any]
    classes: list[str] | None = None


class _FiftyOneSamples(msgspec.Struct):
    samples: list[dict[str, Any]]


def read_export(file: Path) -> Export | None:
    """Read such a file; None where it is JSON of another form.

    Raises:
        DataError: it cannot be read, is too large, is no JSON, or an entry is not as its form says.
    """
    data = _content(file)
    try:
        top = msgspec.json.decode(data, type=dict[str, msgspec.Raw] | list[msgspec.Raw])
        if isinstance(top, list):
            return _label_studio(file, data)
        if {"images", "annotations", "categories"} <= top.keys():
            return Export("COCO", list(_coco(msgspec.json.decode(data, type=_Coco), file)))
        if "samples" in top:
            return Export("FiftyOne", list(_samples(msgspec.json.decode(data, type=_FiftyOneSamples), file)))
        if "labels" in top and "classes" in top:
            return Export("FiftyOne", list(_labels(msgspec.json.decode(data, type=_FiftyOneLabels), file)))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"Cannot read '{file}': {error}.") from None
    return None


def located(export: Export, file: Path) -> tuple[list[Photo], list[Refused]]:
    """The labelled photos of an export, and what was left out, with reasons.

    The photos are looked for below the folder of the file; below the folder above where there are none.
    """
    folder = file.absolute().parent
    index = _Index(folder)
    if not index.endings and folder.parent != folder:
        index = _Index(folder.parent)
    photos, refused = [], []
    for row in export.rows:
        labels = tuple(dict.fromkeys(label for label in row.labels if label.strip()))
        path = index.find(row.name)
        if path is None:
            refused.append(Refused(row.name, f"'{file.name}' names it, and there is no such photo, or more than one"))
        elif len(labels) == 1:
            photos.append(Photo(path, labels[0], row.split, folder.name))
        elif labels:
            refused.append(Refused(row.name, f"it has two labels, '{labels[0]}' and '{labels[1]}'"))
        else:
            refused.append(Refused(row.name, f"it has no label in '{file.name}'"))
    return photos, refused


class _Index:
    """The photos below a folder, found by the end of their path."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.endings: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        """Name of a file, with and without its suffix → the parts of the paths of such photos, from the folder."""
        for path in walk(self.folder):
            if isinstance(path, str):
                parts = PurePosixPath(os.path.relpath(path, self.folder)).parts
                for name in {nfc(parts[-1]), nfc(PurePosixPath(parts[-1]).stem)}:
                    self.endings[name].append(parts)

    def find(self, name: str) -> str | None:
        """The path of the photo that a name stands for; None where there is none, or several could be meant.

        A relative name must be the whole end of a path. Of an absolute one, or an address on the machine of the tool
        that exported it, as long an end as possible counts.
        """
        wanted, anywhere = _parts(name)
        if not wanted:
            return None
        best, found = 0, list[tuple[str, ...]]()
        for parts in self.endings.get(nfc(wanted[-1]), ()):
            same = _same_end(wanted, parts)
            if same < len(wanted) and not anywhere:
                continue
            if same > best:
                best, found = same, []
            if same == best:
                found.append(parts)
        # Of several that end so, the one that is just the name is meant.
        found = found if len(found) == 1 else [parts for parts in found if len(parts) == best]
        return os.path.join(self.folder, *found[0]) if len(found) == 1 else None  # noqa: PTH118


def _parts(name: str) -> tuple[tuple[str, ...], bool]:
    """The parts of a path without `.` and `..`, and whether the path starts at a place that is not here."""
    anywhere = "://" in name or name.startswith("/") or name[1:3] in (":\\", ":/")
    if anywhere:
        address = urlsplit(name)
        # Label Studio's files on its own disk: /data/local-files/?d=folder/1.jpg
        name = parse_qs(address.query).get("d", [unquote(address.path) or name])[0]
    parts = name.replace("\\", "/").split("/")
    return tuple(part for part in parts if part not in ("", ".", "..")), anywhere


def _same_end(wanted: Sequence[str], parts: Sequence[str]) -> int:
    """How many parts two paths have in common at their ends, whose last parts are one file's."""
    same = 1
    for mine, theirs in zip(wanted[-2::-1], parts[-2::-1], strict=False):
        if nfc(mine) != nfc(theirs):
            break
        same += 1
    return same


def _content(file: Path) -> bytes:
    try:
        with open_regular(file) as opened:
            size = os.fstat(opened.fileno()).st_size
            if size > TABLE_BYTES:
                raise DataError(f"'{file}' has {size:,} bytes, the limit is {TABLE_BYTES:,}. Split it.")
            return opened.read()
    except (OSError, ValueError) as error:
        raise DataError(f"Cannot read '{file}': {getattr(error, 'strerror', None) or error}.") from None


def _split_by_name(file: Path) -> SplitName | None:
    """The split that the name of a file stands for (`instances_val2017`), or that of its folder."""
    words = file.stem.rstrip("0123456789").replace("-", "_").split("_")
    return next((split for word in (*reversed(words), file.parent.name) if (split := split_of(word))), None)


def _coco(found: _Coco, file: Path) -> Iterator[Labelled]:
    names = {category.id: category.name for category in found.categories}
    labels: dict[Id, list[str]] = defaultdict(list)
    for number, annotation in enumerate(found.annotations, start=1):
        if annotation.category_id not in names:
            raise DataError(f"'{file}', annotation {number}: there is no category {annotation.category_id!r}.")
        labels[annotation.image_id].append(names[annotation.category_id])
    split = _split_by_name(file)
    for image in found.images:
        yield Labelled(image.file_name, tuple(labels[image.id]), split)


def _labels(found: _FiftyOneLabels, file: Path) -> Iterator[Labelled]:
    """FiftyOneImageClassificationDataset and its kin: name without suffix → label, or index of a class, or several."""
    split = _split_by_name(file)
    for name, given in found.labels.items():
        several = given if isinstance(given, list) else [given]
        inner = [each.get("label") if isinstance(each, dict) else each for each in several]
        yield Labelled(
            name, tuple(_class_name(each, found.classes, file, name) for each in inner if each is not None), split
        )


def _class_name(given: object, classes: Sequence[str] | None, file: Path, name: str) -> str:
    if isinstance(given, str):
        return given
    if isinstance(given, int) and classes is not None and 0 <= given < len(classes):
        return classes[given]
    raise DataError(f"'{file}', '{name}': {given!r} is neither a label nor the index of a class.")


def _samples(found: _FiftyOneSamples, file: Path) -> Iterator[Labelled]:
    """FiftyOneDataset: samples with a path, tags, and fields of labels."""
    fields = {name for sample in found.samples for name, value in sample.items() if _texts(value)}
    if len(fields) > 1 and "ground_truth" not in fields:
        raise DataError(
            f"'{file}' has labels in several fields ({', '.join(sorted(fields))}), and none is called ground_truth. "
            "Export the one that holds the nameplates."
        )
    field = "ground_truth" if "ground_truth" in fields else next(iter(fields), "")
    for number, sample in enumerate(found.samples, start=1):
        path, tags = sample.get("filepath"), sample.get("tags")
        if not isinstance(path, str):
            raise DataError(f"'{file}', sample {number}: it has no filepath.")
        words = [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
        split = next((split for word in words if (split := split_of(word))), None)
        yield Labelled(path, tuple(_texts(sample.get(field))), split)


def _texts(value: object) -> list[str]:
    """The labels of a field of FiftyOne: a Classification, or Classifications and Detections; else none."""
    if not isinstance(value, dict) or "_cls" not in value:
        return []
    several = value.get("classifications") or value.get("detections") or [value]
    every = several if isinstance(several, list) else [several]
    return [each["label"] for each in every if isinstance(each, dict) and isinstance(each.get("label"), str)]


def _label_studio(file: Path, data: bytes) -> Export | None:
    """JSON and JSON-MIN of Label Studio: a list of tasks."""
    tasks = msgspec.json.decode(data, type=list[Any])
    if not tasks or not all(isinstance(task, dict) for task in tasks):
        return None
    whole = all("data" in task and "annotations" in task for task in tasks)
    if not whole and not any(key in tasks[0] for key in PHOTO_FIELDS):
        return None
    return Export("Label Studio", [_task(task, number, file, whole) for number, task in enumerate(tasks, start=1)])


def _task(task: dict[str, Any], number: int, file: Path, whole: bool) -> Labelled:
    given = task["data"] if whole else task
    name = next(
        (given[key] for key in PHOTO_FIELDS if isinstance(given, dict) and isinstance(given.get(key), str)), None
    )
    if name is None:
        raise DataError(f"'{file}', task {number}: it names no photo under any of {', '.join(PHOTO_FIELDS)}.")
    if whole:
        return Labelled(name, tuple(_choices(task["annotations"])))
    choice = task.get("choice")
    if isinstance(choice, dict):  # several choices at once
        choice = choice.get("choices")
    return Labelled(
        name, tuple(str(each) for each in (choice if isinstance(choice, list) else [choice] if choice else []))
    )


def _choices(annotations: object) -> Iterator[str]:
    """The choices and the labels of boxes in all annotations that were not cancelled."""
    for annotation in annotations if isinstance(annotations, list) else ():
        if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
            continue
        for result in annotation.get("result") or ():
            value = result.get("value") if isinstance(result, dict) else None
            for key in ("choices", "rectanglelabels"):
                found = value.get(key) if isinstance(value, dict) else None
                yield from (each for each in found or () if isinstance(each, str))
