"""The result of an experiment with further photos: its tables, its JSON, its sentences and its HTML report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from nameplate.audit.inspect import Finding
from nameplate.data.archive import Refused
from nameplate.data.tables import write_table
from nameplate.experiments.further import NO_CAR, UNREAD, ClassMap, Cleaning, TakenOut
from nameplate.experiments.verdict import ClassVerdict, ExtraDataVerdict
from nameplate.report.compare import forest_plot, runs_plot
from nameplate.report.page import file_thumbnail_uri, fill, in_notebook, light_and_dark, write_html
from nameplate.storage import absolute, printable, whole_file
from nameplate.types import Metric

EXTRA, TAKEN_OUT, SUSPECTS, RESULT = "extra.csv", "taken-out.csv", "suspects.csv", "extra-data.json"


@dataclass(frozen=True, slots=True)
class Experiment:
    """The result of an experiment."""

    verdict: ExtraDataVerdict
    classes: ClassMap
    cleaning: Cleaning
    refused: tuple[Refused, ...]
    """Files of both data sets that were refused: not photos by their names, or listed wrongly."""
    unreadable: tuple[tuple[str, str], ...]
    """Path and reason of each photo of BASE that could not be read."""
    base: dict[str, object]
    """Numbers and digest of the photos of BASE."""
    extra: dict[str, object]
    """Numbers of the photos of EXTRA, and the digest of those that were added."""
    settings: dict[str, object]
    """The content of settings.json."""
    seeds: tuple[int, ...]
    versions: dict[str, str]
    runtime: str
    """The runtime that computed the embeddings of both models."""
    made: str
    """Time of the end, ISO 8601 in UTC."""

    def _repr_html_(self) -> str:
        return in_notebook(_page(self))


def write_result(folder: Path, made: Experiment) -> None:
    """Write the tables and extra-data.json, each file atomically.

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
    """An experiment as plain data for extra-data.json and `--json`. Its keys must not change."""
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


# The verdict in sentences, for the report and for the terminal.

FEW = 6
"""Largest number of nameplates that a sentence lists."""


def headline(verdict: ExtraDataVerdict) -> str:
    """The verdict in a short sentence."""
    return {
        "helps": "The further photos help",
        "hurts": "The further photos hurt",
        "cannot be told": "Whether they help cannot be told",
    }[verdict.word]


def how_to_tell(verdict: ExtraDataVerdict) -> str:
    """How many photos would make a difference of this size significant; empty where it is significant."""
    enough = verdict.enough
    if verdict.word != "cannot be told":
        return ""
    if enough is None:
        return "Both models have the same top-1, so there is no difference that more photos could show."
    size, photos = f"{100 * abs(verdict.top1.difference.value):.2g} points", _round(enough.photos)
    more = _round(max(1, enough.photos - verdict.photos))
    seeds = f", and {_round(enough.seeds)} seeds" if enough.seeds > len(verdict.without) else ""
    return (
        f"To detect a difference of {size}, about {photos} evaluation photos are needed, {more} more than there "
        f"are{seeds}. A difference of that size may not matter."
    )


def about_classes(verdict: ExtraDataVerdict) -> str:
    """A sentence on the nameplates whose top-1 changes significantly."""
    gain, lose = _of(verdict, "helps"), _of(verdict, "hurts")
    significant = [text for text in (_listed(gain, "gain"), _listed(lose, "lose")) if text]
    rest = len(verdict.per_class) - len(gain) - len(lose)
    if not significant:
        return f"The difference is not significant for any of the {rest:,} nameplates alone."
    return f"{'; '.join(significant)}.{f' For the other {rest:,} the difference is not significant.' if rest else ''}"


def points(difference: Metric) -> str:
    """A difference in points: `+6.3 points (95 % interval +3.1 … +9.5)`."""
    value, low, high = (f"{100 * part:+.1f}".replace("-", "−") for part in (difference.value, *difference.interval))
    return f"{value} points (95 % interval {low} … {high})"


