"""Scenes of several cars, joined of embedded renders, and a bundle that locates the cars in them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from nameplate.demo import photos_folder
from nameplate.images.decode import decode
from nameplate.images.transforms import Pixels
from nameplate.model.bundle import SCHEMA, load_bundle, save_bundle

FILES = sorted(photos_folder("test").glob("*/*.jpg"))[::50]
GREY = 120
Place = tuple[int, int, int]
"""Left and top side of a car in a scene, and its width, in pixels; it is three quarters as high."""
TWO: tuple[Place, ...] = ((40, 60, 480), (720, 300, 240))
"""A large car to the left, and a smaller one in the right corner."""


def scene(places: tuple[Place, ...] = TWO, size: tuple[int, int] = (960, 480)) -> Pixels:
    """Renders on grey, uint8 H×W×3.

    Args:
        places: of each car.
        size: width and height of the scene, in pixels.
    """
    whole = np.full((size[1], size[0], 3), GREY, np.uint8)
    for number, (left, top, width) in enumerate(places):
        car = Image.fromarray(decode(FILES[number % len(FILES)])).resize((width, width * 3 // 4))
        whole[top : top + car.height, left : left + width] = np.asarray(car)
    return whole


def as_file(pixels: Pixels, *, turned: bool = False) -> bytes:
    """A JPEG of pixels; with `turned` it is stored sideways, and its EXIF data say how to turn it upright."""
    buffer, exif, image = io.BytesIO(), Image.Exif(), Image.fromarray(pixels)
    if turned:
        exif[0x0112] = 6  # to be turned by 90 degrees clockwise
        image = image.transpose(Image.Transpose.ROTATE_90)
    image.save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


def locating_bundle(folder: Path, source: str | Path = "cars196") -> Path:
    """Write a bundle like another, except that it locates cars; return its folder."""
    bundle = load_bundle(source)
    manifest = bundle.manifest
    preprocess = replace(manifest.preprocess, locate="ssd")
    save_bundle(folder, replace(bundle, manifest=replace(manifest, preprocess=preprocess, schema=SCHEMA, golden=None)))
    return folder
