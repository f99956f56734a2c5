"""The commands, each as a process on real files."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nameplate.demo import photo, photos_folder
from nameplate.images.formats import PHOTO_SUFFIXES
from tests.cli.run import FORBIDDEN, nameplate
from tests.competition import CYRILLIC, lay_out, write_names, zip_up
from tests.images.torture import make_torture


@pytest.fixture(scope="module")
def competition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small competition of embedded photos under Cyrillic names."""
    root = tmp_path_factory.mktemp("competition")
    folders = sorted(photos_folder("train").iterdir())
    lay_out(folders, root, each=24, test_each=4)
    write_names(root.parent / "имена.txt")
    return root


@pytest.fixture(scope="module")
def bundle(competition: Path) -> Path:
    """A model trained on it."""
    target = competition.parent / "bundle"
    if not target.exists():
        nameplate("train", competition, "-o", target, "--names", competition.parent / "имена.txt")
    return target


def test_help_names_every_command_and_needs_nothing_heavy() -> None:
    shown = nameplate("--help").stdout
    assert all(command in shown for command in ("train", "evaluate", "identify", "predict", "submit", "demo"))
    for command in ("train", "evaluate", "identify", "predict", "submit", "demo"):
        assert "--help" in nameplate(command, "--help").stdout


def test_help_and_identify_import_nothing_heavy() -> None:
    code = (
        "import sys; from nameplate.cli import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        f"sys.exit(' '.join(m for m in {FORBIDDEN} if m in sys.modules) or 0)"
    )
    for arguments in (["--help"], ["identify", str(photo())], ["identify", "--json", str(photo())]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"


def test_identify_prints_the_top_five_and_json_is_data_alone() -> None:
    shown = nameplate("identify", photo()).stdout
    assert shown.count("%") == 5
    done = nameplate("identify", "--json", photo(), "--top", "3")
    [answer] = json.loads(done.stdout)
    assert answer["photo"] == str(photo())
    assert answer["nameplate"] == answer["top"][0]["nameplate"]
    assert answer["confidence"] == answer["top"][0]["confidence"]
    assert len(answer["top"]) == 3
    assert "error" not in answer
    assert 0 < answer["confidence"] <= 1


def test_identify_says_which_photo_is_unreadable_and_names_the_rest(tmp_path: Path) -> None:
    (tmp_path / "half.jpg").write_bytes(photo().read_bytes()[:3000])
    answers = json.loads(nameplate("identify", "--json", tmp_path / "half.jpg", photo()).stdout)
    assert answers[0]["nameplate"] is None
    assert answers[0]["error"].startswith("truncated: ")
    assert answers[1]["nameplate"]
    alone = nameplate("identify", "--json", tmp_path / "half.jpg", check=1)
    assert json.loads(alone.stdout)[0]["error"].startswith("truncated: ")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["identify"], 2, "Missing argument"),
        (["identify", "--runtime", "abacus", "x.jpg"], 2, "Unknown runtime 'abacus'"),
        (["identify", "--model", "no-such-model", "x.jpg"], 1, "is no bundle"),
        (["identify", "--top", "0", "x.jpg"], 2, "--top"),
        (["train", "no-such-data", "-o", "b"], 1, "There is no 'no-such-data'"),
        (["train"], 2, "Give the labelled photos and --output"),
        (["evaluate", "cars196", "no-such-data"], 1, "There is no 'no-such-data'"),
        (["predict", "cars196", "x.jpg", "-o", "answers.xlsx"], 2, ".csv, .jsonl, .parquet"),
        (["submit", "cars196", "no-such-data", "-o", "s.csv"], 1, "is no competition"),
        (["brew"], 2, "brew"),
    ],
)
def test_errors_are_one_line_with_the_right_exit_code(
    arguments: list[str], code: int, said: str, tmp_path: Path
) -> None:
    done = nameplate(*arguments, check=code, cwd=tmp_path)
    assert said in done.stderr
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())


def test_train_says_what_it_is_worth_and_refuses_to_overwrite(bundle: Path, competition: Path) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text("utf-8"))
    assert sorted(manifest["nameplates"]) == sorted(CYRILLIC)
    assert manifest["ids"] == [str(number) for number in range(10)]
    assert manifest["provenance"]["metrics"]["photos"] == 30
    again = nameplate("train", competition, "-o", bundle, check=2)
    assert "--overwrite" in again.stderr


def test_copies_across_the_parts_of_the_data_are_not_evaluated(tmp_path: Path) -> None:
    for folder in sorted(photos_folder("train").iterdir())[:3]:
        for part, photos in (("train", sorted(folder.iterdir())[:12]), ("val", sorted(folder.iterdir())[10:16])):
            for path in photos:  # the 10th and 11th lie in both parts
                (tmp_path / "data" / part / folder.name).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, tmp_path / "data" / part / folder.name)
    done = nameplate("train", tmp_path / "data", "-o", tmp_path / "bundle", "--json")
    assert json.loads(done.stdout)["evaluation"]["photos"] == 12
    assert "6 held-out photos not evaluated: copies of training photos" in done.stderr


def test_train_never_replaces_a_folder_that_is_no_bundle(competition: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"dear")
    done = nameplate("train", competition, "-o", tmp_path / "mine", "--overwrite", check=1)
    assert "is no bundle, so it is not replaced" in done.stderr
    assert (tmp_path / "mine" / "photo.jpg").read_bytes() == b"dear"


