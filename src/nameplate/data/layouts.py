"""`read_layout` decides which folders are nameplates, and which are splits or makes.

It applies these rules from the top down:

1. A folder that contains nothing but one folder is skipped, unless that folder has the name of a split or a make.
2. Folders with the names of splits (`split_of`) are splits where two of them contain photos and at least one has a
   folder for each nameplate, or where one has that and no other folder contains photos. Folders beside splits are left
   out.
3. Folders of makes (`is_make`) whose photos all lie in subfolders are makes, the subfolders are models, and the
   nameplate is both: "Kia Rio". Every other folder is a nameplate, and everything below it belongs to it.
4. Where the photos fit two of these readings the folder is refused. The error says how to choose one.

On the command line and in messages a split is called a part (`--layout parts`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import get_args

from nameplate.data.archive import Refused
from nameplate.data.labels import is_make, natural_key, of_make
from nameplate.errors import DataError, UsageError
from nameplate.storage import counted, nfc, printable
from nameplate.types import Layout, SplitName

SPLIT_WORDS: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "development": "validation",
    "eval": "validation",
    "evaluation": "validation",
    "test": "test",
    "testing": "test",
}
"""Word in the name of a folder → the split that it stands for."""
_WITH_SET = re.compile(r"(.+?)[\s_-]*(?:set|data|dataset|images|photos|split|part)?", re.DOTALL)

STRAY = "it lies beside the folders of nameplates, in none of them"
NO_PHOTOS = "a folder without photos"


@dataclass(slots=True)
class Folder:
    """A folder with everything below it."""

    path: str
    photos: list[str] = field(default_factory=list)
    """Paths of the photos directly in it."""
    others: list[Refused] = field(default_factory=list)
    """Other files directly in it, each with the reason why it is no photo."""
    folders: dict[str, Folder] = field(default_factory=dict)
    """Name → subfolder, in natural order."""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePath(self.path).name

    def below(self) -> Iterator[Folder]:
        """Yield this folder and every folder below it."""
        yield self
        for folder in self.folders.values():
            yield from folder.below()

    @property
    def has_photos(self) -> bool:
        """Whether there are photos in it or below it."""
        return bool(self.photos) or any(folder.has_photos for folder in self.folders.values())

    @property
    def full(self) -> list[Folder]:
        """The subfolders that contain photos, at whatever depth."""
        return [folder for folder in self.folders.values() if folder.has_photos]


@dataclass(slots=True)
class Reading:
    """How a folder was read, and what was found in it."""

    kind: str = ""
    """Name of the layout that was found."""
    top: str = ""
    """The folder that contains the splits or nameplates."""
    photos: list[tuple[str, str, SplitName | None]] = field(default_factory=list)
    """(path, class as it is written there, split) of each photo."""
    refused: list[Refused] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Sentences on the choice of a reading where others were possible."""


Levels = Sequence[tuple[Folder, SplitName | None]]


def split_of(name: str) -> SplitName | None:
    """The split that the name of a folder, or a cell of a table, stands for; None where it is none.

    >>> [split_of(name) for name in ("Train", "test_set", "training-data", "valid", "dev", "Trainer")]
    ['train', 'test', 'train', 'validation', 'validation', None]
    """
    stem = _WITH_SET.fullmatch(nfc(name).strip().casefold())
    return SPLIT_WORDS.get(stem[1]) if stem else None


def check_layout(layout: str) -> Layout:
    """Return the layout of this name.

    Raises:
        UsageError: there is no such layout.
    """
    known: tuple[Layout, ...] = get_args(Layout)
    for name in known:
        if name == layout:
            return name
    raise UsageError(f"There is no layout '{layout}': give {', '.join(known[:-1])} or {known[-1]}.")


def read_layout(root: Folder, layout: Layout = "auto", *, archive: bool = False) -> Reading:
    """Find the class of every photo below a folder.

    Args:
        root: the folder.
        layout: how to read it; `auto` decides by the rules of this module.
        archive: whether the folder was unpacked from an archive, so that the user cannot name a folder inside it.

    Raises:
        DataError: the folder can be read in several ways, or not in the way asked for. The message says what to do.
    """
    reading = Reading()
    top = _unwrapped(root, layout, archive, reading)
    reading.top = top.path
    levels = _levels(top, layout, reading)
    in_parts = levels[0][0] is not top
    _refuse_strays((top, *(part for part, _ in levels if in_parts)), reading)
    style = "makes" if layout == "makes" else _style(root, levels) if layout == "auto" else "classes"
    if style == "makes":
        _take_makes(levels, reading)
    else:
        _take_classes(levels, reading, parts_inside=style == "parts inside")
    reading.kind = {"makes": "folder per make and model", "parts inside": "folder per class, parts inside"}.get(
        style, "folder per class"
    ) + (", in parts" if in_parts else "")
    return reading


