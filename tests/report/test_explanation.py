"""The page and the image of an explanation: red for evidence, blue against it, and the boxes."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from nameplate import Model
from nameplate.model.cam import Case, Explanation
from nameplate.model.neighbours import Neighbour
from nameplate.report.explanation import GAP, as_json, heat_map, write_explanation
from nameplate.report.page import thumbnail_uri
from nameplate.types import Fit, Preprocess, Verdict

HEIGHT, WIDTH = 120, 200


def case(name: str = "Лада <b>Веста</b>", sign: float = 1) -> Case:
    """Speaks for it in the upper left quarter, against it in the lower right one."""
    grid = np.zeros((4, 6), np.float32)
    grid[:2, :3], grid[2:, 3:] = 9 * sign, -9 * sign
    return Case(name, 0.8, grid, (0, 0, 77, 46))


def explanation(*, claimed: Case | None = None, nearest: tuple[Neighbour, ...] | None = None) -> Explanation:
    pixels = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    named = case()
    top = ((named.nameplate, 0.8), ("Audi", 0.2))
    return Explanation("photos/<x>.jpg", pixels, WIDTH, HEIGHT, named, claimed, "answer", top, nearest)


def redness(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    return pixels[..., 0].astype(np.int64) - pixels[..., 2]


def test_red_is_evidence_for_and_blue_against() -> None:
    found = redness(heat_map(explanation(), replace(case(), region=None), Preprocess(40, 60), WIDTH))
    assert found.shape == (HEIGHT, WIDTH)
    assert found[10:40, 10:80].min() > 60
    assert found[80:110, 120:190].max() < -60
    assert np.abs(found[80:110, 10:80]).max() < 25
    turned = redness(heat_map(explanation(), replace(case(sign=-1), region=None), Preprocess(40, 60), WIDTH))
    assert turned[10:40, 10:80].max() < -60


@pytest.mark.parametrize(("fit", "warm", "plain"), [("pad", (30, 50), (45, 150)), ("crop", (30, 90), (30, 20))])
def test_heat_is_drawn_where_the_model_saw_it(fit: Fit, warm: tuple[int, int], plain: tuple[int, int]) -> None:
    found = redness(heat_map(explanation(), replace(case(), region=None), Preprocess(60, 60, fit), WIDTH))
    assert found[warm] > 60
    assert abs(found[plain]) < 25


def test_the_box_is_drawn_where_the_region_is() -> None:
    with_box = heat_map(explanation(), replace(case(), region=(100, 60, 180, 110)), Preprocess(40, 60), 2 * WIDTH)
    without = heat_map(explanation(), replace(case(), region=None), Preprocess(40, 60), 2 * WIDTH)
    assert with_box.shape == (2 * HEIGHT, 2 * WIDTH, 3)
    rows, columns = np.nonzero((with_box != without).any(2))
    assert (rows.min(), columns.min()) == (120, 200)
    assert (rows.max(), columns.max()) == (219, 359)
    assert np.array_equal(with_box[130:210, 210:350], without[130:210, 210:350])


def test_both_maps_have_one_scale() -> None:
    weak = replace(case("Audi"), evidence=case().evidence * np.float32(0.1))
    both = explanation(claimed=weak)
    assert redness(heat_map(both, weak, Preprocess(40, 60), WIDTH))[60:100, 120:190].min() > -30


def test_the_maps_are_side_by_side_in_one_image(tmp_path: Path) -> None:
    model = Model.load(threads=1)
    write_explanation(explanation(), model, tmp_path / "one.png")
    write_explanation(explanation(claimed=case("Audi", -1)), model, tmp_path / "two.PNG")
    one, two = (Image.open(tmp_path / name) for name in ("one.png", "two.PNG"))
    assert (one.width, one.height) == (640, 384)
    assert (two.width, two.height) == (2 * 640 + GAP, 384)
    assert two.crop((0, 0, 640, 384)).tobytes() == one.tobytes()


def neighbour(nameplate: str, picture: bytes | None = None) -> Neighbour:
    import base64

    small = thumbnail_uri(np.full((60, 80, 3), 90, np.uint8)).partition(",")[2]
    return Neighbour("a/<i>.jpg", nameplate, 0.9, base64.b64decode(small) if picture is None else picture)


def test_the_page_needs_nothing_beside_it_and_escapes(tmp_path: Path) -> None:
    found = (neighbour(case().nameplate), neighbour("Audi"), neighbour("Audi", b"\xff\xd8\xff hostile <script>"))
    write_explanation(explanation(claimed=case("Audi", -1), nearest=found), Model.load(threads=1), tmp_path / "p.html")
    page = (tmp_path / "p.html").read_text("utf-8")
    assert "<b>Веста" not in page
    assert "Лада &lt;b&gt;Веста" in page
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!data:image/)', page)
    assert page.count('src="data:image/jpeg') == 3 + 2
    assert page.count("cannot be shown") == 1
    assert page.count('class="same"') == 1
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page


def test_the_page_names_missing_parts(tmp_path: Path) -> None:
    quiet = replace(case("Audi", -1), region=None)
    write_explanation(explanation(claimed=quiet), Model.load(threads=1), tmp_path / "p.html")
    page = (tmp_path / "p.html").read_text("utf-8")
    assert "nothing in the photo speaks for it" in page
    assert "--index" in page
    write_explanation(explanation(claimed=case()), Model.load(threads=1), tmp_path / "p.html")
    page = (tmp_path / "p.html").read_text("utf-8")
    assert "It is the nameplate that was claimed" in page
    assert page.count('src="data:image/jpeg') == 2


def test_json_says_the_same() -> None:
    said = as_json(explanation(claimed=replace(case("Audi"), region=None), nearest=(neighbour("Audi"),)))
    assert said["nameplate"] == case().nameplate
    assert said["hot_region"] == {"left": 0, "top": 0, "right": 77, "bottom": 46}
    assert said["claimed_hot_region"] is None
    assert said["map"] == {"height": 4, "width": 6}
    assert said["nearest"] == [{"path": "a/<i>.jpg", "nameplate": "Audi", "similarity": 0.9}]
    assert as_json(explanation())["nearest"] is None


@pytest.mark.parametrize(
    ("verdict", "title", "word"),
    [
        ("answer", "Лада <b>Веста</b>", "Named"),
        ("unsure", "Unsure: likeliest Лада <b>Веста</b>", "Likeliest"),
        ("not a car", "Not a car", "Likeliest"),
        ("unknown car", "Unknown car", "Likeliest"),
    ],
)
def test_the_title_is_what_identify_says(verdict: Verdict, title: str, word: str, tmp_path: Path) -> None:
    found = replace(explanation(), verdict=verdict)
    assert (found.title, found.word) == (title, word)
    assert as_json(found)["title"] == title
    write_explanation(found, Model.load(threads=1), tmp_path / "p.html")
    page = html.unescape((tmp_path / "p.html").read_text("utf-8"))
    assert f"<h1>{title}</h1>" in page
    assert f"<figcaption>{word}:" in page
    assert ("None of its nameplates is meant" in page) == (verdict in ("not a car", "unknown car"))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 300), st.integers(1, 300), st.tuples(*[st.floats(0, 1)] * 4), st.integers(1, 400), st.booleans())
def test_every_photo_of_one_pixel_or_more_gets_its_map(
    width: int, height: int, sides: tuple[float, float, float, float], longest: int, boxed: bool
) -> None:
    x0, x1 = sorted(sides[:2])
    y0, y1 = sorted(sides[2:])
    left, top = min(int(x0 * width), width - 1), min(int(y0 * height), height - 1)
    region = (left, top, max(left + 1, int(x1 * width)), max(top + 1, int(y1 * height)))
    pixels = np.full((height, width, 3), 128, np.uint8)
    photo = replace(explanation(), pixels=pixels, width=width, height=height)
    drawn = heat_map(photo, replace(case(), region=region if boxed else None), Preprocess(40, 60), longest)
    assert max(drawn.shape[:2]) == longest
