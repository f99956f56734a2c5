"""Corrections → a data set, and back through the reader and the trainer."""

from __future__ import annotations

import csv
import json
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from nameplate.data import read_dataset
from nameplate.demo import photos_folder
from nameplate.errors import DataError, NameplateError
from nameplate.images.decode import read_header
from nameplate.serve.feedback.database import writing
from nameplate.serve.feedback.export import Selection, export
from nameplate.serve.feedback.store import Correction, FeedbackStore
from nameplate.storage import sha256
from tests.cli.run import nameplate
from tests.serve.feedback.conftest import PHOTOS, say


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def left_out(output: Path) -> dict[str, str]:
    """Correction → reason."""
    return {row["correction"]: row["reason"] for row in rows(output / "left-out.csv")}


def test_what_was_stored_is_read(store: FeedbackStore, tmp_path: Path) -> None:
    names = ["ВАЗ-2121 «Нива», 3-дв.", '"CON"/../x; =1+1', "aux.jpg", "Citroën C3 | 2012"]
    ids = [say(store, number, name) for number, name in enumerate(names)]
    ids.append(say(store, 0, names[0], "you"))
    ticks: list[tuple[int, int]] = []
    made = export(store, tmp_path / "out", progress=lambda done, total: ticks.append((done, total)))
    assert (made.photos, made.corrections, made.unmoderated, made.left_out) == (4, 5, 4, {})
    assert ticks == [(1, 4), (2, 4), (3, 4), (4, 4)]
    dataset = read_dataset(tmp_path / "out")
    assert not dataset.refused
    assert {(sha256(Path(photo.path).read_bytes()), photo.label) for photo in dataset.photos} == {
        (sha256(PHOTOS[number].read_bytes()), name) for number, name in enumerate(names)
    }
    assert {photo.source for photo in dataset.photos} == {"feedback"}
    assert len({photo.group for photo in dataset.photos}) == 4
    assert read_dataset(tmp_path / "out" / "train.csv").photos == dataset.photos
    table = rows(tmp_path / "out" / "train.csv")
    assert sorted(" ".join(row["corrections"] for row in table).split()) == sorted(ids)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))
    assert manifest["photos"] == 4
    assert manifest["nameplates"] == dict.fromkeys(sorted(names), 1)
    assert manifest["digest"] == made.digest
    assert "a-secret" not in json.dumps(manifest)


def test_a_comment_is_no_formula_and_only_the_owner_looks_into_the_export(store: FeedbackStore, tmp_path: Path) -> None:
    for number, comment in enumerate(('=cmd|" /C calc"!A0', "+1", "-1", "@SUM(A1)", "plain = text")):
        data = PHOTOS[number].read_bytes()
        store.add(Correction("Lada Niva", "me", comment=comment), data, read_header(data))
    export(store, tmp_path / "out")
    comments = {row["comment"] for row in rows(tmp_path / "out" / "train.csv")}
    assert comments == {'\'=cmd|" /C calc"!A0', "'+1", "'-1", "'@SUM(A1)", "plain = text"}
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700


def test_rejected_conflicting_and_overruled_corrections_are_left_out(store: FeedbackStore, tmp_path: Path) -> None:
    good = say(store, 0, "A")
    rejected = say(store, 1, "A")
    one, other = say(store, 2, "A"), say(store, 2, "B", "you")
    right, overruled = say(store, 3, "A"), say(store, 3, "B", "you")
    lie, truth = say(store, 4, "B"), say(store, 4, "A", "you")
    store.set_status([rejected, lie], "rejected")
    store.set_status([right], "accepted")
    made = export(store, tmp_path / "out")
    assert left_out(tmp_path / "out") == {
        rejected: "rejected",
        lie: "rejected",
        one: "different nameplates for one photo",
        other: "different nameplates for one photo",
        overruled: "another nameplate was accepted",
    }
    kept = {row["corrections"]: row["status"] for row in rows(tmp_path / "out" / "train.csv")}
    assert kept == {good: "new", truth: "new", right: "accepted"}
    assert made.unmoderated == 2


def test_conflicts_may_be_included(store: FeedbackStore, tmp_path: Path) -> None:
    for client, name in (("me", "A"), ("you", "B"), ("they", "A")):
        say(store, 0, name, client)
    say(store, 1, "A")
    made = export(store, tmp_path / "out", Selection(include_conflicts=True))
    assert (made.photos, made.corrections) == (3, 4)
    dataset = read_dataset(tmp_path / "out")
    assert not dataset.refused
    assert sorted(str(photo.label) for photo in dataset.photos) == ["A", "A", "B"]
    assert len({photo.group for photo in dataset.photos}) == 2


