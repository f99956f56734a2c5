"""`FeedbackStore`: corrections kept, listed, judged and deleted. Its calls block: a server makes them in a thread."""

from __future__ import annotations

import unicodedata
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from types import TracebackType

from sqlalchemy import ColumnElement, Connection, Engine, delete, func, insert, select, update

from nameplate.errors import NameplateError, UsageError
from nameplate.images.header import Header
from nameplate.serve.feedback.database import (
    Status,
    corrections,
    migrate,
    open_engine,
    photos,
    reading,
    require_newest,
    shown,
    writing,
)
from nameplate.serve.settings import ServeSettings
from nameplate.storage import sha256

# JOINED What users may write: nameplates and comments, normalised and held to a length.


NAMEPLATE_CHARACTERS = 200
COMMENT_CHARACTERS = 2_000
DECOMPOSED = 4
"""How much longer text may arrive than it is kept: composing letters and their marks shortens it."""
UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
"""Unicode's general categories (Unicode Standard, section 4.5) of what a name has none of: control and format
characters, which make two names that look alike, and what is assigned to nothing."""


def clean_nameplate(text: str, field: str = "nameplate") -> str:
    """A name on one line: NFC, each run of white space one blank.

    Raises:
        UsageError: empty, longer than 200 characters, or with characters that cannot be seen.
    """
    cleaned = " ".join(_composed(text, field, NAMEPLATE_CHARACTERS).split())
    if not cleaned:
        raise UsageError(f"'{field}' is empty: say which car it is.")
    _check(cleaned, field, NAMEPLATE_CHARACTERS, UNSEEN)
    return cleaned


def clean_comment(text: str, field: str = "comment") -> str:
    """Some lines of text: NFC, white space collapsed within each; may be empty.

    Raises:
        UsageError: longer than 2,000 characters, or with control characters.
    """
    lines = _composed(text, field, COMMENT_CHARACTERS).splitlines()
    cleaned = "\n".join(" ".join(line.split()) for line in lines).strip()
    _check(cleaned.replace("\n", " "), field, COMMENT_CHARACTERS, UNSEEN - {"Cf"})  # emoji are joined by these
    return cleaned


def known_spelling(text: str, nameplates: Iterable[str]) -> str:
    """The nameplate that equals the text up to case, else the text."""
    folded = text.casefold()
    return next((name for name in nameplates if name.casefold() == folded), text)


def _composed(text: str, field: str, characters: int) -> str:
    if len(text) > DECOMPOSED * characters:
        raise _too_long(field, len(text), characters)
    return unicodedata.normalize("NFC", text)


def _check(text: str, field: str, characters: int, refused: frozenset[str]) -> None:
    if len(text) > characters:
        raise _too_long(field, len(text), characters)
    unseen = next((letter for letter in text if unicodedata.category(letter) in refused), None)
    if unseen is not None:
        raise UsageError(f"'{field}' holds the character U+{ord(unseen):04X}, which cannot be seen: leave it out.")


def _too_long(field: str, length: int, characters: int) -> UsageError:
    return UsageError(f"'{field}' has {length:,} characters; {characters:,} are the most.")


CORRECTION_BYTES = 16 * 1024
"""What a correction counts for beside its photo: no text that is taken can be larger."""
ROWS = 500
"""Rows that are fetched at a time, none with its photo."""
DEFAULT_BYTES: int = ServeSettings().feedback_bytes


class StoreFullError(NameplateError):
    """There is no room for another correction."""


