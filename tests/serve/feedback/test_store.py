"""Corrections stored, listed, moderated and deleted, in both databases."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from nameplate.errors import DatabaseError, UsageError
from nameplate.images.decode import read_header
from nameplate.serve.feedback.database import reading, writing
from nameplate.serve.feedback.store import (
    CORRECTION_BYTES,
    Correction,
    Deleted,
    FeedbackStore,
    StoreFullError,
    photo_bytes,
)
from nameplate.storage import sha256
from tests.serve.feedback.conftest import PHOTOS, say

PHOTO = PHOTOS[0].read_bytes()
SAID = Correction(
    nameplate="ВАЗ-2121 «Нива»",
    client="the page",
    predicted="Jeep Wrangler SUV 2012",
    confidence=0.25,
    verdict="unsure",
    model="cars196",
    digest="9f" * 32,
    comment="it has\nno 'roof'; 👩‍🔧",
)


def photos(store: FeedbackStore) -> int:
    with reading(store.engine) as connection:
        return int(connection.execute(text("SELECT count(*) FROM feedback_photos")).scalar_one())


def test_stored_corrections_are_read_back(store: FeedbackStore) -> None:
    begun = datetime.now(UTC)
    id_ = store.add(SAID, PHOTO, read_header(PHOTO))
    [entry] = store.entries()
    assert {name: getattr(entry, name) for name in SAID.__slots__} == {n: getattr(SAID, n) for n in SAID.__slots__}
    assert (entry.id, entry.status, entry.sha256, entry.size) == (id_, "new", sha256(PHOTO), len(PHOTO))
    assert (entry.width, entry.height, entry.format) == (320, 240, "JPEG")
    assert begun <= entry.time <= datetime.now(UTC)
    assert entry.time.tzinfo == UTC
    with reading(store.engine) as connection:
        assert photo_bytes(connection, entry.sha256) == PHOTO


def test_the_same_correction_is_stored_once(store: FeedbackStore) -> None:
    first = say(store, 0, "Lada Niva", "me")
    assert say(store, 0, "Lada Niva", "me") == first
    others = {say(store, 0, "Lada Niva", "you"), say(store, 0, "Lada 4x4", "me"), say(store, 1, "Lada Niva", "me")}
    assert first not in others
    assert len(others) == 3
    assert len(list(store.entries())) == 4
    assert photos(store) == 2


def test_the_cap_holds(database: str) -> None:
    room = len(PHOTO) + 2 * CORRECTION_BYTES
    with FeedbackStore.open(database, cap=room) as store:
        first = say(store, 0, "Lada Niva")
        with pytest.raises(StoreFullError, match=f"{room:,} bytes"):
            say(store, 1)
        say(store, 0, "Lada 4x4")  # its photo is there
        with pytest.raises(StoreFullError):
            say(store, 0, "another")
        assert say(store, 0, "Lada Niva") == first, "what is there needs no room"
        assert store.size() == room
        store.delete_client("me")
        assert store.size() == 0
        say(store, 1)


def test_corrections_are_listed_newest_first(store: FeedbackStore) -> None:
    ids = [say(store, number, client=client) for number, client in enumerate(["me", "you", "me"])]
    assert [entry.id for entry in store.entries()] == ids[::-1]
    assert [entry.id for entry in store.entries(newest=1)] == ids[2:]
    assert [entry.id for entry in store.entries(client="me")] == [ids[2], ids[0]]
    store.set_status(ids[:1], "accepted")
    assert [entry.id for entry in store.entries(status="accepted")] == ids[:1]
    assert [entry.id for entry in store.entries(status="new", client="you")] == [ids[1]]


def test_a_status_is_set_for_all_or_none(store: FeedbackStore) -> None:
    ids = [say(store, number) for number in range(3)]
    assert store.set_status([ids[0], ids[1][:13], ids[0]], "rejected") == 2
    assert [entry.status for entry in store.entries()] == ["new", "rejected", "rejected"]
    for wrong, problem in (("no such", "no correction 'no such'"), ("", "no correction"), ("%", "no correction")):
        with pytest.raises(UsageError, match=problem):
            store.set_status([ids[2], wrong], "accepted")
        with pytest.raises(UsageError, match=problem):
            store.delete_ids([ids[2], wrong])
    assert [entry.status for entry in store.entries()] == ["new", "rejected", "rejected"]


def test_an_ambiguous_beginning_of_an_id_is_refused(store: FeedbackStore) -> None:
    begins = [say(store, number)[0] for number in range(17)]  # 16 digits: two ids share one
    twice = next(digit for digit in begins if begins.count(digit) > 1)
    with pytest.raises(UsageError, match="more than one"):
        store.set_status([twice], "accepted")


def test_deleting_removes_photos_without_other_corrections(store: FeedbackStore) -> None:
    mine = [say(store, number) for number in range(3)]
    say(store, 0, client="you")
    assert store.delete_ids(mine[2:]) == Deleted(1, 1)
    assert store.delete_client("me") == Deleted(2, 1)
    assert photos(store) == 1
    assert store.delete_before(datetime.now(UTC) - timedelta(hours=1)) == Deleted(0, 0)
    assert store.delete_before(datetime.now(UTC)) == Deleted(1, 1)
    assert store.delete_client("nobody") == Deleted(0, 0)


def test_deleted_corrections_are_removed_from_the_file(tmp_path: Path) -> None:
    with FeedbackStore.open(str(tmp_path / "f.sqlite")) as store:
        say(store, b"a secret of the user's" * 1000)
        store.delete_client("me")
    assert b"a secret" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


def test_a_photo_with_corrections_cannot_be_deleted(store: FeedbackStore) -> None:
    say(store)
    with pytest.raises(DatabaseError), writing(store.engine) as connection:
        connection.execute(text("DELETE FROM feedback_photos"))


def test_an_unknown_status_cannot_be_stored(store: FeedbackStore) -> None:
    id_ = say(store)
    with pytest.raises(DatabaseError):
        store.set_status([id_], "maybe")  # type: ignore[arg-type]


def test_threads_store_at_once(store: FeedbackStore) -> None:
    """Eight say each of six things, the same ones: all are kept, once, and the cap holds."""
    store.cap = sum(len(PHOTOS[number].read_bytes()) for number in range(3)) + 6 * CORRECTION_BYTES
    ids: list[str] = []
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        for number in range(6):
            ids.append(say(store, number % 3, f"Lada {number // 3}"))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 48
    assert len(set(ids)) == 6
    assert {entry.id for entry in store.entries()} == set(ids)


def test_processes_store_at_once(store: FeedbackStore, database: str) -> None:
    program = (
        "import sys\n"
        "from tests.serve.feedback.conftest import FeedbackStore, say\n"
        "with FeedbackStore.open(sys.argv[1]) as store:\n"
        "    print(*(say(store, number) for number in range(10)))"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, database], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    said = [writer.communicate()[0].split() for writer in writers]
    assert said == [said[0]] * 3
    assert len(set(said[0])) == 10
    assert photos(store) == 10


def test_a_database_that_goes_away_is_reported(store: FeedbackStore) -> None:
    with writing(store.engine) as connection:
        connection.execute(text("DROP TABLE feedback_corrections"))
    with pytest.raises(DatabaseError) as failed:
        store.add(replace(SAID, comment="private"), PHOTO, read_header(PHOTO))
    assert "private" not in str(failed.value)
    assert "a-secret" not in str(failed.value)
