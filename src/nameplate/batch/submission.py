"""`submit`: writes a valid submission for the Kaggle competition, and the probabilities behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nameplate.data.archive import Refused, is_archive, unpack
from nameplate.data.inputs import refuse_existing
from nameplate.data.kaggle import find_competition, read_competition, test_photos, write_submission
from nameplate.data.listing import pairs
from nameplate.data.tables import write_table
from nameplate.errors import DataError
from nameplate.model.model import Model
from nameplate.storage import whole_file
from nameplate.types import html_table


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

    def _repr_html_(self) -> str:
        rows = [("photos", f"{self.photos:,}"), ("unreadable", f"{len(self.unreadable):,}")]
        rows += [(path, reason) for path, reason in self.unreadable[:10]]
        return html_table(("submission", f"unreadable photos get {self.filler}"), rows)


def submit(
    model: Model,
    source: Path,
    target: Path,
    *,
    probabilities: Path | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Submission:
    """Identify the competition's test photos and write the submission.

    Args:
        model: a model that was trained on this competition.
        source: the competition's folder or zip.
        target: the CSV to write.
        probabilities: a further CSV with the probability of each Category, to average with those of other models; None
            writes none.
        overwrite: whether to replace files that are there.
        progress: called with the numbers of photos done and in all.

    Raises:
        DataError: `source` is no competition, photos are missing, or the model has other classes.
        UsageError: a file is there already and `overwrite` is false.
    """
    refuse_existing([target, *([] if probabilities is None else [probabilities])], overwrite=overwrite)
    folder, refused = unpack(source, model.settings.limits) if is_archive(source.name) else (source, ())
    root = find_competition(folder) if folder.is_dir() else None
    if root is None:
        raise DataError(f"'{source}' is no competition: there is no train.csv in it.", pairs(refused))
    competition = read_competition(root)
    photos = test_photos(competition)
    # The bundle's `ids` are the competition's Category numbers, in the order of the nameplates.
    categories = dict(zip(model.nameplates, model.bundle.manifest.ids, strict=True))
    # The competition wants an answer for every photo. The most frequent class is the best guess for unreadable ones.
    frequency = Counter(category for _, category in competition.train)
    filler = frequency.most_common(1)[0][0]
    answers: list[str] = []
    rows: list[dict[str, object]] = []
    unreadable: list[tuple[str, str]] = []
    found = model.answers([photo.path for photo in photos])
    for number, (name, (prediction, probs)) in enumerate(zip(competition.sample, found, strict=True), start=1):
        if prediction.nameplate is None or probs is None:
            unreadable.append((prediction.photo, str(prediction.error)))
            shares = [frequency[category] / frequency.total() for category in categories.values()]
        else:
            shares = probs.tolist()
        answers.append(filler if prediction.nameplate is None else categories[prediction.nameplate])
        if probabilities is not None:
            numbers = (f"{share:.7g}" for share in shares)
            rows.append({"Id": name, **dict(zip(categories.values(), numbers, strict=True))})
        progress(number, len(photos))
    write_submission(competition, answers, target)
    if probabilities is not None:
        with whole_file(probabilities) as temporary:
            write_table(temporary, ("Id", *categories.values()), rows)
    return Submission(len(answers), tuple(unreadable), filler, refused)
