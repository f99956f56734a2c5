"""`train --time-limit`: parses the limit, calls `experiments/auto.py`, and prints what it made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

import typer

from nameplate.cli import screen
from nameplate.cli.fine_tune import Read
from nameplate.cli.labelled import tell
from nameplate.errors import UsageError

if TYPE_CHECKING:
    from nameplate.data.dataset import Dataset
    from nameplate.experiments.auto import AutoResult, Screen
    from nameplate.experiments.time_plan import Preset

Limit = tuple[float, "Preset"]
"""Seconds, and the preset."""


def is_auto_run(folder: Path) -> bool:
    """Whether a folder is that of a run with a time limit."""
    from nameplate.experiments.auto import is_auto_run as known

    return known(folder)


def preset_of(limit: str, preset: str | None) -> Limit:
    """Parse both options.

    Raises:
        UsageError: one of them means nothing.
    """
    from nameplate.experiments.time_plan import PRESETS, parse_time

    if preset is not None and preset not in PRESETS:
        raise UsageError(f"--preset {preset}: give one of {', '.join(PRESETS)}.")
    return parse_time(limit), cast("Preset", preset or "good")


def train_auto(
    read: Read, output: Path, limit: Limit, *, overwrite: bool, runtime: str, threads: int | None, json: bool
) -> None:
    """Train what fits into the time, and report it."""
    from nameplate.experiments.auto import train_within
    from nameplate.model.model import Model

    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UsageError("--time-limit trains in one process: start it without torchrun.")
    seconds, preset = limit
    model = Model.load(runtime=runtime, threads=threads)
    refused: list[tuple[str, str]] = []

    def read_and_tell() -> Dataset:
        with screen.progress() as report:
            dataset = read(report)
        tell(dataset)
        refused.extend((entry.name, entry.reason) for entry in dataset.refused)
        return dataset

    try:
        made = train_within(read_and_tell, output, seconds, preset, model=model, overwrite=overwrite, screen=_screen())
    except KeyboardInterrupt:
        raise _interrupted(output) from None
    _tell(made, refused, json=json)


def resume_auto(run: Path, *, json: bool) -> None:
    """Go on with an interrupted run, and report as `train_auto` does."""
    from nameplate.experiments.auto import resume_within

    try:
        made = resume_within(run, screen=_screen())
    except KeyboardInterrupt:
        raise _interrupted(run) from None
    _tell(made, [], json=json)


def _screen() -> Screen:
    from nameplate.experiments.auto import Screen

    return Screen(screen.progress, lambda: screen.training(quiet=False), screen.notes.print)


def _interrupted(run: Path) -> typer.Exit:
    screen.note("interrupted", f"Go on where it was: nameplate train --resume '{run}'. The time used counts.")
    return typer.Exit(130)


def _tell(made: AutoResult, refused: list[tuple[str, str]], *, json: bool) -> None:
    from nameplate.evaluate.metrics import as_json
    from nameplate.experiments.auto import PAGE
    from nameplate.experiments.time_plan import in_words

    state = made.state
    screen.tell_refused(list(state.unreadable), "unreadable")
    if json:
        screen.print_json(
            {
                "run": str(made.folder),
                "bundle": str(made.bundle),
                "preset": state.preset,
                "limit": state.limit,
                "seconds": state.used,
                "chosen": state.chosen,
                "recipe": state.recipe,
                "option": state.option,
                "speed": state.speed,
                "tried": state.tried,
                "candidates": state.candidates,
                "reasons": state.notes,
                "evaluation": None if state.held_out is None else as_json(state.held_out),
                "left_out": screen.left_out_json((), (*refused, *state.unreadable)),
            }
        )
        return
    for each in state.tried:
        screen.step(in_words(each.seconds), f"{each.name}: {each.said}" if each.said else each.name)
    for one in state.candidates:
        screen.step(
            "Candidate", f"{one.name}: {one.top1.percent} of {one.photos:,} photos, log-loss {one.log_loss:.3f}"
        )
    for sentence in state.notes:
        screen.step("Why", sentence)
    if state.held_out is not None:
        screen.print_held_out(state.held_out)
    share = 100 * state.used / state.limit
    screen.step("Wrote", f"{made.folder}  ({in_words(state.used)} of {in_words(state.limit)}, {share:.0f} %)")
    screen.step("See", str((made.folder / PAGE).resolve()))
    screen.step("Next", f"nameplate identify --model '{made.folder}' PHOTO")
