"""Bundles that earlier versions wrote load, and answer as they did then.

`older_bundles/schema2` holds a head that `train_head` fitted on embeddings of 600 embedded renders in November 2026.
Its backbone has three convolutions with random filters, so that it is small. `schema2.json` holds what Nameplate then
answered to three other renders, one of each verdict that it gave. Neither is ever made anew: a later version that
cannot read them has broken its users' bundles.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nameplate.demo import photos_folder
from nameplate.model.model import Model
from nameplate.model.verification import prediction_json, verified_json

OLDER = Path(__file__).parent / "older_bundles"
ROUNDING = 1e-6
"""How far a probability may lie from what it was: processors add up float32 in different orders."""
SAID: dict[str, list[dict[str, Any]]] = json.loads((OLDER / "schema2.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load(OLDER / "schema2", runtime="onnxruntime", threads=1)


def nearly(value: object) -> Any:
    """The same plain data, with numbers that may be rounded otherwise."""
    if isinstance(value, dict):
        return {key: nearly(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [nearly(each) for each in value]
    return pytest.approx(value, abs=ROUNDING, rel=ROUNDING) if isinstance(value, float) else value


def path_of(photo: str) -> str:
    return str(photos_folder("test") / photo)


def plain(said: object, photo: str) -> Any:
    """As it comes out of JSON, with the photo's path as it was recorded, and without the members that came later."""
    found = json.loads(json.dumps(msgspec.to_builtins(said)).replace(json.dumps(path_of(photo)), json.dumps(photo)))
    for row in found.get("photos", [found]):
        assert row.pop("box") is None  # bundles of that time name the whole photo
        assert {row.pop(key) for key in ("model", "model_confidence", "body", "years")} == {None}  # nor a model
    return found


@pytest.mark.parametrize("said", SAID["identify"], ids=lambda said: said["verdict"])
def test_it_names_photos_as_it_did(model: Model, said: dict[str, Any]) -> None:
    [now] = model.predict([path_of(said["photo"])])
    assert plain(prediction_json(now), said["photo"]) == nearly(said)


@pytest.mark.parametrize("said", SAID["verify"], ids=lambda said: f"{said['claimed']} {said['verdict']}")
def test_it_verifies_claims_as_it_did(model: Model, said: dict[str, Any]) -> None:
    photo = said["photos"][0]["photo"]
    now = model.verify([path_of(photo)], said["claimed"])
    assert plain(verified_json(now), photo) == nearly(said)


def test_three_verdicts_are_recorded() -> None:
    assert {said["verdict"] for said in SAID["identify"]} == {"unsure", "unknown car", "not a car"}