def test_a_folder_of_every_defect_is_predicted_to_the_end(tmp_path: Path) -> None:
    (tmp_path / "torture").mkdir()
    expected = make_torture(tmp_path / "torture")
    named = {name: why for name, why in expected.items() if Path(name).suffix.lower() in PHOTO_SUFFIXES}
    nameplate("predict", "cars196", tmp_path / "torture", "-o", tmp_path / "answers.csv")
    rows = {Path(str(row["photo"])).name: row for row in _rows(tmp_path / "answers.csv")}
    for name, why in named.items():
        if Path(name).name in rows:
            assert str(rows[Path(name).name]["error"]).split(":")[0] == (why or "")
    assert len(rows) > 40


def test_evaluate_leaves_out_the_photos_that_trained(bundle: Path, competition: Path) -> None:
    names = competition.parent / "имена.txt"
    done = nameplate("evaluate", bundle, competition, "--names", names, "--json")
    found = json.loads(done.stdout)
    assert found["photos"] == 30
    assert found["left_out"]["trained"] == 170
    assert found["top1_interval"][0] <= found["top1"] <= found["top1_interval"][1]
    assert {"top5", "macro_f1", "log_loss", "classes", "confusions"} <= found.keys()
    every = json.loads(
        nameplate("evaluate", bundle, competition, "--names", names, "--json", "--include-trained").stdout
    )
    assert every["photos"] == 200
    shown = nameplate("evaluate", bundle, competition, "--names", names, "--all-classes").stdout
    assert all(name in shown for name in CYRILLIC)


def test_evaluate_without_a_photo_left_says_why(bundle: Path) -> None:
    done = nameplate("evaluate", bundle, photos_folder("test"), check=1)
    assert "unknown to it (Corvane Lark" in done.stderr


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_predict_writes_one_row_a_photo(bundle: Path, competition: Path, tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "new"
    shutil.copytree(competition / "test_upload", folder)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photo at all")
    target = tmp_path / f"answers{suffix}"
    nameplate("predict", bundle, folder, "-o", target)
    rows = _rows(target)
    assert [Path(str(row["photo"])).name for row in rows] == sorted(path.name for path in folder.iterdir())
    broken = next(row for row in rows if "broken" in str(row["photo"]))
    assert not broken["nameplate"]
    assert str(broken["error"]).split(":")[0] in ("damaged", "truncated")
    assert all(row["nameplate"] in CYRILLIC for row in rows if row is not broken)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_submit_has_the_samples_ids_in_its_order(bundle: Path, competition: Path, tmp_path: Path) -> None:
    for source in (competition, zip_up(competition, tmp_path / "sf.zip", top="sf-dl-car-classification/")):
        target = tmp_path / "submission.csv"
        nameplate("submit", bundle, source, "-o", target)
        rows = _rows(target)
        assert [row["Id"] for row in rows] == [row["Id"] for row in _rows(competition / "sample-submission.csv")]
        y_true = [str(row["Id"])[0] for row in rows]
        assert np.mean([row["Category"] == truth for row, truth in zip(rows, y_true, strict=True)]) > 0.5
        target.unlink()


def test_submit_writes_the_probabilities_too_and_replaces_nothing_unasked(
    bundle: Path, competition: Path, tmp_path: Path
) -> None:
    target, table = tmp_path / "s.csv", tmp_path / "p.csv"
    table.write_text("mine")
    for outputs in (("-o", target, "--probabilities", table), ("-o", table)):
        done = nameplate("submit", bundle, competition, *outputs, check=2)
        assert f"'{table}' is there already" in done.stderr
    done = nameplate("submit", bundle, competition, "-o", target, "--probabilities", target, check=2)
    assert "the same file" in done.stderr
    assert not target.exists()
    assert table.read_text() == "mine"
    nameplate("submit", bundle, competition, "-o", target, "--probabilities", table, "--overwrite")
    answers, probabilities = _rows(target), _rows(table)
    assert [row["Id"] for row in probabilities] == [row["Id"] for row in answers]
    for row, answer in zip(probabilities, answers, strict=True):
        shares = {key: float(str(value)) for key, value in row.items() if key != "Id"}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
        assert max(shares, key=lambda key: shares[key]) == answer["Category"]


def test_submit_refuses_a_model_of_other_classes(competition: Path, tmp_path: Path) -> None:
    done = nameplate("submit", "cars196", competition, "-o", tmp_path / "s.csv", check=1)
    assert "is no Category" in done.stderr
    assert not (tmp_path / "s.csv").exists()


def test_a_competition_of_real_adverts_from_zip_to_submission(russian10: Path, tmp_path: Path) -> None:
    classes = sorted(russian10.iterdir())
    root = lay_out(classes, tmp_path / "unpacked", test_each=15)
    archive = zip_up(root, tmp_path / "sf-dl-car-classification.zip")
    names = write_names(tmp_path / "names.txt")
    found = json.loads(nameplate("train", archive, "-o", tmp_path / "b", "--names", names, "--json").stdout)
    assert found["evaluation"]["top1"] > 0.95
    nameplate("predict", tmp_path / "b", archive, "-o", tmp_path / "answers.csv")
    nameplate("submit", tmp_path / "b", archive, "-o", tmp_path / "submission.csv")
    rows = _rows(tmp_path / "submission.csv")
    assert np.mean([row["Category"] == str(row["Id"])[0] for row in rows]) > 0.95
    assert len(rows) == 150


def test_a_photo_of_a_scene_on_a_terminal_without_utf8(tmp_path: Path) -> None:
    Image.new("RGB", (50, 40), "navy").save(tmp_path / "приора.png")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    command = [sys.executable, "-m", "nameplate", "identify", str(tmp_path / "приора.png")]
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr.decode()


def _rows(table: Path) -> list[dict[str, object]]:
    if table.suffix == ".jsonl":
        return [json.loads(line) for line in table.read_text("utf-8").splitlines()]
    if table.suffix == ".parquet":
        import pyarrow.parquet

        rows: list[dict[str, object]] = pyarrow.parquet.read_table(table).to_pylist()
        return rows
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
