"""An experiment's result, and the tables and the JSON that keep it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from nameplate.audit.findings import Finding
from nameplate.datasets.archive import Refused
from nameplate.datasets.tables import write_table
from nameplate.experiments.cleaning import Cleaning
from nameplate.experiments.mapping import ClassMap
from nameplate.experiments.verdict import Verdict
from nameplate.storage import absolute, printable, whole_file

EXTRA, TAKEN_OUT, SUSPECTS, RESULT = "extra.csv", "taken-out.csv", "suspects.csv", "extra-data.json"


@dataclass(frozen=True, slots=True)
class Experiment:
    """What came of it."""

    verdict: Verdict
    classes: ClassMap
    cleaning: Cleaning
    refused: tuple[Refused, ...]
    """Files of either data set that are no photos by name, or are listed wrongly."""
    unreadable: tuple[tuple[str, str], ...]
    """Of BASE, with the reason."""
    base: dict[str, object]
    """How many photos, and their digest."""
    extra: dict[str, object]
    """How many photos, and the digest of those that were added."""
    settings: dict[str, object]
    """What the models were trained on, and how."""
    seeds: tuple[int, ...]
    versions: dict[str, str]
    runtime: str
    """What computed the embeddings that both sides are judged on."""
    made: str
    """ISO 8601."""


def write_result(folder: Path, made: Experiment) -> None:
    """Write the tables and extra-data.json, each whole.

    Raises:
        WriteError: the folder cannot be written to.
    """
    cleaning = made.cleaning
    tables = {
        EXTRA: (
            ("path", "label"),
            [{"path": absolute(p.path), "label": printable(str(p.label))} for p in cleaning.kept],
        ),
        TAKEN_OUT: (("path", "reason", "detail"), _taken_out(cleaning)),
        SUSPECTS: (("path", "detail"), [_suspect(finding) for finding in cleaning.suspects]),
    }
    for name, (columns, rows) in tables.items():
        with whole_file(folder / name) as temporary:
            write_table(temporary, columns, rows)
    with whole_file(folder / RESULT) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(as_json(made)), indent=2) + b"\n")


def as_json(made: Experiment) -> dict[str, object]:
    """An experiment as extra-data.json and `--json` show it."""
    verdict, cleaning = made.verdict, made.cleaning
    return {
        "verdict": verdict.word,
        "difference": verdict.top1.difference.value,
        "interval": verdict.top1.difference.interval,
        "p": verdict.top1.p,
        "better": verdict.top1.better,
        "worse": verdict.top1.worse,
        "photos": verdict.photos,
        "pictures": verdict.pictures,
        "photos_to_tell": None if verdict.enough is None else verdict.enough.photos,
        "seeds_to_tell": None if verdict.enough is None else verdict.enough.seeds,
        "top1_without": verdict.without,
        "top1_with": verdict.added,
        "log_loss": {
            "without": verdict.log_loss_without,
            "with": verdict.log_loss_added,
            "difference": verdict.log_loss.difference.value,
            "interval": verdict.log_loss.difference.interval,
            "p": verdict.log_loss.p,
        },
        "per_class": verdict.per_class,
        "classes": made.classes,
        "added": len(cleaning.kept),
        "taken_out": {"counts": cleaning.counts, "photos": _taken_out(cleaning)},
        "suspects": [_suspect(finding) for finding in cleaning.suspects],
        "refused": [{"name": printable(entry.name), "reason": printable(entry.reason)} for entry in made.refused],
        "unreadable": [{"path": absolute(path), "reason": printable(reason)} for path, reason in made.unreadable],
        "base": made.base,
        "extra": made.extra,
        "settings": made.settings,
        "seeds": made.seeds,
        "versions": made.versions,
        "runtime": made.runtime,
        "made": made.made,
    }


def _taken_out(cleaning: Cleaning) -> list[dict[str, str]]:
    rows = (asdict(entry) for entry in cleaning.taken_out)
    return [{**row, "path": absolute(row["path"]), "detail": printable(row["detail"])} for row in rows]


def _suspect(finding: Finding) -> dict[str, str]:
    return {"path": absolute(finding.photos[0]), "detail": printable(finding.detail)}
