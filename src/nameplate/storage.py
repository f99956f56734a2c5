"""Reading and writing files: atomic writes, locks between runs, the cache folder, and text that is safe to print."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from nameplate.errors import DataError, NameplateError, WriteError

# Control characters C0, DEL and C1; bytes that are not UTF-8; bidirectional marks; line and paragraph separators.
_MARKS = "\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_DRIVES = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_MARKS}]")
_DRIVES_OR_BREAKS = re.compile(f"[\x00-\x1f\x7f-\x9f\u2028\u2029{_MARKS}]")
TEXT_BYTES = 256 * 1024**2
"""Greatest size of a list or a file of names, in bytes. Two million paths of a hundred letters are less."""

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"
"""Name of the lock file in a folder that a run writes to over time."""


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256 of some bytes."""
    return hashlib.sha256(data, usedforsecurity=False).hexdigest()


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file, which is read in pieces.

    Raises:
        OSError: see `open_regular`.
        ValueError: see `open_regular`.
    """
    digest = hashlib.sha256(usedforsecurity=False)
    with open_regular(path) as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def printable(path: str) -> str:
    r"""A path as text that can be written anywhere.

    Bytes that are not UTF-8 become `\xNN`. Lone surrogates, which JSON may contain, become `\uNNNN`.
    """
    try:
        return os.fsencode(path).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # A lone surrogate; no file has such a name.
        return path.encode("utf-8", "backslashreplace").decode("utf-8")


def without_controls(text: str) -> str:
    r"""Text that cannot control a terminal.

    Control characters and bidirectional marks become `\xNN` or `\uNNNN`. Line breaks and tabs stay.

    >>> without_controls("a\x1b[31mb\n")
    'a\\x1b[31mb\n'
    """
    return _DRIVES.sub(_escaped, text)


def one_line(text: str) -> str:
    r"""`without_controls` in one line: line breaks, which the name of a file may contain, become `\n`.

    >>> one_line("a\nerror: b")
    'a\\nerror: b'
    """
    return _DRIVES_OR_BREAKS.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    byte = ord(found[0]) - 0xDC00  # Python decodes a byte that is not UTF-8 to U+DC80 … U+DCFF.
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else found[0].encode("unicode_escape").decode("ascii")


def counted(count: int, noun: str) -> str:
    """A count with its noun.

    >>> counted(1, "advert"), counted(2_000, "advert")
    ('1 advert', '2,000 adverts')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def nfc(text: str) -> str:
    """A name in Unicode NFC, the form that all names have inside Nameplate.

    macOS writes the names of folders in NFD, and "ё" of two code points is not equal to "ё" of one. Every name that
    comes from outside is passed through this function.

    >>> len("\u0435\u0308"), len(nfc("\u0435\u0308"))
    (2, 1)
    """
    return unicodedata.normalize("NFC", text)


