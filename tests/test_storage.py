"""Files and folders are written completely or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nameplate import storage
from nameplate.errors import DataError, NameplateError, WriteError
from nameplate.storage import (
    LOCK,
    cache_folder,
    one_line,
    printable,
    read_text,
    sha256,
    whole_file,
    whole_folder,
    without_controls,
    working_in,
    writing,
)


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_appears_whole_and_alone(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "answers.csv"
    with whole_file(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        temporary.write_text("whole")
    assert target.read_text() == "whole"
    assert _names(target.parent) == ["answers.csv"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_file_that_fails_leaves_the_old_one(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "answers.csv"
    target.write_text("old")

    def fail() -> None:
        with whole_file(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert target.read_text() == "old"
    assert _names(tmp_path) == ["answers.csv"]


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_files_and_folders_have_the_users_own_mode(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with whole_file(tmp_path / "file"):
            pass
        with whole_folder(tmp_path / "folder"):
            pass
        assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
        assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_a_file_is_replaced(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with whole_file(tmp_path / "file") as temporary:
            temporary.write_text(text)
    assert (tmp_path / "file").read_text() == "two"


def test_a_folder_appears_whole_and_alone(tmp_path: Path) -> None:
    target = tmp_path / "models" / "mine.nameplate"
    with whole_folder(target) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "weights").write_bytes(b"1")
        assert not target.exists()
    assert (target / "inner" / "weights").read_bytes() == b"1"
    assert _names(target.parent) == ["mine.nameplate"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("there", [False, True])
def test_a_folder_that_fails_leaves_the_old_one(tmp_path: Path, error: type[BaseException], there: bool) -> None:
    target = tmp_path / "model"
    if there:
        target.mkdir()
        (target / "old").touch()

    def fail() -> None:
        with whole_folder(target, overwrite=True) as temporary:
            (temporary / "new").touch()
            raise error

    with pytest.raises(error):
        fail()
    assert _names(tmp_path) == (["model"] if there else [])
    assert not there or _names(target) == ["old"]


def test_a_folder_that_is_there_is_kept_unless_it_is_to_be_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(NameplateError, match=r"is there already\. .* --overwrite"), whole_folder(target):
        pytest.fail("the block must not be entered")
    assert _names(target) == ["old"]
    with whole_folder(target, overwrite=True) as temporary:
        (temporary / "new").touch()
    assert _names(target) == ["new"]
    assert _names(tmp_path) == ["model"]


def test_a_file_is_not_overwritten_by_a_folder_nor_a_folder_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    with pytest.raises(NameplateError, match="is a file"), whole_folder(tmp_path / "file", overwrite=True):
        pytest.fail("the block must not be entered")
    with pytest.raises(NameplateError, match="Cannot write"), whole_file(tmp_path / "folder"):
        pass
    assert _names(tmp_path) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "mine"


def test_where_nothing_can_be_written_the_error_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    target = tmp_path / "file" / "below it"
    for attempt in (whole_file, whole_folder):
        with pytest.raises(NameplateError, match=r"Cannot write '.*below it'"), attempt(target):
            pytest.fail("the block must not be entered")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_an_error_in_words(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        for attempt in (whole_file, whole_folder):
            with pytest.raises(NameplateError, match="Cannot write"), attempt(tmp_path / "new"):
                pytest.fail("the block must not be entered")
    finally:
        tmp_path.chmod(0o700)


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("NAMEPLATE_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.setenv("NAMEPLATE_CACHE", "")
    assert cache_folder() == tmp_path / "xdg" / "nameplate"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the specification has it ignored
    assert cache_folder() == Path.home() / ".cache" / "nameplate"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("NAMEPLATE_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "nameplate"
    assert not list(tmp_path.iterdir())


def test_sha256_is_sha256() -> None:
    assert sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_file_for_its_owner_alone(tmp_path: Path) -> None:
    target = tmp_path / "secret"
    with whole_file(target, mode=0o600) as temporary:
        temporary.write_text("whole")
        assert temporary.stat().st_mode & 0o777 == 0o600
    assert target.stat().st_mode & 0o777 == 0o600


def test_text_of_a_users_is_small_utf8_from_a_regular_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "list.txt"
    file.write_bytes(b"\xef\xbb\xbf\xd0\xb0.jpg\n")
    assert read_text(file) == "а.jpg\n"
    file.write_bytes(b"\xcf.jpg\n")
    with pytest.raises(DataError, match="must be UTF-8 text"):
        read_text(file)
    monkeypatch.setattr(storage, "TEXT_BYTES", 3)
    with pytest.raises(DataError, match="longer than 3 bytes"):
        read_text(file)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path / "gone", Path("a\0b")):
        with pytest.raises(DataError, match="Cannot read"):
            read_text(path)


def test_names_are_shown_without_what_drives_a_terminal() -> None:
    name = os.fsdecode(b"\xcf") + "a\x1b[2J\x7f\x9b\r\b\u202e\u2066\n\tЁж 車 🚗"
    assert one_line(name) == r"\xcfa\x1b[2J\x7f\x9b\r\x08\u202e\u2066\n\tЁж 車 🚗"
    assert without_controls(name) == "\\xcfa\\x1b[2J\\x7f\\x9b\\r\\x08\\u202e\\u2066\n\tЁж 車 🚗"
    assert one_line("\ud83d") == printable("\ud83d") == r"\ud83d"


def test_devices_and_pipes_are_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "out").symlink_to("/proc/self/fd/1")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "out", "link", "/dev/null"):
        with pytest.raises(WriteError, match="it is a device or a pipe"), whole_file(tmp_path / name):
            pytest.fail("the block must not be entered")
    assert (tmp_path / "pipe").is_fifo()
    assert _names(tmp_path) == ["link", "out", "pipe"]


# --- one run at a time --------------------------------------------------------------------------------


def test_a_folder_that_is_worked_in_is_refused_to_others_and_then_free(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with working_in(folder):
        (folder / "made").write_text("")
        for _ in range(2):  # a refusal takes nothing away from the run that holds it
            with pytest.raises(NameplateError, match=f"Another run is writing '{folder}'"), working_in(folder):
                pass
        assert _names(folder) == [LOCK, "made"]
    with working_in(folder):
        pass
    assert _names(folder) == ["made"]
    with working_in(folder, keep=True):
        pass
    assert _names(folder) == [LOCK, "made"]


def test_a_run_without_a_result_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    for folder in (tmp_path / "new" / "run", tmp_path / "own"):
        with working_in(folder, keep=True):
            pass
    with writing(tmp_path / "deep" / "er" / "keys"):
        pass
    assert _names(tmp_path) == ["own"]
    assert _names(tmp_path / "own") == []


def test_a_killed_run_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from nameplate.storage import working_in\n"
        "with working_in(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path], check=False).returncode != 0
    assert _names(tmp_path) == [LOCK]
    with working_in(tmp_path):
        pass


def test_what_is_changed_by_many_at_once_loses_no_change(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from nameplate.storage import whole_file, writing\n"
        "count = Path(sys.argv[1])\n"
        "for _ in range(60):\n"
        "    with writing(count, wait=True):\n"
        "        found = int(count.read_text())\n"
        "        with whole_file(count) as temporary: temporary.write_text(str(found + 1))"
    )
    (tmp_path / "count").write_text("0")
    command = [sys.executable, "-c", code, str(tmp_path / "count")]
    running = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    assert (tmp_path / "count").read_text() == "240"
    assert _names(tmp_path) == ["count"]


def test_a_folder_that_another_run_has_written_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with pytest.raises(NameplateError, match="is there already"), whole_folder(target):
        target.mkdir()
        (target / "first").write_text("")
    assert _names(target) == ["first"]
    assert _names(tmp_path) == ["model"]
