"""Contact sheets: rows of photos in one image (`contact_sheet`), and augmented and mixed examples to put on them."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from nameplate.data.dataset import Dataset
from nameplate.errors import DataError, PhotoError, UsageError
from nameplate.fit.recipe import Recipe, Stage, load_recipe
from nameplate.images import decode
from nameplate.images.augment import Augmentation, augment, jittered
from nameplate.images.mixing import Mixing, draw_mix, mixed
from nameplate.images.transforms import Box, crop
from nameplate.model.detector import crop_box
from nameplate.model.detector import locate as find_cars
from nameplate.report.plots import INK, LIGHT
from nameplate.storage import whole_file
from nameplate.types import Locate, Photo

GAP = 4
"""Distance between the images and around them, in pixels."""
TEXT = 13
"""Least height of the letters of a label, in pixels."""
LINE = 20
"""Height of the line of a label in letters of `TEXT` pixels."""
SHOWN = 100
"""Letters have one part in so many of the sheet's width, so that they can be read where a page shrinks it."""
SOFT = LIGHT["soft"]
"""The colour of captions."""
QUALITY = 90
"""Quality of a JPEG."""
SUFFIXES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
"""The formats of a sheet, by the suffix of its name."""


def contact_sheet(
    rows: Sequence[Sequence[NDArray[np.uint8]]],
    labels: Sequence[str],
    kind: str = "JPEG",
    captions: Mapping[int, Sequence[str]] | None = None,
) -> bytes:
    """Lay rows of images on one sheet, each row with its label below it.

    Args:
        rows: each the photo itself, of any size, then the pictures made of it; uint8 H×W×3. The last
            picture of the first row gives the cells their size; another size is fitted in, its aspect kept.
        labels: one a row, in any alphabet that DejaVu Sans has; cut where the sheet ends.
        kind: of the file, one that `SUFFIXES` names.
        captions: index of a row → a text for each of its pictures, below it and above the row's label; its lines are
            cut, with an ellipsis, where the picture ends.

    Returns:
        The file's bytes.

    Raises:
        ValueError: no pictures, not one label a row, or not one caption a picture.
    """
    if not rows or not all(rows) or len(rows) != len(labels):
        raise ValueError(f"contact_sheet takes rows of pictures, a label each; got {len(rows)} and {len(labels)}")
    captions = captions or {}
    if any(len(texts) != len(rows[row]) for row, texts in captions.items()):
        raise ValueError("contact_sheet takes one caption a picture of a row")
    height, width = rows[0][-1].shape[:2]
    columns = max(map(len, rows))
    across = GAP + columns * (width + GAP)
    size = max(TEXT, round(across / SHOWN))
    line, font = round(LINE * size / TEXT), _font(size)
    lines = {row: max(text.count("\n") + 1 for text in texts) for row, texts in captions.items()}
    tops = [GAP]
    for row in range(len(rows)):
        tops.append(tops[-1] + height + GAP + line * (1 + lines.get(row, 0)))
    sheet = Image.new("RGB", (across, tops[-1]), "white")
    pen = ImageDraw.Draw(sheet)
    for row, (pictures, label, top) in enumerate(zip(rows, labels, tops, strict=False)):
        for place, pixels in enumerate(pictures):
            picture, left = _fitted(pixels, height, width), GAP + place * (width + GAP)
            sheet.paste(picture, (left + (width - picture.width) // 2, top + (height - picture.height) // 2))
            for below, text in enumerate(captions[row][place].split("\n") if row in captions else ()):
                at = (left, top + height + below * line + line // 2)
                pen.text(at, _cut(text, width, font), fill=SOFT, font=font, anchor="lm")
        last = top + height + lines.get(row, 0) * line + line // 2
        pen.text((GAP, last), " ".join(label.split()), fill=INK, font=font, anchor="lm")
    buffer = io.BytesIO()
    sheet.save(buffer, kind, **({"quality": QUALITY} if kind == "JPEG" else {}))
    return buffer.getvalue()


def _fitted(pixels: NDArray[np.uint8], height: int, width: int) -> Image.Image:
    image = Image.fromarray(pixels)
    scale = min(height / image.height, width / image.width)
    size = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def _cut(text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """Return the text, or as much of its beginning as fits into a width in pixels, with an ellipsis."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…"


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return the font that comes with matplotlib: it has Cyrillic letters and is installed wherever Nameplate is."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


# Examples of a data set and of its augmentation, to look at before training.


def augmented_rows(
    photos: Sequence[NDArray[np.uint8]],
    height: int,
    width: int,
    settings: Augmentation,
    seed: int,
    count: int,
    locate: Locate = "none",
) -> list[list[NDArray[np.uint8]]]:
    """Make rows for a contact sheet: each photo as it is, then `count` augmented versions of it.

    Args:
        photos: uint8 H×W×3 each; the next one serves as a photo's scenery.
        height: of the pictures.
        width: of the pictures.
        settings: the amounts.
        seed: the same seed draws the same pictures.
        count: pictures a row.
        locate: whether each photo is first cropped to its main car, as in training.
    """
    others = [*photos[1:], photos[0]] if len(photos) > 1 else [None] * len(photos)
    boxes = [_car_box(photo, locate) for photo in photos]
    draws = [np.random.default_rng([seed, row]) for row in range(len(photos))]
    return [
        [
            photo,
            *(
                augment(_cropped(photo, box, settings, draw), height, width, settings, draw, other)
                for _ in range(count)
            ),
        ]
        for photo, box, other, draw in zip(photos, boxes, others, draws, strict=True)
    ]


def _car_box(photo: NDArray[np.uint8], locate: Locate) -> Box | None:
    cars = find_cars(photo)[:1] if locate != "none" else ()
    return crop_box(cars[0]) if cars else None


def _cropped(
    photo: NDArray[np.uint8], box: Box | None, settings: Augmentation, draw: np.random.Generator
) -> NDArray[np.uint8]:
    return photo if box is None else crop(photo, jittered(box, settings, draw))


@dataclass(frozen=True, slots=True, eq=False)
class MixedRow:
    """A batch after MixUp or CutMix, as a row of a contact sheet."""

    label: str
    """How it was mixed, and how many of the batches are mixed so."""
    pictures: list[NDArray[np.uint8]]
    """uint8 H×W×3 each."""
    captions: list[str]
    """Two lines a picture: each nameplate with its share of the target."""


def mixed_rows(batch: Sequence[NDArray[np.uint8]], names: Sequence[str], settings: Mixing, seed: int) -> list[MixedRow]:
    """Mix a batch by each of MixUp and CutMix that a recipe uses, with the function that training uses.

    Args:
        batch: model inputs, uint8 H×W×3 each, all of one size.
        names: their nameplates.
        settings: the recipe's; a kind of probability 0 gets no row.
        seed: the same seed draws the same mixture.
    """
    alone = {
        "MixUp": (settings.mixup, replace(settings, mixup=1.0, cutmix=0.0)),
        "CutMix": (settings.cutmix, replace(settings, mixup=0.0, cutmix=1.0)),
    }
    rows = []
    for number, (kind, (chance, only)) in enumerate(alone.items()):
        draw = np.random.default_rng([seed, number, 1])
        while chance and len(batch) > 1:
            plan = draw_mix(len(batch), batch[0].shape[0], batch[0].shape[1], only, draw)
            # Shares near 0 or 1, and a permutation that leaves photos in place, show little.
            if plan is not None and 0.25 <= plan.share <= 0.75 and (plan.order != np.arange(len(batch))).all():
                break
        else:
            continue
        pairs = zip(names, (names[second] for second in plan.order), strict=True)
        captions = [f"{100 * plan.share:.0f} % {one}\n{100 - 100 * plan.share:.0f} % {two}" for one, two in pairs]
        until = f" in the first {100 * settings.until:.0f} % of the epochs" if settings.until < 1 else ""
        label = f"{kind}: {100 * chance:.0f} % of the batches are mixed like this one{until}"
        rows.append(MixedRow(label, list(mixed(np.stack(batch), plan)), captions))
    return rows


def augmented_sheet(
    found: Sequence[tuple[Photo, NDArray[np.uint8]]], recipe: Recipe, stage: Stage, shape: tuple[int, int], kind: str
) -> bytes:
    """Draw the sheet of a recipe: rows of one photo augmented, then a batch mixed by MixUp and CutMix.

    Args:
        found: labelled photos with their pixels; the first `shape[0]` get rows, all of them are the batch.
        recipe: how they are varied.
        stage: gives the pictures their size.
        shape: number of rows, and of augmented pictures in each.
        kind: of the file, one that `SUFFIXES` names.
    """
    rows_of, count = shape
    height, width, names = stage.height, stage.width, [str(photo.label) for photo, _ in found]
    pixels, locate = [each for _, each in found], recipe.locate
    rows = augmented_rows(pixels[:rows_of], height, width, recipe.augmentation, recipe.seed, count, locate)
    labels, captions = names[: len(rows)], {}
    if recipe.mixing.mixup or recipe.mixing.cutmix:
        one_each = augmented_rows(pixels[: count + 1], height, width, recipe.augmentation, recipe.seed + 1, 1, locate)
        for row in mixed_rows([each[1] for each in one_each], names, recipe.mixing, recipe.seed):
            captions[len(rows)] = row.captions
            rows.append(row.pictures)
            labels.append(row.label)
    return contact_sheet(rows, labels, kind, captions)


@dataclass(frozen=True, slots=True)
class Sheet:
    """A sheet of augmented photos; a notebook shows it."""

    jpeg: bytes
    unreadable: tuple[tuple[str, str], ...]
    """Path and reason of each photo that was passed over."""

    def write(self, file: str | os.PathLike[str]) -> Path:
        """Write the sheet whole, and return its path."""
        with whole_file(Path(file)) as temporary:
            temporary.write_bytes(self.jpeg)
        return Path(file)

    def _repr_jpeg_(self) -> bytes:
        return self.jpeg


def augmentation_sheet(
    dataset: Dataset, recipe: str = "fine-tune", changes: Sequence[str] = (), *, photos: int = 4, pictures: int = 6
) -> Sheet:
    """Draw augmented photos as the network sees them in the last stage of a recipe.

    Args:
        dataset: labelled photos.
        recipe: see `load_recipe`.
        changes: see `load_recipe`.
        photos: number of rows, each of another nameplate.
        pictures: variations of each photo.

    Raises:
        UsageError: see `load_recipe`; or the recipe trains no network.
        DataError: no training photo can be read.
    """
    plan = load_recipe(recipe, changes)
    if not isinstance(plan, Recipe):
        raise UsageError(f"Recipe '{recipe}' trains no network, so it varies no photos. See 'nameplate recipes'.")
    stage = plan.stages[-1]
    found, unreadable = examples(dataset.photos, max(photos, pictures + 1), (stage.height, stage.width))
    if not found:
        raise DataError("None of the training photos can be read.")
    return Sheet(augmented_sheet(found, plan, stage, (photos, pictures), "JPEG"), tuple(unreadable))


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
