"""One log line per request, which no content of a request can forge."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
from starlette.types import Message, Receive, Scope, Send

from nameplate.serve.errors import Problem
from nameplate.serve.observability import GONE, Logs, StderrHandler, event, set_up_logging
from nameplate.serve.requests import FormReader
from tests.serve.guarded import Service, client_of, lines


def test_a_request_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    client_of(Service(), "127.0.0.9").post("/v1/who/x?secret=1", content=b"123", headers={"X-Request-ID": "job-7"})
    (line,) = lines(capsys.readouterr().err)
    assert line.pop("time").endswith("Z")
    assert 0 <= line.pop("ms") < 5000
    assert line == {
        "level": "info",
        "request": "job-7",
        "method": "POST",
        "path": "/v1/who/x",
        "status": 200,
        "client": "127.0.0.9",
        "received": 3,
        "sent": 33,
        "photos": 3,
    }


@pytest.mark.parametrize("told", [None, "", "a" * 65, "two words", 'quo"te', "b\x1b[31m"])
def test_an_invalid_id_is_replaced(told: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    answer = client_of(Service()).get("/", headers={} if told is None else {"X-Request-ID": told})
    (line,) = lines(capsys.readouterr().err)
    assert line["request"] == answer.headers["X-Request-ID"]
    assert len(line["request"]) == 32


def test_a_refusal_is_logged_with_its_kind(capsys: pytest.CaptureFixture[str]) -> None:
    client = client_of(Service())
    client.get("/v1/full")
    client.get("/v1/who/x", headers={"Host": "evil.example"})
    full, foreign = lines(capsys.readouterr().err)
    assert (full["level"], full["status"], full["problem"]) == ("warning", 503, "full")
    assert (foreign["level"], foreign["status"], foreign["problem"]) == ("info", 403, "not-allowed")


def test_a_bug_is_logged_in_full_and_answered_as_a_problem(capsys: pytest.CaptureFixture[str]) -> None:
    answer = client_of(Service()).get("/v1/break")
    (line,) = lines(capsys.readouterr().err)
    assert answer.status_code == 500
    assert "ZeroDivisionError: secret detail" in line["traceback"]
    assert line["level"] == "error"
    assert "secret" not in answer.text


async def _raising(scope: Scope, receive: Receive, send: Send) -> None:
    raise ZeroDivisionError


def test_the_guard_answers_if_the_application_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    answer = client_of(Service(), app=_raising).get("/")
    (line,) = lines(capsys.readouterr().err)
    assert answer.json()["type"] == "urn:nameplate:problem:internal"
    assert answer.headers["X-Request-ID"] == line["request"]
    assert (line["status"], line["problem"]) == (500, "internal")


async def _silent(scope: Scope, receive: Receive, send: Send) -> None:
    return


def test_a_client_that_disconnected_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    done: list[tuple[object, ...]] = []
    logs = Logs(_silent, done=lambda *told: done.append(told))

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    async def nowhere(_: Message) -> None:
        return

    with pytest.raises(StopIteration):
        logs({"type": "http", "method": "GET", "path": "/", "headers": []}, nothing, nowhere).__await__().__next__()
    assert done[0][2] == GONE
    assert lines(capsys.readouterr().err)[0]["status"] == GONE


HOSTILE = ["/%0a%7B%22level%22:%22x%22%7D", "/%1b[31m", "/%E2%80%A8x", "/%22,%22status%22:200,%22", "/" + "a" * 5000]


@pytest.mark.parametrize("path", HOSTILE)
def test_no_path_forges_a_line(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    client_of(Service()).get(path)
    written = capsys.readouterr().err
    assert written.isascii()
    assert written.count("\n") == 1
    assert len(written) < 1000
    assert lines(written)[0]["status"] == 404


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_lines_are_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := _Terminal())
    event("worker died", level="warning", bundle="b\x1b[31m\nforged", seconds=1.5)
    client_of(Service()).get("/v1/who/x")
    first, second = terminal.getvalue().splitlines()
    assert first[9:] == r"warning worker died bundle=b\x1b[31m\nforged seconds=1.5"
    assert second[9:].startswith("info    GET /v1/who/x 200 ")


def test_an_event_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    event("ready", port=8000, name="any", odd="\u2028\x85\n")
    written = capsys.readouterr().err
    assert len(written.splitlines()) == 1
    (line,) = lines(written)
    assert (line["event"], line["level"], line["port"], line["name"]) == ("ready", "info", 8000, "any")


def test_what_other_libraries_log_is_a_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.Logger("uvicorn.error")
    log.addHandler(StderrHandler())
    try:
        raise ValueError("x\ny")
    except ValueError:
        log.exception("Failed %s\n", "twice")
    (line,) = lines(capsys.readouterr().err)
    assert (line["level"], line["logger"], line["event"]) == ("error", "uvicorn.error", "Failed twice\n")
    assert line["traceback"].endswith("ValueError: x\ny\n")


@pytest.fixture
def own_root_logger() -> Iterator[None]:
    """Puts back what `set_up_logging` changes in loggers that are not the service's own."""
    root, forms = logging.getLogger(), logging.getLogger("python_multipart")
    handlers, levels = root.handlers, (root.level, forms.level)
    yield
    root.handlers = handlers
    root.setLevel(levels[0])
    forms.setLevel(levels[1])


@pytest.mark.usefixtures("own_root_logger")
def test_malformed_forms_do_not_fill_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging()
    for _ in range(3):
        with pytest.raises(Problem, match="cannot be read"):
            FormReader(b"x").write(b"no boundary")
    assert capsys.readouterr().err == ""
    logging.getLogger("elsewhere").warning("still told")
    assert "still told" in capsys.readouterr().err


def test_a_log_that_nobody_reads_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    assert client_of(Service()).get("/").status_code == 200


def test_values_of_any_kind_can_be_logged(capsys: pytest.CaptureFixture[str]) -> None:
    event("odd", value={1, 2}, error=OSError("gone"))
    assert json.loads(capsys.readouterr().err)["error"] == "gone"
