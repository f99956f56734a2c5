"""How a command ends: its exit code, and one line that says why it failed, whatever failed."""

from __future__ import annotations

import io
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from nameplate.cli.screen import note, notes, tell_error
from nameplate.errors import NameplateError, UsageError

DEBUG = "NAMEPLATE_DEBUG"
"""The environment variable that, set to 1, shows the traceback of a fault in Nameplate itself."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""
STYLE = "bold red"
"""The style of the word before an error."""


def run(command: Callable[[], object]) -> int:
    """Run a command, print in one line why it failed, and return its exit code.

    The codes are 0 done, 1 failed, 2 wrong usage, 130 interrupted. It is a failure if stdout cannot be written (a full
    disk), but not if its reader has closed the pipe (`| head`). Errors while writing to stderr are ignored, since a
    lost note is no reason to end a long job.
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
    """Print an unforeseen error in one line, and its traceback if `NAMEPLATE_DEBUG` is 1."""
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
        if error is out.failed:  # `run` reports it
            return 0 if isinstance(error, BrokenPipeError) else 1
        tell_fault(error)
        return 1


def _parsers(ended: SystemExit, out: _Output) -> int:
    """Return the parser's exit code, but ours for an interruption and for a closed pipe, which it reports as 1."""
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
    """Replace stdout and stderr by streams that can encode every character and remember why a write failed."""
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
    """The state of a stream that is written to."""

    lose: bool = False
    """Whether errors of writing are ignored."""
    failed: OSError | None = None
    """The first error of writing."""


def _over(stream: TextIO | None, output: _Output) -> TextIO:
    """Wrap a stream so that it remembers why a write failed; return other streams than plain files as is."""
    if stream is None:  # the caller started the command with this stream closed
        return open(os.devnull, "w")  # noqa: PTH123 - until the process ends
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.reconfigure(errors="backslashreplace")  # a terminal without Cyrillic shows \\u0430 instead of failing
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
    """A file that remembers the first error of writing."""

    output: _Output

    def write(self, data: Any) -> int:
        """Write as `FileIO` does, and remember an error."""
        try:
            return super().write(data)
        except OSError as error:
            self.output.failed = self.output.failed or error
            if self.output.lose:
                return len(data)
            raise


@contextmanager
def _told_of_threads() -> Iterator[None]:
    """Report an error in a thread as one in the command is reported."""
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
    """Return the last file and line of Nameplate in a traceback."""
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
    """Turn a failed import into an error that names the extra to install.

    Args:
        extra: the name of the extra.
        needing: the beginning of the error: "Training a network needs".

    Raises:
        NameplateError: a package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise NameplateError(
            f"{needing} more packages ('{error.name}' is missing): pip install 'nameplate[{extra}]'."
        ) from None


def needs_train_extra() -> AbstractContextManager[None]:
    """Guard imports of packages that only the extra `train` installs; see `needs_extra`."""
    return needs_extra("train", "Training a network needs")
