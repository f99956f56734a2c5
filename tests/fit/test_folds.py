"""How photos are distributed over folds, and how out-of-fold predictions are scored."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from nameplate.errors import DataError, NameplateError, UsageError
from nameplate.fit.folds import (
    ALWAYS,
    APART,
    PLAN,
    FoldPlan,
    begin_folds,
    load_plan,
    plan_folds,
    refuse_folder,
    score_folds,
    write_table,
)
from nameplate.fit.held_out import HeldOutPredictions, cross_calibrated, joined
from nameplate.fit.split import Split
from nameplate.model.model import Model
from nameplate.types import HeadRecipe, Photo


def split_of(rows: list[tuple[str, int, str]]) -> Split:
    """A split of (nameplate, group, part) rows."""
    photos = [
        Photo(f"/p/{i}.jpg", label, part, "p", str(group), f"{i:064x}", 10, 10)  # type: ignore[arg-type]
        for i, (label, group, part) in enumerate(rows)
    ]
    names = sorted({label for label, _, part in rows if part == "train"})
    return Split.of(photos, np.array([group for _, group, _ in rows], np.int64), names, names, ())


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load("cars196", runtime="onnxruntime", threads=1)


def planned(split: Split, count: int, model: Model) -> FoldPlan:
    return plan_folds(split, count, HeadRecipe(), model)


def test_groups_never_straddle_folds_and_each_nameplate_is_in_all(model: Model) -> None:
    rows = [(name, 100 * place + i // 3, "train") for place, name in enumerate(("a", "b", "c")) for i in range(30)]
    plan = planned(split_of(rows), 5, model)
    folds, groups = np.array(plan.folds), np.array([group for _, group, _ in rows])
    assert set(folds) == {1, 2, 3, 4, 5}
    for group in set(groups.tolist()):
        assert len(set(folds[groups == group])) == 1
    labels = np.array([name for name, _, _ in rows])
    for name in ("a", "b", "c"):
        assert np.bincount(folds[labels == name], minlength=6)[1:].tolist() == [6, 6, 6, 6, 6]


def test_each_photo_is_held_out_by_its_own_fold_alone(model: Model) -> None:
    plan = planned(split_of([(name, i + 50 * (name == "b"), "train") for name in "ab" for i in range(20)]), 4, model)
    held = np.zeros(40, int)
    for fold in range(1, 5):
        part = plan.split_of(fold)
        assert part.nameplates == ("a", "b")
        assert (part.train ^ part.holdout).all()
        held += part.holdout
    assert (held == 1).all()


def test_a_nameplate_of_one_group_trains_every_fold(model: Model) -> None:
    rows = [("a", i, "train") for i in range(10)] + [("b", 20 + i, "train") for i in range(10)]
    plan = planned(split_of([*rows, ("lone", 50, "train"), ("lone", 50, "train")]), 5, model)
    assert plan.folds[-2:] == (ALWAYS, ALWAYS)
    assert all(part.train[-2:].all() for part in map(plan.split_of, range(1, 6)))


def test_what_the_data_holds_out_is_in_no_fold(model: Model) -> None:
    rows = [(name, i + 50 * (name == "b"), "train") for name in "ab" for i in range(10)]
    plan = planned(split_of([*rows, ("a", 90, "test")]), 2, model)
    assert plan.folds[-1] == APART
    assert len(plan.split_of(1).photos) == 20
    assert plan.split.holdout.tolist() == [False] * 20 + [True]


def test_too_few_photos_and_too_few_folds_are_refused(model: Model) -> None:
    split = split_of([("a", 0, "train"), ("a", 1, "train"), ("b", 2, "train")])
    with pytest.raises(DataError, match="3 training photos do not fill 3 folds"):
        planned(split, 3, model)
    with pytest.raises(UsageError, match="from 2 to 20"):
        planned(split, 1, model)


def test_the_plan_is_read_as_it_was_written(model: Model, tmp_path: Path) -> None:
    plan = planned(
        split_of([("a", i, "train") for i in range(4)] + [("b", 9 + i, "train") for i in range(4)]), 2, model
    )
    begin_folds(tmp_path, plan)
    assert load_plan(tmp_path) == plan
    with pytest.raises(NameplateError, match="--resume"):
        refuse_folder(tmp_path, overwrite=False)
    (tmp_path / PLAN).write_text('{"schema": 1}')
    with pytest.raises(NameplateError, match="is damaged"):
        load_plan(tmp_path)


def predictions(right: list[bool], scale: float = 4.0, temperature: float = 1.0) -> HeldOutPredictions:
    """Photos of class 0, some of which are taken for class 1."""
    photos = tuple(Photo(f"{i}.jpg", "a", sha256=f"{i:064x}") for i in range(len(right)))
    logits = np.array([[scale, 0.0] if each else [0.0, scale] for each in right], np.float32)
    zeros = np.zeros(len(right), np.int64)
    return HeldOutPredictions(photos, zeros, np.arange(len(right)), logits, temperature=temperature)


def test_scores_are_mean_and_spread_of_the_folds_and_one_interval_of_all() -> None:
    folds = [predictions([True] * 9 + [False]), predictions([True] * 7 + [False] * 3)]
    found = joined(folds)
    assert found.folds is not None
    assert found.folds.tolist() == [1] * 10 + [2] * 10
    scores = score_folds(found, ("a", "b"))
    assert scores.mean == pytest.approx(0.8)
    assert scores.spread == pytest.approx(2**0.5 / 10)
    assert scores.whole.top1.value == pytest.approx(0.8)
    assert scores.whole.top1.low < 0.7
    assert scores.whole.top1.high > 0.9
    html = scores._repr_html_()
    assert html.count("<tr>") == 4
    assert "80.0 %" in html


def test_a_fold_is_calibrated_on_the_other_folds_alone() -> None:
    sure = predictions([True] * 60 + [False] * 40, scale=8.0)
    unsure = predictions([True] * 60 + [False] * 40, scale=0.2)
    first, second = cross_calibrated([sure, unsure])
    assert first.temperature < 1 < second.temperature  # each fits the other's logits


def test_a_fold_keeps_its_temperature_where_the_others_show_no_mistakes() -> None:
    perfect = predictions([True] * 60, temperature=0.7)
    assert [each.temperature for each in cross_calibrated([perfect, perfect])] == [0.7, 0.7]


def test_the_table_has_a_row_for_each_photo_with_all_probabilities(tmp_path: Path) -> None:
    found = joined([predictions([True, False]), predictions([True])])
    write_table(tmp_path / "t.csv", found, ("a", "b"))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "t.csv").read_text("utf-8"))))
    assert [(row["photo"], row["fold"], row["label"], row["nameplate"]) for row in rows] == [
        ("0.jpg", "1", "a", "a"),
        ("1.jpg", "1", "a", "b"),
        ("0.jpg", "2", "a", "a"),
    ]
    assert [float(row["a"]) for row in rows] == pytest.approx(found.probabilities[:, 0].tolist(), rel=1e-5)
    assert all(float(row["a"]) + float(row["b"]) == pytest.approx(1) for row in rows)
