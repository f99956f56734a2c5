"""The options of commands that can run on Ray."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nameplate.batch.cluster import LOCAL, is_address
from nameplate.cli import screen
from nameplate.errors import UsageError

# JOINED The help as the parser would not write it by itself: whole summaries, and no types of Python's.


def as_command(app: typer.Typer) -> Any:
    """The parser of an app, ready to be called with the words of a command line."""
    for each in (app, *(group.typer_instance for group in app.registered_groups)):
        if each is None:
            continue
        if each is not app:
            each.info.short_help = each.info.help
        for command in each.registered_commands:
            command.short_help = summary(command.callback)
    made = typer.main.get_command(app)
    _show_plainly(made)
    return made


def summary(callback: object) -> str:
    """The first sentence of a command's docstring: the parser would cut it where the line ends."""
    return re.split(r"(?<=\.)\s", inspect.getdoc(callback) or "", maxsplit=1)[0]


def _show_plainly(command: Any) -> None:
    """Arguments are shown by their names alone, which say what they are: no `DATA <list[Path]>`."""
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = lambda **_: None
    for inner in getattr(command, "commands", {}).values():
        _show_plainly(inner)


# JOINED What is wrong with a command line before it is taken apart.


TAKE_ADDRESSES = ("predict", "serve", "feedback")
"""Commands that read addresses, and say themselves which."""
ADDRESS = re.compile(r"(--[a-z-]+=)?(?P<address>[A-Za-z][A-Za-z0-9+.-]*://.*)", re.DOTALL)


def refuse_addresses(words: Sequence[str]) -> list[str]:
    """A command line as it is, if it names no address where only files are read: a path would lose its second `/`.

    Raises:
        UsageError: it does.

    >>> refuse_addresses(["identify", "a.jpg"])
    ['identify', 'a.jpg']
    """
    command = next((word for word in words if not word.startswith("-")), "")
    for before, word in zip(["", *words], words, strict=False):
        found = ADDRESS.fullmatch(word)
        if found and command not in TAKE_ADDRESSES and before != "--ray" and not word.startswith("--ray="):
            raise UsageError(
                f"'{found['address']}' is an address, and '{command}' reads files: nothing is fetched. "
                "Download it first, and give the file."
            )
    return list(words)


RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="[ADDRESS]",
        help="Work on Ray: one that is started on this machine, or a cluster: auto, HOST:PORT or ray://HOST:PORT.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="With --ray: processes, of --threads processors each.", show_default="as many as fit"),
]


def with_address(arguments: Sequence[str]) -> list[str]:
    """A command line in which every `--ray` has its address: the parser knows no option whose value may be absent.

    >>> with_address(["predict", "--ray", "photos", "--ray", "auto"])
    ['predict', '--ray', 'local', 'photos', '--ray', 'auto']
    """
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    found: list[str] = []
    for place, word in enumerate(arguments):
        found.append(word)
        following = arguments[place + 1] if place + 1 < end else ""
        if word == "--ray" and place < end and not is_address(following):
            found.append(LOCAL)
    return found


def check_ray(ray: str | None, workers: int | None) -> None:
    """Refuse what does not go together.

    Raises:
        UsageError: workers without Ray, or no address.
    """
    if workers is not None and ray is None:
        raise UsageError("--workers are Ray's: add --ray.")
    if ray is not None and not is_address(ray):
        raise UsageError(f"'{ray}' is no address of a Ray cluster: give auto, HOST:PORT or ray://HOST:PORT.")


# JOINED Labelled photos read for a command, and what was merged, matched or taken in one of several ways told at once.


if TYPE_CHECKING:
    from nameplate.data.dataset import Dataset
    from nameplate.evaluate.evaluator import EvaluationResult
    from nameplate.fit.split import Split


def read_labelled(
    data: Sequence[Path],
    names: Path | None,
    exclude: Path | None,
    layout: str,
    report: Callable[[str, int, int], None],
) -> Dataset:
    """`read_dataset` with a command's options; its notes, and what it left out, are told before anything else can
    fail.
    """
    from nameplate.data import read_dataset

    def unpacked(done: int, total: int) -> None:
        report("unpack", done, total)

    dataset = read_dataset(*data, names=names, exclude=exclude, layout=layout, progress=unpacked)
    tell(dataset)
    return dataset


def tell(dataset: Dataset) -> None:
    """How a data set was read, and what it left out."""
    tell_notes(dataset.notes)
    screen.tell_left_out(dataset.refused)


def tell_notes(notes: Iterable[str]) -> None:
    """How the data was read."""
    for note in notes:
        screen.note("data", note)


def tell_parts(split: Split) -> None:
    """Which photos and nameplates neither train nor judge, each nameplate with its count."""
    for sentence in split.notes:
        screen.note("left out", sentence)
    if split.contradictory:
        screen.note(
            "data",
            f"{split.contradictory:,} photos are exact copies of one under another nameplate; "
            "'nameplate audit' names them.",
        )


def as_json(dataset: Dataset) -> dict[str, object]:
    """How the data was read, for `--json`."""
    return {"read_as": dataset.kinds, "notes": dataset.notes}


def left_out_json(
    refused: Sequence[tuple[str, str]], split: Split, unreadable: Sequence[tuple[str, str]]
) -> list[dict[str, str]]:
    """All that neither trains nor judges: paths and reasons, for `--json`."""
    apart = [(entry.name, entry.reason) for entry in split.left_out]
    return screen.left_out_json((), (*refused, *unreadable, *apart))


def tell_unjudged(judged: EvaluationResult) -> None:
    """Nameplates that an evaluation says nothing of, each with its count."""
    for nameplate, photos in judged.unknown[: screen.LINES]:
        alike = [name for name in judged.nameplates if name.casefold().split() == nameplate.casefold().split()]
        near = f"; it knows '{alike[0]}'" if alike else ""
        screen.note(
            "left out",
            f"{nameplate}: {screen.counted(photos, 'photo')}, of a nameplate that the model does not know{near}",
        )
    for nameplate, photos in judged.lost[: screen.LINES]:
        screen.note(
            "not judged",
            f"{nameplate}: {screen.counted(photos, 'photo')}, which all trained this model or cannot be read",
        )
    if len(judged.lost) > screen.LINES:
        screen.notes.print(f"… and {len(judged.lost) - screen.LINES:,} more nameplates not judged")
