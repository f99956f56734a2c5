"""`FeedbackStore`: adds, lists, moderates and deletes corrections. Its methods block, so servers use a thread.

`clean_nameplate` and `clean_comment` normalise and check the text of users before it is stored.
"""

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

# Text that users write.

NAMEPLATE_CHARACTERS = 200
COMMENT_CHARACTERS = 2_000
DECOMPOSED = 4
"""How many times longer text may be before normalisation: NFC joins letters and their marks, which shortens it."""
UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
"""Unicode general categories (Unicode Standard, section 4.5) that names may not contain: control and format characters,
which make two different names look alike, and unassigned code points."""


FORMULA = ("=", "+", "-", "@")
"""Beginnings of cells that spreadsheets take for formulas and run (OWASP, "CSV Injection")."""


def clean_nameplate(text: str, field: str = "nameplate") -> str:
    """Normalise a name to one line in NFC, with single spaces.

    Raises:
        UsageError: the name is empty, longer than 200 characters, has characters that cannot be seen, or begins like a
            spreadsheet's formula.
    """
    cleaned = " ".join(_composed(text, field, NAMEPLATE_CHARACTERS).split())
    if not cleaned:
        raise UsageError(f"'{field}' is empty: say which car it is.")
    _check(cleaned, field, NAMEPLATE_CHARACTERS, UNSEEN)
    if cleaned.startswith(FORMULA):
        raise UsageError(f"'{field}' begins with '{cleaned[0]}', as a formula does: begin with a letter or a digit.")
    return cleaned


def clean_comment(text: str, field: str = "comment") -> str:
    """Normalise a comment to NFC, with single spaces within each line; it may be empty.

    Raises:
        UsageError: the comment is longer than 2,000 characters, or has control characters.
    """
    lines = _composed(text, field, COMMENT_CHARACTERS).splitlines()
    cleaned = "\n".join(" ".join(line.split()) for line in lines).strip()
    _check(cleaned.replace("\n", " "), field, COMMENT_CHARACTERS, UNSEEN - {"Cf"})  # format characters join emoji
    return cleaned


def known_spelling(text: str, nameplates: Iterable[str]) -> str:
    """Return the nameplate that equals the text except for case, or else the text itself."""
    folded = text.casefold()
    return next((name for name in nameplates if name.casefold() == folded), text)


def _composed(text: str, field: str, characters: int) -> str:
    # Before normalising, whose time grows with the text; the exact limit is checked afterwards.
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
"""Bytes that a correction counts as, without its photo; the texts that are accepted cannot be larger."""
ROWS = 500
"""Rows that are fetched at a time; none has its photo."""
DEFAULT_BYTES: int = ServeSettings().feedback_bytes


class StoreFullError(NameplateError):
    """The store has no room for another correction."""


