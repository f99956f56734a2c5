"""A comparison's page, table and JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nameplate.report.compare import (
    COLUMNS,
    Comparison,
    ComparisonRow,
    Pair,
    comparison_plot,
    table_csv,
    write_comparison,
)
from nameplate.types import Metric

EVIL = "<script>alert('Ёлка')</script>"
COST = {"parameters": 5_000_000, "gmacs": 0.4, "photos_per_second": 80.0, "megabytes": 19.0, "licence": "mit"}
FIRST = ComparisonRow("Lite0", "lite0", 100, Metric(0.9, 0.8, 0.95), 0.41, **COST, seconds=61.0, verdict="the best")  # type: ignore[arg-type]
SECOND = replace(FIRST, name=EVIL, backbone="lite1", top1=Metric(0.7, 0.6, 0.8), photos_per_second=9.0, verdict=EVIL)
LOST = ComparisonRow("ResNet152V2", "resnetv2", error=f"no weights {EVIL}")
PAIR = Pair("Lite0", EVIL, 100, Metric(-0.2, -0.3, -0.1), 1, 21, 1e-5, 2e-5, True, 40)
PAGE = Comparison(
    protocol="frozen",
    judged="Judged on 100 photos.",
    made="2026-11-22T00:00:00+00:00",
    settings={"seed": 20, "batch": 8, "base": None},
    data={"photos": 100, "sha256": "ab" * 32, "unreadable": 1, "sources": ["x"]},
    versions={"nameplate": "1"},
    waiting=("Lite2",),
    rows=(FIRST, SECOND, LOST),
    reference="Lite0",
    summary="The best is Lite0.",
    pairs=(PAIR, replace(PAIR, told=False)),
    unreadable=((f"{EVIL}.jpg", "empty"),),
)


def test_the_page_shows_all_escaped_and_needs_nothing_beside_it(tmp_path: Path) -> None:
    write_comparison(tmp_path, PAGE)
    text = (tmp_path / "index.html").read_text("utf-8")
    assert "<script" not in text
    for seen in ("90.0 %", "80.0 % – 95.0 %", "−20.0", "2e-05", "no weights", "3 of 4 done", "40 photos would show it"):
        assert seen in text
    references = re.findall(r'(?:src|srcset|href)="(.{11})', text)
    assert references == ["data:image/"] * 2
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "compare.csv", "compare.json"}


def test_json_and_table_say_the_same_figures(tmp_path: Path) -> None:
    write_comparison(tmp_path, PAGE)
    said = json.loads((tmp_path / "compare.json").read_text("utf-8"))
    table = list(csv.DictReader(io.StringIO((tmp_path / "compare.csv").read_text("utf-8"))))
    assert tuple(table[0]) == COLUMNS
    assert [row["name"] for row in table] == [row["name"] for row in said["rows"]]
    assert float(table[0]["top1_low"]) == said["rows"][0]["top1"]["low"] == 0.8
    assert (table[2]["top1"], table[2]["error"]) == ("", LOST.error)


def test_a_page_without_a_single_figure_is_written_too(tmp_path: Path) -> None:
    write_comparison(tmp_path, replace(PAGE, rows=(LOST,), pairs=(), reference=None, summary="None could be judged."))
    assert "<img" not in (tmp_path / "index.html").read_text("utf-8")
    assert len(table_csv((LOST,)).splitlines()) == 2


@pytest.mark.parametrize("rows", [[FIRST], [FIRST, SECOND], [FIRST, replace(SECOND, backbone="lite0")], [FIRST] * 9])
@pytest.mark.parametrize("dark", [False, True])
def test_a_plot_has_marks_on_the_pages_ground(rows: list[ComparisonRow], dark: bool) -> None:
    picture = np.asarray(Image.open(io.BytesIO(comparison_plot(rows, dark=dark))).convert("RGB"))
    ground = (0x14, 0x1B, 0x21) if dark else (255, 255, 255)
    assert tuple(picture[0, 0]) == ground
    assert 0.005 < (picture != ground).any(2).mean() < 0.5
