"""Corrections sent to a server over HTTP."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import text

from nameplate.demo import photo
from nameplate.images.decode import read_header
from nameplate.images.metadata import without_metadata
from nameplate.serve.errors import Problem
from nameplate.serve.feedback.database import writing
from nameplate.serve.feedback.store import Correction, Entry, FeedbackStore
from nameplate.serve.routes.feedback import _keep
from nameplate.storage import sha256
from nameplate.types import Limits
from tests.cli.run import nameplate
from tests.images import torture
from tests.serve.running import Running, serving

PHOTO = photo().read_bytes()
Server = tuple[Running, str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    database = str(tmp_path_factory.mktemp("feedback") / "feedback.sqlite")
    with serving("--feedback", database) as running:
        yield running, database


def send(running: Running, data: bytes = PHOTO, **fields: str) -> Any:
    return running.post("/v1/feedback", files={"photo": ("a.jpg", data)}, data=fields)


def kept(database: str) -> dict[str, Entry]:
    with FeedbackStore.open(database, create=False) as store:
        return {entry.id: entry for entry in store.entries()}


def test_a_correction_is_kept_with_the_answer_that_it_corrects(server: Server) -> None:
    running, database = server
    [answer] = running.identify(PHOTO).json()["results"]
    said = send(running, nameplate=" bmw  m3 coupe 2012", predicted=answer["nameplate"], comment="the badge\nsays so")
    assert said.status_code == 201, said.text
    assert list(said.json()) == ["id"]
    entry = kept(database)[said.json()["id"]]
    assert entry.nameplate == "BMW M3 Coupe 2012", "as the model spells it"
    assert (entry.predicted, entry.verdict, entry.comment) == (
        answer["nameplate"],
        answer["verdict"],
        "the badge\nsays so",
    )
    assert entry.confidence == pytest.approx(answer["confidence"])
    [model] = running.get("/v1/models").json()["models"]
    assert (entry.model, entry.digest) == (model["name"], model["digest"])
    assert (entry.sha256, entry.client, entry.status) == (sha256(PHOTO), "anonymous", "new")
    assert "127.0.0.1" not in repr(entry)


def test_it_is_kept_once_however_often_it_is_sent(server: Server) -> None:
    running, database = server
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda _: send(running, nameplate="Lada Niva"), range(6)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len([entry for entry in kept(database).values() if entry.nameplate == "Lada Niva"]) == 1


def test_a_confidence_of_another_answer_is_refused(server: Server) -> None:
    running, database = server
    id_ = send(running, nameplate="Lada Vesta", predicted="Lada Granta").json()["id"]
    entry = kept(database)[id_]
    assert (entry.predicted, entry.confidence, entry.verdict) == ("Lada Granta", None, None)


@pytest.mark.parametrize("name", sorted(torture.sound()))
def test_every_format_is_kept(server: Server, name: str) -> None:
    data = torture.sound()[name]
    answer = send(server[0], data, nameplate="Lada Niva")
    assert answer.status_code == 201, answer.text
    copy = without_metadata(data, read_header(data), Limits())
    entry, header = kept(server[1])[answer.json()["id"]], read_header(copy)
    assert (entry.format, entry.width, entry.height, entry.size, entry.sha256) == (
        header.format,
        header.width,
        header.height,
        len(copy),
        sha256(copy),
    )


@pytest.mark.parametrize(("options", "stays"), [((), False), (("--keep-metadata",), True)])
def test_where_a_photo_was_taken_is_kept_only_if_the_operator_says_so(
    tmp_path: Path, options: tuple[str, ...], stays: bool
) -> None:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x010E] = "51.5007 N, taken by Anna"
    with Image.open(photo()) as image:
        image.save(file, "JPEG", exif=exif)
    database = tmp_path / "corrections.sqlite"
    with serving("--feedback", str(database), *options) as running:
        assert send(running, file.getvalue(), nameplate="Lada Niva").status_code == 201
    stored = b"".join(each.read_bytes() for each in tmp_path.iterdir())
    assert (b"taken by Anna" in stored) == stays


@pytest.mark.parametrize("name", sorted(torture.broken()))
def test_no_broken_photo_is_kept(server: Server, name: str) -> None:
    data, _ = torture.broken()[name]
    before = kept(server[1])
    answer = send(server[0], data, nameplate="Lada Niva")
    assert answer.status_code in (413, 415, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert kept(server[1]) == before


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "'nameplate' is empty"),
        ({"nameplate": " "}, "'nameplate' is empty"),
        ({"nameplate": "x" * 201}, "has 201 characters"),
        ({"nameplate": "Lada\0"}, "U+0000"),
        ({"nameplate": "Lada", "predicted": "\x1b"}, "U+001B"),
        ({"nameplate": "Lada", "comment": "x" * 2001}, "has 2,001 characters"),
    ],
)
def test_invalid_text_is_refused(server: Server, fields: dict[str, str], problem: str) -> None:
    answer = send(server[0], PHOTO, **fields)
    assert answer.status_code == 422
    assert problem in answer.json()["detail"]


def test_an_invalid_correction_is_refused(server: Server) -> None:
    running, _ = server
    assert send(running, nameplate="Lada", model="no such").status_code == 404
    assert running.post("/v1/feedback", content=PHOTO).status_code == 422
    two = [("photo", ("a.jpg", PHOTO)), ("photo", ("b.jpg", PHOTO))]
    assert running.post("/v1/feedback", files=two, data={"nameplate": "Lada"}).status_code == 422
    other = running.post("/v1/feedback", files={"photos": ("a.jpg", PHOTO)}, data={"nameplate": "Lada"})
    assert "in field 'photo'" in other.json()["detail"]


def test_without_feedback_there_is_no_route() -> None:
    with serving() as running:
        assert running.get("/v1/service").json()["feedback"] is False
        answer = send(running, nameplate="Lada Niva")
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:nameplate:problem:not-found")


def test_a_key_gives_its_name_and_no_key_is_no_correction(tmp_path: Path) -> None:
    key = json.loads(nameplate("keys", "add", tmp_path / "keys", "the-shop", "--json").stdout)["key"]
    database = str(tmp_path / "f.sqlite")
    with serving("--feedback", database, "--keys", tmp_path / "keys") as running:
        assert send(running, nameplate="Lada Niva").status_code == 401
        sent = {"files": {"photo": ("a.jpg", PHOTO)}, "data": {"nameplate": "Lada Niva"}}
        answer = running.post("/v1/feedback", headers={"Authorization": f"Bearer {key}"}, **sent)
        assert answer.status_code == 201, answer.text
    assert [entry.client for entry in kept(database).values()] == ["the-shop"]


def test_postgresql_from_request_to_export_and_when_it_fails(postgres: str, tmp_path: Path) -> None:
    with serving(environment={"NAMEPLATE_FEEDBACK": postgres}) as running:
        id_ = send(running, nameplate="Lada Niva").json()["id"]
        nameplate("feedback", "accept", "--database", postgres, id_[:8])
        made = json.loads(nameplate("feedback", "export", postgres, "-o", tmp_path / "out", "--json").stdout)
        assert (made["photos"], made["unmoderated"]) == (1, 0)
        with FeedbackStore.open(postgres) as store, writing(store.engine) as connection:
            connection.execute(text("DROP TABLE feedback_corrections"))
        answer = send(running, nameplate="Lada Niva")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        assert "feedback_corrections" not in answer.text, "what the database says is no business of the client's"
        assert running.identify(PHOTO).status_code == 200
        assert running.stop() == 0
        said = "".join(running.said)
    assert "feedback_corrections" in said
    assert "a-secret" not in said


def test_a_full_store_says_so(tmp_path: Path) -> None:
    correction, header = Correction("Lada Niva", "me"), read_header(PHOTO)
    with FeedbackStore.open(str(tmp_path / "f.sqlite"), cap=1000) as store, pytest.raises(Problem) as refused:
        asyncio.run(_keep(store, correction, PHOTO, header))
    assert (refused.value.kind, refused.value.status) == ("full", 503)