def chance(p: float) -> str:
    """A p-value as text: `p = 0.031`, `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _of(verdict: ExtraDataVerdict, word: str) -> list[ClassVerdict]:
    found = [each for each in verdict.per_class if each.word == word]
    return sorted(found, key=lambda each: -abs(each.difference.value))


def _listed(found: list[ClassVerdict], verb: str) -> str:
    names = [f"{each.nameplate} ({100 * each.difference.value:+.0f})".replace("(-", "(−") for each in found[:FEW]]
    more = f" and {len(found) - FEW:,} more" if len(found) > FEW else ""
    return f"{', '.join(names)}{more} {verb + 's' if len(found) == 1 else verb}" if found else ""


def _round(photos: int) -> str:
    """Rounded to two digits, because such estimates are not more precise."""
    scale = 10 ** max(0, len(str(photos)) - 2)
    return f"{round(photos / scale) * scale:,}"


# The HTML report.

PAGE = "index.html"
SHOWN = 24
"""Number of photos of each kind in the report; the tables list all of them."""
ROWS = 40
"""Number of nameplates in the plot: significant differences first, then the largest ones."""


def write_extra_page(folder: Path, made: Experiment) -> None:
    """Write index.html atomically; it contains all images.

    Raises:
        WriteError: the folder cannot be written to.
    """
    write_html(folder / PAGE, _page(made))


def _page(made: Experiment) -> str:
    verdict = made.verdict
    rows = sorted(verdict.per_class, key=lambda each: (each.word == "cannot be told", -abs(each.difference.value)))
    drawn = sorted(rows[:ROWS], key=lambda each: -each.difference.value)
    taken = _spread(made.cleaning.taken_out)
    return fill(
        "extra-data.html",
        made=made,
        verdict=verdict,
        tone={"helps": "good", "hurts": "wrong"}.get(verdict.word, "unknown"),
        headline=headline(verdict),
        difference=points(verdict.top1.difference),
        chance=chance(verdict.top1.p),
        how_to_tell=how_to_tell(verdict),
        classes=about_classes(verdict),
        runs=light_and_dark(lambda dark: _runs(made, dark)),
        forest=light_and_dark(lambda dark: _forest(drawn, dark)),
        drawn=len(drawn),
        taken=[(entry.reason, _name(entry.path), _detail(entry), file_thumbnail_uri(entry.path)) for entry in taken],
        suspects=[
            (_name(f.photos[0]), f.detail, file_thumbnail_uri(f.photos[0])) for f in made.cleaning.suspects[:SHOWN]
        ],
        facts=_facts(made),
        tables={"extra": EXTRA, "taken_out": TAKEN_OUT, "suspects": SUSPECTS},
    )


def _runs(made: Experiment, dark: bool) -> bytes:
    verdict = made.verdict
    return runs_plot(("without", "with"), verdict.without, verdict.added, verdict.top1.difference, dark=dark)


def _forest(drawn: Sequence[ClassVerdict], dark: bool) -> bytes:
    names = [f"{each.nameplate} ({each.photos})" for each in drawn]
    significant = [each.word != "cannot be told" for each in drawn]
    return forest_plot(names, [each.difference for each in drawn], significant, dark=dark)


def _spread(taken: Sequence[TakenOut]) -> list[TakenOut]:
    """Some photos of each reason, so that a frequent reason does not hide the others."""
    reasons = list(dict.fromkeys(entry.reason for entry in taken))
    each = max(1, SHOWN // max(1, len(reasons)))
    return [entry for reason in reasons for entry in [e for e in taken if e.reason == reason][:each]]


def _name(path: str) -> str:
    """The name of a file with its folder, which is often the nameplate."""
    return printable("/".join(Path(path).parts[-2:]))


def _detail(entry: TakenOut) -> str:
    """What is wrong with a photo, or which photo it is a copy of."""
    return entry.detail if entry.reason in (UNREAD, NO_CAR) else f"as {_name(entry.detail)}"


def _facts(made: Experiment) -> list[tuple[str, str]]:
    recipe, backbone = made.settings["recipe"], made.settings["backbone"]
    assert isinstance(recipe, dict)
    assert isinstance(backbone, dict)
    return [
        ("recipe", str(recipe["name"])),
        ("embeddings by", str(backbone["name"])),
        ("seeds", ", ".join(map(str, made.seeds))),
        ("BASE", f"{made.base['photos']:,} photos, {made.base['trained']:,} of them train"),
        ("judging", f"{made.verdict.photos:,} photos, {made.verdict.pictures:,} without copies"),
        ("EXTRA", f"{made.extra['photos']:,} photos, {made.extra['added']:,} of them added"),
        ("SHA-256", f"{str(made.base['sha256'])[:16]}… (BASE), {str(made.extra['sha256'])[:16]}… (EXTRA)"),
        ("made", f"{made.made}, Nameplate {made.versions['nameplate']}"),
    ]
