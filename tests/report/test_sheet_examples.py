"""Images to check before training: variants of one photo, and photos spread over the nameplates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nameplate.data import read_dataset
from nameplate.demo import photo as demo_photo
from nameplate.demo import photos_folder
from nameplate.errors import UsageError
from nameplate.images import decode
from nameplate.images.augment import Augmentation
from nameplate.images.mixing import Mixing
from nameplate.report.sheet import augmentation_sheet, augmented_rows, examples, mixed_rows
from nameplate.types import Photo

Pixels = NDArray[np.uint8]
HEIGHT, WIDTH = 96, 128
EVERYTHING = Augmentation(
    (0.35, 1), 1.333, 0.5, 10, 0.1, 10, 0.2, 0.5, 0.5, "scene", 0.35, 0.35, 0.4, 0.1, 0.1
)  # fmt: skip


@pytest.fixture(scope="module")
def car() -> Pixels:
    return decode(demo_photo())


def _flat(colour: tuple[int, int, int]) -> Pixels:
    return np.full((60, 90, 3), colour, np.uint8)


def test_rows_begin_with_the_photo_and_repeat_by_seed(car: Pixels) -> None:
    photos = [car, car[::-1], car[:, :50]]
    rows = augmented_rows(photos, HEIGHT, WIDTH, EVERYTHING, 5, 4)
    assert [len(row) for row in rows] == [5, 5, 5]
    assert all(row[0] is photo for row, photo in zip(rows, photos, strict=True))
    assert {picture.shape for row in rows for picture in row[1:]} == {(HEIGHT, WIDTH, 3)}
    again, other = (augmented_rows(photos, HEIGHT, WIDTH, EVERYTHING, seed, 4) for seed in (5, 6))
    assert np.array_equal(rows[2][3], again[2][3])
    assert not np.array_equal(rows[2][3], other[2][3])
    assert augmented_rows([], HEIGHT, WIDTH, EVERYTHING, 5, 4) == []
    assert len(augmented_rows([car], HEIGHT, WIDTH, EVERYTHING, 5, 2)[0]) == 3


def test_a_rows_scenery_is_the_next_photo() -> None:
    colours = ((200, 20, 20), (20, 200, 20), (20, 20, 200))
    settings = Augmentation(zoom_out=1, zoom_out_to=0.3, fill="scene", flip=0)
    rows = augmented_rows([_flat(colour) for colour in colours], HEIGHT, WIDTH, settings, 5, 10)
    for place, row in enumerate(rows):
        seen = {tuple(pixel) for picture in row[1:] for pixel in picture.reshape(-1, 3)[::50].tolist()}
        assert {colours[place], colours[(place + 1) % 3]} <= seen
        assert colours[place - 1] not in seen


def test_examples_are_spread_over_the_nameplates_and_step_over_what_is_damaged(tmp_path: Path) -> None:
    photos = []
    for number in range(7):
        for copy in "ab":
            path = tmp_path / f"{number}{copy}.jpg"
            path.write_bytes(demo_photo().read_bytes()[: 900 if f"{number}{copy}" in ("2a", "6a", "6b") else None])
            photos.append(Photo(str(path), label=str(number)))
    photos.insert(0, Photo("nowhere.jpg", label="0", split="test"))
    found, unreadable = examples(photos, 4, (60, 80))
    assert [Path(photo.path).stem for photo, _ in found] == ["0a", "2b", "4a"]
    assert [Path(path).stem for path, _ in unreadable] == ["2a", "6a", "6b"]
    assert all(pixels.shape[2] == 3 and pixels.shape[0] >= 120 for _, pixels in found)
    assert len(examples(photos, 100, (60, 80))[0]) == 6
    assert examples([], 4, (60, 80)) == ([], [])


def test_a_batch_is_mixed_as_in_training_with_the_shares_below(car: Pixels) -> None:
    batch = [_flat((grey, grey, grey)) for grey in (0, 80, 160, 240)]
    names = ["A", "B", "C", "D"]
    mixup, cutmix = mixed_rows(batch, names, Mixing(mixup=0.2, cutmix=0.5, until=0.8), 3)
    assert mixup.label == "MixUp: 20 % of the batches are mixed like this one in the first 80 % of the epochs"
    assert cutmix.label.startswith("CutMix: 50 % of")
    for row in (mixup, cutmix):
        for picture, caption, own in zip(row.pictures, row.captions, names, strict=True):
            shares = {line.split(" % ")[1]: int(line.split(" % ")[0]) for line in caption.split("\n")}
            assert next(iter(shares)) == own
            assert len(shares) == 2  # never a photo with itself
            assert sum(shares.values()) == pytest.approx(100, abs=1)
            # The mean grey is that of the shares, by pixels or by values.
            wanted = sum(share / 100 * batch[names.index(name)][0, 0, 0] for name, share in shares.items())
            assert picture.mean() == pytest.approx(wanted, abs=2)
    assert {len(np.unique(picture)) for picture in mixup.pictures} == {1}
    assert {len(np.unique(picture)) for picture in cutmix.pictures} == {2}
    assert mixed_rows(batch, names, Mixing(), 3) == []
    assert mixed_rows(batch[:1], names[:1], Mixing(mixup=1), 3) == []


def test_a_recipe_that_locates_cars_is_drawn_with_crops() -> None:
    scene = np.full((300, 600, 3), 255, np.uint8)
    small = decode(demo_photo())[::2, ::2][:140, :200]
    scene[80 : 80 + small.shape[0], 40 : 40 + small.shape[1]] = small
    whole, cropped = (
        augmented_rows([scene], HEIGHT, WIDTH, Augmentation(flip=0), 5, 1, locate)[0][1] for locate in ("none", "ssd")
    )
    assert (whole == 255).mean() > 0.5  # the white wall around the car
    assert (cropped == 255).mean() < 0.2


def test_a_notebook_shows_the_sheet_of_a_recipe(tmp_path: Path) -> None:
    data = read_dataset(photos_folder("test"))
    small = ["stages.height=48", "stages.width=64"]
    sheet = augmentation_sheet(data, "original", small, photos=2, pictures=3)
    assert sheet._repr_jpeg_() == sheet.write(tmp_path / "sheet.jpg").read_bytes()
    other = augmentation_sheet(data, "original", [*small, "augmentation.flip=1"], photos=2, pictures=3)
    assert sheet.jpeg != other.jpeg
    with pytest.raises(UsageError, match="trains no network"):
        augmentation_sheet(data, "head")
