"""`submit`: writes a valid submission for the Kaggle competition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nameplate.data.archive import Refused, is_archive, unpack
from nameplate.data.kaggle import find_competition, read_competition, test_photos, write_submission
from nameplate.data.listing import pairs
from nameplate.errors import DataError
from nameplate.model.model import Model


@dataclass(frozen=True, slots=True)
class Submission:
    """A submission that was written."""

    photos: int
    unreadable: tuple[tuple[str, str], ...]
    """Photos that could not be read, and why; their answer is `filler`."""
    filler: str
    """The most frequent Category of train.csv."""
    refused: tuple[Refused, ...] = ()
    """Entries of the archive that were left out, and why."""


def submit(
    model: Model, source: Path, target: Path, *, progress: Callable[[int, int], None] = lambda *_: None
) -> Submission:
    """Identify the competition's test photos and write the submission.

    Args:
        model: a model that was trained on this competition.
        source: the competition's folder or zip.
        target: the CSV to write.
        progress: called with the numbers of photos done and in all.

    Raises:
        DataError: `source` is no competition, photos are missing, or the model has other classes.
    """
    folder, refused = unpack(source, model.settings.limits) if is_archive(source.name) else (source, ())
    root = find_competition(folder) if folder.is_dir() else None
    if root is None:
        raise DataError(f"'{source}' is no competition: there is no train.csv in it.", pairs(refused))
    competition = read_competition(root)
    photos = test_photos(competition)
    # The bundle's `ids` are the competition's Category numbers, in the order of the nameplates.
    categories = dict(zip(model.nameplates, model.bundle.manifest.ids, strict=True))
    # The competition wants an answer for every photo. The most frequent class is the best guess for unreadable ones.
    filler = Counter(category for _, category in competition.train).most_common(1)[0][0]
    answers: list[str] = []
    unreadable: list[tuple[str, str]] = []
    for number, prediction in enumerate(model.stream([photo.path for photo in photos]), start=1):
        if prediction.nameplate is None:
            unreadable.append((prediction.photo, str(prediction.error)))
        answers.append(filler if prediction.nameplate is None else categories[prediction.nameplate])
        progress(number, len(photos))
    write_submission(competition, answers, target)
    return Submission(len(answers), tuple(unreadable), filler, refused)
