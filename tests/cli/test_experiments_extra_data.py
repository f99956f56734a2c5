from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.run import nameplate
from tests.experiments import cases


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("extra")
    cases.base(folder, 2)
    cases.extra(folder, 12)
    return folder


def test_a_verdict_in_text_and_then_as_json(data: Path) -> None:
    arguments = ("extra-data", data / "base.csv", data / "extra.csv", "-o", data / "out", "--set", "folds=2")
    said = nameplate(*arguments).stdout
    assert said.startswith("Verdict")
    assert "95 % interval" in said
    assert "80 photos, 3 seeds" in said
    again = nameplate(*arguments, "--seeds", "4", "--json")
    value = json.loads(again.stdout)
    assert value["verdict"] in ("helps", "hurts", "cannot be told")
    assert value["seeds"] == [20, 21, 22, 23]
    assert value["settings"]["recipe"]["folds"] == 2


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--seeds", "2"), 2, "2 seeds cannot tell"),
        (("--recipe", "haed"), 2, "Did you mean 'head'"),
        (("--map", "nowhere.csv"), 1, "nowhere.csv"),
        (("--set", "mirrored=1"), 2, "mirror"),
    ],
)
def test_impossible_requests_are_refused(
    data: Path, tmp_path: Path, more: tuple[str, ...], code: int, said: str
) -> None:
    done = nameplate("extra-data", data / "base.csv", data / "extra.csv", "-o", tmp_path / "o", *more, check=code)
    assert said in done.stderr
    assert done.stdout == ""


def test_unmapped_classes_are_an_error_and_a_map_solves_it(data: Path, tmp_path: Path) -> None:
    photos = [(path, f"number {i}", "") for i, paths in enumerate(cases.rows().values()) for path in paths[12:14]]
    extra = cases.table(tmp_path / "extra.csv", photos)
    arguments = ("extra-data", data / "base.csv", extra, "-o", tmp_path / "out", "--set", "folds=2")
    failed = nameplate(*arguments, check=1)
    assert "--map FILE" in failed.stderr
    lines = [f"number {i},{name}" for i, name in enumerate(cases.rows())]
    (tmp_path / "map.csv").write_text("\n".join(["extra,base", *lines[:9]]), "utf-8")
    done = nameplate(*arguments, "--map", tmp_path / "map.csv", "--json")
    value = json.loads(done.stdout)
    assert value["added"] == 18
    assert value["classes"]["unmapped"] == ["number 9"]
    assert "number 9" in done.stderr