def _unwrapped(root: Folder, layout: Layout, archive: bool, reading: Reading) -> Folder:
    """Skip folders that contain nothing but one folder, and return the one that contains splits or classes."""
    top = root
    while len(top.full) == 1 and (archive or layout in ("auto", "parts")):
        [only] = top.full
        # The chain ends at a class (no folders with photos inside), a split or a make.
        if not only.full or (layout != "classes" and (split_of(only.name) or is_make(only.name))):
            break
        if len(top.folders) > 1 and not _hold_classes(_parts_in(only)):
            break  # The folders beside it have no photos, so they are classes, and it is one too.
        if only.photos and layout == "auto" and not _hold_classes(_parts_in(only)):
            deeper = (
                "" if archive else f"give '{printable(only.path)}' itself, where its folders are the nameplates, or "
            )
            raise _cannot_tell(
                root,
                f"'{_shown(only)}' is the only folder with photos, and holds photos as well as folders with photos, so "
                "it may be one nameplate, or a folder around nameplates",
                f"{deeper}pass --layout classes, where {'its folders are nameplates' if archive else 'it is one'}",
            )
        _refuse_strays((top,), reading)
        _leave_out(
            (folder for folder in top.folders.values() if folder is not only), f"beside '{_shown(only)}'", reading
        )
        top = only
    return top


def _levels(top: Folder, layout: Layout, reading: Reading) -> Levels:
    """The folders that contain a folder for each class, each with its split: the splits, or `top` itself."""
    parts = _parts_in(top)
    if layout == "parts" and not parts:
        raise DataError(
            f"'{printable(top.path)}' has no parts: none of its folders is named as one is, such as train, val or test."
        )
    if layout == "parts" and not _hold_classes(parts):
        raise DataError(f"In the parts {_listed(parts)} of '{printable(top.path)}' there is no folder with photos.")
    if layout == "classes" or (layout != "parts" and not _are_parts(top, parts)):
        return [(top, None)]
    beside = [folder for folder in top.folders.values() if folder not in parts]
    _leave_out(beside, f"beside the parts {_listed(parts)}", reading)
    bare = [part for part in parts if not part.full]
    _leave_out(bare, "of a part, without folders of nameplates", reading)
    return [(part, split_of(part.name)) for part in parts if part not in bare]


def _parts_in(folder: Folder) -> list[Folder]:
    return [each for each in folder.folders.values() if split_of(each.name)]


def _hold_classes(parts: Iterable[Folder]) -> bool:
    return any(part.full for part in parts)


def _are_parts(top: Folder, named: Sequence[Folder]) -> bool:
    """Whether folders with the names of splits are splits, rather than classes of such names."""
    full = [part for part in named if part.has_photos]
    others = [folder for folder in top.full if folder not in named]
    # Folders named `train` and `test` without folders inside may be splits without labels, or two classes of that name.
    if not _hold_classes(full):
        if len(full) > 1 or (full and not others):
            raise _cannot_tell(
                top,
                f"{_listed(full)} has the name of a part, and no folder per nameplate inside"
                if len(full) == 1
                else f"{_listed(full)} have the names of parts, and no folders per nameplate inside",
                "put the photos of each nameplate into a folder of its name inside the parts, give a table with path, "
                "label and split, or pass --layout classes, where these are nameplates",
            )
        return False
    if len(full) > 1 or not others:
        return True
    raise _cannot_tell(
        top,
        f"{_listed(full)} is named as a part is, and {_listed(others)} beside it as none, so they may be a part and "
        "something else, or nameplates all",
        f"give '{printable(full[0].path)}' itself, or pass --layout parts or --layout classes",
    )


def _style(root: Folder, levels: Levels) -> str:
    """What the folders in the levels are: `classes`, `makes` or `parts inside` (classes that contain splits)."""
    tops = _by_name(levels)
    inside = {name: {_label(each.name) for folder in found for each in folder.full} for name, found in tops.items()}
    flat = {name for name, found in tops.items() if any(folder.photos for folder in found)}
    # DATA/BMW M3/train/…: every class has its own splits inside, and nothing else.
    if len(levels) == 1 and tops and not flat and all(split_of(each) for names in inside.values() for each in names):
        return "parts inside"
    makes = [name for name in tops if is_make(name)]
    nested = [name for name in makes if name not in flat]
    if not nested:
        return "classes"
    # `Kia/front`, `Mazda/front`: inner folders of equal names are views of the car. Models of different makes seldom
    # have equal names.
    if _are_views(inside):
        if len(nested) < len(tops):
            return "classes"
        why = "and the inner ones are called alike, as views are"
    elif len(nested) == len(tops):
        return "makes"
    else:
        others = [name for name in tops if name not in nested]
        why = f"and {_listed_names(others)} beside them, which are no makes or hold photos themselves"
    raise _cannot_tell(
        root,
        f"There are folders of makes with folders in them ({_listed_names(nested)}), {why}, so the nameplates may be "
        "the outer folders, or outer and inner ones together",
        "pass --layout classes (--layout parts, if they are in parts) or --layout makes",
    )


