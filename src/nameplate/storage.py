"""Files written whole or not at all, and the one folder outside the user's own that is ever written to."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from nameplate.errors import DataError, NameplateError, WriteError

# C0, DEL and C1; then bytes that are no UTF-8, the marks of Unicode's bidirectional algorithm, and its separators.
_MARKS = "\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_DRIVES = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_MARKS}]")
_DRIVES_OR_BREAKS = re.compile(f"[\x00-\x1f\x7f-\x9f\u2028\u2029{_MARKS}]")
TEXT_BYTES = 256 * 1024**2
"""Of a list or a file of names: two million paths of a hundred letters are less."""


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256 of some bytes."""
    return hashlib.sha256(data, usedforsecurity=False).hexdigest()


def printable(path: str) -> str:
    r"""A path as text that can be written anywhere: bytes that are no UTF-8 become `\xNN`, halves of letters, which a
    list in JSON may hold, `\uNNNN`.
    """
    try:
        return os.fsencode(path).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # no file has such a name
        return path.encode("utf-8", "backslashreplace").decode("utf-8")


def without_controls(text: str) -> str:
    r"""Text that drives no terminal: control characters and marks that turn the direction of writing become `\xNN` or
    `\uNNNN`; line breaks and tabs stay.

    >>> without_controls("a\x1b[31mb\n")
    'a\\x1b[31mb\n'
    """
    return _DRIVES.sub(_escaped, text)


def one_line(text: str) -> str:
    r"""The same in one line: breaks in it become `\n`, as they may stand in a file's name.

    >>> one_line("a\nerror: b")
    'a\\nerror: b'
    """
    return _DRIVES_OR_BREAKS.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    byte = ord(found[0]) - 0xDC00  # as the file system gives what is no UTF-8
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else found[0].encode("unicode_escape").decode("ascii")


def nfc(text: str) -> str:
    """A name in the one form that all names have inside: composed (Unicode's NFC), since macOS writes folder names
    decomposed, and "ё" of two signs is not "ё" of one. Every name that comes in from outside goes through here.

    >>> len("\u0435\u0308"), len(nfc("\u0435\u0308"))
    (2, 1)
    """
    return unicodedata.normalize("NFC", text)


def absolute(path: str | Path) -> str:
    """A path that means the same from anywhere, as text that can be written anywhere; links stay as they are."""
    return printable(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file to read, the one way in which anything of a user's is opened: never a device, which may have no end,
    nor a named pipe, which may hold its reader for ever.

    Raises:
        OSError: it cannot be opened, or is no regular file (`strerror` says so).
        ValueError: no file can have this name.
    """
    file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115 - the caller closes it
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_text(path: Path) -> str:
    """A small text file of a user's, UTF-8 with or without a BOM.

    Raises:
        DataError: it cannot be read, is longer than `TEXT_BYTES`, or is not UTF-8.
    """
    try:
        with open_regular(path) as file:
            data = file.read(TEXT_BYTES + 1)
        if len(data) > TEXT_BYTES:
            raise DataError(f"Cannot read '{path}': it is longer than {TEXT_BYTES:,} bytes, the limit for a list.")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"'{path}' must be UTF-8 text ({error.reason} at byte {error.start}).") from None
    except (OSError, ValueError) as error:
        raise DataError(f"Cannot read '{path}': {getattr(error, 'strerror', None) or error}.") from None


def cache_folder() -> Path:
    """Where embeddings, unpacked archives and runtime checks are kept: `$XDG_CACHE_HOME/nameplate`.

    Safe to delete at any time. `NAMEPLATE_CACHE` names another place. Source: XDG Base Directory
    Specification 0.8, freedesktop.org.
    """
    if own := os.environ.get("NAMEPLATE_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "nameplate"


@contextmanager
def whole_file(target: Path, *, mode: int | None = None) -> Iterator[Path]:
    """A path to write to, which becomes `target` when the block ends well and is removed when it does not.

    `mode` is the file's permissions (0o600: its owner's alone, at no moment anybody else's); None leaves them
    to the umask.

    Raises:
        WriteError: the folder cannot be written to, the disk is full, or `target` is a device or a pipe.
    """
    if _is_special(target):  # it would be replaced by a file
        raise WriteError(f"Cannot write '{target}': it is a device or a pipe. Choose a file's name.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    except OSError as error:
        raise WriteError(f"Cannot write '{target}': {error.strerror or error}.") from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        temporary.chmod(0o666 & ~_umask() if mode is None else mode)
        temporary.replace(target)
    except OSError as error:  # from inside the block as well: a full disk
        raise WriteError(f"Cannot write '{target}': {error.strerror or error}.") from None
    finally:
        temporary.unlink(missing_ok=True)


def _is_special(path: Path) -> bool:
    if path.is_symlink() and str(path.readlink()).startswith("/proc/"):  # /dev/stdout, whatever that leads to
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


@contextmanager
def whole_folder(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to fill, which becomes `target` when the block ends well and is removed when it does not.

    Raises:
        NameplateError: `target` is there already and `overwrite` is false, or its parent cannot be written.
    """
    if target.exists() and not overwrite:
        raise NameplateError(f"'{target}' is there already. Choose another name, or pass --overwrite.")
    if target.exists() and not target.is_dir():
        raise NameplateError(f"'{target}' is a file, not a folder. Choose another name.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    except OSError as error:
        raise WriteError(f"Cannot write '{target}': {error.strerror or error}.") from None
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
        temporary.chmod(0o777 & ~_umask())
        _replace_folder(temporary, target)
    except OSError as error:  # as above
        raise WriteError(f"Cannot write '{target}': {error.strerror or error}.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace_folder(new: Path, target: Path) -> None:
    """Put `new` in `target`'s place; not every system exchanges folders, so the old one steps aside."""
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