@dataclass(frozen=True, slots=True)
class Correction:
    """What a user says about a photo. All text is clean. The field names are the table's columns."""

    nameplate: str
    """The right nameplate, according to the user."""
    client: str
    """The name of the user's API key, never an address."""
    predicted: str | None = None
    """The nameplate that the model predicted."""
    confidence: float | None = None
    """The prediction's probability, 0–1."""
    verdict: str | None = None
    """The prediction's verdict."""
    model: str | None = None
    """The name of the model."""
    digest: str | None = None
    """The digest of the model's bundle."""
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Entry(Correction):
    """A correction as it is stored."""

    id: str = ""
    time: datetime = datetime.min
    """UTC."""
    status: Status = "new"
    sha256: str = ""
    """Digest of the photo's bytes."""
    size: int = 0
    """Size of the photo in bytes."""
    width: int = 0
    """Width in pixels, before any rotation that EXIF asks for."""
    height: int = 0
    """Height in pixels, before any rotation that EXIF asks for."""
    format: str = ""
    """The photo's format, by the name in `images.header.Header`."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """The numbers of corrections and photos that were deleted."""

    corrections: int
    photos: int


class FeedbackStore:
    """Corrections in a database.

    Every method raises `DatabaseError` if the database fails.
    """

    def __init__(self, engine: Engine, cap: int = DEFAULT_BYTES) -> None:
        self.engine = engine
        self.cap = cap

    @classmethod
    def open(cls, database: str, *, cap: int = DEFAULT_BYTES, create: bool = True) -> FeedbackStore:
        """Open a database.

        Args:
            database: the path of a SQLite file, or a URL.
            cap: the most bytes that it may hold.
            create: whether to create a new database, and to migrate an old one.

        Raises:
            DatabaseError: the database does not exist, cannot be reached, or has another version.
            UsageError: `database` is no path and no URL of a supported database.
            RuntimeUnavailableError: the database's driver is not installed.
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
        """Store a correction and its photo.

        Photos are stored once each. The same correction of the same photo by the same client is stored once too, so
        that sending it twice does no harm.

        Args:
            said: the correction.
            data: the photo's bytes.
            header: the photo's header.

        Returns:
            The correction's id.

        Raises:
            StoreFullError: there is no room.
        """
        digest = sha256(data)
        with writing(self.engine) as connection:
            # Writers take turns (`writing`), so nobody can add the same correction between this query and the insert.
            known = connection.scalar(
                select(corrections.c.id).where(
                    corrections.c.sha256 == digest,
                    corrections.c.client == said.client,
                    corrections.c.nameplate == said.nameplate,
                )
            )
            if known is not None:
                return str(known)
            # Several corrections may share a photo, whose bytes count once.
            is_stored = connection.scalar(select(photos.c.sha256).where(photos.c.sha256 == digest)) is not None
            self._require_room(connection, CORRECTION_BYTES + (0 if is_stored else len(data)))
            if not is_stored:
                shape = {"width": header.width, "height": header.height, "format": header.format}
                connection.execute(insert(photos).values(sha256=digest, size=len(data), bytes=data, **shape))
            row = {field.name: getattr(said, field.name) for field in fields(Correction)}
            id_ = str(uuid.uuid4())
            connection.execute(
                insert(corrections).values(id=id_, time=datetime.now(UTC), sha256=digest, status="new", **row)
            )
        return id_

    def size(self) -> int:
        """Return the bytes that count towards the cap."""
        with reading(self.engine) as connection:
            return _size(connection)

    def entries(
        self,
        *,
        status: Status | None = None,
        client: str | None = None,
        newest: int | None = None,
    ) -> Iterator[Entry]:
        """Yield corrections, newest first, without their photos' bytes.

        Args:
            status: only corrections with this status.
            client: only corrections of this client.
            newest: the most corrections to yield.
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
        """Set the status of corrections, of all or none.

        Args:
            ids: ids, or beginnings of ids that are unique.
            status: the new status.

        Returns:
            The number of corrections.

        Raises:
            UsageError: an id does not exist, or its beginning is not unique.
        """
        with writing(self.engine) as connection:
            found = _found(connection, ids)
            connection.execute(update(corrections).where(corrections.c.id.in_(found)).values(status=status))
        return len(found)

    def delete_ids(self, ids: Sequence[str]) -> Deleted:
        """Delete corrections, all or none, and photos that have no correction left; ids as in `set_status`.

        Raises:
            UsageError: an id does not exist, or its beginning is not unique.
        """
        with writing(self.engine) as connection:
            return _delete(connection, corrections.c.id.in_(_found(connection, ids)))

    def delete_client(self, client: str) -> Deleted:
        """Delete all corrections of a client, and the photos that have no correction left."""
        with writing(self.engine) as connection:
            return _delete(connection, corrections.c.client == client)

    def delete_before(self, moment: datetime) -> Deleted:
        """Delete all corrections before a moment, and the photos that have no correction left."""
        with writing(self.engine) as connection:
            return _delete(connection, corrections.c.time < moment)

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
    """Yield all corrections, grouped by photo and the oldest first."""
    order = (corrections.c.sha256, corrections.c.time, corrections.c.id)
    for row in connection.execute(_ENTRIES.order_by(*order)):
        yield Entry(**row._mapping)


def count_photos(connection: Connection) -> int:
    """Count the photos."""
    return connection.scalar(select(func.count()).select_from(photos)) or 0


def photo_bytes(connection: Connection, digest: str) -> bytes:
    """Return the bytes of the photo with a digest, as they were sent."""
    return bytes(connection.execute(select(photos.c.bytes).where(photos.c.sha256 == digest)).scalar_one())


def _size(connection: Connection) -> int:
    # Recomputed each time: a counter of its own could drift away from what is stored.
    pixels = connection.scalar(select(func.coalesce(func.sum(photos.c.size), 0))) or 0
    rows = connection.scalar(select(func.count()).select_from(corrections)) or 0
    return int(pixels) + CORRECTION_BYTES * rows


def _found(connection: Connection, ids: Sequence[str]) -> list[str]:
    """Return the whole ids for ids or their beginnings, each once."""
    found: dict[str, None] = {}
    for id_ in ids:
        # autoescape: % and _ in what a user types must not act as wildcards. Two rows suffice to tell "not unique".
        begins = corrections.c.id.startswith(id_, autoescape=True)
        near = connection.scalars(select(corrections.c.id).where(begins).limit(2)).all() if id_ else []
        if len(near) != 1:
            how_many = "more than one correction begins with" if near else "there is no correction"
            raise UsageError(f"Nothing was changed: {how_many} '{id_}'. 'nameplate feedback list' shows them.")
        found[near[0]] = None
    return list(found)


def _delete(connection: Connection, which: ColumnElement[bool]) -> Deleted:
    """Delete corrections, and then the photos that have none left."""
    gone = connection.execute(delete(corrections).where(which)).rowcount
    has_correction = select(corrections.c.sha256).where(corrections.c.sha256 == photos.c.sha256).exists()
    return Deleted(gone, connection.execute(delete(photos).where(~has_correction)).rowcount)
