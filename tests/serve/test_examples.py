"""The example answers in docs/serving.md and in the OpenAPI document are those of the running service."""

from __future__ import annotations

import io
import itertools
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from nameplate.serve.app import routes_alone
from tests.serve.running import Running, serving

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text("utf-8")
COMMAND = re.compile(r"^\$ (curl -F .*)\n((?: *[{\"].*\n)+)", re.MULTILINE)
"""A command and the JSON below it."""


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving("--threads", "1") as running:
        yield running


def street(server: Running) -> bytes:
    """Two of the page's examples beside each other."""
    both = [Image.open(io.BytesIO(server.get(f"/page/example-{number}.jpg").content)) for number in (3, 1)]
    whole = Image.new("RGB", (sum(each.width for each in both), max(each.height for each in both)))
    whole.paste(both[0], (0, 0))
    whole.paste(both[1], (both[0].width, 0))
    file = io.BytesIO()
    whole.save(file, "JPEG", quality=95)
    return file.getvalue()


def answer(server: Running, command: str) -> Any:
    """Send what `curl -F NAME=VALUE … URL` would send."""
    words = shlex.split(command, comments=True)
    fields = [word.partition("=")[::2] for flag, word in itertools.pairwise(words) if flag == "-F"]
    photos = [(name, value[1:]) for name, value in fields if value.startswith("@")]
    files = [
        (name, (file, street(server) if file == "street.jpg" else server.get(f"/page/{file}").content))
        for name, file in photos
    ]
    data = {name: value for name, value in fields if not value.startswith("@")}
    return server.post(words[-1].removeprefix("http://127.0.0.1:8000"), files=files, data=data).json()


def agrees(shown: Any, found: Any) -> bool:
    """Whether what is shown is a part of an answer. Numbers are rounded, digests cut short."""
    if isinstance(shown, dict):
        return all(name in found and agrees(value, found[name]) for name, value in shown.items())
    if isinstance(shown, list):
        return len(shown) == len(found) and all(map(agrees, shown, found))
    if isinstance(shown, float):
        return bool(shown == pytest.approx(found, abs=0.004))  # processors add in different orders
    if isinstance(shown, str) and shown.endswith("…"):
        return bool(found.startswith(shown[:-1]))
    return bool(shown == found)


def test_the_answers_that_the_documentation_shows_are_the_services(server: Running) -> None:
    blocks = COMMAND.findall(PAGE)
    assert len(blocks) == 3
    for command, shown in blocks:
        expected, found = json.loads(shown.replace(",…", "")), answer(server, command)
        assert agrees(expected, found), f"{command}\n{json.dumps(found, ensure_ascii=False)}"


def test_the_examples_of_the_openapi_document_are_the_services(server: Running) -> None:
    paths = server.get("/openapi.json").json()["paths"]
    assert paths.keys() == routes_alone().openapi()["paths"].keys()
    for path, command in (
        ("/v1/identify", "curl -F photos=@example-3.jpg http://127.0.0.1:8000/v1/identify?top=2"),
        ("/v1/verify", "curl -F 'claimed=GMC Savana' -F photos=@example-3.jpg http://127.0.0.1:8000/v1/verify"),
    ):
        example = paths[path]["post"]["responses"]["200"]["content"]["application/json"]["example"]
        found = answer(server, command)
        if path == "/v1/verify":  # which takes no ?top=
            found["photos"][0]["top"] = found["photos"][0]["top"][:2]
        assert agrees(example, found), json.dumps(found, ensure_ascii=False)
