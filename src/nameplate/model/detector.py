"""Car detector: `locate` finds the whole cars in a photo, so that each is named from a crop and not from the scene.

The network is an SSD with MobileNetV2 (W. Liu et al., "SSD: Single Shot MultiBox Detector", 2016; M. Sandler et al.,
"MobileNetV2", 2018), trained on Open Images by Google's MediaPipe. docs/detector.md is its model card, and
`tools/make_detector.py` makes the file. ONNX Runtime runs it on one photo and one thread at a time, inside the threads
that decode photos. So the boxes of a photo depend neither on the runtime of the backbone, nor on other photos.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from PIL import Image

from nameplate.errors import BundleError
from nameplate.images.transforms import WHOLE, Box, Pixels, check_pixels
from nameplate.runtime.ort import open_session
from nameplate.storage import sha256
from nameplate.types import Floats

FILE = "detector.onnx"
SHA256 = "af33e2c692250d193f2f9748cde9c99c65e568a0530d51227c58d0650283716d"
"""Of the file in the package."""
BOXES = 2
"""Version of the boxes. It is increased with every change of this module that changes them, so that no cache mixes two
versions."""

LEAST_SCORE = 0.3
"""Boxes with a lower score are not cars."""
OVERLAP = 0.5
"""Of two boxes with a greater intersection over union, only the one with the higher score is kept."""
INSIDE = 0.8
"""A box that lies in a kept one with a greater share of its area is a part of that car, such as a window."""
LEAST_SIDE = 0.03
"""A box with a shorter side, as a share of the photo's, shows the edge of a car at most."""
CLEAR = 0.85
"""The main car is the largest of those whose score is at least this share of the best score."""
NEARLY_ALL = 0.85
"""A main car whose box covers more than this share of the photo is named from the whole photo."""
PORTRAIT = 1.1
"""A photo that is higher than this many times its width is looked at in square windows of its width as well, because
squashing it makes cars flat: in photos of 9:16 a third of them was missed (docs/detector.md)."""
WINDOW_OVERLAP, MOST_WINDOWS = 0.6, 4
"""Share of a window that the next one also shows, and the greatest number of windows; then they overlap less."""
EDGE = 0.05
"""A box that comes nearer to an edge at which its window cuts the photo, as a share of the window, is of a cut car."""
MOST_CARS = 10
"""Number of cars that are kept of one photo."""
CANDIDATES = 100
"""Number of boxes that are compared with each other; with more, `LEAST_SCORE` would let a hostile photo take long."""


@dataclass(frozen=True, slots=True)
class LocatedCar:
    """A car that was found in a photo."""

    box: Box
    """Its box, within the photo."""
    score: float
    """The detector's confidence that this is a car or another vehicle, `LEAST_SCORE`–1."""

    @property
    def area(self) -> float:
        """Share of the photo that the box covers."""
        top, left, bottom, right = self.box
        return (bottom - top) * (right - left)


def locate(pixels: Pixels) -> tuple[LocatedCar, ...]:
    """The whole cars in a photo, the main car first, at most `MOST_CARS`.

    The result depends on the pixels alone, and hardly on the processor: the sums of the int8 network are exact.

    Args:
        pixels: the upright photo, uint8 H×W×3, of any size.

    Raises:
        ValueError: `pixels` is no such array.
        BundleError: the detector's file in the package is damaged.
    """
    check_pixels(pixels, "locate")
    boxes, scores = _look(pixels)
    kept = _without_overlaps(boxes, scores)
    cars = [LocatedCar((float(box[0]), float(box[1]), float(box[2]), float(box[3])), float(s)) for box, s in kept]
    return tuple(in_order(cars)[:MOST_CARS])


def windows(height: int, width: int) -> list[tuple[int, int]]:
    """First row of each part of a photo that the network looks at, and the row after its last; the whole photo first.

    >>> windows(300, 400), windows(400, 300)
    ([(0, 300)], [(0, 400), (0, 300), (100, 400)])
    """
    if height <= PORTRAIT * width:
        return [(0, height)]
    count = min(math.ceil((height / width - WINDOW_OVERLAP) / (1 - WINDOW_OVERLAP)), MOST_WINDOWS)
    tops = [round(place * (height - width) / (count - 1)) for place in range(count)]
    return [(0, height), *((top, top + width) for top in tops)]


