"""`write_extra_page`: the verdict on further photos as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nameplate.experiments import words
from nameplate.experiments.cleaning import NO_CAR, UNREAD, TakenOut
from nameplate.experiments.result import EXTRA, SUSPECTS, TAKEN_OUT, Experiment
from nameplate.experiments.verdict import ClassVerdict
from nameplate.reports.differences import forest_plot, runs_plot
from nameplate.reports.page import day_and_night, file_thumbnail_uri, write_page
from nameplate.storage import printable

PAGE = "index.html"
SHOWN = 24
"""Pictures of each kind that the page shows; the tables list all."""
ROWS = 40
"""Nameplates in the plot: those that are told, then those that differ most."""


def write_extra_page(folder: Path, made: Experiment) -> None:
    """Write index.html, whole, with all pictures inside it.

    Raises:
        WriteError: the folder cannot be written to.
    """
    verdict = made.verdict
    rows = sorted(verdict.per_class, key=lambda each: (each.word == "cannot be told", -abs(each.difference.value)))
    drawn = sorted(rows[:ROWS], key=lambda each: -each.difference.value)
    taken = _spread(made.cleaning.taken_out)
    write_page(
        folder / PAGE,
        "extra-data.html",
        made=made,
        verdict=verdict,
        tone={"helps": "good", "hurts": "wrong"}.get(verdict.word, "unknown"),
        headline=words.headline(verdict),
        difference=words.points(verdict.top1.difference),
        chance=words.chance(verdict.top1.p),
        how_to_tell=words.how_to_tell(verdict),
        classes=words.about_classes(verdict),
        runs=day_and_night(lambda dark: _runs(made, dark)),
        forest=day_and_night(lambda dark: _forest(drawn, dark)),
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
    told = [each.word != "cannot be told" for each in drawn]
    return forest_plot(names, [each.difference for each in drawn], told, dark=dark)


def _spread(taken: Sequence[TakenOut]) -> list[TakenOut]:
    """Some of each reason, so that many of one do not hide the others."""
    reasons = list(dict.fromkeys(entry.reason for entry in taken))
    each = max(1, SHOWN // max(1, len(reasons)))
    return [entry for reason in reasons for entry in [e for e in taken if e.reason == reason][:each]]


def _name(path: str) -> str:
    """With its folder, which is often its nameplate."""
    return printable("/".join(Path(path).parts[-2:]))


def _detail(entry: TakenOut) -> str:
    """What is wrong with a photo, or which one it is a copy of."""
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
