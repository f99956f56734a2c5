"""Contact sheets: rows of photos in one image (`contact_sheet`), and rows of augmented examples to put on them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from nameplate.errors import PhotoError
from nameplate.images import decode
from nameplate.images.augment import Augmentation, augment
from nameplate.report.plots import INK
from nameplate.types import Photo

GAP = 4
"""Distance between the images and around them, in pixels."""
TEXT = 13
"""Height of the letters of a label, in pixels."""
LINE = 20
"""Height of the line of a label, in pixels."""
QUALITY = 90
"""Quality of a JPEG."""
SUFFIXES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
"""The formats of a sheet, by the suffix of its name."""


def contact_sheet(rows: Sequence[Sequence[NDArray[np.uint8]]], labels: Sequence[str], kind: str = "JPEG") -> bytes:
    """Lay rows of images on one sheet, each row with its label below it.

    Args:
        rows: each the photo itself, of any size, then the pictures made of it; uint8 H×W×3. The last
            picture of the first row gives the cells their size; another size is fitted in, its aspect kept.
        labels: one a row, in any alphabet that DejaVu Sans has; cut where the sheet ends.
        kind: of the file, one that `SUFFIXES` names.

    Returns:
        The file's bytes.

    Raises:
        ValueError: no pictures, or not one label a row.
    """
    if not rows or not all(rows) or len(rows) != len(labels):
        raise ValueError(f"contact_sheet takes rows of pictures, a label each; got {len(rows)} and {len(labels)}")
    height, width = rows[0][-1].shape[:2]
    columns = max(map(len, rows))
    step = height + LINE + GAP
    sheet = Image.new("RGB", (GAP + columns * (width + GAP), GAP + len(rows) * step), "white")
    pen = ImageDraw.Draw(sheet)
    for down, (row, label) in enumerate(zip(rows, labels, strict=True)):
        top = GAP + down * step
        for across, pixels in enumerate(row):
            picture = _fitted(pixels, height, width)
            left = GAP + across * (width + GAP) + (width - picture.width) // 2
            sheet.paste(picture, (left, top + (height - picture.height) // 2))
        line = " ".join(label.split())
        pen.text((GAP, top + height + LINE // 2), line, fill=INK, font=_font(), anchor="lm")
    buffer = io.BytesIO()
    sheet.save(buffer, kind, **({"quality": QUALITY} if kind == "JPEG" else {}))
    return buffer.getvalue()


def _fitted(pixels: NDArray[np.uint8], height: int, width: int) -> Image.Image:
    image = Image.fromarray(pixels)
    scale = min(height / image.height, width / image.width)
    size = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


@cache
def _font() -> ImageFont.FreeTypeFont:
    """Return the font that comes with matplotlib: it has Cyrillic letters and is installed wherever Nameplate is."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), TEXT)


# Examples of a data set and of its augmentation, to look at before training.


def augmented_rows(
    photos: Sequence[NDArray[np.uint8]], height: int, width: int, settings: Augmentation, seed: int, count: int
) -> list[list[NDArray[np.uint8]]]:
    """Make rows for a contact sheet: each photo as it is, then `count` augmented versions of it.

    Args:
        photos: uint8 H×W×3 each; the next one serves as a photo's scenery.
        height: of the pictures.
        width: of the pictures.
        settings: the amounts.
        seed: the same seed draws the same pictures.
        count: pictures a row.
    """
    others = [*photos[1:], photos[0]] if len(photos) > 1 else [None] * len(photos)
    draws = [np.random.default_rng([seed, row]) for row in range(len(photos))]
    return [
        [photo, *(augment(photo, height, width, settings, draw, other) for _ in range(count))]
        for photo, other, draw in zip(photos, others, draws, strict=True)
    ]


def examples(
    photos: Sequence[Photo], count: int, at_least: tuple[int, int]
) -> tuple[list[tuple[Photo, NDArray[np.uint8]]], list[tuple[str, str]]]:
    """Decode up to `count` photos of different nameplates, spread evenly over all nameplates.

    Args:
        photos: labelled; those of a validation or test part are passed over.
        count: nameplates wanted.
        at_least: see `nameplate.images.decode`.

    Returns:
        The photos with their pixels, uint8 H×W×3, and (path, reason) of those that could not be read; the
        nameplate's next photo takes the place of such a one.
    """
    of: dict[str | None, list[Photo]] = {}
    for photo in photos:
        if photo.split in (None, "train"):
            of.setdefault(photo.label, []).append(photo)
    spread = np.linspace(0, len(of) - 1, min(count, len(of))).round().astype(int)
    found: list[tuple[Photo, NDArray[np.uint8]]] = []
    unreadable: list[tuple[str, str]] = []
    for nameplate in [list(of)[place] for place in spread]:
        for photo in of[nameplate]:
            try:
                found.append((photo, decode(photo.path, at_least=at_least)))
                break
            except PhotoError as error:
                unreadable.append((photo.path, str(error)))
    return found, unreadable