def _look(pixels: Pixels) -> tuple[Floats, Floats]:
    """The boxes of all windows as shares of the photo, float32 K×4, and their scores; the best score first."""
    height, width = pixels.shape[:2]
    found = []
    for first, last in windows(height, width):
        boxes, scores = _detector().boxes(pixels[first:last])
        cut = ((boxes[:, 0] < EDGE) & (first > 0)) | ((boxes[:, 2] > 1 - EDGE) & (last < height))
        boxes[:, [0, 2]] = (first + boxes[:, [0, 2]] * np.float32(last - first)) / np.float32(height)
        found.append((boxes[~cut], scores[~cut]))
    boxes, scores = (np.concatenate(each) for each in zip(*found, strict=True))
    best = np.argsort(-scores, kind="stable")[:CANDIDATES]
    return boxes[best], scores[best]


def in_order(cars: list[LocatedCar]) -> list[LocatedCar]:
    """Cars with the main car first, the one that the photo is about; the others follow by score.

    A photo is taken of the car that is large. But a large box may be of no car, or of one that is hardly in the photo,
    so only those count whose score is near the best one (`CLEAR`).

    Args:
        cars: the cars of one photo, the one with the best score first.
    """
    if not cars:
        return []
    clear = [car for car in cars if car.score >= CLEAR * cars[0].score]
    main = max(clear, key=lambda car: car.area)
    return [main, *(car for car in cars if car is not main)]


def crop_box(car: LocatedCar) -> Box:
    """The part of the photo to name a car from: its box, without a margin, which would cost accuracy.

    It is `WHOLE` for a car that fills the photo: its crop would be hardly smaller.
    """
    return WHOLE if car.area > NEARLY_ALL else car.box


class CarDetector:
    """The network; safe to use from several threads at once."""

    def __init__(self, network: bytes) -> None:
        """Load the network.

        Args:
            network: the ONNX file, uint8 N×S×S×3 → `boxes`, float32 N×A×4 (top, left, bottom, right, within 0–1), and
                `scores`, float32 N×A (probability of a car or another vehicle).

        Raises:
            BundleError: it cannot be loaded.
        """
        # One thread, because photos are computed side by side, in the threads that decode them.
        self._session = open_session(network, 1, "car detector")
        self.size = int(self._session.get_inputs()[0].shape[1])

    def boxes(self, pixels: Pixels) -> tuple[Floats, Floats]:
        """All boxes with a score of at least `LEAST_SCORE`.

        Args:
            pixels: uint8 H×W×3.

        Returns:
            float32 K×4, top, left, bottom, right within 0–1, and their scores, float32 (K,); the best score first.
        """
        squashed = _squashed(pixels, self.size)
        boxes, scores = (found[0] for found in self._session.run(["boxes", "scores"], {"input": squashed[None]}))
        there = np.flatnonzero(scores >= LEAST_SCORE)
        there = there[np.argsort(-scores[there], kind="stable")[:CANDIDATES]]
        return boxes[there], scores[there]


def detector_network() -> bytes:
    """The network in the package, an ONNX file: see `CarDetector`.

    Raises:
        BundleError: the file is damaged.
    """
    network = (resources.files("nameplate.model") / "shipped" / FILE).read_bytes()
    if sha256(network) != SHA256:
        raise BundleError("The car detector in the package is damaged. Install Nameplate again.")
    return network


def input_size() -> int:
    """The height and the width of what the network looks at, in pixels."""
    return _detector().size


@cache
def _load() -> CarDetector:
    return CarDetector(detector_network())


_LOADING = threading.Lock()


def _detector() -> CarDetector:
    """The detector of the package, which a process loads once, when it first needs it."""
    with _LOADING:  # `cache` alone would let several threads load it at the same time
        return _load()


def _squashed(pixels: Pixels, size: int) -> Pixels:
    # `reducing_gap` first averages whole blocks of pixels, which takes half the time of one filter over all of them.
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR, reducing_gap=1.0))


def _without_overlaps(boxes: Floats, scores: Floats) -> list[tuple[Floats, np.float32]]:
    """Greedy non-maximum suppression; very narrow boxes are left out."""
    kept: list[tuple[Floats, np.float32]] = []
    for box, score in zip(boxes, scores, strict=True):
        if (box[2:] - box[:2]).min() >= LEAST_SIDE and not any(_same_car(box, other) for other, _ in kept):
            kept.append((box, score))
    return kept


def _same_car(box: Floats, better: Floats) -> bool:
    """Whether a box shows the same car as a better one, or a part of it."""
    sides = np.minimum(box[2:], better[2:]) - np.maximum(box[:2], better[:2])
    if (sides <= 0).any():
        return False
    both, area, other = (float(each.prod()) for each in (sides, box[2:] - box[:2], better[2:] - better[:2]))
    return both > OVERLAP * (area + other - both) or both > INSIDE * area
