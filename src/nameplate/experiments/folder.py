"""A comparison's folder: what it holds, and what may be gone on with.

settings.json      what all rows have in common; another comparison is not mixed in
judged/NAME.json   a row and its answers photo by photo, written when it is done
runs/NAME/         the run behind a row, where networks are trained
compare.json       all rows, the pairs and the versions; with compare.csv and index.html written anew after each row
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from nameplate.errors import NameplateError, UsageError
from nameplate.experiments.contenders import Contender, Tuned, file_name
from nameplate.experiments.judged import Answers
from nameplate.reports.compare import Row
from nameplate.storage import is_free, whole_file
from nameplate.training.run import RUN, load_run

SETTINGS, JUDGED, RUNS = "settings.json", "judged", "runs"
SCHEMA = 1
"""Version of the files' form."""


@dataclass(frozen=True, slots=True)
class Done:
    """judged/NAME.json."""

    schema: int
    contender: dict[str, object]
    row: Row
    answers: Answers


def refuse_folder(target: Path) -> None:
    """Keep a comparison from a folder that holds something else.

    Raises:
        NameplateError: it does.
    """
    if not is_free(target) and not (target / SETTINGS).is_file():
        raise NameplateError(f"'{target}' is there and is no comparison, so it is left alone. Choose another name.")


def begin(target: Path, settings: dict[str, object]) -> None:
    """Go on only with the same comparison; begin one where there is none.

    Raises:
        UsageError: another one is there.
    """
    path = target / SETTINGS
    if not path.exists():
        with whole_file(path) as temporary:
            temporary.write_bytes(msgspec.json.encode(settings))
        return
    try:
        before = msgspec.json.decode(path.read_bytes(), type=dict[str, object])
    except (OSError, msgspec.DecodeError):
        raise NameplateError(f"'{path}' is damaged. Choose another --output, or pass --overwrite.") from None
    for key in {**settings, **before}:
        if settings.get(key) != before.get(key):
            raise UsageError(
                f"'{target}' is a comparison with {key} {before.get(key)}, not {settings.get(key)}. "
                "Choose another --output, or pass --overwrite."
            )


def load_done(target: Path, contender: Contender) -> Done | None:
    """What was judged before, None where nothing was, or it cannot be read.

    Raises:
        UsageError: it is something else under the same name.
    """
    other = UsageError(
        f"'{target}' holds another '{contender.name}', of other settings. Choose another --output, or pass --overwrite."
    )
    if isinstance(contender, Tuned):
        run = run_folder(target, contender)
        if (run / RUN).is_file() and load_run(run).recipe != contender.recipe:
            raise other
    path = _file(target, contender)
    if not path.exists():
        return None
    try:
        done = msgspec.json.decode(path.read_bytes(), type=Done)
    except (OSError, msgspec.DecodeError):
        return None
    if done.contender != described(contender):
        raise other
    return done if done.schema == SCHEMA else None


def save_done(target: Path, contender: Contender, row: Row, answers: Answers) -> Done:
    """Keep what was judged.

    Raises:
        WriteError: the folder cannot be written to.
    """
    done = Done(SCHEMA, described(contender), row, answers)
    with whole_file(_file(target, contender)) as temporary:
        temporary.write_bytes(msgspec.json.encode(done))
    return done


def run_folder(target: Path, contender: Tuned) -> Path:
    """Where a network's run lies."""
    return target / RUNS / file_name(contender.name)


def _file(target: Path, contender: Contender) -> Path:
    return target / JUDGED / f"{file_name(contender.name)}.json"


def described(contender: Contender) -> dict[str, object]:
    """A contender as JSON holds it."""
    return msgspec.json.decode(msgspec.json.encode(contender), type=dict[str, object])
