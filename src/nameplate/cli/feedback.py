"""`nameplate feedback`: users' corrections, kept by `nameplate serve --feedback`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nameplate.cli import screen
from nameplate.cli.app import app
from nameplate.cli.ending import needs_extra
from nameplate.cli.options import Json
from nameplate.errors import UsageError

if TYPE_CHECKING:
    from nameplate.serve.feedback.database import Status
    from nameplate.serve.feedback.export import ExportSummary
    from nameplate.serve.feedback.store import Deleted, Entry, FeedbackStore

VARIABLE = "NAMEPLATE_FEEDBACK"
SHOWN = 50
"""Corrections that `list` shows."""
ID_SHOWN = 8
"""Of an id; enough to name one by."""
DATABASE_HELP = "A SQLite file, or postgresql://USER@HOST/NAME."

feedback = typer.Typer(
    help="Manage users' corrections: list, accept, reject, delete, and export them as training data.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(feedback, name="feedback")

Database = Annotated[str, typer.Argument(metavar="DATABASE", envvar=VARIABLE, help=DATABASE_HELP, show_default=False)]
DatabaseOption = Annotated[str, typer.Option("--database", metavar="DATABASE", envvar=VARIABLE, help=DATABASE_HELP)]
Ids = Annotated[
    list[str], typer.Argument(metavar="ID", help="The correction's ID, or the beginning of it.", show_default=False)
]
STATUS_HELP = "new, accepted or rejected."
DATES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]


@contextmanager
def opened(database: str, *, create: bool = False) -> Iterator[FeedbackStore]:
    """The store in a database.

    Raises:
        NameplateError: not there, not to be opened, or a package is missing.
    """
    with needs_extra("serve", "Corrections need"):
        from nameplate.serve.feedback.store import FeedbackStore
    with FeedbackStore.open(database, create=create) as store:
        yield store


@feedback.command("list")
def list_(
    database: Database,
    status: Annotated[
        str | None, typer.Option(metavar="STATUS", help=f"Only corrections with this status: {STATUS_HELP}")
    ] = None,
    client: Annotated[str | None, typer.Option(metavar="NAME", help="Only corrections sent with this API key.")] = None,
    newest: Annotated[
        int | None,
        typer.Option(min=1, help="How many corrections to show at most.", show_default=f"{SHOWN}; all with --json"),
    ] = None,
    json: Json = False,
) -> None:
    """Show corrections, newest first."""
    with opened(database) as store:
        chosen = None if status is None else _status(status)
        found = list(store.entries(status=chosen, client=client, newest=newest or (None if json else SHOWN)))
    if json:
        screen.print_json(found)
        return
    _print(found)
    if newest is None and len(found) == SHOWN:
        screen.notes.print(f"The newest {SHOWN}; --newest shows more.")


@feedback.command()
def accept(database: DatabaseOption, ids: Ids, json: Json = False) -> None:
    """Accept corrections: they are right."""
    _moderate(database, ids, "accepted", json=json)


@feedback.command()
def reject(database: DatabaseOption, ids: Ids, json: Json = False) -> None:
    """Reject corrections: they are wrong and are not exported."""
    _moderate(database, ids, "rejected", json=json)


@feedback.command()
def delete(
    database: DatabaseOption,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", show_default=False)] = None,
    client: Annotated[
        str | None, typer.Option(metavar="NAME", help="Delete everything that was sent with this API key.")
    ] = None,
    before: Annotated[
        datetime | None,
        typer.Option(metavar="DATE", formats=DATES, help="Delete everything that was sent before this date (UTC)."),
    ] = None,
    json: Json = False,
) -> None:
    """Delete corrections for good, and photos that no correction refers to any more."""
    if sum((bool(ids), client is not None, before is not None)) != 1:
        raise UsageError("Say what to delete, one of: ID..., --client NAME, --before DATE.")
    with opened(database) as store:
        if ids:
            gone = store.delete_ids(ids)
        elif client is not None:
            gone = store.delete_client(client)
        else:
            assert before is not None
            gone = store.delete_before(_utc(before))
    _tell_deleted(gone, json=json)


@feedback.command()
def migrate(database: Database, json: Json = False) -> None:
    """Create a database or migrate it to the current schema, as 'nameplate serve' does when it starts."""
    with opened(database, create=True) as store:
        name = store.name
    if json:
        screen.print_json({"database": name})
    else:
        screen.out.print(f"Up to date: {name}")


@feedback.command()
def export(
    database: Database,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="The folder for the photos and their table.")
    ],
    status: Annotated[
        list[str] | None,
        typer.Option(metavar="STATUS", help=f"Only those: {STATUS_HELP} Repeatable.", show_default="new and accepted"),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(metavar="DATE", formats=DATES, help="Only corrections sent since this date (UTC)."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only corrections of answers by this model.")
    ] = None,
    include_conflicts: Annotated[
        bool, typer.Option("--include-conflicts", help="Include photos for which users gave different nameplates.")
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing folder.")] = False,
    json: Json = False,
) -> None:
    """Export corrections as a data set for 'train' and 'extra-data'."""
    from nameplate.data.inputs import refuse_overwriting_input

    refuse_overwriting_input([output], [database])
    with opened(database) as store:
        from nameplate.serve.feedback.export import Selection
        from nameplate.serve.feedback.export import export as write

        selection = Selection(
            tuple(_status(name) for name in dict.fromkeys(status)) if status else Selection().statuses,
            None if since is None else _utc(since),
            model,
            include_conflicts,
        )
        with screen.progress() as report:
            made = write(store, output, selection, overwrite=overwrite, progress=lambda a, b: report("export", a, b))
    if made.unmoderated:
        screen.note("unmoderated", f"{made.unmoderated:,} of {made.photos:,} photos: nobody has accepted their names")
    if json:
        screen.print_json({"output": str(output), **asdict(made)})
    else:
        _print_exported(made, output)


def _status(text: str) -> Status:
    from nameplate.serve.feedback.database import STATUSES

    for status in STATUSES:
        if text == status:
            return status
    raise UsageError(f"A status is one of {', '.join(STATUSES)}, not '{text}'.")


def _moderate(database: str, ids: Sequence[str], status: Status, *, json: bool) -> None:
    with opened(database) as store:
        changed = store.set_status(ids, status)
    if json:
        screen.print_json({status: changed})
    else:
        screen.out.print(f"{changed:,} {status}")


def _tell_deleted(gone: Deleted, *, json: bool) -> None:
    if json:
        screen.print_json({"corrections": gone.corrections, "photos": gone.photos})
    else:
        screen.out.print(f"Deleted {gone.corrections:,} corrections and {gone.photos:,} photos")


def _utc(event: datetime) -> datetime:
    return event.replace(tzinfo=UTC)


def _print(entries: Sequence[Entry]) -> None:
    rows = []
    for entry in entries:
        named = f"{entry.predicted or '–'}{'' if entry.confidence is None else f' ({100 * entry.confidence:.0f} %)'}"
        row = (entry.id[:ID_SHOWN], f"{entry.time:%Y-%m-%d %H:%M}", entry.status, entry.nameplate, named, entry.client)
        rows.append((*row, " ".join(entry.comment.split())))
    screen.print_table(("id", "time (UTC)", "status", "nameplate", "was named", "client", "comment"), rows)


def _print_exported(made: ExportSummary, output: Path) -> None:
    for reason, count in made.left_out.items():
        screen.step("Left out", f"{count:,}× {reason}")
    screen.step(
        "Wrote",
        f"{output}: {made.photos:,} photos of {len(made.nameplates):,} nameplates, {made.corrections:,} corrections",
    )
    screen.step("Look", f"nameplate audit '{output}'")
    screen.step("Next", f"nameplate extra-data DATA '{output}' -o TRIAL")
