"""How a command ends: its exit code, and one line where it fails, whatever failed."""

from __future__ import annotations

import io
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from nameplate.cli.screen import note, notes, tell_error
from nameplate.errors import NameplateError, UsageError

DEBUG = "NAMEPLATE_DEBUG"
"""Set to 1 it shows the traceback of what is a fault in Nameplate."""
INTERRUPTED = 130
STYLE = "bold red"
"""Of the word before an error."""


def run(command: Callable[[], object]) -> int:
    """Run a command, say in one line why it failed, and give its exit code.

    0 done, 1 failed, 2 wrong usage, 130 interrupted. What stdout cannot take (a full disk) is a failure; that its
    reader has gone, `head` say, is none. What stderr cannot take is lost: notes are no reason to end a long job.
    """
    with _streams() as out, _told_of_threads():
        code = _outcome(command, out)
        with suppress(OSError):
            sys.stdout.flush()
        if out.failed is None or isinstance(out.failed, BrokenPipeError):
            return code
        note("error", f"Cannot write the output: {out.failed.strerror or out.failed}.", STYLE)
        return 1


def tell_fault(error: BaseException) -> None:
    """Say in one line what failed that Nameplate did not foresee; all of it where `NAMEPLATE_DEBUG` is 1."""
    if os.environ.get(DEBUG) == "1":
        with suppress(OSError):
            traceback.print_exception(error)
    if isinstance(error, MemoryError):
        note(
            "error", f"There is not enough memory{_told(error)}. Close other programs, or give fewer --threads.", STYLE
        )
        return
    how = f"Run the command again with {DEBUG}=1 and report what it shows."
    note("error", f"This is a fault in Nameplate, {_place(error)}: {type(error).__name__}{_told(error)}. {how}", STYLE)


def _outcome(command: Callable[[], object], out: _Output) -> int:
    try:
        command()
        return 0
    except SystemExit as ended:
        return _parsers(ended, out)
    except NameplateError as error:
        tell_error(error, STYLE)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:
        if error is out.failed:  # `run` tells
            return 0 if isinstance(error, BrokenPipeError) else 1
        tell_fault(error)
        return 1


def _parsers(ended: SystemExit, out: _Output) -> int:
    """The exit code that the parser gives; it has its own for interruptions and for a reader that has gone."""
    because = ended.__context__
    if because is not None and isinstance(because.__cause__, KeyboardInterrupt):
        return _interrupted()
    if isinstance(because, BrokenPipeError) and because is out.failed:
        return 0
    return ended.code if isinstance(ended.code, int) else int(ended.code is not None)


def _interrupted() -> int:
    notes.print("Interrupted. What was done is kept: run the same command to go on.")
    return INTERRUPTED


@contextmanager
def _streams() -> Iterator[_Output]:
    """Standard output and errors as text that never fails for want of a letter; there even where they were closed."""
    before, failing = (sys.stdout, sys.stderr), _Output()
    sys.stdout, sys.stderr = _over(before[0], failing), _over(before[1], _Output(lose=True))
    try:
        yield failing
    finally:
        with suppress(OSError):
            sys.stderr.flush()
        sys.stdout, sys.stderr = before


@dataclass
class _Output:
    """What became of what was written to a stream."""

    lose: bool = False
    """Whether what cannot be written is lost without a word."""
    failed: OSError | None = None
    """The first failure."""


def _over(stream: TextIO | None, output: _Output) -> TextIO:
    """The same stream, with its failures noted; as it is where it is no plain file: a Windows console, a test's."""
    if stream is None:  # closed by who started the command
        return open(os.devnull, "w")  # noqa: PTH123 - until the process ends
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.reconfigure(errors="backslashreplace")  # a terminal without Cyrillic shows \\u0430 rather than fails
    if type(getattr(stream.buffer, "raw", stream.buffer)) is not io.FileIO:
        return stream
    stream.flush()
    plain = _Watched(stream.fileno(), "wb", closefd=False)
    plain.output = output
    buffer = io.BufferedWriter(plain)
    return io.TextIOWrapper(
        buffer, stream.encoding, stream.errors, line_buffering=stream.line_buffering, write_through=stream.write_through
    )


class _Watched(io.FileIO):
    """A file that remembers why it took no more."""

    output: _Output

    def write(self, data: Any) -> int:
        """As a file's own."""
        try:
            return super().write(data)
        except OSError as error:
            self.output.failed = self.output.failed or error
            if self.output.lose:
                return len(data)
            raise


@contextmanager
def _told_of_threads() -> Iterator[None]:
    """What fails in a thread is told as what fails in the command."""
    before = threading.excepthook

    def tell(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_value is not None and not isinstance(failed.exc_value, SystemExit):
            tell_fault(failed.exc_value)

    threading.excepthook = tell
    try:
        yield
    finally:
        threading.excepthook = before


def _place(error: BaseException) -> str:
    """The file and line of Nameplate's where it was raised, or from where it was called."""
    package = str(Path(__file__).parents[1])
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(package) and frame.filename != __file__
    ]
    if not frames:
        return "or in what it uses"
    return f"{Path(frames[-1].filename).relative_to(Path(package).parent).as_posix()}, line {frames[-1].lineno}"


def _told(error: BaseException) -> str:
    said = " ".join(str(error).split())
    return f" ({said if len(said) <= 300 else said[:300] + '…'})" if said else ""


@contextmanager
def needs_extra(extra: str, needing: str) -> Iterator[None]:
    """Imports inside it may be of packages that only an extra installs.

    Args:
        extra: its name.
        needing: what needs it, and the verb: "Training a network needs".

    Raises:
        NameplateError: one is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise NameplateError(
            f"{needing} more packages ('{error.name}' is missing): pip install 'nameplate[{extra}]'."
        ) from None
