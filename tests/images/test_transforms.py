"""Pixels of any size → the model input."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from nameplate.images import preprocess
from nameplate.images.transforms import PAD_GREY
from nameplate.types import Fit, Interpolation, Preprocess
from tests.images import make_golden


@pytest.mark.parametrize("turned", [False, True], ids=["wide", "tall"])
@pytest.mark.parametrize("case", make_golden.CASES, ids=lambda case: f"{case.fit}-{case.interpolation}")
def test_the_model_input_is_the_recorded_one(case: Preprocess, turned: bool) -> None:
    photo = make_golden.wide().transpose(1, 0, 2) if turned else make_golden.wide()
    with np.load(make_golden.GOLDEN) as golden:
        assert np.array_equal(preprocess(photo, case), golden[make_golden.name(case, turned)])


def test_each_fit_and_filter_makes_another_input() -> None:
    with np.load(make_golden.GOLDEN) as golden:
        pictures = {golden[make_golden.name(case, False)].tobytes() for case in make_golden.CASES}
    assert len(pictures) == len(make_golden.CASES) == 9


def _marked(height: int, width: int) -> NDArray[np.uint8]:
    """Black, with the four outermost bands white."""
    photo = np.full((height, width, 3), 255, np.uint8)
    photo[height // 8 : -height // 8, width // 8 : -width // 8] = 0
    return photo


@pytest.mark.parametrize("shape", [(80, 240), (240, 80)])
def test_squash_and_pad_keep_all_four_edges(shape: tuple[int, int]) -> None:
    squashed = preprocess(_marked(*shape), Preprocess(40, 40, "squash", "bilinear"))
    assert all(edge.min() > 200 for edge in (squashed[0], squashed[-1], squashed[:, 0], squashed[:, -1]))

    padded = preprocess(_marked(*shape), Preprocess(40, 40, "pad", "bilinear"))
    inside = padded[(padded != PAD_GREY).any(axis=(1, 2))][:, (padded != PAD_GREY).any(axis=(0, 2))]
    assert sorted(inside.shape[:2]) == [13, 40]
    assert all(edge.min() > 200 for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


def test_only_crop_cuts_and_it_cuts_the_longer_side_evenly() -> None:
    photo = _marked(80, 240)
    cropped = preprocess(photo, Preprocess(40, 40, "crop", "bilinear"))
    assert cropped[0].min() > 200
    assert cropped[-1].min() > 200
    assert cropped[10:30, 0].max() == cropped[10:30, -1].max() == 0

    middle = np.zeros((80, 240, 3), np.uint8)
    middle[:, 80:160] = 255
    assert preprocess(middle, Preprocess(40, 40, "crop", "bilinear"))[:, 2:-2].min() == 255


def test_pad_centres_the_image_on_grey() -> None:
    padded = preprocess(np.zeros((10, 40, 3), np.uint8), Preprocess(20, 20, "pad", "bicubic"))
    rows = padded[:, 10, 0]
    assert rows.tolist() == [PAD_GREY] * 7 + [0] * 5 + [PAD_GREY] * 8 or rows.tolist() == (
        [PAD_GREY] * 8 + [0] * 5 + [PAD_GREY] * 7
    )


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_a_fine_checkerboard_shrinks_to_flat_grey(fit: Fit, interpolation: Interpolation) -> None:
    board = np.indices((320, 320)).sum(axis=0) % 2 * 255
    photo = np.repeat(board[..., None], 3, axis=2).astype(np.uint8)
    small = preprocess(photo, Preprocess(32, 32, fit, interpolation)).astype(int)
    assert abs(small - 127.5).max() <= 3


def test_an_image_of_the_right_size_is_not_changed() -> None:
    photo = make_golden.wide()
    assert preprocess(photo, Preprocess(29, 53)) is photo


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1)])
@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
def test_thin_images_fit_too(shape: tuple[int, int], fit: Fit) -> None:
    small = preprocess(np.full((*shape, 3), 7, np.uint8), Preprocess(24, 32, fit))
    assert small.shape == (24, 32, 3)
    assert small.dtype == np.uint8
    assert (small == 7).any()


@pytest.mark.parametrize(
    "photo",
    [
        np.zeros((9, 9, 3), np.float32),
        np.zeros((9, 9, 3), np.int64),
        np.zeros((9, 9), np.uint8),
        np.zeros((9, 9, 4), np.uint8),
        np.zeros((3, 9, 9), np.uint8),
        np.zeros((1, 9, 9, 3), np.uint8),
        np.zeros((0, 9, 3), np.uint8),
    ],
    ids=lambda photo: f"{photo.dtype} {photo.shape}",
)
def test_other_arrays_are_refused(photo: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="preprocess takes uint8 H×W×3 pixels, got "):
        preprocess(photo, Preprocess())


@pytest.mark.parametrize("changes", [{"fit": "zoom"}, {"interpolation": "nearest"}])
def test_unknown_settings_are_refused(changes: dict[str, str]) -> None:
    settings = dataclasses.replace(Preprocess(), **changes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there are squash, pad, crop and bilinear, bicubic, lanczos"):
        preprocess(make_golden.wide(), settings)
