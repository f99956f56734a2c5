"""The page, its JSON and its table, from answers on embedded photos."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from nameplate.evaluate.comparison import compare_models
from nameplate.evaluate.evaluator import EvaluationResult
from nameplate.evaluate.figures import as_json, compute_figures
from nameplate.model.bundle import load_bundle
from nameplate.report.evaluation import matrix_plot, write_report
from tests.evaluate.answers import judged


class Page(HTMLParser):
    """What a page shows and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.shown: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.loaded += [str(value) for name, value in attrs if name in ("src", "srcset", "href")]
        self.ids += [str(value) for name, value in attrs if name == "id"]

    def handle_data(self, data: str) -> None:
        self.shown.append(data)


def written(
    found: EvaluationResult, target: Path, other: EvaluationResult | None = None
) -> tuple[Page, dict[str, Any], str]:
    measured = compute_figures(found)
    held = None if other is None else compare_models(found, other, "<other>")
    said = as_json(measured, found, load_bundle("cars196"), held)
    paths = write_report(said, measured, found, target, 1, held)
    text = paths.page.read_text("utf-8")
    return Page(text), json.loads(paths.json.read_text("utf-8")), paths.photos.read_text("utf-8")


def test_the_page_needs_nothing_beside_it_and_shows_mistakes_with_neighbours(tmp_path: Path) -> None:
    page, said, table = written(judged(), tmp_path / "r.html", judged(1, 1.0))
    assert all(link.startswith(("data:image/", "#")) for link in page.loaded)
    assert {link[1:] for link in page.loaded if link.startswith("#")} <= set(page.ids)
    text = " ".join(" ".join(page.shown).split())
    for heading in ("Surest mistakes", "Worst pairs", "Confusion matrix", "By make", "Against <other>"):
        assert heading in text
    assert text.index("Confusion matrix") < text.index("The hardest nameplates") < text.index("Surest mistakes")
    assert "trained as" in text
    assert "is better than '<other>'" in text
    assert {path.name for path in tmp_path.iterdir()} == {"r.html", "r.json", "r.photos.csv"}
    rows = list(csv.DictReader(table.splitlines()))
    assert len(rows) == said["photos"] == 60
    assert sum(int(row["right"]) for row in rows) / 60 == pytest.approx(said["top1"])
    assert np.mean([float(row["log_loss"]) for row in rows]) == pytest.approx(said["log_loss"], abs=1e-5)
    assert all(Path(row["path"]).is_file() for row in rows)


def test_the_json_has_every_figure_with_its_interval(tmp_path: Path) -> None:
    _, said, _ = written(judged(), tmp_path / "r.html")
    for name in ("top1", "top5", "macro_f1", "log_loss", "ece", "make_top1"):
        low, high = said[f"{name}_interval"]
        assert low <= said[name] <= high
    expected = {"photos", "classes", "confusions", "left_out", "runtime", "makes", "reliability", "risk_coverage"}
    assert expected | {"temperature", "data_sha256", "version", "seed"} <= said.keys()
    assert "against" not in said
    assert said == json.loads(
        msgspec.json.encode(as_json(compute_figures(judged()), judged(), load_bundle("cars196")))
    ), "the same answers give the same figures"


def test_without_training_photos_or_mistakes_the_page_says_so(tmp_path: Path) -> None:
    page, _, _ = written(judged(taught=False), tmp_path / "r.html")
    assert "No photo that trained the model is in this data" in " ".join(page.shown)
    page, _, _ = written(judged(skill=50.0), tmp_path / "r.html")
    assert "Every photo is named rightly." in " ".join(page.shown)


@pytest.mark.parametrize("classes", [1, 10, 196])
def test_a_matrix_of_any_size_is_drawn(classes: int) -> None:
    counts = np.eye(classes, dtype=np.int64) * 5
    counts[0, -1] = 1
    names = [f"Make{number // 4} {number}" for number in range(classes)]
    for dark in (False, True):
        png = matrix_plot(counts, names, [name.split()[0] for name in names], dark=dark)
        assert png.startswith(b"\x89PNG")
        assert len(png) < 300_000


def test_the_interval_of_log_loss_covers_the_truth_about_as_often_as_it_says() -> None:
    """Of 30 samples of 60 photos some 28 intervals hold the mean of all; 22 or fewer would be chance."""
    samples = [compute_figures(judged(seed, 2.0)).log_loss for seed in range(30)]
    truth = float(np.mean([sample.value for sample in samples]))
    assert sum(sample.low <= truth <= sample.high for sample in samples) > 22
    assert all(sample.low > 0 for sample in samples)