def absolute(path: str | Path) -> str:
    """The absolute path, as text that can be written anywhere; links are not resolved."""
    return printable(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links


class NotRegularError(OSError):
    """A device, a named pipe or a folder is where a file should be."""


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file to read. Every file of a user is opened by this function.

    A device may have no end, and a named pipe may block its reader for ever, so that both are refused.

    Raises:
        OSError: the file cannot be opened, or is no regular file (a `NotRegularError`).
        ValueError: no file can have this name.
    """
    file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115 - the caller closes it
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise NotRegularError(errno.EINVAL, "it is not a regular file", os.fspath(path))


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_text(path: Path) -> str:
    """Read a small text file of a user, in UTF-8 with or without a BOM.

    Raises:
        DataError: the file cannot be read, is longer than `TEXT_BYTES`, or is not UTF-8.
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
    """The folder of embeddings, unpacked archives and runtime checks: `$XDG_CACHE_HOME/nameplate`.

    It may be deleted at any time. `NAMEPLATE_CACHE` names another folder. Source: XDG Base Directory Specification 0.8,
    freedesktop.org.
    """
    if own := os.environ.get("NAMEPLATE_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "nameplate"


@contextmanager
def whole_file(target: Path, *, mode: int | None = None) -> Iterator[Path]:
    """Write a file atomically: yield a path to write to, which becomes `target` when the block ends without an error.

    Args:
        target: the file; where it exists it is replaced.
        mode: its permissions, which hold from the beginning (0o600: only its owner can read it). None applies the
            umask.

    Raises:
        WriteError: the folder cannot be written to, the disk is full, or `target` is a device or a pipe.
    """
    if _is_special(target):  # The rename would replace it by a file.
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
    except OSError as error:  # Also one from inside the block, such as a full disk.
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
def whole_folder(target: Path, *, overwrite: bool = False, mode: int = 0o777) -> Iterator[Path]:
    """Write a folder atomically: yield a folder to fill, which becomes `target` when the block ends without an error.

    Args:
        target: the folder.
        overwrite: whether it may exist; then it is replaced.
        mode: its permissions, less the umask (0o700: only its owner can look into it).

    Raises:
        NameplateError: `target` exists and `overwrite` is false, or its parent cannot be written to.
    """
    _refuse_existing(target, overwrite)
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
        temporary.chmod(mode & ~_umask())
        _refuse_existing(target, overwrite)  # Checked again, since another run may have been quicker.
        _replace_folder(temporary, target)
    except OSError as error:  # as above
        raise WriteError(f"Cannot write '{target}': {error.strerror or error}.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def working_in(folder: Path, *, keep: bool = False) -> Iterator[None]:
    """Lock a folder that is written to over time against other runs; the folder is made where it does not exist.

    The lock ends with the process, however that ends. A folder that was made here and stays empty is removed.

    Args:
        folder: the folder; its lock file lies inside it.
        keep: leave the lock file behind, as a sign which program the folder belongs to.

    Raises:
        NameplateError: another run holds the lock.
        WriteError: the folder cannot be made.
    """
    with _folder(folder), _locked(folder / LOCK, folder, keep=keep):
        try:
            yield
        finally:
            with suppress(OSError):  # The folder may be gone.
                if os.listdir(folder) == [LOCK]:  # Nothing was written.
                    (folder / LOCK).unlink()


@contextmanager
def writing(target: Path, *, wait: bool = False) -> Iterator[None]:
    """Lock a file or folder that is going to be written or changed against other runs.

    Args:
        target: the file or folder; its lock file lies beside it as long as the lock is held.
        wait: wait for another run instead of raising an error; for changes that take a moment.

    Raises:
        NameplateError: another run holds the lock.
        WriteError: the folder of `target` cannot be written to.
    """
    with _folder(target.parent), _locked(target.parent / f".{target.name}{LOCK}", target, wait=wait):
        yield


def is_free(folder: Path) -> bool:
    """Whether a path does not exist, or is a folder with nothing but a lock file in it.

    Raises:
        OSError: the folder cannot be listed.
    """
    return not folder.exists() or (folder.is_dir() and all(name == LOCK for name in os.listdir(folder)))


def clear_folder(folder: Path) -> None:
    """Delete everything in a folder except the lock file, which the caller holds.

    Raises:
        OSError: something cannot be deleted.
    """
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


@contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """Make a folder and its parents. Those that were made here and are empty at the end are removed."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"Cannot write '{folder}': {error.strerror or error}.") from None
    try:
        yield
    finally:
        for path in missing:
            with suppress(OSError):
                path.rmdir()  # This fails where the folder is not empty.


@contextmanager
def _locked(lock: Path, held: Path, *, keep: bool = False, wait: bool = False) -> Iterator[None]:
    handle = _take(lock, held, wait)
    try:
        yield
    finally:
        if not keep:
            with suppress(OSError):
                lock.unlink()  # Before it is unlocked, so that a run that waits for it notices that it is gone.
        os.close(handle)


def _take(lock: Path, held: Path, wait: bool) -> int:
    """Open and lock a file; return its descriptor."""
    while True:
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise WriteError(f"Cannot write '{held}': {error.strerror or error}.") from None
        if sys.platform == "win32":  # Windows has no such locks.
            return handle
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if os.path.samestat(os.fstat(handle), os.stat(lock)):  # noqa: PTH116 - as its neighbour
                return handle
        except FileNotFoundError:  # The run that held it has removed it in between.
            pass
        except OSError as error:
            os.close(handle)
            if error.errno in (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK):
                raise NameplateError(f"Another run is writing '{held}'. Wait for it, or choose another name.") from None
            raise WriteError(f"Cannot lock '{held}': {error.strerror or error}.") from None
        os.close(handle)


def _refuse_existing(target: Path, overwrite: bool) -> None:
    if target.exists() and not overwrite:
        raise NameplateError(f"'{target}' is there already. Choose another name, or pass --overwrite.")


def _replace_folder(new: Path, target: Path) -> None:
    """Rename `new` to `target`. Not every system can exchange folders, so the old one is renamed first."""
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
