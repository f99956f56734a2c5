"""Photos in object stores, read through fsspec: s3://bucket/key and gs://bucket/key.

Credentials come from the environment, the configuration files or the machine, as AWS and Google define them. An address
that contains a password is refused. The text of a store's error is never repeated, since it may contain one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from nameplate.data.archive import Refused
from nameplate.data.listing import is_hidden
from nameplate.errors import DataError, NameplateError, PhotoError, RuntimeUnavailableError, UsageError
from nameplate.images.formats import is_photo_name
from nameplate.types import Limits

STORES = {"s3": "s3fs", "gs": "gcsfs"}
"""Scheme → the package that reads it."""
CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 10, 30, 5
"""Timeouts to connect and to receive a byte, in seconds, and number of attempts at a request."""
NO_PHOTO_NAME = "its name is not a photo's, and objects in a store are recognised by their names alone"


def is_remote(text: str) -> bool:
    """Whether a source is an address in an object store."""
    return "://" in text


def check_address(address: str) -> None:
    """Check an address before any request is made.

    Raises:
        UsageError: the scheme is not supported, the bucket is missing, or the address contains a password.
    """
    scheme, _, rest = address.partition("://")
    if scheme not in STORES:
        raise UsageError(
            f"Addresses of '{scheme}://' are not read: there are {', '.join(f'{name}://' for name in STORES)}. "
            "Fetch the photos first."
        )
    if "@" in rest.partition("/")[0]:
        raise UsageError(
            f"An address of '{scheme}://' holds an '@' before its bucket: leave the password out. "
            "Your credentials come from the settings of the store."
        )
    if not rest.partition("/")[0]:
        raise UsageError(f"'{address}' names no bucket.")


def list_objects(address: str) -> Iterator[str | Refused]:
    """List the photos below an address, or the object that it names, in byte order.

    `*` and `?` make the address a pattern. Every object that is no photo is yielded as a `Refused`. Photos are
    recognised by their names alone, since reading the first bytes would take a request for each object.

    Raises:
        UsageError: see `check_address`.
        DataError: there is no such bucket, it may not be read, or the store does not answer.
    """
    check_address(address)
    scheme, _, path = address.partition("://")
    store = open_store(scheme)
    if any(letter in path for letter in "*?"):
        return _matching(store, scheme, path, address)
    if is_photo_name(path) and not path.endswith("/"):
        return iter([address])
    return _below(store, scheme, path.rstrip("/"), address)


def _matching(store: Any, scheme: str, path: str, address: str) -> Iterator[str | Refused]:
    """List what a pattern matches. Each matching prefix is listed recursively, except after `**`, which has matched
    all.
    """
    found: dict[str, dict[str, Any]] = _asked(address, lambda: store.glob(path, detail=True))
    for name, entry in sorted(found.items()):
        if entry["type"] != "directory":
            yield _told_by_name(f"{scheme}://{name}")
        elif "**" not in path:
            yield from _below(store, scheme, name, address)


def _told_by_name(address: str) -> str | Refused:
    return address if is_photo_name(address) else Refused(address, NO_PHOTO_NAME)


def _below(store: Any, scheme: str, path: str, address: str) -> Iterator[str | Refused]:
    """List the photos below a prefix. In memory is one listing for each level."""
    entries: list[tuple[str, bool]] = _asked(
        address,
        lambda: sorted(
            (f"{entry['name']}{'/' * (entry['type'] == 'directory')}", entry["type"] == "directory")
            for entry in store.ls(path, detail=True, refresh=True)
        ),
    )
    for name, is_folder in entries:
        if is_hidden(name.rstrip("/").rpartition("/")[2]):
            continue
        if is_folder:
            yield from _below(store, scheme, name.rstrip("/"), address)
        elif name == path:
            yield f"{scheme}://{name}"  # The address names it, so decoding decides whether it is a photo.
        else:
            yield _told_by_name(f"{scheme}://{name}")


def read_object(reference: str, limits: Limits) -> bytes:
    """Read an object in one request, up to the size limit of a photo.

    Raises:
        PhotoError: the object is missing, may not be read, is empty or too large.
        DataError: the store does not answer. That is no property of the photo, so a job stops and can be resumed.
    """
    check_address(reference)
    scheme, _, path = reference.partition("://")
    store = open_store(scheme)
    try:
        data: bytes = _asked(reference, lambda: store.cat_file(path, start=0, end=limits.bytes + 1))
    except _MissingError as error:
        raise PhotoError("missing", str(error)) from None
    if not data:
        raise PhotoError("empty", "the object has no bytes")
    if len(data) > limits.bytes:
        raise PhotoError("too large", f"more than {limits.bytes:,} bytes, the limit")
    return data


class _MissingError(DataError):
    """The object does not exist, or may not be read."""


def _asked(address: str, request: Callable[[], Any]) -> Any:
    """Make a request and translate its errors, whose own text may contain credentials."""
    try:
        return request()
    except NameplateError:
        raise
    except FileNotFoundError:
        raise _MissingError(f"There is no '{address}'.") from None
    except PermissionError:
        raise _MissingError(f"'{address}' may not be read with the store's present settings.") from None
    except Exception as error:  # Each store has its own classes of errors.
        if "not satisfiable" in str(error).lower():
            return b""  # A range request for an empty object fails.
        raise DataError(
            f"The store of '{address}' does not answer ({type(error).__name__}). "
            "Check the connection and your credentials, then run the same command again to continue."
        ) from None


@lru_cache(None)
def open_store(scheme: str) -> Any:
    """Open the fsspec file system of a scheme, once for each process.

    Raises:
        RuntimeUnavailableError: the package of the scheme is not installed.
        DataError: the file system cannot be opened.
    """
    try:
        import fsspec
    except ImportError:
        raise _needs_extra(scheme) from None
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if scheme == "s3":
        options["config_kwargs"] = {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            "retries": {"total_max_attempts": 2, "mode": "standard"},
            "max_pool_connections": 64,
        }
    try:
        store = fsspec.filesystem(scheme, **options)
        store.retries = ATTEMPTS
        return store
    except ImportError:
        raise _needs_extra(scheme) from None
    except Exception as error:  # As above; Google's asks for credentials at once.
        raise DataError(
            f"'{scheme}://' cannot be opened ({type(error).__name__}). Check your credentials for the store: "
            "they come from the environment or the files of the store's tools."
        ) from None


def _needs_extra(scheme: str) -> RuntimeUnavailableError:
    return RuntimeUnavailableError(
        f"'{scheme}://' needs {STORES[scheme]}, which is not installed: pip install 'nameplate[cloud]'."
    )
