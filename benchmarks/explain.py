"""Tests whether the answer depends on the hot region of `nameplate explain`, by hiding it and other regions.

    python benchmarks/explain.py PHOTOS --photos 300

PHOTOS is a data set; where it has parts, its validation and test photos are used. In the model's input of each photo,
a box of one size and shape is painted grey: the hottest one, a random one, the centre, and the hottest one of another
photo. (Cars are in the centre of most photos, so a map must be better than a box that uses only this.) Each box is
compared with the random one on the same photos.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nameplate.data import read_dataset
from nameplate.defaults import DEFAULT_BUNDLE
from nameplate.evaluate.metrics import wilson
from nameplate.evaluate.significance import paired
from nameplate.model.cam import AREA, MappedPhoto, Region, evidence_map, hot_region, photo_maps
from nameplate.model.model import Model
from nameplate.model.pipeline import GREY
from nameplate.types import Floats

CONTROL = "at random"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path)
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--area", type=float, default=AREA, help="share of the model input that is hidden")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--model", default=DEFAULT_BUNDLE)
    arguments = parser.parse_args()
    model, random = Model.load(arguments.model, runtime="onnxruntime"), np.random.default_rng(arguments.seed)
    photos = read_dataset(arguments.data).photos
    held = [photo for photo in photos if photo.split in ("validation", "test")] or photos
    chosen = [held[i].path for i in random.permutation(len(held))[: arguments.photos]]
    mapped = [each for each in photo_maps(model, chosen) if isinstance(each, MappedPhoto)]
    grids = [each.places for each in mapped]
    probs = model.probabilities(np.stack([places.mean((0, 1)) for places in grids]), "onnxruntime")
    named = probs.argmax(1)
    falls, changes = {}, {}
    for way, boxes in hidden_boxes(model, grids, named, arguments.area, random).items():
        found = model.probabilities(
            model.embed([painted(m, box) for m, box in zip(mapped, boxes, strict=True)]), "onnxruntime"
        )
        falls[way] = probs.max(1) - found[np.arange(len(named)), named]
        changes[way] = found.argmax(1) != named
    print(f"{len(named)} photos, {arguments.area:.0%} hidden, mean confidence before {probs.max(1).mean():.3f}")
    for way in falls:
        share = wilson(int(changes[way].sum()), len(named))
        print(
            f"{way:16} confidence falls by {falls[way].mean():.3f}, answers changed {share.value:.3f} "
            f"({share.low:.3f}–{share.high:.3f})"
        )
    for way in (way for way in falls if way != CONTROL):
        for what, scores in (("falls", falls), ("changed", changes)):
            more = paired(scores[CONTROL], scores[way])
            low, high = more.difference.interval
            print(f"{way:16} {what:8} {more.difference.value:+.3f} ({low:+.3f} to {high:+.3f}, p {more.p:.1g}) "
                  f"more than {CONTROL}")  # fmt: skip


def hidden_boxes(
    model: Model, grids: list[Floats], named: NDArray[np.int64], area: float, random: np.random.Generator
) -> dict[str, list[Region]]:
    """Way of choosing → a box for each photo, all of one size."""
    hot = [
        hot_region(evidence_map(model, places, int(k), "onnxruntime"), area)
        for places, k in zip(grids, named, strict=True)
    ]
    width, height = hot[0].right - hot[0].left, hot[0].bottom - hot[0].top
    corners = random.random((len(hot), 2)) * (1 - width, 1 - height)
    return {
        "hot": hot,
        CONTROL: [Region(x, y, x + width, y + height) for x, y in corners.tolist()],
        "the middle": [Region((1 - width) / 2, (1 - height) / 2, (1 + width) / 2, (1 + height) / 2)] * len(hot),
        "another's hot": [hot[i - 1] for i in range(len(hot))],
    }


def painted(mapped: MappedPhoto, box: Region) -> NDArray[np.uint8]:
    """The model's input with a grey box."""
    picture = mapped.model_input.copy()
    height, width = picture.shape[:2]
    rows = slice(round(box.top * height), round(box.bottom * height))
    picture[rows, round(box.left * width) : round(box.right * width)] = GREY
    return picture


if __name__ == "__main__":
    main()
