"""A training run's page, curves and table."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nameplate.demo import photos_folder
from nameplate.evaluate.metrics import evaluate
from nameplate.report.plots import curves_plot
from nameplate.report.run import COLUMNS, ConfusedPair, RunPage, best_epoch, metrics_csv, stage_rows, write_run_page
from nameplate.types import Epoch, Exported

EVIL = "<script>alert('Ёлка')</script>"
FIRST = Epoch(1, 1, 160, 240, 4e-4, 2.5, 1.9, 0.41, 34.2, 200.0)
RUN = [
    FIRST,
    replace(FIRST, epoch=2, train_loss=1.9, validation_loss=1.2, validation_top1=0.72, seconds=400.0),
    replace(FIRST, epoch=3, stage=2, height=224, width=336, validation_top1=0.66, seconds=7500.0),
]
finite = st.floats(allow_nan=False, width=64)
EPOCHS = st.lists(
    st.builds(
        Epoch,
        *(st.integers(1, 10_000) for _ in range(4)),
        finite,
        finite,
        st.none() | finite,
        st.none() | finite,
        finite,
        finite,
    ),
    max_size=5,
)


def photo(number: int) -> np.ndarray:
    path = sorted(photos_folder("test").glob("*/*.jpg"))[number]
    return np.asarray(Image.open(path).convert("RGB"))


def full_page() -> RunPage:
    names = ("Приора", EVIL, "Ford & Focus")
    jpeg = io.BytesIO()
    Image.fromarray(photo(0)).save(jpeg, "JPEG")
    return RunPage(
        title=f"title {EVIL}",
        state=f"stopped: {EVIL}",
        epochs=RUN,
        recipe=f'name = "{EVIL}"\n# see https://example.org/recipe',
        facts=[("device", f"CPU {EVIL}"), (EVIL, "20")],
        augmented=jpeg.getvalue(),
        evaluation=evaluate(np.eye(3, dtype=np.float32)[[0, 1, 1]], np.arange(3), names),
        confusions=[ConfusedPair(names[2], EVIL, 7, photo(0), photo(30))],
        parity=[("ONNX Runtime", EVIL)],
        notes=[f"{EVIL}.jpg: empty"],
    )


def text_of(tmp_path: Path, page: RunPage) -> str:
    write_run_page(tmp_path / "run.html", page)
    return (tmp_path / "run.html").read_text("utf-8")


class Reader(HTMLParser):
    """Checks that tags close in order; collects names, outside references and what a reader sees."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.references: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in ("meta", "img", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += data


def test_a_page_with_everything_shows_it_and_escapes_it(tmp_path: Path) -> None:
    text = text_of(tmp_path, full_page())
    page = Reader(text)
    assert "script" not in page.tags
    assert page.words.count(EVIL) == 11  # tab, title, state, two facts, hardest, pair, parity, note, recipe…
    headings = re.findall("<h2>(.*?)</h2>", text)
    assert headings == [
        "The run",
        "As the network sees them",
        "What it is worth",
        "What it confuses",
        "The exported model agrees",
        "Left out",
        "The recipe",
    ]
    for seen in ("72.0 %", "epoch 2", "2 h 05 min", "224×336", "named 7×", "66.7 %", "Приора", "# see https://"):
        assert seen in page.words


def test_a_finished_run_headlines_the_bundle_and_shows_the_best_of_every_stage(tmp_path: Path) -> None:
    page = replace(full_page(), state="finished", exported=Exported(RUN[1], 3, True, RUN[1]))
    words = " ".join(Reader(text_of(tmp_path, page)).words.split())
    assert re.search(r"66\.7 % ?top-1 of the bundle", words)  # as it was evaluated, not 72.0 % of the epoch
    assert "the notebook" not in words
    text = text_of(tmp_path, replace(page, reference=(0.9, 0.95)))
    rows = [re.findall("<td[^>]*>(.*?)</td>", row) for row in re.findall("<tr.*?</tr>", text)]
    assert ["1", "160×240", "2", "72.0 %", "2", "1.200", "90.0 %", "exported"] in rows
    assert ["2", "224×336", "1", "66.0 %", "3", "1.900", "95.0 %", ""] in rows
    running = " ".join(Reader(text_of(tmp_path, replace(full_page(), state="running", evaluation=None))).words.split())
    assert re.search(r"72\.0 % ?best validation top-1 so far", running)


def test_stages_without_validation_or_reference_have_rows() -> None:
    blind = [replace(epoch, validation_top1=None, validation_loss=None) for epoch in RUN]
    assert [(row.number, row.epochs, row.best, row.reference) for row in stage_rows(blind, (0.5,))] == [
        (1, 2, None, 0.5),
        (2, 1, None, None),
    ]
    assert stage_rows([]) == []


