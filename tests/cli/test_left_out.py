"""Every command reports what it leaves out, on stderr and in --json, and none overwrites its input."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nameplate.data.listing import CIRCLE, NO_PHOTO
from nameplate.demo import photos_folder

from .run import nameplate

FAST = ("--runtime", "onnxruntime")
REASONS = {
    "a/notes.txt": NO_PHOTO,
    "b/closed": "its folder cannot be listed: Permission denied",
    "b/loop": "a link that leads back to itself",
    "b/up": CIRCLE,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Twelve photos of two nameplates, one without a suffix, and beside them what is left out; one folder is closed."""
    folder = tmp_path_factory.mktemp("left out") / "data"
    for name, source in zip("ab", sorted(photos_folder("test").iterdir()), strict=False):
        (folder / name).mkdir(parents=True)
        for path in sorted(source.glob("*.jpg"))[:6]:
            shutil.copy(path, folder / name)
    first = sorted((folder / "a").iterdir())[0]
    first.rename(folder / "a/no suffix")
    (folder / "a/notes.txt").write_text("no photo")
    (folder / "b/loop").symlink_to("loop")
    (folder / "b/up").symlink_to(folder)
    (folder / "b/closed").mkdir()
    shutil.copy(folder / "a/no suffix", folder / "b/closed/1.jpg")
    (folder / "b/closed").chmod(0)
    yield folder
    (folder / "b/closed").chmod(0o700)


@pytest.fixture(scope="module")
def model(data: Path) -> Path:
    """A head trained on these photos; what training said of them is checked here."""
    model = data.parent / "model"
    done = nameplate("train", data, "-o", model, *FAST, bound=True)
    assert "12 photos" not in done.stdout  # some are held out
    _tells(done.stderr, data)
    return model


def _tells(text: str, data: Path) -> None:
    for name, reason in REASONS.items():
        assert text.count(f"left out {data / name}: {reason}\n") == 1, text


def _is(left_out: list[dict[str, str]], data: Path) -> None:
    assert {os.path.relpath(row["path"], data): row["reason"] for row in left_out} == REASONS


@pytest.mark.parametrize("command", ["evaluate", "audit", "predict", "identify"])
def test_each_command_reports_what_it_leaves_out_also_in_json(
    data: Path, model: Path, command: str, tmp_path: Path
) -> None:
    arguments: dict[str, tuple[str | Path, ...]] = {
        "evaluate": (model, data, "--include-trained", *FAST),
        "audit": (data, "-o", tmp_path / "report.html", "--no-shortcuts", *FAST),
        "predict": (model, data, "-o", tmp_path / "answers.csv", *FAST),
        "identify": (data, "--model", model, *FAST),
    }
    done = nameplate(command, *arguments[command], "--json", bound=True)
    _tells(done.stderr, data)
    said: Any = json.loads(done.stdout)
    if command == "identify":
        assert len(said) == 12 + 1
        said = said[-1]
    if command == "evaluate":
        assert said["photos"] == 12
        assert said["left_out"].keys() >= {"trained", "unreadable", "unknown"}
        said["left_out"] = said["left_out"]["files"]
    if command == "predict":
        assert (said["photos"], said["left_out_total"]) == (12, 4)
    _is(said["left_out"], data)


