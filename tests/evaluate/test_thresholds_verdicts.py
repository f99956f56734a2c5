"""The verdicts of the bundle that ships, on real photos."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nameplate.data import list_photos
from nameplate.model.model import Model
from nameplate.types import Prediction


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load(runtime="onnxruntime")


def _verdicts(model: Model, folder: Path, count: int) -> Counter[str]:
    photos = list_photos(folder)
    return Counter(each.verdict for each in model.predict([photo.path for photo in photos[:: len(photos) // count]]))


def test_what_is_no_car_is_not_accepted(model: Model, not_cars: Path) -> None:
    found = _verdicts(model, not_cars, 60)
    assert found["not a car"] >= 0.85 * found.total()
    assert found["answer"] + found["unsure"] <= 0.05 * found.total()


def test_cars_of_another_country_are_mostly_unknown(model: Model, europe20: Path) -> None:
    found = _verdicts(model, europe20, 80)
    assert found["unknown car"] >= 0.6 * found.total()
    assert found["answer"] <= 0.3 * found.total()


def test_russian_cars_that_it_knows_are_named(model: Model, russian10: Path) -> None:
    rows = [row for row in _held_out(model) if row["source"] == "russian10"][::2]
    answers = model.predict([russian10.parent / row["path"] for row in rows])
    assert len(answers) > 70
    assert np.mean([answer.nameplate == row["label"] for answer, row in zip(answers, rows, strict=True)]) >= 0.93


def test_known_cars_are_kept_and_answers_are_right(model: Model, cars196: Path) -> None:
    rows = [row for row in _held_out(model) if (cars196 / row["path"]).is_file()][::6]
    assert len(rows) > 150
    answers = [
        (prediction, row["label"])
        for prediction, row in zip(model.predict([cars196 / row["path"] for row in rows]), rows, strict=True)
    ]
    kept = [(p, truth) for p, truth in answers if p.verdict in ("answer", "unsure")]
    assert len(kept) >= 0.9 * len(answers)
    assert np.mean([truth in p.candidates for p, truth in kept]) >= 0.93
    assert np.mean([p.nameplate == truth for p, truth in kept if p.verdict == "answer"]) >= 0.93
    makes = [(p, truth) for p, truth in kept if p.verdict == "unsure" and p.make]
    assert np.mean([_of_make(p, truth) for p, truth in makes]) >= 0.8


def _held_out(model: Model) -> list[dict[str, str]]:
    assert model.bundle.photos is not None
    return [row for row in csv.DictReader(io.StringIO(model.bundle.photos.decode())) if row["split"] != "train"]


def _of_make(prediction: Prediction, truth: str) -> bool:
    return truth.startswith(str(prediction.make))
