"""What clients send that must not stop the others: the real server, each attack bounded to seconds."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from PIL import Image

from nameplate.demo import photo
from tests.serve.running import Running, serving

PHOTO = photo().read_bytes()


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving() as running:
        yield running


@pytest.mark.parametrize("size", [(1, 1), (1000, 10), (300, 1), (2, 300), (1, 300), (3, 3)])
def test_a_heat_map_of_a_photo_of_odd_shape_costs_no_worker(server: Running, size: tuple[int, int]) -> None:
    buffer = io.BytesIO()
    Image.effect_noise(size, 90).convert("RGB").save(buffer, "PNG")
    before = server.workers
    answer = server.identify(buffer.getvalue(), "?heatmap=true")
    assert answer.status_code == 200
    [row] = answer.json()["results"]
    assert row["heatmap"]["png"]
    assert server.identify(PHOTO).status_code == 200
    assert server.workers == before
