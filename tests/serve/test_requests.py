"""Request bodies: forms are read as they were sent, and malformed ones are refused."""

from __future__ import annotations

import gc
import weakref

import httpx2 as httpx
import pytest
from hypothesis import given
from hypothesis import strategies as some

from nameplate.serve.errors import KINDS, Problem
from nameplate.serve.requests import FIELD_BYTES, Form, FormReader


def read_multipart(body: bytes, boundary: bytes, chunk: int = 1 << 20) -> Form:
    reader = FormReader(boundary)
    for start in range(0, len(body), chunk):
        reader.write(body[start : start + chunk])
    return reader.form()


def _encoded(files: list[tuple[str, str, bytes]], fields: dict[str, str]) -> tuple[bytes, bytes]:
    request = httpx.Request(
        "POST", "http://x/", data=fields, files=[(field, (name, data)) for field, name, data in files]
    )
    boundary = request.headers["content-type"].partition("boundary=")[2].encode()
    return request.read(), boundary


@given(
    some.lists(some.binary(max_size=300), min_size=1, max_size=4),
    some.dictionaries(some.sampled_from(["claimed", "model", "comment"]), some.text(max_size=40)),
    some.integers(1, 400),
)
def test_a_form_is_read_as_it_was_sent_in_any_chunks(photos: list[bytes], fields: dict[str, str], chunk: int) -> None:
    fields = {key: value.encode("utf-8", "replace").decode() for key, value in fields.items()}
    form = read_multipart(*_encoded([("photos", f"{i}.jpg", data) for i, data in enumerate(photos)], fields), chunk)
    assert [file.data for file in form.files] == photos
    assert [file.name for file in form.files] == [f"{i}.jpg" for i in range(len(photos))]
    assert form.fields == fields


@given(some.binary(max_size=400), some.binary(max_size=80))
def test_any_bytes_are_read_or_refused(body: bytes, boundary: bytes) -> None:
    try:
        read_multipart(body, boundary)
    except Problem as problem:
        assert problem.kind in KINDS


@given(some.data())
def test_a_form_that_is_changed_anywhere_is_read_or_refused(data: some.DataObject) -> None:
    body, boundary = _encoded([("photos", "a.jpg", bytes(range(60)))], {"claimed": "Jeep"})
    at = data.draw(some.integers(0, len(body) - 1))
    changed = body[:at] + data.draw(some.binary(max_size=4)) + body[at + data.draw(some.integers(0, 4)) :]
    try:
        read_multipart(changed, boundary)
    except Problem as problem:
        assert problem.status in (400, 413)


def test_a_form_that_is_cut_short_is_refused() -> None:
    body, boundary = _encoded([("photos", "a.jpg", bytes(1000))], {})
    with pytest.raises(Problem, match="cut short"):
        read_multipart(body[:500], boundary)


@pytest.mark.parametrize("boundary", [b"", b"another", b"x" * 5000])
def test_a_boundary_that_is_not_the_forms_is_refused(boundary: bytes) -> None:
    body, _ = _encoded([("photos", "a.jpg", bytes(1000))], {})
    with pytest.raises(Problem) as refused:
        read_multipart(body, boundary)
    assert refused.value.status == 400


def test_a_field_as_long_as_a_photo_is_refused() -> None:
    with pytest.raises(Problem, match="If it is a photo, give its part a file name"):
        read_multipart(*_encoded([("photos", "a.jpg", b"")], {"photos": "x" * (FIELD_BYTES + 1)}))


def test_endless_headers_are_refused() -> None:
    body = b"--b\r\nContent-Disposition: form-data; name=x" + b"x" * 9000 + b"\r\n\r\nhello\r\n--b--\r\n"
    with pytest.raises(Problem, match="(?i)header") as refused:
        read_multipart(body, b"b")
    assert refused.value.status == 400


def test_endless_parts_are_refused() -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="photos"; filename="a"\r\n\r\n\r\n'
    with pytest.raises(Problem) as refused:
        read_multipart(part * 5000 + b"--b--\r\n", b"b")
    assert refused.value.status == 413


def test_names_that_are_no_utf8_or_very_long_are_shown_harmlessly() -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="photos"; filename="\xff'
        + b"n" * 400
        + b'"\r\n\r\nx\r\n--b--\r\n'
    )
    [file] = read_multipart(body, b"b").files
    assert file.name.startswith("\\xffnn")
    assert len(file.name) == 255


def test_photos_are_freed_with_their_form_without_the_garbage_collector() -> None:
    body, boundary = _encoded([("photos", "a.jpg", bytes(1000))], {})
    gc.disable()
    try:
        reader = FormReader(boundary)
        reader.write(body)
        parts = weakref.ref(reader.parts)
        del reader
        assert parts() is None
    finally:
        gc.enable()
