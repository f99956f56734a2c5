"""Fits the anchors of the car detector at its input size, against the boxes that it gives at the size of its training.

    PYTHONPATH=. python benchmarks/anchors.py ASSETS CARS196

ASSETS is the file that `tools/make_detector.py` reads, whose table `FITTED` this makes. Only photos that trained the
bundle that ships are used, on backgrounds of each other, as in `whole_scenes.py`. A line for each feature map: the
centre of the first anchor and the distance to the next, in pixels, and how many times too large its boxes are.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tools.make_detector import ALL_MAPS, CAR, CENTRES, FILE, MAPS, OWN_SIZE, SIDES, SIZE, VEHICLE, anchors, convert

from nameplate.data import list_photos
from nameplate.defaults import DEFAULT_BUNDLE
from nameplate.images.decode import decode
from nameplate.model.bundle import load_bundle
from nameplate.runtime.ort import import_onnxruntime
from nameplate.types import Doubles
from whole_scenes import scene  # type: ignore[import-not-found]  # beside this file

PHOTOS, SCENES, SEED = 500, 3, 5
LEAST_SCORE, SAME_CAR = 0.3, 0.35
"""Least score of a prediction, and its least intersection over union with the true box."""
CLEAR = 0.5
"""Least score of a true box."""


class Network:
    """The network at one size, as ONNX Runtime runs it."""

    def __init__(self, data: bytes, size: int, maps: int) -> None:
        onnxruntime = import_onnxruntime()
        model = convert(data, size, [VEHICLE, CAR], maps).SerializeToString()
        self._session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.size = size
        self.centres, self.sides, _ = anchors(size, maps)

    def predictions(self, pixels: NDArray[np.uint8]) -> tuple[Doubles, Doubles, Doubles]:
        """Of each anchor: the box's centre from the anchor's, its sides (A×2 each, as shares) and its score."""
        squashed = Image.fromarray(pixels).resize((self.size, self.size), Image.Resampling.BILINEAR, reducing_gap=1.0)
        encoded, logits = (out[0] for out in self._session.run(None, {"input": np.asarray(squashed)[None]}))
        shifts = encoded[:, :2] / CENTRES * self.sides
        return shifts, np.exp(encoded[:, 2:] / SIDES) * self.sides, 1 / (1 + np.exp(-logits.max(1)))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("assets", type=Path)
    parser.add_argument("cars196", type=Path)
    arguments = parser.parse_args()
    data = arguments.assets.read_bytes()[FILE]
    own, small = Network(data, OWN_SIZE, ALL_MAPS), Network(data, SIZE, MAPS)
    pixels = training_photos(arguments.cars196)
    found = np.concatenate([of_photo(pixels, place, own, small) for place in range(len(pixels))])
    cells = places(SIZE, MAPS)[found[:, 0].astype(int)]
    for number in range(MAPS):
        rows = cells[:, 0] == number
        lines = [robust_line(cells[rows, 1 + axis], found[rows, 1 + axis]) * SIZE for axis in (0, 1)]
        first, step = np.mean(lines, 0)
        excess = np.median(found[rows, 3:5], 0).mean()
        print(f"map {number}: ({first:.2f}, {step:.2f}, {excess:.3f}) from {rows.sum():,} predictions")


def training_photos(folder: Path) -> list[NDArray[np.uint8]]:
    """Photos, at random, that trained the bundle that ships; known by nameplate and file name."""
    rows = csv.DictReader((load_bundle(DEFAULT_BUNDLE).photos or b"").decode().splitlines())
    trained = {Path(row["path"]).parts[-2:] for row in rows if row["split"] == "train"}
    paths = [photo.path for photo in list_photos(folder) if Path(photo.path).parts[-2:] in trained]
    return [decode(paths[place]) for place in np.random.default_rng(SEED).permutation(len(paths))[:PHOTOS]]


def of_photo(pixels: list[NDArray[np.uint8]], place: int, own: Network, small: Network) -> Doubles:
    """What the small network predicts of a photo's car in some scenes.

    Returns:
        A row for each prediction: number of the anchor; where the anchor's centre would have to be, vertical and
        horizontal; how many times too high and too wide the box is.
    """
    true = true_box(pixels, place, own)
    rows: list[list[float]] = []
    for number in range(SCENES if true is not None else 0):
        side = np.random.default_rng([place, number]).uniform(0.3, 0.9)
        assert true is not None
        box = true * np.tile(frame(pixels, place, side)[2:], 2) + np.tile(frame(pixels, place, side)[:2], 2)
        shifts, sides, scores = small.predictions(scene(pixels, place, side, "scene"))
        for anchor in np.flatnonzero(scores >= LEAST_SCORE):
            centre = small.centres[anchor] + shifts[anchor]
            if overlap(np.concatenate([centre - sides[anchor] / 2, centre + sides[anchor] / 2]), box) >= SAME_CAR:
                wanted = (box[:2] + box[2:]) / 2 - shifts[anchor]
                rows.append([float(anchor), *wanted, *(sides[anchor] / (box[2:] - box[:2]))])
    return np.array(rows).reshape(-1, 5)


def true_box(pixels: list[NDArray[np.uint8]], place: int, own: Network) -> Doubles | None:
    """The car's box in its photo, found at the size of training where the photo is a half of a scene."""
    shifts, sides, scores = own.predictions(scene(pixels, place, 0.5**0.5, "scene"))
    best = int(scores.argmax())
    if scores[best] < CLEAR:
        return None
    centre, photo = own.centres[best] + shifts[best], frame(pixels, place, 0.5**0.5)
    corners = np.concatenate([centre - sides[best] / 2, centre + sides[best] / 2])
    return np.clip((corners - np.tile(photo[:2], 2)) / np.tile(photo[2:], 2), 0, 1)