def test_augment_verify_and_submit_report_it_too(data: Path, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the train extra")
    sheet = json.loads(nameplate("augment", data, "-o", tmp_path / "s.jpg", "--json", bound=True).stdout)
    _is(sheet["left_out"], data)
    claimed = ("--claimed", "a", "--model", model, "--json", *FAST)
    done = nameplate("verify", data / "a", *claimed, check=None, bound=True)
    if done.returncode == 0:  # a head on twelve photos may know no thresholds for claims
        assert [Path(row["path"]).name for row in json.loads(done.stdout)["left_out"]] == ["notes.txt"]
    assert f"left out {data / 'a/notes.txt'}" in done.stderr
    with zipfile.ZipFile(tmp_path / "game.zip", "w") as archive:
        photos = [path for path in sorted((data / "b").iterdir()) if path.suffix == ".jpg"]
        archive.writestr("train.csv", "Id,Category\nx.jpg,a\ny.jpg,b\n")
        archive.writestr("sample-submission.csv", f"Id,Category\n{photos[0].name},a\n")
        archive.write(photos[0], f"test_upload/{photos[0].name}")
        archive.writestr("test_upload/run.exe", b"MZ")
    done = nameplate("submit", model, tmp_path / "game.zip", "-o", tmp_path / "s.csv", "--json", *FAST)
    assert [row["path"] for row in json.loads(done.stdout)["left_out"]] == ["test_upload/run.exe"]
    assert "left out test_upload/run.exe: " in done.stderr


def test_what_is_left_out_is_reported_also_where_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "cars/a").mkdir(parents=True)
    for number in range(300):
        (tmp_path / f"cars/a/{number:03d}.doc").write_bytes(b"no photo")
    for arguments in (
        ("train", "cars", "-o", "model"),
        ("identify", "cars"),
        ("predict", "cars196", "cars", "-o", "a.csv"),
        ("audit", "cars"),
    ):
        done = nameplate(*arguments, check=1, cwd=tmp_path)
        assert f"left out 300 files, the first cars/a/000.doc: {NO_PHOTO}\n" in done.stderr
        assert len(done.stderr.splitlines()) <= 3
        assert not (tmp_path / "model").exists()


