"""Rows of photos in one image."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from nameplate.report.sheet import GAP, LINE, contact_sheet


def _flat(height: int, width: int, grey: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), grey, np.uint8)


def _read(jpeg: bytes) -> NDArray[np.int64]:
    image = Image.open(io.BytesIO(jpeg))
    assert image.format == "JPEG"
    return np.asarray(image.convert("L")).astype(int)


def test_each_image_has_its_position_on_grey() -> None:
    rows = [[_flat(300, 400, 20), _flat(60, 80, 70), _flat(60, 80, 120)], [_flat(9, 12, 160), _flat(60, 80, 200)]]
    sheet = _read(contact_sheet(rows, ["one", "two"]))
    assert sheet.shape == (GAP + 2 * (60 + LINE + GAP), GAP + 3 * (80 + GAP))
    for down, greys in enumerate(((20, 70, 120), (160, 200, 255))):
        for across, grey in enumerate(greys):
            top, left = GAP + down * (60 + LINE + GAP), GAP + across * (80 + GAP)
            assert abs(sheet[top + 3 : top + 57, left + 3 : left + 77] - grey).max() < 8


@pytest.mark.parametrize(
    ("shape", "fitted"),
    [((400, 100), (60, 15)), ((100, 400), (20, 80)), ((1, 1), (60, 60)), ((1, 5000), (1, 80)), ((5000, 1), (60, 1))],
)
def test_an_original_of_any_shape_fits_into_its_cell(shape: tuple[int, int], fitted: tuple[int, int]) -> None:
    sheet = _read(contact_sheet([[_flat(60, 80, 255), _flat(60, 80, 255)], [_flat(*shape, 0)]], ["", ""]))
    dark = sheet < 128
    assert (dark.any(1).sum(), dark.any(0).sum()) == fitted
    down, across = np.argwhere(dark).mean(0)
    assert abs(down - (GAP + 60 + LINE + GAP + 29.5)) < 1
    assert abs(across - (GAP + 39.5)) < 1


@pytest.mark.parametrize("label", ["Приора", "Ёлка\nв лесу", "bad \udcff byte", "a very long name " * 40])
def test_labels_are_ink_below_the_row_and_never_fail(label: str) -> None:
    sheet = _read(contact_sheet([[_flat(60, 80, 0), _flat(60, 80, 0)]], [label]))
    assert sheet.shape == (GAP + 60 + LINE + GAP, GAP + 2 * (80 + GAP))
    assert sheet[GAP + 62 :].min() < 120
    assert sheet[-GAP + 1 :].min() > 200


def test_cyrillic_has_glyphs_of_its_own() -> None:
    picture = [[_flat(20, 80, 255)]]
    drawn = {contact_sheet(picture, [letters]) for letters in ("ЖЖЖ", "ЩЩЩ", "\ufffe\ufffe\ufffe")}
    assert len(drawn) == 3
    assert contact_sheet(picture, ["\ufffe"]) == contact_sheet(picture, ["\U000f0000"]), "what is missing is one box"


def test_no_images_or_too_few_labels_are_refused() -> None:
    for rows, labels in (([], []), ([[]], ["a"]), ([[_flat(9, 9, 0)]], [])):
        with pytest.raises(ValueError, match="contact_sheet takes rows of pictures"):
            contact_sheet(rows, labels)


def test_captions_lie_below_their_pictures_and_are_cut_at_their_edge() -> None:
    rows = [[_flat(60, 80, 255)] * 2, [_flat(60, 80, 255)] * 2]
    sheet = _read(contact_sheet(rows, ["", ""], captions={1: ["a name far too long for it\nB", ""]}))
    assert sheet.shape == (GAP + 2 * (60 + LINE + GAP) + 2 * LINE, GAP + 2 * (80 + GAP))
    below = sheet[2 * GAP + 2 * 60 + LINE :]
    assert below[:LINE, : GAP + 80].min() < 160
    assert below[LINE : 2 * LINE, : GAP + 80].min() < 160
    assert below[:, GAP + 80 + 2 :].min() > 230  # the second picture's caption is empty
    with pytest.raises(ValueError, match="one caption a picture"):
        contact_sheet(rows, ["", ""], captions={0: ["a"]})


def test_letters_grow_with_the_sheet() -> None:
    """On a page that shrinks a sheet of 4,000 pixels to 1,000, letters of 13 pixels could not be read."""
    small, large = (_read(contact_sheet([[_flat(60, width, 255)] * 7], ["НИВА"])) for width in (80, 600))
    heights = [np.flatnonzero((sheet < 128).any(1)).size for sheet in (small, large)]
    assert heights[1] / heights[0] == pytest.approx(42 / 13, abs=0.4)
