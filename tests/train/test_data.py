"""Batches prepared in threads: which photos, which pixels, what is left out, and that no thread remains."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from nameplate.demo import photos_folder
from nameplate.images.augment import Augmentation
from nameplate.model import pipeline
from nameplate.model.pipeline import Settings, prepare_photo
from nameplate.train.data import AHEAD, PhotoBatch, epoch_batches, plain_batches, training_batches
from nameplate.types import Fit, Preprocess
from tests.outcomes import prepared

VARIED = Augmentation(crop=(0.4, 1), aspect=1.3, rotate=10, zoom_out=0.5, fill="scene", brightness=0.3, hue=0.1)


def paths(count: int) -> list[str]:
    """Embedded photos of ten designs in turn."""
    return sorted(map(str, photos_folder("train").glob("*/*.jpg")), key=lambda p: Path(p).name)[:count]


def steps(count: int, batch: int, seed: int = 1, epoch: int = 0) -> list[NDArray[np.int64]]:
    return epoch_batches(count, batch, seed, epoch)


def same(a: list[PhotoBatch], b: list[PhotoBatch]) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(x.photos, y.photos) and np.array_equal(x.indices, y.indices) and x.lost == y.lost
        for x, y in zip(a, b, strict=True)
    )


def varied(count: int = 24, start: int = 0, seed: int = 1, epoch: int = 0, threads: int = 2) -> list[PhotoBatch]:
    todo = steps(count, 4)[start:]
    return list(training_batches(paths(count), todo, Preprocess(48, 64), VARIED, seed, epoch, threads))


def served(path: str, settings: Preprocess) -> NDArray[np.uint8]:
    """The picture of a photo that the serving pipeline gives to the runtime."""
    return prepared(prepare_photo(path, settings, Settings())).inputs[0]


# --- which photos -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "batch"), [(64, 8), (67, 8), (8, 8), (9, 1)])
def test_an_epoch_has_each_photo_once_and_full_batches(count: int, batch: int) -> None:
    found = steps(count, batch)
    assert [len(each) for each in found] == [batch] * (count // batch)
    indices = np.concatenate(found)
    assert len(set(indices.tolist())) == len(indices) == count // batch * batch
    assert set(indices.tolist()) <= set(range(count))


def test_fewer_photos_than_a_batch_are_one_batch() -> None:
    (only,) = steps(5, 8)
    assert sorted(only.tolist()) == [0, 1, 2, 3, 4]


def test_the_order_is_the_epochs_and_the_seeds() -> None:
    config = {(seed, epoch): np.concatenate(steps(50, 5, seed, epoch)).tolist() for seed in (1, 2) for epoch in (0, 1)}
    assert len({tuple(order) for order in config.values()}) == 4
    assert all(order != sorted(order) for order in config.values())
    assert np.concatenate(steps(50, 5, 2, 1)).tolist() == config[2, 1]


def test_what_an_epoch_leaves_over_is_not_always_the_same() -> None:
    left = [set(range(10)) - set(np.concatenate(steps(10, 4, 1, epoch)).tolist()) for epoch in range(30)]
    assert set().union(*left) == set(range(10))


# --- which pictures -----------------------------------------------------------------------------------


def test_the_inputs_are_the_same_when_begun_in_the_middle() -> None:
    whole = varied()
    assert len(whole) == 6
    assert all(batch.photos.shape == (4, 48, 64, 3) and batch.photos.dtype == np.uint8 for batch in whole)
    assert same(varied(start=3), whole[3:])


def test_the_inputs_do_not_depend_on_the_threads() -> None:
    assert same(varied(threads=1), varied(threads=5))


@pytest.mark.parametrize("changed", [{"seed": 2}, {"epoch": 1}])
def test_another_epoch_or_seed_gives_another_augmentation(changed: dict[str, int]) -> None:
    here, there = varied(8), varied(8, **changed)
    for a, b in zip(here, there, strict=True):
        assert np.array_equal(a.indices, b.indices)
        assert not any(np.array_equal(x, y) for x, y in zip(a.photos, b.photos, strict=True))


def test_photos_come_with_their_own_indices() -> None:
    todo = [np.array([5, 2, 7]), np.array([0])]
    found = list(plain_batches(paths(10), todo, Preprocess(48, 64), 2))
    for batch, wanted in zip(found, todo, strict=True):
        assert np.array_equal(batch.indices, wanted)
        for place, picture in zip(batch.indices, batch.photos, strict=True):
            assert np.array_equal(picture, served(paths(10)[place], Preprocess(48, 64)))


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Photos of many sizes and kinds: large, tiny, long, turned by EXIF, PNG with and without transparency."""
    folder = tmp_path_factory.mktemp("odd")
    with Image.open(paths(1)[0]) as image:
        car = image.convert("RGB")
    for width, height in ((1601, 1203), (97, 61), (1, 1), (7, 900), (64, 48), (129, 97)):
        car.resize((width, height)).save(folder / f"{width}x{height}.jpg", quality=90)
        car.resize((width, height)).save(folder / f"{width}x{height}.png")
    turned = Image.Exif()
    turned[0x112] = 6
    car.save(folder / "turned.jpg", exif=turned)
    car.convert("L").save(folder / "grey.jpg")
    car.convert("RGBA").resize((200, 333)).save(folder / "alpha.png")
    car.save(folder / "photo.webp")
    return sorted(map(str, folder.iterdir()))


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
def test_plain_inputs_are_those_of_the_service(odd: list[str], fit: Fit) -> None:
    settings = Preprocess(48, 64, fit, "bilinear")
    photos = [*odd, *paths(6)]
    (batch,) = plain_batches(photos, [np.arange(len(photos))], settings, 2)
    assert not batch.lost
    assert batch.photos.shape == (len(photos), 48, 64, 3)
    for path, picture in zip(photos, batch.photos, strict=True):
        assert np.array_equal(picture, served(path, settings)), path


