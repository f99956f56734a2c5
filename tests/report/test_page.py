"""Plots and pages."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nameplate.evaluate.metrics import evaluate
from nameplate.report.page import png_uri, thumbnail_uri, write_page
from nameplate.report.plots import class_plot, confusion_plot

NAMES = ("Приора", "Ёлка", "<b>Ford & Focus</b>")


def test_plots_are_drawn_and_cyrillic_has_no_missing_glyph() -> None:
    probs = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1]]
    y_true = np.array([0, 1, 2, 1, 1])
    matrix = np.array([[1, 0, 0], [1, 2, 0], [0, 0, 1]])
    for png in (confusion_plot(matrix, NAMES), class_plot(evaluate(probs, y_true, NAMES))):
        picture = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
        assert picture.shape[0] > 100
        assert picture.std() > 10
    # A glyph that the font lacks is a warning, and warnings are errors here.


def test_a_page_escapes_what_it_is_given_and_needs_nothing_beside_it(tmp_path: Path) -> None:
    evaluation = evaluate(np.eye(3, dtype=np.float32), np.arange(3), NAMES)
    photo = thumbnail_uri(np.zeros((400, 500, 3), np.uint8))
    write_page(
        tmp_path / "page.html",
        "tour.html",
        version="1",
        train_photos=3,
        test_photos=3,
        looks=[{"nameplate": NAMES[2], "photos": 1, "examples": [photo]}],
        runtime="onnxruntime",
        seconds=1.0,
        evaluation=evaluation,
        confusion=png_uri(b"x"),
        classes=png_uri(b"y"),
        mistakes=[],
        answer={"uri": photo, "truth": "Приора", "top": (("Приора", 0.9),)},
    )
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "<b>Ford" not in text
    assert "&lt;b&gt;Ford &amp; Focus&lt;/b&gt;" in text
    assert "Приора" in text
    assert not re.search(r'(src|href)="(?!data:)', text)


def test_a_template_that_misses_a_value_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="train_photos"):
        write_page(tmp_path / "page.html", "tour.html", version="1")
    assert not list(tmp_path.iterdir())


def test_a_thumbnail_keeps_the_aspect_ratio() -> None:
    uri = thumbnail_uri(np.zeros((400, 800, 3), np.uint8))
    import base64

    image = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    assert image.size == (240, 120)
