"""Security headers on every answer."""

from __future__ import annotations

import pytest

from nameplate.serve.middleware import CONTENT_SECURITY_POLICY, HEADERS
from nameplate.serve.settings import ServeSettings
from tests.serve.guarded import Service, client_of


@pytest.mark.parametrize("path", ["/", "/v1/who/x", "/v1/full", "/v1/break", "/none"])
def test_every_answer_has_them_errors_too(path: str) -> None:
    answer = client_of(Service()).get(path)
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert (answer.headers.get("cache-control") == "no-store") == path.startswith("/v1/")


def test_a_refusal_by_the_guards_has_them() -> None:
    answer = client_of(Service()).get("/v1/who/x", headers={"Host": "evil.example"})
    assert answer.status_code == 403
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert answer.headers["cache-control"] == "no-store"


def test_headers_of_the_application_are_replaced() -> None:
    assert client_of(Service()).get("/v1/who/x").headers.get_list("x-frame-options") == ["DENY"]


def test_answers_may_be_read_across_origins_where_cors_is_on() -> None:
    answer = client_of(Service(ServeSettings(cors=("https://friend.example",)))).get("/")
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