def _are_views(inside: dict[str, set[str]]) -> bool:
    """Whether most inner folders have the same names below several outer ones, as views have, unlike models."""
    counts = Counter(name.casefold() for names in inside.values() for name in names)
    return sum(count for count in counts.values() if count > 1) > sum(counts.values()) / 2


def _by_name(levels: Levels) -> dict[str, list[Folder]]:
    found: dict[str, list[Folder]] = {}
    for level, _ in levels:
        for folder in level.full:
            found.setdefault(_label(folder.name), []).append(folder)
    return found


def _take_classes(levels: Levels, reading: Reading, *, parts_inside: bool) -> None:
    deep = list({_shown(folder): folder for level, _ in levels for folder in level.full if folder.full}.values())
    if parts_inside:
        reading.notes.append("The folders inside those of nameplates are named as parts, and are taken for parts.")
    elif deep:
        reading.notes.append(
            f"Photos in folders inside {_listed(deep)} count for the outer folder. Where the outer folders are makes "
            "and the inner ones models, pass --layout makes."
        )
    for level, split in levels:
        for folder in level.folders.values():
            if not parts_inside:
                _take(folder, _raw(folder), split, reading)
                continue
            _refuse_strays((folder,), reading)
            for part in folder.folders.values():
                _take(part, _raw(folder), split_of(part.name), reading)


def _take_makes(levels: Levels, reading: Reading) -> None:
    example = ""
    for level, split in levels:
        for make in level.folders.values():
            if not make.full:
                _take(make, "", split, reading, "it lies in a make's folder, in none of a model")
                continue
            reading.refused += [Refused(path, "it lies in a make's folder, in none of a model") for path in make.photos]
            reading.refused += make.others
            for model in make.folders.values():
                nameplate = of_make(_raw(make).strip(), _raw(model).strip())
                _take(model, nameplate, split, reading)
                example = example or nfc(nameplate)
    reading.notes.append(
        f"'{printable(reading.top)}' has a folder per make and in it one per model: nameplates are called by both, as "
        f"'{example}'. Where the outer folders are the nameplates, pass --layout classes."
    )


def _take(folder: Folder, name: str, split: SplitName | None, reading: Reading, refusal: str | None = None) -> None:
    """Take every photo of a folder and below as of one class, or refuse them all where `refusal` is given."""
    refusal = refusal or (None if name.strip() else "its folder's name is empty")
    photos = sorted(path for each in folder.below() for path in each.photos)
    if refusal is None:
        reading.photos += [(path, name, split) for path in photos]
    else:
        reading.refused += [Refused(path, refusal) for path in photos]
    reading.refused += sorted((entry for each in folder.below() for entry in each.others), key=lambda each: each.name)
    if not folder.has_photos:
        reading.refused.append(Refused(folder.path, NO_PHOTOS))


def _refuse_strays(folders: Iterable[Folder], reading: Reading) -> None:
    for folder in folders:
        reading.refused += [*(Refused(path, STRAY) for path in folder.photos), *folder.others]


def _leave_out(folders: Iterable[Folder], where: str, reading: Reading) -> None:
    """Refuse folders, with one entry for each folder whatever number of files it contains."""
    for folder in folders:
        photos = sum(len(each.photos) for each in folder.below())
        holds = counted(photos, "photo") if photos else "no photos"
        reading.refused.append(Refused(folder.path, f"a folder {where}; it holds {holds}"))


def _raw(folder: Folder) -> str:
    return printable(folder.name)  # As it is written, so that two spellings of one nameplate are noticed later.


def _label(name: str) -> str:
    return nfc(printable(name)).strip()


def _shown(folder: Folder) -> str:
    return _label(folder.name)


def _listed(folders: Sequence[Folder]) -> str:
    return _listed_names([_shown(folder) for folder in folders])


def _listed_names(names: Sequence[str]) -> str:
    shown = [f"'{name}'" for name in names[:3]]
    if len(names) > 3:
        shown.append(f"{len(names) - 3:,} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _cannot_tell(folder: Folder, why: str, advice: str) -> DataError:
    return DataError(
        f"Which folders of '{printable(folder.path)}' are nameplates is ambiguous: {why}. Please {advice}."
    )


def tree(root: str, found: Iterable[str | Refused]) -> Folder:
    """Build the tree of a folder from a list of its files.

    Args:
        root: the folder; every path begins with it and a slash.
        found: paths of photos, and the other files as `Refused`.
    """
    top = Folder(root)
    for entry in found:
        path = entry if isinstance(entry, str) else entry.name
        folder = top
        for name in path[len(root) :].strip("/").split("/")[:-1]:
            folder = folder.folders.setdefault(name, Folder(f"{folder.path}/{name}"))
        if isinstance(entry, str):
            folder.photos.append(entry)
        else:
            folder.others.append(entry)
    _sort(top)
    return top


def _sort(folder: Folder) -> None:
    folder.folders = dict(sorted(folder.folders.items(), key=lambda each: natural_key(each[0])))
    for each in folder.folders.values():
        _sort(each)
