"""Photos of several cars over HTTP: the boxes, all cars, the whole photo; against the real service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from nameplate.model.model import Model
from nameplate.model.verification import prediction_json
from nameplate.runtime.base import BATCH
from nameplate.types import Cars
from tests.cli.run import nameplate
from tests.scenes import FILES, as_file, locating_bundle, scene
from tests.serve.running import Running, serving

pytest.importorskip("fastapi")

SCENE = as_file(scene())
CAR = FILES[0].read_bytes()
GREY = as_file(np.full((300, 400, 3), 120, np.uint8))
"""A photo without a car."""
MANY = as_file(scene(tuple((20 + 200 * (n % 5), 30 + 230 * (n // 5), 180) for n in range(10)), (1020, 480)))
"""Ten cars in two rows."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return locating_bundle(tmp_path_factory.mktemp("cars") / "bundle")


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Running]:
    with serving(bundle, "--threads", "2") as running:
        yield running


def said(bundle: Path, photo: bytes, cars: Cars = "main") -> Any:
    """The row that Python's API gives for a photo."""
    model = Model.load(str(bundle), runtime="onnxruntime", threads=2, cars=cars)
    [prediction] = model.predict([photo])
    return json.loads(msgspec.json.encode(prediction_json(prediction)))


@pytest.mark.parametrize(("query", "cars"), [("", "main"), ("?all=true", "all"), ("?whole=true", "whole")])
@pytest.mark.parametrize("photo", [SCENE, as_file(scene(), turned=True), CAR, GREY, MANY])
def test_a_request_chooses_which_cars_are_named(
    server: Running, bundle: Path, query: str, cars: Cars, photo: bytes
) -> None:
    [row] = server.identify(photo, query).json()["results"]
    assert row == said(bundle, photo, cars)


def test_all_cars_are_named_the_main_one_first(server: Running) -> None:
    [row] = server.identify(SCENE, "?all=true").json()["results"]
    large, small = row["cars"]
    assert large == {key: row[key] for key in large}
    assert 40 <= large["box"]["left"] < large["box"]["right"] <= 540
    assert 700 <= small["box"]["left"] < small["box"]["right"] <= 960
    [none] = server.identify(GREY, "?all=true").json()["results"]
    assert (none["cars"], none["box"], none["why"]) == ([], None, "no car found")
    [unasked] = server.identify(SCENE).json()["results"]
    assert "cars" not in unasked


def test_all_cars_and_the_whole_photo_exclude_each_other(server: Running) -> None:
    answer = server.identify(SCENE, "?all=true&whole=true")
    assert answer.status_code == 422
    assert "ask for one of them" in answer.json()["detail"]


def test_verify_uses_the_main_car_or_the_whole_photo_as_the_command_does(server: Running, bundle: Path) -> None:
    [row] = server.identify(SCENE).json()["results"]
    path = bundle.parent / "scene.jpg"
    path.write_bytes(SCENE)
    for query, option in (("", []), ("?whole=true", ["--whole-photo"])):
        form = {"data": {"claimed": row["nameplate"]}, "files": {"photos": (str(path), SCENE)}}
        found = server.post(f"/v1/verify{query}", **form).json()
        claim = ["--claimed", row["nameplate"], "--json", "--runtime", "onnxruntime", *option]
        expected = json.loads(nameplate("verify", "--model", bundle, *claim, path).stdout)
        assert found["photos"] == expected["photos"]
        assert found["score"] == expected["score"]
        assert (found["photos"][0]["box"] is None) == bool(query)


def test_the_models_say_whether_they_locate_cars(server: Running, bundle: Path) -> None:
    assert [model["locates"] for model in server.get("/v1/models").json()["models"]] == [True]
    with serving(bundle, "--whole-photo", "--threads", "1") as whole:
        assert [model["locates"] for model in whole.get("/v1/models").json()["models"]] == [False]
        [row] = whole.identify(SCENE).json()["results"]
        assert row["box"] is None
        [row] = whole.identify(SCENE, "?all=true").json()["results"]
        assert len(row["cars"]) == 2


def test_locating_is_a_stage_of_the_metrics_where_cars_are_sought(bundle: Path) -> None:
    with serving(bundle, "--threads", "1") as running:
        running.identify(SCENE, "?whole=true")
        assert 'stage="locate"' not in running.get("/metrics").text
        running.identify(SCENE)
        text = running.get("/metrics").text
        assert 'nameplate_stage_seconds_count{model="cars196",stage="locate"} 1.0' in text
        assert 'nameplate_stage_seconds_count{model="cars196",stage="decode"} 2.0' in text


def test_the_example_of_the_openapi_document_has_every_key_of_a_row(server: Running) -> None:
    document = server.get("/openapi.json").json()
    content = document["paths"]["/v1/identify"]["post"]["responses"]["200"]["content"]["application/json"]
    [example] = content["example"]["results"]
    [row] = server.identify(SCENE).json()["results"]
    assert list(example) == [key for key in row if key not in ("flaws", "why")]
    assert list(example["box"]) == list(row["box"])


def test_many_cars_beside_single_ones_get_the_answers_that_each_would_get_alone(server: Running) -> None:
    photos = [MANY, CAR, SCENE, MANY, GREY, CAR]
    alone = [server.identify(photo, "?all=true").json()["results"][0] for photo in photos]
    files = [("photos", (f"{number}.jpg", photo)) for number, photo in enumerate(photos)]
    together = server.post("/v1/identify?all=true", files=files).json()["results"]
    assert [{**row, "photo": ""} for row in together] == [{**row, "photo": ""} for row in alone]
    assert len(together[0]["cars"]) > BATCH


def test_the_heat_map_is_of_the_car_that_is_asked_for(server: Running) -> None:
    [row] = server.identify(SCENE, "?all=true").json()["results"]
    for number, car in enumerate(row["cars"], start=1):
        [found] = server.identify(SCENE, f"?all=true&heatmap=true&car={number}").json()["results"]
        heat, box = found["heatmap"], car["box"]
        assert heat["nameplate"] == car["nameplate"]
        assert (heat["width"], heat["height"]) == (960, 480)
        region = heat["region"]
        assert box["left"] - 1 <= region["left"] < region["right"] <= box["right"] + 1
        assert box["top"] - 1 <= region["top"] < region["bottom"] <= box["bottom"] + 1
    assert [row["cars"][0]["nameplate"]] != [row["cars"][1]["nameplate"]]
    [none] = server.identify(SCENE, "?all=true&heatmap=true&car=3").json()["results"]
    assert none["heatmap"] is None
