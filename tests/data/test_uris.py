"""Object storage, against a local S3 server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from nameplate.batch.predict import Options, find_output, predict_photos
from nameplate.batch.uris import list_entries, read_uri
from nameplate.data import Refused, uris
from nameplate.demo import photo, photos_folder
from nameplate.errors import DataError, PhotoError, UsageError
from nameplate.model.model import Model
from nameplate.types import Limits
from tests.batch.listed import list_references

pytest.importorskip("s3fs", reason="needs the cloud extra")
pytest.importorskip("moto.server", reason="needs moto[s3,server]")

SECRET = "a-secret-that-nobody-shall-read"
LIMITS = Limits()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of an S3 server with a bucket of photos."""
    import boto3
    from moto.server import ThreadedMotoServer

    local = ThreadedMotoServer(port=0, verbose=False)
    local.start()
    host, port = local.get_host_and_port()
    address = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=address, aws_access_key_id="me", aws_secret_access_key=SECRET, region_name="us-east-1"
    )
    client.create_bucket(Bucket="cars")
    for key in ("b/2.jpg", "b/1.jpg", "a.jpg", "b/c/3.JPG", "b/notes.txt"):
        client.put_object(Bucket="cars", Key=key, Body=photo().read_bytes())
    client.put_object(Bucket="cars", Key="odd/empty.jpg", Body=b"")
    for number, path in enumerate(sorted(photos_folder("test").glob("*/*.jpg"))[:100]):
        client.put_object(Bucket="cars", Key=f"many/{number:03d}.jpg", Body=path.read_bytes())
    yield address
    local.stop()


@pytest.fixture(autouse=True)
def settings(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Who we are to the server, as a user says it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    uris.open_store.cache_clear()
    yield
    uris.open_store.cache_clear()


def test_prefixes_keys_and_patterns_are_listed_in_order() -> None:
    below = ["s3://cars/b/1.jpg", "s3://cars/b/2.jpg", "s3://cars/b/c/3.JPG"]
    assert list(list_references(["s3://cars/b"])) == below
    assert list(list_references(["s3://cars/b/"])) == below
    assert list(list_references(["s3://cars/a.jpg"])) == ["s3://cars/a.jpg"]
    assert list(list_references(["s3://cars/b/*.jpg"])) == below[:2]
    assert len(list(list_references(["s3://cars"]))) == 105


def test_objects_that_are_no_photos_by_name_are_left_out_unless_the_address_names_them() -> None:
    refused = [Refused("s3://cars/b/notes.txt", uris.NO_PHOTO_NAME)]
    for source in ("s3://cars/b", "s3://cars/b/*"):
        assert [entry for entry in list_entries([source]) if isinstance(entry, Refused)] == refused
    assert list(list_references(["s3://cars/b/*"])) == list(list_references(["s3://cars/b"]))
    assert list(list_entries(["s3://cars/b/notes.txt"])) == ["s3://cars/b/notes.txt"]


def test_an_object_is_read_within_its_limits() -> None:
    assert read_uri("s3://cars/a.jpg", LIMITS) == photo().read_bytes()
    for key, limits, reason in (
        ("gone.jpg", LIMITS, "missing"),
        ("odd/empty.jpg", LIMITS, "empty"),
        ("a.jpg", Limits(bytes=100), "too large"),
    ):
        with pytest.raises(PhotoError) as refused:
            read_uri(f"s3://cars/{key}", limits)
        assert refused.value.reason == reason


def test_what_cannot_be_listed_is_reported() -> None:
    with pytest.raises(DataError, match="There is no 's3://no-such-bucket/x'"):
        list(list_references(["s3://no-such-bucket/x"]))
    with pytest.raises(UsageError, match="'ftp://' are not read"):
        list(list_references(["ftp://host/x.jpg"]))
    with pytest.raises(UsageError, match="names no bucket"):
        list(list_references(["s3://"]))


def test_a_password_in_an_address_is_refused_and_never_shown() -> None:
    with pytest.raises(UsageError) as refused:
        list(list_references([f"s3://me:{SECRET}@cars/a.jpg"]))
    assert SECRET not in str(refused.value)


def test_a_job_over_a_store_says_what_one_over_files_says(tmp_path: Path) -> None:
    model = Model.load(runtime="onnxruntime")
    sources = ["s3://cars/many", "s3://cars/gone.jpg"]
    done = predict_photos(model, sources, find_output(tmp_path / "out", "jsonl"), Options(shard_size=40))
    assert (done.photos, done.errors, done.parts) == (101, {"missing": 1}, 3)
    text = "".join(path.read_text("utf-8") for path in sorted((tmp_path / "out").glob("part-*")))
    rows = [json.loads(line) for line in text.splitlines()]
    files = sorted(photos_folder("test").glob("*/*.jpg"))[:100]
    assert [row["top"] for row in rows[:100]] == [
        [{"nameplate": name, "confidence": chance} for name, chance in each.top] for each in model.predict(files)
    ]
    assert [row["photo"] for row in rows[:2]] == ["s3://cars/many/000.jpg", "s3://cars/many/001.jpg"]
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert SECRET.encode() not in written


def test_a_store_that_is_away_ends_the_job_and_the_photos_are_not_to_blame(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(uris, "ATTEMPTS", 1)
    uris.open_store.cache_clear()
    with pytest.raises(DataError, match="does not answer") as told:
        read_uri("s3://cars/a.jpg", LIMITS)
    assert SECRET not in str(told.value)