def frame(pixels: list[NDArray[np.uint8]], place: int, side: float) -> Doubles:
    """Where `scene` puts a photo, as shares of the frame: top, left, height, width."""
    photo, draw = pixels[place].shape[:2], np.random.default_rng([20, place])
    draw.integers(len(pixels))  # which background
    sides = [round(length / side) for length in photo]
    first = [int(draw.integers(whole - part + 1)) for whole, part in zip(sides, photo, strict=True)]
    return np.array([first[0] / sides[0], first[1] / sides[1], photo[0] / sides[0], photo[1] / sides[1]])


def places(size: int, maps: int) -> NDArray[np.int64]:
    """Feature map, row and column of each anchor, A×3."""
    centres = anchors(size + 1, maps)[0]  # at another size than that of `FITTED` they are in the middle of their cells
    rows, start = [], 0
    for number in range(maps):
        cells = -(-size // (16 << number))
        count = cells * cells * (3 if number == 0 else 6)
        rows.append(np.insert((centres[start : start + count] * cells).astype(int), 0, number, axis=1))
        start += count
    return np.concatenate(rows)


def overlap(first: Doubles, second: Doubles) -> float:
    """Intersection over union."""
    both = np.clip(np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2]), 0, None).prod()
    return float(both / ((first[2:] - first[:2]).prod() + (second[2:] - second[:2]).prod() - both))


def robust_line(cells: NDArray[np.int64], wanted: Doubles) -> Doubles:
    """First value and step of the line through most points, by least squares without what lies far off."""
    design, kept = np.stack([np.ones(len(cells)), cells], 1), np.ones(len(cells), bool)
    line: Doubles = np.zeros(2)
    for _ in range(4):
        line = np.asarray(np.linalg.lstsq(design[kept], wanted[kept], rcond=None)[0], np.float64)
        away = np.abs(wanted - design @ line)
        kept = away < 2.5 * 1.48 * np.median(away)
    return line


if __name__ == "__main__":
    main()
