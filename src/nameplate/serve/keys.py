"""API keys: a file of their hashes, which may change while the service runs."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from nameplate.errors import DataError, NameplateError, UsageError, did_you_mean
from nameplate.serve.rates import parse_rate
from nameplate.storage import open_regular, whole_file, writing

PREFIX = "np_"
"""The beginning of every key, by which scanners for leaked secrets recognise one."""
TOKEN_BYTES = 32
"""Random bytes in a key."""
LONGEST_TOKEN = 128
"""The most characters of a key; anything longer is refused without hashing it."""
MOST_DAYS = 36_500
"""The most days after which a key may expire."""
CHECK_SECONDS = 1.0
"""Seconds between two checks whether the file has changed."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Key:
    """One line of the file. The key itself is stored nowhere. The field names are the JSON keys."""

    name: str
    """The key's name, which logs show."""
    hash: str
    """SHA-256 of the key, hexadecimal. See `digest`."""
    created: str
    """When it was made, UTC, ISO 8601."""
    admin: bool = False
    """Whether its holder may also change the service."""
    expires: str = ""
    """Until when it is valid, UTC, ISO 8601; empty: until it is removed."""
    rate: str = ""
    """How many requests it may send, such as `600/minute`, in place of the service's rate; empty: that one."""

    @property
    def expired(self) -> bool:
        """Whether it is valid no more."""
        return bool(self.expires) and datetime.now(UTC) >= datetime.fromisoformat(self.expires)


def digest(token: bytes) -> str:
    """Return the SHA-256 of a key, hexadecimal.

    Slow, salted hashes protect passwords, which people choose and others guess. A key is 256 random bits and cannot be
    guessed, so a fast hash is as strong (NIST SP 800-63B (2017), section 5.1.2.2: secrets of at least 112 random bits
    need an approved hash; salt and key derivation are for shorter ones).
    """
    return hashlib.sha256(token).hexdigest()


def read_keys(path: Path) -> tuple[Key, ...]:
    """Read the keys of a file, in its order.

    Raises:
        DataError: the file cannot be read, or one of its lines is no key.
    """
    try:
        with open_regular(path) as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise DataError(
            f"Cannot read the keys in '{path}': {error.strerror or error}. 'nameplate keys add {path} NAME' makes one."
        ) from None
    return tuple(_key(line, f"'{path}', line {number}") for number, line in enumerate(lines, 1) if line.strip())


def _key(line: bytes, place: str) -> Key:
    try:
        key = msgspec.json.decode(line, type=Key)
    except msgspec.MsgspecError as error:
        raise DataError(f"{place} is no key: {error}. 'nameplate keys' writes such files.") from None
    if NAME.fullmatch(key.name) is None or HASH.fullmatch(key.hash) is None:
        raise DataError(f"{place} is no key: its name or its hash is not one that 'nameplate keys' writes.")
    try:
        if key.expires and datetime.fromisoformat(key.expires).tzinfo is None:
            raise ValueError("the time has no zone")
        if key.rate:
            parse_rate(key.rate)
    except (ValueError, UsageError) as error:
        raise DataError(f"{place} is no key: {error}. 'nameplate keys' writes such files.") from None
    return key


def write_keys(path: Path, keys: Sequence[Key]) -> None:
    """Write a file of keys atomically; only its owner may read it.

    Raises:
        WriteError: the file cannot be written.
    """
    with whole_file(path, mode=0o600) as temporary:
        temporary.write_bytes(b"".join(msgspec.json.encode(key) + b"\n" for key in keys))


def add_key(path: Path, name: str, *, admin: bool = False, days: float | None = None, rate: str = "") -> str:
    """Make a key and add its hash to the file, which is made if it does not exist.

    Args:
        path: the file.
        name: the key's name.
        admin: whether its holder may also change the service.
        days: after how many days it expires; None: never.
        rate: how many requests it may send, such as `600/minute`; empty: as many as the service's rate says.

    Returns:
        The key. It is stored nowhere, so this is the only time that it can be seen.

    Raises:
        UsageError: the name is too long, or not made of letters, digits and `._@-`; the rate is none; or the key would
            have expired already.
        NameplateError: a key of that name exists.
        DataError: the file exists but cannot be read.
    """
    if NAME.fullmatch(name) is None:
        raise UsageError(
            f"'{name}' cannot name a key: take up to 64 of A–Z, a–z, 0–9 and ._@-, a letter or digit first."
        )
    if days is not None and not 0 < days <= MOST_DAYS:
        raise UsageError(f"A key may be valid for more than 0 and up to {MOST_DAYS:,} days, not {days:g}.")
    if rate:
        parse_rate(rate)
    token = PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
    now = datetime.now(UTC)
    expires = "" if days is None else (now + timedelta(days=days)).isoformat(timespec="seconds")
    with writing(path, wait=True):  # the lock keeps two commands at once from losing each other's key
        keys = read_keys(path) if path.exists() else ()
        if any(key.name == name for key in keys):
            raise NameplateError(f"'{path}' has a key '{name}' already. Take another name, or remove that one first.")
        write_keys(
            path, [*keys, Key(name, digest(token.encode()), now.isoformat(timespec="seconds"), admin, expires, rate)]
        )
    return token


def remove_key(path: Path, name: str) -> None:
    """Remove a key from the file. Running services refuse it a second later.

    Raises:
        NameplateError: no key has that name.
        DataError: the file cannot be read.
    """
    with writing(path, wait=True):
        keys = read_keys(path)
        left = [key for key in keys if key.name != name]
        if len(left) == len(keys):
            raise NameplateError(f"'{path}' has no key '{name}'.{did_you_mean(name, [key.name for key in keys])}")
        write_keys(path, left)


class Keys:
    """The keys of a file, which is read again when it changes.

    If it cannot be read again, the keys read last stay in force, and `failed` is called with the reason.

    Raises:
        DataError: the file cannot be read the first time.
    """

    def __init__(self, path: Path, *, failed: Callable[[str], None] = lambda _: None) -> None:
        self._path, self._failed = path, failed
        self._seen = _stamp(path)
        self._checked = time.monotonic()
        self._keys = read_keys(path)

    def find(self, token: bytes) -> Key | None:
        """Return the key that a token is, also one that has expired, or None.

        All keys are compared, each in constant time, so that timing tells nothing about them.
        """
        self._refresh()
        # No real key is so long, and hashing megabytes for each request would cost time.
        if len(token) > LONGEST_TOKEN:
            return None
        wanted, found = digest(token), None
        for key in self._keys:
            if hmac.compare_digest(key.hash, wanted):
                found = key
        return found

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._checked < CHECK_SECONDS:
            return
        self._checked = now
        stamp = _stamp(self._path)
        if stamp == self._seen:
            return
        self._seen = stamp  # before reading: a file that cannot be read is reported once, not each second
        try:
            self._keys = read_keys(self._path)
        except DataError as error:
            self._failed(f"{error} The keys read before stay in force.")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Time, size and inode of a file; None if it is missing. The inode tells a file that was moved into its place."""
    try:
        found = os.stat(path)  # noqa: PTH116 - twice as fast as Path.stat, and requests wait for it
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
