"""`verify_table`: checks whether adverts' photos show the cars that the adverts claim, one row per advert."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from nameplate.batch.job import journal
from nameplate.data.listing import PATH_COLUMNS
from nameplate.data.tables import photo_path, read_table, write_table
from nameplate.errors import DataError, UsageError
from nameplate.model.model import Model
from nameplate.model.verification import (
    DEFAULT_LIES,
    DEFAULT_RATE,
    Lies,
    UnknownClaimError,
    Verified,
    check_rate,
    unreadable_claim,
    verified_json,
)
from nameplate.storage import nfc, whole_file, writing

CLAIMED, ADVERT, PHOTOS = "claimed", "advert", "photos"
"""Columns of a table of adverts. A table with one photo per row has one of `PATH_COLUMNS`, except `id`, instead."""
FORMATS = (".csv", ".jsonl")


@dataclass(frozen=True, slots=True)
class Advert:
    """An advert's claim and its photos."""

    name: str
    claimed: str
    photos: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """An advert with its result: a line of the journal."""

    advert: str
    found: Verified


@dataclass(frozen=True, slots=True)
class Verifications:
    """The counts of a table that was verified."""

    adverts: int
    accepted: int
    rejected: int
    unsure: int
    unknown: int
    """How many of the unsure ones have a claim that the model does not know."""
    resumed: int
    """Adverts that an interrupted run had done."""


def read_adverts(table: Path) -> list[Advert]:
    """Read adverts from a table.

    It has a column `claimed`, and either `photos` (paths with semicolons between them) or one photo per row and a
    column `advert` that says which rows belong together. Paths are relative to the table.

    Raises:
        DataError: the table cannot be read, columns are missing, a row has no claim or no photo, or an advert has two
            claims.
    """
    rows = read_table(table)
    single = next((name for name in PATH_COLUMNS if name in rows[0] and name != "id"), None)
    if CLAIMED not in rows[0] or (PHOTOS not in rows[0] and (single is None or ADVERT not in rows[0])):
        raise DataError(
            f"'{table}' is no table of adverts: it has {', '.join(rows[0])}. Give '{CLAIMED}' and '{PHOTOS}' (paths "
            f"between semicolons), or '{ADVERT}', '{CLAIMED}' and 'photo', a photo a row."
        )
    found: dict[str, Advert] = {}
    for number, row in enumerate(rows, start=2):  # row 1 of the file is the header
        # Rows without an advert's name are adverts of their own, called by their number.
        name = row.get(ADVERT, "").strip() or str(number - 1)
        claimed = nfc(row[CLAIMED].strip())
        cells = row[PHOTOS].split(";") if PHOTOS in row else [row[str(single)]]
        photos = tuple(photo_path(table, cell.strip()) for cell in cells if cell.strip())
        if not claimed or not photos:
            raise DataError(f"'{table}', row {number}: there is no {PHOTOS[:-1] if claimed else 'claim'}.")
        before = found.get(name)
        if before is not None and before.claimed != claimed:
            raise DataError(f"'{table}', row {number}: advert '{name}' claims '{before.claimed}' and '{claimed}'.")
        found[name] = Advert(name, claimed, (*(before.photos if before else ()), *photos))
    return list(found.values())


def verify_table(
    model: Model,
    adverts: Sequence[Advert],
    target: Path,
    *,
    rate: float = DEFAULT_RATE,
    lies: Lies = DEFAULT_LIES,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Verifications:
    """Verify adverts and write the results. An interrupted job is resumed.

    A claim that the model does not know is `unsure`, with the code `unknown claim` and the reason.

    Args:
        model: the model.
        adverts: the adverts to verify.
        target: the file to write: a .csv, or a .jsonl that also holds each photo's result.
        rate: the share of wrong claims that may be accepted.
        lies: the kind of wrong claims that this share is of.
        progress: called with the numbers of adverts done and in all.

    Raises:
        UsageError: the suffix is unknown, or the model has no thresholds for this rate or these lies.
        NameplateError: the folder cannot be written to, or another run writes the same table.
    """
    if target.suffix.lower() not in FORMATS:
        raise UsageError(f"Cannot write '{target}': its name must end in {', '.join(FORMATS)}.")
    for thresholds in (model.bundle.manifest.claims, model.bundle.manifest.make_claims):
        check_rate(rate, lies, thresholds)
    # The journal resumes only the same job: another bundle, table or rate would mix results.
    with (
        writing(target),
        journal(target, (model.bundle.manifest, list(adverts), rate, lies, model.settings.cars), Checked) as kept,
    ):
        rest = adverts[kept.resumed :]
        for number, checked in enumerate(_check(model, rest, rate, lies), start=kept.resumed + 1):
            kept.add(checked)
            progress(number, len(adverts))
        with whole_file(target) as temporary:
            if target.suffix.lower() == ".jsonl":
                temporary.write_bytes(b"".join(map(_line, kept.done)))
            else:
                columns = ("advert", "claimed", "verdict", "code", "score", "photos", "used", "reason")
                write_table(temporary, columns, map(_row, kept.done))
    count = [checked.found.verdict for checked in kept.done].count
    unknown = sum(checked.found.code == "unknown claim" for checked in kept.done)
    return Verifications(len(kept.done), count("accept"), count("reject"), count("unsure"), unknown, kept.resumed)


def _check(model: Model, adverts: Sequence[Advert], rate: float, lies: Lies) -> Iterator[Checked]:
    """Verify adverts; the photos of all of them pass through the model in one stream."""
    answers = model.all_cars().answers(photo for advert in adverts for photo in advert.photos)
    for advert in adverts:
        # Taken even if the claim is unknown: the stream holds this advert's answers before the next one's.
        of_advert = [next(answers) for _ in advert.photos]
        try:
            found = model.judge_claim(advert.claimed, of_advert, rate=rate, lies=lies)
        except UnknownClaimError as error:
            found = unreadable_claim(advert.claimed, [prediction for prediction, _ in of_advert], str(error))
        yield Checked(advert.name, found)


def _line(checked: Checked) -> bytes:
    found: dict[str, object] = msgspec.to_builtins(verified_json(checked.found))
    return msgspec.json.encode({"advert": checked.advert, **found}) + b"\n"


def _row(checked: Checked) -> dict[str, object]:
    found = checked.found
    used = sum(score is not None for _, score in found.photos)
    return {
        "advert": checked.advert,
        "claimed": found.claimed,
        "verdict": found.verdict,
        "code": found.code,
        "score": found.score,
        "photos": len(found.photos),
        "used": used,
        "reason": found.reason,
    }
