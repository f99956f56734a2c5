"""Swagger UI at `/docs`, in a real browser: under the strict policy, offline, and asking this service alone."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import TYPE_CHECKING

import httpx2 as httpx
import pytest
from tools.vendor_swagger_ui import FILES, SENT, TARGET, TERMS

from nameplate.serve.app import routes_alone
from nameplate.serve.middleware import CONTENT_SECURITY_POLICY
from nameplate.storage import sha256
from tests.serve.running import Running, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.touch()
    with serving("--threads", "1", "--docs", "--keys", keys) as running:
        yield running


def test_it_shows_every_operation_and_tries_one(server: Running, browser: Browser) -> None:
    from playwright.sync_api import expect

    page = browser.new_page()
    wrong: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{server.url}/docs")
    operations = sum(len(item) for item in routes_alone().openapi()["paths"].values())
    expect(page.locator(".opblock")).to_have_count(operations)
    block = page.locator("#operations-health-live")
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Try it out").click()
    block.get_by_role("button", name="Execute").click()
    expect(block.locator(".live-responses-table .response-col_status").last).to_have_text("200")
    expect(block.locator(".live-responses-table pre").first).to_contain_text('"live": true')
    page.close()
    assert wrong == []
    assert [url for url in asked if not url.startswith((server.url, "data:", "blob:"))] == []


def test_its_files_need_no_key_and_are_sent_compressed_to_who_takes_it(server: Running) -> None:
    page = server.get("/docs")
    assert (page.status_code, page.headers["content-security-policy"]) == (200, CONTENT_SECURITY_POLICY)
    assert "<script>" not in page.text
    for name in SENT:
        packed = server.get(f"/docs/{name}")  # decompressed by the client
        assert (packed.headers["content-encoding"], sha256(packed.content)) == ("gzip", FILES.hashes[name])
        plain = httpx.get(f"{server.url}/docs/{name}", headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.content == packed.content
        again = server.get(f"/docs/{name}", headers={"If-None-Match": packed.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert server.get(f"/docs/{TERMS}").status_code == 404
    assert server.get("/v1/models").status_code == 401


def test_the_files_are_those_of_the_package() -> None:
    for name in SENT:
        assert sha256(gzip.decompress((TARGET / f"{name}.gz").read_bytes())) == FILES.hashes[name]
    terms = (TARGET / TERMS).read_text("utf-8")
    assert f"{FILES.package} {FILES.version}" in terms
    assert "Apache License" in terms