# --- what is left out ---------------------------------------------------------------------------------


def test_unreadable_photos_are_left_out_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no photo")
    (tmp_path / "cut.jpg").write_bytes(Path(paths(1)[0]).read_bytes()[:2000])
    bad = {
        str(tmp_path / name): why
        for name, why in {
            "empty.jpg": "empty",
            "text.jpg": "not a photo",
            "cut.jpg": "truncated",
            "gone.jpg": "missing",
        }.items()
    }
    photos = [*paths(3), *bad]
    todo = [np.array([3, 0, 4, 1]), np.array([5, 6]), np.array([2])]
    for found in (
        list(plain_batches(photos, todo, Preprocess(48, 64), 2)),
        list(
            training_batches(photos, todo, Preprocess(48, 64), replace(VARIED, zoom_out=1), 1, 0, 2)
        ),  # also as scenery
    ):
        mixed, none, good = found
        assert mixed.indices.tolist() == [0, 1]
        assert mixed.photos.shape == (2, 48, 64, 3)
        assert len(none.indices) == len(none.photos) == 0
        assert not good.lost
        lost = dict([*mixed.lost, *none.lost])
        assert lost.keys() == bad.keys()
        assert all(lost[path].startswith(why) for path, why in bad.items())


# --- threads ------------------------------------------------------------------------------------------


def running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("nameplate-decode")]


def test_a_stream_that_is_closed_early_leaves_no_threads_and_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []

    def slow(photo: NDArray[np.uint8], settings: Preprocess) -> NDArray[np.uint8]:
        done.append(1)
        time.sleep(0.02)
        return photo[:8, :8]

    monkeypatch.setattr(pipeline, "preprocess", slow)
    stream = plain_batches(paths(20) * 20, steps(400, 10), Preprocess(48, 64), 3)
    assert isinstance(stream, Iterator)
    next(stream)
    assert 0 < len(running()) <= 3
    stream.close()  # type: ignore[attr-defined]
    assert not running()
    assert len(done) <= 30  # of the 60 that waited


def test_an_exhausted_stream_leaves_no_threads() -> None:
    assert len(list(plain_batches(paths(4), steps(4, 2), Preprocess(48, 64), 3))) == 2
    assert not running()


def test_no_more_than_some_batches_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def count(photo: NDArray[np.uint8], settings: Preprocess) -> NDArray[np.uint8]:
        begun.append(1)
        return photo[:8, :8]

    monkeypatch.setattr(pipeline, "preprocess", count)
    stream = plain_batches(paths(10) * 10, steps(100, 5), Preprocess(48, 64), 2)
    next(stream)
    time.sleep(0.3)
    assert len(begun) <= 5 * AHEAD
    stream.close()  # type: ignore[attr-defined]
