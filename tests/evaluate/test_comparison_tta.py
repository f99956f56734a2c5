"""The gain of test-time augmentation on the same photos, with its interval."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nameplate.demo import photos_folder
from nameplate.errors import DataError
from nameplate.evaluate.comparison import evaluate_tta
from nameplate.evaluate.metrics import evaluate
from nameplate.evaluate.significance import paired
from nameplate.model.model import Model
from nameplate.types import Photo
from tests.outcomes import all_embedded

PATHS = [str(path) for path in sorted(photos_folder("test").glob("*/*.jpg"))[::20]]


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load(runtime="onnxruntime", threads=2, tta="mirror")


def test_the_gain_is_the_paired_comparison_on_the_same_photos(model: Model) -> None:
    photos = [Photo(path) for path in PATHS]
    plain = model.probabilities(model.embed(PATHS), "onnxruntime")
    mirrored = np.stack([model.probs(row) for row in all_embedded(model.embedder.rows(PATHS))])
    y_true = plain.argmax(1)
    y_true[::2] = mirrored.argmin(1)[::2]
    calls: list[tuple[str, int, int]] = []
    found = evaluate_tta(model, photos, y_true, plain, lambda *call: calls.append(call))
    assert found.name == "mirror"
    assert found.probabilities == pytest.approx(mirrored, rel=1e-3)
    assert found.evaluation == evaluate(found.probabilities, y_true, model.nameplates)
    assert found.gain == paired(plain.argmax(1) == y_true, found.probabilities.argmax(1) == y_true)
    assert found.log_loss_plain == evaluate(plain, y_true, model.nameplates).log_loss
    assert found.photos_per_second > 0
    assert calls[-1] == ("look again", 10, 10)
    assert found.as_json()["interval"] == found.gain.difference.interval
    assert "no more than noise" in found.sentence()


def test_copies_count_as_one(model: Model) -> None:
    photos = [Photo(PATHS[0])] * 6 + [Photo(path) for path in PATHS[1:3]]
    wrong = np.full((8, 206), 1 / 206, np.float32)
    y_true = np.array(
        [int(model.probs(row).argmax()) for row in all_embedded(model.embedder.rows(p.path for p in photos))]
    )
    y_true[6:] = (y_true[6:] + 1) % 206
    wrong[np.arange(8), (y_true + 2) % 206] = 0.9
    groups = np.array([0, 0, 0, 0, 0, 0, 1, 2])
    grouped, alone = (evaluate_tta(model, photos, y_true, wrong, groups=g).gain for g in (groups, None))
    assert grouped.better == alone.better == 6
    assert alone.p == pytest.approx(0.5**6)  # mid-p: half of the two ways of six alike
    assert grouped.difference.low < alone.difference.low


def test_a_photo_that_vanished_keeps_its_plain_answer(model: Model, tmp_path: Path) -> None:
    photos = [Photo(PATHS[0]), Photo(str(tmp_path / "gone.jpg"))]
    plain = np.full((2, 206), 1 / 206, np.float32)
    found = evaluate_tta(model, photos, np.array([0, 1]), plain)
    assert np.array_equal(found.probabilities[1], plain[1])
    with pytest.raises(DataError, match=r"None of 1 photos can be read any more; the first is '.*gone\.jpg'"):
        evaluate_tta(model, photos[1:], np.array([1]), plain[1:])
