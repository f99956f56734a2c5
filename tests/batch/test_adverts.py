"""Many adverts: read from tables, verified in one stream, resumed after an interruption."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from nameplate.batch.adverts import Advert, read_adverts, verify_table
from nameplate.demo import photos_folder
from nameplate.errors import DataError, NameplateError, UsageError
from nameplate.model.model import Model
from nameplate.storage import writing

PHOTOS = [str(path) for path in sorted(photos_folder("test").glob("*/*.jpg"))[::20]]


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load(runtime="onnxruntime")


def _adverts(model: Model, count: int) -> list[Advert]:
    return [
        Advert(f"advert {i}", model.nameplates[i], tuple(PHOTOS[(i + k) % len(PHOTOS)] for k in range(i % 3 + 1)))
        for i in range(count)
    ]


def test_both_forms_of_a_table_are_read_alike(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("advert,claimed,photos\n7,Audi S4,a/1.jpg; a/2.jpg\n8,BMW,b.jpg\n", "utf-8")
    (tmp_path / "two.csv").write_text(
        "photo,advert,claimed\na/1.jpg,7,Audi S4\nb.jpg,8,BMW\na/2.jpg,7,Audi S4\n", "utf-8"
    )
    expected = [
        Advert("7", "Audi S4", (str(tmp_path / "a/1.jpg"), str(tmp_path / "a/2.jpg"))),
        Advert("8", "BMW", (str(tmp_path / "b.jpg"),)),
    ]
    assert read_adverts(tmp_path / "one.csv") == expected
    assert read_adverts(tmp_path / "two.csv") == expected
    (tmp_path / "bare.csv").write_text("claimed;photos\nBMW;b.jpg\n", "utf-8")
    assert read_adverts(tmp_path / "bare.csv") == [Advert("1", "BMW", (str(tmp_path / "b.jpg"),))]


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("photo,claimed\na.jpg,BMW\n", "is no table of adverts"),
        ("id,photo\n1,a.jpg\n", "is no table of adverts"),
        ("claimed,photos\n,a.jpg\n", "row 2: there is no claim"),
        ("claimed,photos\nBMW,a.jpg\nBMW, ;\n", "row 3: there is no photo"),
        ("advert,claimed,photo\n1,BMW,a.jpg\n1,Audi,b.jpg\n", "claims 'BMW' and 'Audi'"),
    ],
)
def test_a_table_that_does_not_say_enough_is_refused(tmp_path: Path, table: str, problem: str) -> None:
    (tmp_path / "adverts.csv").write_text(table, "utf-8")
    with pytest.raises(DataError, match=problem):
        read_adverts(tmp_path / "adverts.csv")


def test_a_batch_says_what_single_adverts_say(model: Model, tmp_path: Path) -> None:
    adverts = _adverts(model, 6)
    done = verify_table(model, adverts, tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    assert done.adverts == len(rows) == 6
    assert done.accepted + done.rejected + done.unsure == 6
    for advert, row in zip(adverts, rows, strict=True):
        alone = model.verify(advert.photos, advert.claimed)
        assert (row["advert"], row["claimed"], row["verdict"]) == (advert.name, advert.claimed, alone.verdict)
        assert row["score"] == (None if alone.score is None else pytest.approx(alone.score, abs=1e-5))
        assert [photo["photo"] for photo in row["photos"]] == list(advert.photos)


def test_an_unknown_claim_and_an_unreadable_photo_get_their_rows(model: Model, tmp_path: Path) -> None:
    (tmp_path / "no.jpg").write_bytes(b"no photo")
    adverts = [
        Advert("a", "Lada Niva", (PHOTOS[0],)),
        Advert("b", model.nameplates[0], (str(tmp_path / "no.jpg"),)),
        Advert("c", model.nameplates[0], (PHOTOS[0],)),
    ]
    verify_table(model, adverts, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["verdict"] for row in rows[:2]] == ["unsure", "unsure"]
    assert "knows no nameplate 'Lada Niva'" in rows[0]["reason"]
    assert rows[1]["reason"] == "no photo can be read"
    assert rows[1]["score"] == ""
    assert [row["advert"] for row in rows] == ["a", "b", "c"]


def test_an_interrupted_job_goes_on_and_gives_the_same_table(model: Model, tmp_path: Path) -> None:
    adverts = _adverts(model, 9)
    verify_table(model, adverts, tmp_path / "whole.jsonl")

    def stop(done: int, _: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify_table(model, adverts, tmp_path / "out.jsonl", progress=stop)
    assert not (tmp_path / "out.jsonl").exists()
    assert verify_table(model, adverts, tmp_path / "out.jsonl").resumed == 4
    whole = [json.loads(line) for line in (tmp_path / "whole.jsonl").read_bytes().splitlines()]
    again = [json.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    assert [row["verdict"] for row in whole] == [row["verdict"] for row in again]
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(KeyboardInterrupt):
        verify_table(model, adverts, tmp_path / "out.jsonl", progress=stop)
    assert verify_table(model, adverts, tmp_path / "out.jsonl", rate=0.05).resumed == 0  # another job


def test_two_runs_do_not_write_one_table(model: Model, tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    with writing(target), pytest.raises(NameplateError, match=f"Another run is writing '{target}'"):
        verify_table(model, _adverts(model, 2), target)
    assert not list(tmp_path.iterdir())


def test_other_suffixes_and_rates_are_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must end in"):
        verify_table(model, [], tmp_path / "out.parquet")
    with pytest.raises(UsageError, match="rate"):
        verify_table(model, _adverts(model, 1), tmp_path / "out.csv", rate=0.9)
