"""API keys: made, stored as hashes, revoked, and read again while the service runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nameplate.errors import DataError, NameplateError, UsageError
from nameplate.serve import keys as module
from nameplate.serve.keys import Keys, add_key, digest, read_keys, remove_key
from tests.cli.run import nameplate


@pytest.fixture(autouse=True)
def _look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.0)


def test_a_key_is_kept_as_a_hash_for_the_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    token = add_key(file, "shop", admin=True)
    assert token.startswith("np_")
    assert len(token) == 3 + 43  # 256 bits, six a character
    assert token not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    (key,) = read_keys(file)
    assert (key.name, key.hash, key.admin) == ("shop", digest(token.encode()), True)


def test_two_keys_differ_and_each_finds_its_own(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    tokens = {name: add_key(file, name).encode() for name in ("one", "two")}
    known = Keys(file)
    found = {name: known.find(token) for name, token in tokens.items()}
    assert {name: key and key.name for name, key in found.items()} == {"one": "one", "two": "two"}
    for wrong in (b"", b"np_", tokens["one"] + b"x", tokens["one"][:-1], b"\xff\x00", b"x" * 100_000):
        assert known.find(wrong) is None


def test_keys_come_and_go_while_the_service_runs(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    first = add_key(file, "first").encode()
    known = Keys(file)
    second = add_key(file, "second").encode()
    assert known.find(second) is not None
    remove_key(file, "first")
    assert known.find(first) is None
    assert known.find(second) is not None


def test_an_older_file_moved_into_place_is_noticed(tmp_path: Path) -> None:
    """A backup that is moved back may have the same size, and even the same time."""
    file, backup = tmp_path / "keys", tmp_path / "backup"
    old = add_key(backup, "one").encode()
    add_key(file, "two")
    known = Keys(file)
    found = file.stat()
    os.utime(backup, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert backup.stat().st_size == found.st_size
    backup.replace(file)
    assert known.find(old) is not None


@pytest.mark.parametrize("damage", ["{", '{"name":"x"}', "\x00" * 9, None])
def test_a_damaged_file_keeps_the_keys_read_before(tmp_path: Path, damage: str | None) -> None:
    file = tmp_path / "keys"
    token = add_key(file, "shop").encode()
    told: list[str] = []
    known = Keys(file, failed=told.append)
    file.unlink() if damage is None else file.write_text(damage)
    assert known.find(token) is not None
    assert known.find(token) is not None
    assert len(told) == 1  # once for each change, not for each request
    assert "stay in force" in told[0]
    assert str(file) in told[0]


def test_the_file_is_not_read_for_every_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 60.0)
    file = tmp_path / "keys"
    token = add_key(file, "shop").encode()
    known = Keys(file)
    remove_key(file, "shop")
    assert known.find(token) is not None


@pytest.mark.parametrize(
    "line",
    [
        '{"name":"a\\nb","hash":"' + "0" * 64 + '","created":""}',
        '{"name":"a","hash":"tooshort","created":""}',
        '{"name":"a","hash":7,"created":""}',
        "np_a_key_in_the_clear",
    ],
)
def test_a_line_that_is_no_key_is_reported_with_its_number(tmp_path: Path, line: str) -> None:
    file = tmp_path / "keys"
    add_key(file, "good")
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(DataError, match="line 2"):
        Keys(file)


def test_a_missing_file_is_reported_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="keys add"):
        Keys(tmp_path / "none")


@pytest.mark.parametrize("name", ["", " ", "a b", "a\nb", "-x", "я", "a" * 65, 'a"'])
def test_a_name_that_could_garble_a_log_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        add_key(tmp_path / "keys", name)


def test_names_are_unique_and_a_wrong_one_gets_a_suggestion(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    add_key(file, "website")
    with pytest.raises(NameplateError, match="already"):
        add_key(file, "website")
    with pytest.raises(NameplateError, match="Did you mean 'website'"):
        remove_key(file, "webside")


def test_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    token = nameplate("keys", "add", file, "shop").stdout.strip()
    made = json.loads(nameplate("keys", "add", file, "boss", "--admin", "--json").stdout)
    assert (made["name"], made["admin"]) == ("boss", True)
    known = Keys(file)
    assert known.find(token.encode()) is not None
    assert known.find(made["key"].encode()) is not None
    listed = json.loads(nameplate("keys", "list", file, "--json").stdout)
    assert [(row["name"], row["admin"]) for row in listed] == [("shop", False), ("boss", True)]
    assert "hash" not in listed[0]
    assert json.loads(nameplate("keys", "remove", file, "shop", "--json").stdout)["removed"] == "shop"
    assert nameplate("keys", "list", file).stdout.split()[0] == "boss"
    assert "no key 'shop'" in nameplate("keys", "remove", file, "shop", check=1).stderr
    assert "cannot name a key" in nameplate("keys", "add", file, "a b", check=2).stderr


def test_keys_that_are_added_at_once_are_all_kept(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from nameplate.serve.keys import add_key\n"
        "for number in range(10): add_key(Path(sys.argv[1]), f'{sys.argv[2]}-{number}')"
    )
    file = tmp_path / "keys"
    running = [subprocess.Popen([sys.executable, "-c", code, str(file), name]) for name in "abc"]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert sorted(key.name for key in read_keys(file)) == sorted(f"{name}-{n}" for name in "abc" for n in range(10))
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


def test_a_pipe_in_place_of_keys_is_refused_and_does_not_hold_the_service(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "keys")
    with pytest.raises(DataError, match="it is not a regular file"):
        read_keys(tmp_path / "keys")


def test_a_key_expires(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    token = add_key(file, "guest", days=1 / 86_400)
    (key,) = read_keys(file)
    assert not key.expired
    time.sleep(1.1)
    found = Keys(file).find(token.encode())
    assert found is not None
    assert found.expired
    listed = nameplate("keys", "list", file).stdout
    assert "expired" in listed
    for days in (0, -1, float("nan"), 1e9):
        with pytest.raises(UsageError, match="days"):
            add_key(file, "other", days=days)


def test_a_key_has_a_rate_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    add_key(file, "shop", rate="5/minute")
    assert read_keys(file)[0].rate == "5/minute"
    with pytest.raises(UsageError, match="no rate"):
        add_key(file, "other", rate="fast")


@pytest.mark.parametrize("wrong", ['"expires": "soon"', '"expires": "2027-01-01"', '"rate": "fast"'])
def test_a_line_with_a_wrong_date_or_rate_is_no_key(tmp_path: Path, wrong: str) -> None:
    file = tmp_path / "keys"
    add_key(file, "shop")
    name = wrong.split('"')[1]
    file.write_text(file.read_text().replace(f'"{name}":""', wrong))
    with pytest.raises(DataError, match="is no key"):
        read_keys(file)
