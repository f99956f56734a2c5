"""Class activation maps: their mean is the embedding, for the shipped bundle and for any head; hot regions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nameplate import Model
from nameplate.demo import photos_folder
from nameplate.errors import BundleError
from nameplate.model.cam import MappedPhoto, Region, evidence_map, hot_region, photo_maps, region_in_photo, upsample
from nameplate.model.pipeline import Settings, prepare_photo
from nameplate.runtime.onnx_file import first_output_alone
from nameplate.types import Floats, Preprocess
from tests.outcomes import all_mapped, prepared, unreadable
from tests.shipped import EMBEDDING


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load(threads=1, runtime="onnxruntime")


def renders() -> list[Path]:
    return sorted(photos_folder("test").glob("*/*.jpg"))[::9]


@pytest.fixture(scope="module")
def mapped(model: Model) -> list[MappedPhoto]:
    return all_mapped(photo_maps(model, renders()))


def test_the_mean_of_the_map_is_the_embedding(model: Model, mapped: list[MappedPhoto]) -> None:
    assert len(mapped) == len(renders()) > 8
    embeddings = model.embed(renders())
    for each, embedding in zip(mapped, embeddings, strict=True):
        assert each.places.shape == (6, 9, EMBEDDING)
        assert each.places.dtype == np.float32
        assert each.places.std((0, 1)).max() > 0.1
        np.testing.assert_allclose(each.photo.embedding, embedding, atol=2e-5)
        np.testing.assert_allclose(each.places.mean((0, 1)), embedding, atol=1e-4)


def test_the_model_input_is_returned_with_the_map(model: Model, mapped: list[MappedPhoto]) -> None:
    expected = prepared(prepare_photo(renders()[0], model.bundle.manifest.preprocess, Settings()))
    assert np.array_equal(mapped[0].model_input, expected.car.inputs[0])


def test_an_unreadable_photo_keeps_its_position_and_stops_nothing(model: Model, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no photo")
    found = list(photo_maps(model, [bad, *renders()[:1], bad]))
    assert [isinstance(each, MappedPhoto) for each in found] == [False, True, False]
    assert unreadable(found[0]).failure.reason == "not a photo"
    assert not list(photo_maps(model, []))
    assert [unreadable(each).failure.reason for each in photo_maps(model, [bad])] == ["not a photo"]


def test_evidence_adds_up_to_the_log_odds_slope(model: Model, mapped: list[MappedPhoto]) -> None:
    """Moving the embedding towards a place changes the log odds as its evidence says."""
    places = mapped[0].places
    whole, temperature = places.mean((0, 1)), model.bundle.manifest.temperature
    named = int(model.probabilities(whole[None], "onnxruntime")[0].argmax())

    def log_odds(embedding: Floats) -> float:
        weight, bias = (part.astype(np.float64) for part in model.require_head())
        logits = (embedding.astype(np.float64) @ weight + bias) / temperature
        return float(logits[named] - np.logaddexp.reduce(np.delete(logits, named)))

    found = evidence_map(model, places, named, "onnxruntime")
    assert found.shape == (6, 9)
    step = 1e-3
    for row, column in ((2, 4), (0, 0), (5, 7)):
        moved = whole + step * (places[row, column] - whole)
        slope = (log_odds(moved) - log_odds(whole)) / step * temperature
        assert slope == pytest.approx(found[row, column] - found.mean(), rel=0.05, abs=0.05)


def test_a_backbone_without_maps_says_what_to_do(model: Model) -> None:
    old = Model(replace(model.bundle, backbone=first_output_alone(model.bundle.backbone)), model.settings)
    with pytest.raises(BundleError, match="'cars196' cannot show heat maps: its backbone gives no map.*train it again"):
        next(photo_maps(old, renders()))


def test_a_map_of_another_size_is_refused(model: Model) -> None:
    manifest = replace(model.bundle.manifest, embedding=1603)
    wrong = Model(replace(model.bundle, manifest=manifest), model.settings)
    with pytest.raises(BundleError, match="does not work: its backbone gives"):
        next(photo_maps(wrong, renders()))


@pytest.mark.parametrize(("row", "column"), [(1, 1), (4, 7), (0, 8), (5, 0)])
def test_the_hot_region_holds_the_peak(row: int, column: int) -> None:
    grid = np.zeros((6, 9), np.float32)
    grid[row, column] = 5
    region = hot_region(grid, 0.15)
    assert region.left <= (column + 0.5) / 9 <= region.right
    assert region.top <= (row + 0.5) / 6 <= region.bottom
    assert (region.right - region.left) * (region.bottom - region.top) == pytest.approx(0.15, rel=0.05)
    assert min(region.left, region.top) >= 0
    assert max(region.right, region.bottom) <= 1
    assert hot_region(grid, 1.0) == Region(0, 0, 1, 1)


def test_a_map_is_enlarged_smoothly() -> None:
    grid = np.random.default_rng(1).normal(size=(6, 9)).astype(np.float32)
    large = upsample(grid, 60, 90)
    assert large.shape == (60, 90)
    assert large.dtype == np.float32
    assert np.abs(large[5::10, 5::10] - grid).mean() < np.abs(large[5::10, 5::10] - grid[::-1]).mean() / 4


def test_a_region_is_mapped_to_the_photo_like_the_model_input() -> None:
    whole, corner = Region(0, 0, 1, 1), Region(0.5, 0.5, 1, 1)
    assert region_in_photo(corner, 400, 200, Preprocess(100, 100, "squash")) == (200, 100, 400, 200)
    assert region_in_photo(whole, 400, 200, Preprocess(100, 100, "pad")) == (0, 0, 400, 200)
    assert region_in_photo(Region(0, 0.25, 0.5, 0.75), 400, 200, Preprocess(100, 100, "pad")) == (0, 0, 200, 200)
    assert region_in_photo(whole, 400, 200, Preprocess(100, 100, "crop")) == (100, 0, 300, 200)
    assert region_in_photo(corner, 400, 200, Preprocess(100, 100, "crop")) == (200, 100, 300, 200)