def test_all_images_are_embedded_and_no_link_leads_outside(tmp_path: Path) -> None:
    text = text_of(tmp_path, full_page())
    references = Reader(text).references
    assert len(references) == 5  # curves by day and by night, augmented photos, two of a confused pair
    assert all(reference.startswith("data:image/") for reference in references)
    assert not re.search(r"url\(|@import", text)


def test_a_page_without_content_is_valid_and_has_no_sections(tmp_path: Path) -> None:
    text = text_of(tmp_path, RunPage("my run"))
    page = Reader(text)
    assert "No epoch has ended yet." in page.words
    assert not {"h2", "img", "table", "ul", "pre"} & page.tags


@pytest.mark.parametrize(
    "part", ["epochs", "recipe", "facts", "augmented", "evaluation", "confusions", "parity", "notes"]
)
def test_a_page_without_one_part_and_with_only_that_part(tmp_path: Path, part: str) -> None:
    everything = full_page()
    empty: dict[str, object] = {part: getattr(RunPage(""), part)}
    alone: dict[str, object] = {part: getattr(everything, part)}
    without = text_of(tmp_path, replace(everything, **{"epochs": (), **empty}))  # type: ignore[arg-type]
    only = text_of(tmp_path, replace(RunPage("only"), **alone))  # type: ignore[arg-type]
    Reader(without)
    Reader(only)
    assert len(re.findall("<h2>", only)) == 1


@pytest.mark.parametrize(("state", "refreshes"), [("running", True), ("finished", False), ("stopped: full", False)])
def test_only_a_running_page_reloads_itself(tmp_path: Path, state: str, refreshes: bool) -> None:
    text = text_of(tmp_path, RunPage("run", state))
    assert re.findall('http-equiv="refresh" content="(.*?)"', text) == (["30"] if refreshes else [])
    assert f'class="state {state.split(":")[0]}"' in text


def test_the_best_epoch_is_the_one_that_is_kept_or_else_the_first_of_the_highest() -> None:
    twin = replace(RUN[1], epoch=4)
    assert best_epoch([*RUN, twin]) == RUN[1]
    assert best_epoch(RUN, 3) == RUN[2]
    assert best_epoch([replace(FIRST, validation_top1=None)]) is None
    assert best_epoch([]) is None
    assert best_epoch([replace(FIRST, validation_top1=float("nan")), RUN[1]]) == RUN[1]


def epochs(count: int, **changes: object) -> list[Epoch]:
    """A run whose stage changes every fifth epoch."""
    made = [replace(FIRST, epoch=n + 1, stage=1 + n // 5, height=160 + 16 * (n // 5)) for n in range(count)]
    return [replace(epoch, **changes) for epoch in made]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("count", "changes"),
    [
        (1, {}),
        (1, {"validation_loss": None, "validation_top1": None}),
        (1, {"train_loss": float("nan"), "validation_loss": float("inf"), "validation_top1": float("nan")}),
        (7, {"learning_rate": 0.0, "validation_top1": 0.0}),
        (60, {"validation_loss": None, "validation_top1": 1.0}),
    ],
)
def test_curves_of_any_length_with_gaps_are_drawn(count: int, changes: dict[str, object]) -> None:
    picture = np.asarray(Image.open(io.BytesIO(curves_plot(epochs(count, **changes), best=count))).convert("L"))
    assert picture.shape[1] == 828
    assert picture.std() > 10
    assert picture[0].min() > 250  # nothing touches the upper edge


def test_curves_follow_what_they_are_given() -> None:
    plain = curves_plot(RUN)
    assert curves_plot(RUN, best=4) == plain  # no such epoch
    assert curves_plot(RUN, best=3) != plain
    assert curves_plot([RUN[0], replace(RUN[1], validation_top1=None), RUN[2]]) != plain
    assert curves_plot([RUN[0], RUN[1], replace(RUN[2], width=300)]) != plain
    blind = [replace(epoch, validation_top1=None) for epoch in RUN]
    assert Image.open(io.BytesIO(curves_plot(blind))).height < Image.open(io.BytesIO(plain)).height
    night = np.asarray(Image.open(io.BytesIO(curves_plot(RUN, dark=True))).convert("L"))
    assert np.median(night) < 60


@settings(deadline=None)
@given(EPOCHS)
def test_metrics_are_read_as_they_were_written(history: list[Epoch]) -> None:
    rows = csv.DictReader(io.StringIO(metrics_csv(history).decode()))
    cells = ({name: cell or None for name, cell in row.items()} for row in rows)
    assert [msgspec.convert(row, Epoch, strict=False) for row in cells] == history


def test_metrics_are_a_plain_table() -> None:
    table = metrics_csv([replace(FIRST, validation_loss=None, train_loss=float("nan"))])
    head, row = table.decode().splitlines()
    assert head.split(",") == list(COLUMNS)
    assert row == "1,1,160,240,0.0004,nan,,0.41,34.2,200.0"