def test_one_photo_that_may_not_be_read_does_not_keep_another_from_its_answer(tmp_path: Path) -> None:
    source = sorted(photos_folder("test").glob("*/*.jpg"))[0]
    for name in ("good.jpg", "closed.jpg", "closed/1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(source, tmp_path / name)
    (tmp_path / "empty").mkdir()
    for name in ("closed.jpg", "closed"):
        (tmp_path / name).chmod(0)
    try:
        arguments = ("closed.jpg", "closed/1.jpg", "closed", "empty", "good.jpg")
        done = nameplate("identify", *arguments, "--json", *FAST, cwd=tmp_path, bound=True)
        rows = json.loads(done.stdout)
        nameplate("identify", "closed", "closed.jpg", *FAST, check=1, cwd=tmp_path, bound=True)
    finally:
        (tmp_path / "closed").chmod(0o700)
    assert [(row["photo"], row["error"]) for row in rows[:2]] == [
        (name, f"missing: cannot open '{name}': Permission denied") for name in arguments[:2]
    ]
    assert rows[2]["photo"] == "good.jpg"
    assert rows[2]["nameplate"]
    assert {row["path"] for row in rows[3]["left_out"]} == {"closed", "empty"}
    assert "left out closed: its folder cannot be listed: Permission denied" in done.stderr


def test_names_drive_no_terminal_and_are_exact_in_json(tmp_path: Path) -> None:
    source = sorted(photos_folder("test").glob("*/*.jpg"))[0]
    name = "\x1b]0;mine\x07\x9b31m\u202egpj\nerror all is well.jpg"
    odd = os.fsdecode(b"\xcf\xf0.jpg")
    for each in (name, odd):
        shutil.copy(source, tmp_path / each)
    (tmp_path / f"{name}.txt").write_text("no photo")
    done = nameplate("identify", ".", *FAST, cwd=tmp_path)
    for stream in (done.stdout, done.stderr):
        assert not set("\x1b\x07\x9b\u202e") & set(stream)
        assert r"\x1b]0;mine\x07\x9b31m\u202egpj\nerror all is well.jpg" in stream
    assert r"\xcf\xf0.jpg" in done.stdout
    rows = json.loads(nameplate("identify", ".", "--json", *FAST, cwd=tmp_path).stdout)
    assert [row.get("photo") for row in rows] == [f"./{name}", r"./\xcf\xf0.jpg", None]
    assert rows[2]["left_out"] == [{"path": f"./{name}.txt", "reason": NO_PHOTO}]
    done = nameplate("identify", f"{name} gone.zip", check=1, cwd=tmp_path)
    assert not set("\x1b\x07\x9b\u202e") & set(done.stderr)


def test_names_that_no_file_can_have_are_rows(tmp_path: Path) -> None:
    lines = ('{"path": "\\ud83d.jpg"}', '{"path": "a\\u0000b.jpg"}', '{"path": "/dev/zero"}', '{"n": 1}')
    (tmp_path / "list.jsonl").write_text("\n".join(lines), "utf-8")
    done = nameplate("predict", "cars196", "list.jsonl", "-o", "out.jsonl", "--json", *FAST, cwd=tmp_path)
    said = json.loads(done.stdout)
    assert (said["photos"], said["errors"]) == (3, {"missing": 2, "not a photo": 1})
    assert said["left_out"] == [{"path": "list.jsonl, row 4", "reason": "it has no path"}]
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert [row["photo"] for row in rows] == ["\\ud83d.jpg", "a\0b.jpg", "/dev/zero"]
    nameplate("identify", "list.jsonl", "--json", *FAST, check=1, cwd=tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "cars196", "list.csv", "-o", "list.csv"),
        ("predict", "cars196", "*.csv", "-o", "list.csv"),
        ("submit", "cars196", "game", "-o", "game/train.csv"),
        ("train", "cars", "-o", "cars/model"),
        ("train", "cars", "-o", ".", "--overwrite"),
        ("train", "cars", "-o", "model", "--names", "model/names.txt", "--overwrite"),
        ("augment", "cars", "-o", "cars/a/1.jpg"),
        ("augment", "list.csv", "-o", "cars/a/1.jpg"),
        ("audit", "list.csv", "-o", "x.html", "--exclude", "x.exclude.csv"),
        ("evaluate", "cars196", "x.photos.csv", "-o", "x.html"),
        ("evaluate", "cars196", "cars", "--card", "notes.md", "--names", "notes.md"),
        ("explain", "cars/a/1.png", "-o", "cars/a/1.png"),
        ("verify", "--batch", "list.csv", "-o", "list.csv"),
        ("extra-data", "cars", "list.csv", "-o", "cars/trial"),
        ("compare", "cars", "-o", "cars/comparison"),
        ("convert-weights", "w.pth", "w.pth"),
    ],
    ids=lambda arguments: " ".join(arguments[:1] + arguments[-2:]),
)
def test_no_command_writes_over_what_it_reads(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    if arguments[0] in ("augment", "compare", "convert-weights"):
        pytest.importorskip("torch", reason="needs the train extra")
    photo = sorted(photos_folder("test").glob("*/*.jpg"))[0].read_bytes()
    table = "advert,claimed,path,label\n1,a,cars/a/1.jpg,a\n2,a,cars/b/1.jpg,b\n"
    files = {"cars/a/1.jpg": photo, "cars/a/1.png": photo, "cars/b/1.jpg": photo, "w.pth": b"x"}
    files |= {name: table.encode() for name in ("list.csv", "x.photos.csv", "x.exclude.csv")}
    files |= {"game/train.csv": b"Id,Category\n1.jpg,a\n", "model/names.txt": b"a\nb\n", "notes.md": b"a\nb\n"}
    files |= {"bundle.json": b"{}", "model/bundle.json": b"{}"}  # so that --overwrite would replace these folders
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    done = nameplate(*arguments, check=2, cwd=tmp_path)
    assert "which is read" in done.stderr or "is read" in done.stderr
    there = {os.path.relpath(path, tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert there == files


def test_an_unreadable_class_is_reported_also_where_the_command_fails(tmp_path: Path) -> None:
    for number, path in enumerate(sorted(photos_folder().rglob("*.jpg"))[:3]):
        (tmp_path / "cars/a").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / f"cars/a/{number}.jpg")
    (tmp_path / "cars/b").mkdir()
    for number in range(4):
        (tmp_path / f"cars/b/{number}.jxl").write_bytes(b"\xff\x0a" + bytes(100))
    done = nameplate("train", "cars", "-o", "model", *FAST, check=1, cwd=tmp_path)
    assert done.stderr.count("JPEG XL") == 4
    assert "left out cars/b/0.jxl: not a photo: this is a JPEG XL" in done.stderr
    assert "Only 1 nameplate with readable photos" in done.stderr