def test_rejected_corrections_can_be_exported(store: FeedbackStore, tmp_path: Path) -> None:
    ids = [say(store, 0, "A"), say(store, 1, "A"), say(store, 2, "A")]
    store.set_status(ids, "rejected")
    say(store, 0, "B", "you")
    store.set_status([say(store, 2, "B", "you")], "accepted")
    assert export(store, tmp_path / "out", Selection(("rejected",))).left_out == {
        "not moderated": 1,
        "different nameplates for one photo": 1,
        "another nameplate was accepted": 1,
        "accepted": 1,
    }
    assert [row["corrections"] for row in rows(tmp_path / "out" / "train.csv")] == [ids[1]]


def test_only_the_selected_corrections_are_exported(store: FeedbackStore, tmp_path: Path) -> None:
    old, new = say(store, 0, "A"), say(store, 1, "A")
    store.set_status([old], "accepted")
    with writing(store.engine) as connection:
        earlier = datetime.now(UTC) - timedelta(days=9)
        connection.execute(
            text("UPDATE feedback_corrections SET time = :time, model = 'm' WHERE id = :id"),
            {
                "time": earlier if connection.dialect.name == "postgresql" else f"{earlier:%Y-%m-%d %H:%M:%S.%f}",
                "id": old,
            },
        )
    for number, (selection, kept, reason) in enumerate(
        [
            (Selection(since=datetime.now(UTC) - timedelta(days=1)), new, "too old"),
            (Selection(model="m"), old, "of another model"),
            (Selection(("accepted",)), old, "not moderated"),
            (Selection(("new",)), new, "accepted"),
        ]
    ):
        output = tmp_path / str(number)
        export(store, output, selection)
        assert [row["corrections"] for row in rows(output / "train.csv")] == [kept]
        assert left_out(output) == {({old, new} - {kept}).pop(): reason}


def test_a_conflict_counts_though_one_side_was_not_selected(store: FeedbackStore, tmp_path: Path) -> None:
    say(store, 0, "A")
    since = datetime.now(UTC)
    say(store, 0, "B", "you")
    say(store, 1, "A")
    made = export(store, tmp_path / "out", Selection(since=since))
    assert made.photos == 1
    assert made.left_out == {"too old": 1, "different nameplates for one photo": 1}


def test_damaged_photos_are_left_out(store: FeedbackStore, tmp_path: Path) -> None:
    say(store, 0)
    cut, other = say(store, PHOTOS[1].read_bytes()[:2000]), say(store, 2)
    with writing(store.engine) as connection:
        connection.execute(
            text("UPDATE feedback_photos SET bytes = :bytes WHERE sha256 = :sha256"),
            {"bytes": PHOTOS[3].read_bytes(), "sha256": sha256(PHOTOS[2].read_bytes())},
        )
    assert export(store, tmp_path / "out").photos == 1
    assert left_out(tmp_path / "out") == {cut: "unreadable", other: "not the photo that was stored"}
    assert len(list((tmp_path / "out" / "photos").iterdir())) == 1


def test_nothing_to_export_writes_nothing(store: FeedbackStore, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There are no corrections"):
        export(store, tmp_path / "out")
    store.set_status([say(store)], "rejected")
    with pytest.raises(DataError, match="1× rejected"):
        export(store, tmp_path / "out")
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_an_existing_folder_is_kept(store: FeedbackStore, tmp_path: Path) -> None:
    say(store)
    export(store, tmp_path / "out")
    before = (tmp_path / "out" / "train.csv").read_bytes()
    say(store, 1)
    with pytest.raises(NameplateError, match="--overwrite"):
        export(store, tmp_path / "out")
    assert (tmp_path / "out" / "train.csv").read_bytes() == before
    assert export(store, tmp_path / "out", overwrite=True).photos == 2


def test_one_photo_is_in_memory_at_a_time(store: FeedbackStore, tmp_path: Path) -> None:
    size = 4_000_000
    for number in range(12):
        say(store, PHOTOS[number].read_bytes() + bytes(size))  # what follows a JPEG's end is passed over
    tracemalloc.start()
    try:
        assert export(store, tmp_path / "out").photos == 12
        assert tracemalloc.get_traced_memory()[1] < 6 * size  # a driver and the digest copy it a few times
    finally:
        tracemalloc.stop()


def test_a_head_is_trained_on_what_users_said(tmp_path: Path) -> None:
    database = str(tmp_path / "f.sqlite")
    folders = sorted(photos_folder("test").iterdir())[::4]  # of different makes: a few photos tell these apart
    with FeedbackStore.open(database) as store:
        for folder in folders:
            for path in sorted(folder.glob("*.jpg"))[:8]:
                say(store, path.read_bytes(), f"Mine: {folder.name}")
    nameplate("feedback", "export", database, "-o", tmp_path / "out")
    nameplate("train", tmp_path / "out", "-o", tmp_path / "model", "--no-mirror")
    photos = [str(path) for path in sorted(folders[1].glob("*.jpg"))[8:11]]
    answers = json.loads(nameplate("identify", *photos, "--model", tmp_path / "model", "--json").stdout)
    right = sum(answer["nameplate"] == f"Mine: {folders[1].name}" for answer in answers)
    assert right >= 2, answers
