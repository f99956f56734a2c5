"""The car detector as an ONNX graph, against `model.detector.locate`."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from PIL import Image

if importlib.util.find_spec("onnx") is None:
    pytest.skip("needs onnx", allow_module_level=True)

from nameplate.demo import photo
from nameplate.fit.one_file import detector_file
from nameplate.images.decode import decode
from nameplate.images.transforms import WHOLE, Pixels, crop
from nameplate.model.detector import crop_box, locate
from nameplate.runtime.ort import open_session


def photos() -> dict[str, Pixels]:
    car = decode(photo())
    height, width = car.shape[:2]
    small = np.asarray(Image.fromarray(car).resize((width // 2, height // 2)))
    scene = np.full((height, width * 2, 3), 127, np.uint8)
    scene[: height // 2, : width // 2] = small
    scene[:, width:] = car
    return {
        "one car": car,
        "two cars": scene,
        "a portrait photo": np.pad(car, ((width, width // 2), (0, 0), (0, 0)), mode="edge"),
        "a very high photo": np.pad(car, ((2 * width, 0), (0, 0), (0, 0)), mode="edge"),
        "a car that fills it": crop(car, locate(car)[0].box),
        "no car": np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8),
        "one pixel": np.zeros((1, 1, 3), np.uint8),
    }


@pytest.mark.whole
def test_the_box_is_that_of_locate() -> None:
    session = open_session(detector_file(), 1, "detector")
    boxes = []
    for name, pixels in photos().items():
        cars = locate(pixels)
        box, score = session.run(["box", "score"], {"photo": pixels})
        expected = crop_box(cars[0]) if cars else WHOLE
        assert np.allclose(box, expected, rtol=0, atol=1e-6), name
        assert score[0] == pytest.approx(cars[0].score if cars else 0, abs=1e-6), name
        boxes.append(tuple(expected))
    assert len(set(boxes)) >= 4  # so that the photos try what they are meant to
    assert WHOLE in boxes