@dataclass(frozen=True, slots=True)
class Correction:
    """What a user says of a photo; all text is clean (see text.py)."""

    nameplate: str
    """The right one."""
    client: str
    """The name of the user's API key, never an address."""
    predicted: str | None = None
    """What had been said."""
    confidence: float | None = None
    """Its probability, 0–1."""
    verdict: str | None = None
    """Its verdict."""
    model: str | None = None
    """The model that had said it."""
    digest: str | None = None
    """That model's seal."""
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Entry(Correction):
    """A correction as it is kept."""

    id: str = ""
    time: datetime = datetime.min
    """UTC."""
    status: Status = "new"
    sha256: str = ""
    """Of the photo's bytes."""
    size: int = 0
    """Of the photo, in bytes."""
    width: int = 0
    """Pixels as stored."""
    height: int = 0
    """Pixels as stored."""
    format: str = ""
    """As `photos.Header` names it."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """How much is gone."""

    corrections: int
    photos: int


class FeedbackStore:
    """Corrections in a database.

    Every method raises `DatabaseError` where the database does not do as it is asked.
    """

    def __init__(self, engine: Engine, cap: int = DEFAULT_BYTES) -> None:
        self.engine = engine
        self.cap = cap

    @classmethod
    def open(cls, database: str, *, cap: int = DEFAULT_BYTES, create: bool = True) -> FeedbackStore:
        """Open a database.

        Args:
            database: the path of a SQLite file, or a URL.
            cap: bytes that it may hold.
            create: whether a new database is made, and an old one brought up to date.

        Raises:
            DatabaseError: not there, not to be reached, or of another version.
            UsageError: not a path, and not the URL of such a database.
            RuntimeUnavailableError: its driver is not installed.
        """
        engine = open_engine(database, create=create)
        try:
            if create:
                migrate(engine)
            else:
                require_newest(engine)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine, cap)

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()

    def __enter__(self) -> FeedbackStore:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The database's URL without its password."""
        return shown(self.engine.url)

    def add(self, said: Correction, data: bytes, header: Header) -> str:
        """Keep a correction and its photo, each once: said again by the same client, it is the one that there is.

        Returns:
            Its id.

        Raises:
            StoreFullError: there is no room.
        """
        digest = sha256(data)
        with writing(self.engine) as connection:
            known = connection.scalar(
                select(corrections.c.id).where(
                    corrections.c.sha256 == digest,
                    corrections.c.client == said.client,
                    corrections.c.nameplate == said.nameplate,
                )
            )
            if known is not None:
                return str(known)
            there = connection.scalar(select(photos.c.sha256).where(photos.c.sha256 == digest)) is not None
            self._require_room(connection, CORRECTION_BYTES + (0 if there else len(data)))
            if not there:
                seen = {"width": header.width, "height": header.height, "format": header.format}
                connection.execute(insert(photos).values(sha256=digest, size=len(data), bytes=data, **seen))
            row = {field.name: getattr(said, field.name) for field in fields(Correction)}
            id_ = str(uuid.uuid4())
            connection.execute(
                insert(corrections).values(id=id_, time=datetime.now(UTC), sha256=digest, status="new", **row)
            )
        return id_

    def size(self) -> int:
        """Bytes that count towards the cap."""
        with reading(self.engine) as connection:
            return _size(connection)

    def entries(
        self,
        *,
        status: Status | None = None,
        client: str | None = None,
        newest: int | None = None,
    ) -> Iterator[Entry]:
        """Corrections, newest first, without their photos' bytes.

        Args:
            status: only those.
            client: only of this one.
            newest: no more than so many.
        """
        chosen = _ENTRIES.order_by(corrections.c.time.desc(), corrections.c.id).limit(newest)
        if status is not None:
            chosen = chosen.where(corrections.c.status == status)
        if client is not None:
            chosen = chosen.where(corrections.c.client == client)
        with reading(self.engine) as connection:
            for row in connection.execute(chosen):
                yield Entry(**row._mapping)

    def set_status(self, ids: Sequence[str], status: Status) -> int:
        """Judge corrections, all of them or none; the beginning of an id does, where it is the only one.

        Returns:
            How many.

        Raises:
            UsageError: there is none of such an id, or more than one.
        """
        with writing(self.engine) as connection:
            found = _found(connection, ids)
            connection.execute(update(corrections).where(corrections.c.id.in_(found)).values(status=status))
        return len(found)

    def delete_ids(self, ids: Sequence[str]) -> Deleted:
        """Delete corrections, all of them or none, and photos that nobody else spoke of; ids as in `set_status`.

        Raises:
            UsageError: there is none of such an id, or more than one.
        """
        with writing(self.engine) as connection:
            return _delete(connection, corrections.c.id.in_(_found(connection, ids)))

    def delete_client(self, client: str) -> Deleted:
        """Delete all that a client said, and the photos that nobody else spoke of."""
        with writing(self.engine) as connection:
            return _delete(connection, corrections.c.client == client)

    def delete_before(self, event: datetime) -> Deleted:
        """Delete what was said before a moment, and the photos that nobody spoke of since."""
        with writing(self.engine) as connection:
            return _delete(connection, corrections.c.time < event)

    def _require_room(self, connection: Connection, more: int) -> None:
        held = _size(connection)
        if held + more > self.cap:
            raise StoreFullError(
                f"Corrections take {held:,} of the {self.cap:,} bytes that they may; these would be {more:,} more."
            )


_ENTRIES = (
    select(corrections, photos.c.size, photos.c.width, photos.c.height, photos.c.format)
    .join_from(corrections, photos)
    .execution_options(yield_per=ROWS)
)


def entries_by_photo(connection: Connection) -> Iterator[Entry]:
    """All corrections, those of one photo together, the first said first."""
    order = (corrections.c.sha256, corrections.c.time, corrections.c.id)
    for row in connection.execute(_ENTRIES.order_by(*order)):
        yield Entry(**row._mapping)


def count_photos(connection: Connection) -> int:
    """How many photos there are."""
    return connection.scalar(select(func.count()).select_from(photos)) or 0


def photo_bytes(connection: Connection, digest: str) -> bytes:
    """A photo by its digest, as it was sent."""
    return bytes(connection.execute(select(photos.c.bytes).where(photos.c.sha256 == digest)).scalar_one())


def _size(connection: Connection) -> int:
    pixels = connection.scalar(select(func.coalesce(func.sum(photos.c.size), 0))) or 0
    rows = connection.scalar(select(func.count()).select_from(corrections)) or 0
    return int(pixels) + CORRECTION_BYTES * rows


def _found(connection: Connection, ids: Sequence[str]) -> list[str]:
    """Whole ids for ids or their beginnings, each once."""
    found: dict[str, None] = {}
    for id_ in ids:
        begins = corrections.c.id.startswith(id_, autoescape=True)
        near = connection.scalars(select(corrections.c.id).where(begins).limit(2)).all() if id_ else []
        if len(near) != 1:
            how_many = "more than one correction begins with" if near else "there is no correction"
            raise UsageError(f"Nothing was changed: {how_many} '{id_}'. 'nameplate feedback list' shows them.")
        found[near[0]] = None
    return list(found)


def _delete(connection: Connection, which: ColumnElement[bool]) -> Deleted:
    """Corrections, and photos that none is left of."""
    gone = connection.execute(delete(corrections).where(which)).rowcount
    spoken_of = select(corrections.c.sha256).where(corrections.c.sha256 == photos.c.sha256).exists()
    return Deleted(gone, connection.execute(delete(photos).where(~spoken_of)).rowcount)
