"""A leaderboard over real bundles: the common photos, the ranks, and entries that cannot be judged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nameplate.data import read_dataset
from nameplate.data.dataset import Dataset
from nameplate.demo import photos_folder
from nameplate.errors import DataError, UsageError
from nameplate.experiments.leaderboard import find_entries, leaderboard
from nameplate.experiments.paired import with_ranks
from nameplate.fit.linear_probe import train_head
from nameplate.model.model import Model
from nameplate.report.compare import ComparisonRow, Pair
from nameplate.types import HeadRecipe, Metric
from tests.cli.run import nameplate


@pytest.fixture(scope="module")
def some() -> Dataset:
    """30 renders of each of three nameplates."""
    data = read_dataset(photos_folder("train"))
    kept = [p for name in data.nameplates[:3] for p in [p for p in data.photos if p.label == name][:30]]
    return replace(data, photos=tuple(kept), nameplates=data.nameplates[:3])


@pytest.fixture(scope="module")
def bundles(some: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bundles of one data set: `good`, and `bad`, whose nameplates are exchanged in a half of its photos."""
    folder, model = tmp_path_factory.mktemp("bundles"), Model.load(threads=1)
    train_head(some, folder / "good", model=model, recipe=HeadRecipe(holdout=0.3, mirror=False))
    wrong = dict(zip(some.nameplates, (*some.nameplates[1:], some.nameplates[0]), strict=True))
    photos = [p.with_(label=wrong[str(p.label)]) if n % 2 else p for n, p in enumerate(some.photos)]
    mixed = replace(some, photos=tuple(photos))
    train_head(mixed, folder / "bad", model=model, recipe=HeadRecipe(holdout=0.5, seed=3, mirror=False))
    return folder


def test_all_are_judged_on_the_photos_that_trained_none_and_the_better_one_is_first(
    bundles: Path, some: Dataset
) -> None:
    made = leaderboard([str(bundles / "bad"), str(bundles / "good"), "cars196"], some, threads=1)
    first, second, none = made.rows
    assert [row.name for row in made.rows] == ["good", "bad", "cars196"]
    assert "3 nameplates of the data are unknown" in str(none.error)
    trained = set()
    for name in ("good", "bad"):
        listed = read_dataset(bundles / name / "photos.csv").photos
        trained |= {photo.path for photo in listed if photo.split == "train"}
    apart = [photo for photo in some.photos if photo.path not in trained]
    assert first.photos == second.photos == made.data["photos"]
    assert 0 < first.photos <= len(apart)
    assert (first.rank, second.rank, none.rank) == ("1", "2", "")
    assert first.top1 is not None
    assert first.top1.value > 0.8
    assert made._repr_html_().startswith("<iframe")


def test_the_command_reads_the_first_ones_photos_and_writes_over_nothing_else(bundles: Path, tmp_path: Path) -> None:
    done = nameplate(
        "leaderboard", bundles / "good", bundles / "bad", "-o", tmp_path / "out", "--json", "--threads", "1"
    )
    said = json.loads(done.stdout)["leaderboard"]
    assert [row["name"] for row in said["rows"]] == ["good", "bad"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"index.html", "compare.csv", "compare.json"}
    assert "Leaderboard" in (tmp_path / "out" / "index.html").read_text("utf-8")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "dear.txt").write_text("dear")
    refused = nameplate("leaderboard", bundles / "good", bundles / "bad", "-o", tmp_path / "mine", check=1)
    assert "left alone" in refused.stderr


def test_what_is_no_entry_is_refused(bundles: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two or more different entries; here there is .*good"):
        find_entries([str(bundles / "good")] * 2)
    with pytest.raises(UsageError, match="is no bundle, no run and no comparison"):
        find_entries([str(bundles / "good"), str(tmp_path)])
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(UsageError, match="a comparison of heads, which keeps no bundles"):
        find_entries([str(tmp_path)])
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "run.json").write_text("{}")
    assert find_entries([str(tmp_path), "cars196"]) == [str(tmp_path / "runs" / "a"), "cars196"]


def test_bundles_without_common_photos_are_not_ranked(bundles: Path, some: Dataset) -> None:
    trained = read_dataset(bundles / "good" / "photos.csv").photos
    only = replace(some, photos=tuple(p.with_(split=None) for p in trained if p.split == "train"))
    found = leaderboard([str(bundles / "good"), str(bundles / "bad")], only, threads=1)
    assert "trained this model" in str(found.rows[-1].error)
    with pytest.raises(DataError, match="lists the photos that it was made from"):
        leaderboard(["cars196", str(_without_photos(bundles))], threads=1)


def _without_photos(bundles: Path) -> Path:
    target = bundles / "bare"
    if not target.exists():
        target.mkdir()
        (target / "bundle.json").write_text("{}")
    return target


def pair(first: str, second: str, difference: float, *, told: bool) -> Pair:
    return Pair(first, second, 10, Metric(difference, -1.0, 1.0), 1, 1, 0.5, 0.5, told, None)


def test_a_rank_counts_the_rows_that_are_better_beyond_noise() -> None:
    rows = [ComparisonRow(name, "x") for name in "abc"] + [ComparisonRow("lost", "x", error="why")]
    found = [pair("a", "b", -0.1, told=False), pair("a", "c", -0.3, told=True), pair("c", "b", 0.2, told=True)]
    assert [row.rank for row in with_ranks(rows, found, base=False)] == ["1=", "1=", "3", ""]
    assert [row.rank for row in with_ranks(rows, found, base=True)] == ["", "", "", ""]
    assert np.all([row.rank == "" for row in rows])
