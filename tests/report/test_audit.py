"""The report's page, JSON and list."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from nameplate.audit.inspect import (
    CROSS_CLASS,
    EXACT,
    LABEL,
    LEAK,
    NEAR,
    OUTLIER,
    UNREADABLE,
    Audit,
    Finding,
    copy_findings,
)
from nameplate.data import read_dataset
from nameplate.data.dataset import Dataset
from nameplate.demo import photos_folder
from nameplate.report.audit import audit, left_out, write_report
from nameplate.types import Photo
from tests.cli.run import nameplate


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    """`nameplate audit` on the renders with a copy and a hostile name."""
    folder = tmp_path_factory.mktemp("audit")
    shutil.copytree(photos_folder("train"), folder / "cars")
    first = sorted((folder / "cars" / "Ostrel Tarn").iterdir())[0]
    shutil.copyfile(first, first.with_name("<script>alert(1)</script>.jpg".replace("/", "∕")))
    (folder / "cars" / "Ostrel Tarn" / "damaged.jpg").write_bytes(first.read_bytes()[:700])
    done = nameplate("audit", folder / "cars", "-o", folder / "out" / "report.html", "--no-shortcuts", "--json")
    said: dict[str, object] = json.loads(done.stdout)
    return folder, said


def test_the_command_shows_its_files_and_counts(made: tuple[Path, dict[str, object]]) -> None:
    folder, said = made
    assert said["photos"] == 1002
    assert said["findings"]["exact-duplicate"] == 1  # type: ignore[index]
    assert said["findings"]["unreadable"] == 1  # type: ignore[index]
    assert {path.name for path in (folder / "out").iterdir()} == {"report.html", "report.json", "report.exclude.csv"}


def test_the_json_has_photos_classes_and_findings(made: tuple[Path, dict[str, object]]) -> None:
    report = json.loads((made[0] / "out" / "report.json").read_text("utf-8"))
    assert (report["photos"], report["readable"]) == (1002, 1001)
    assert report["classes"]["Ostrel Tarn"] == 101
    assert len(report["classes"]) == 10
    kinds = [finding["kind"] for finding in report["findings"]]
    assert kinds[0] == "unreadable"
    exact = next(finding for finding in report["findings"] if finding["kind"] == "exact-duplicate")
    assert exact["score"] == 1
    assert len(exact["photos"]) == 2
    assert report["measures"]["formats"] == {"JPEG": 1001}
    assert report["measures"]["width"]["mean"] > 100


def test_the_page_needs_nothing_beside_it_and_escapes_names(made: tuple[Path, dict[str, object]]) -> None:
    page = (made[0] / "out" / "report.html").read_text("utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert 'src="http' not in page
    assert page.count("data:image/jpeg") >= 10 * 4


def test_the_list_is_what_exclude_takes(made: tuple[Path, dict[str, object]]) -> None:
    folder, said = made
    listed = folder / "out" / "report.exclude.csv"
    rows = list(csv.DictReader(listed.read_text("utf-8").splitlines()))
    left = read_dataset(folder / "cars", exclude=listed)
    assert left.excluded == len({row["path"] for row in rows}) == said["excluded"]
    kinds = {row["kind"] for row in rows}
    assert {"unreadable", "exact-duplicate"} <= kinds


def photo(name: str, label: str = "a", split: str | None = None, side: int = 10) -> Photo:
    return Photo(name, label, split, sha256=name, width=side, height=side)  # type: ignore[arg-type]


def test_the_largest_copy_is_kept_and_doubtful_photos_are_excluded() -> None:
    photos = (
        photo("/1"),
        photo("/2", side=20),
        photo("/3", "b"),
        photo("/4", split="train"),
        photo("/5", split="test"),
    )
    findings = (
        Finding(EXACT, ("/1", "/2"), 1.0, ""),
        Finding(CROSS_CLASS, ("/1", "/3"), 1.0, ""),
        Finding(LEAK, ("/4", "/5"), 1.0, ""),
        Finding(LABEL, ("/2",), 0.8, ""),
        Finding(LABEL, ("/3",), 0.99, ""),
        Finding(OUTLIER, ("/5",), 0.3, ""),
        Finding(UNREADABLE, ("/6",), 1.0, ""),
    )
    audit = Audit(Dataset(photos, ("a", "b")), photos, (None,) * 5, findings, (), None, None, "onnxruntime")
    assert [(row["path"], row["kind"]) for row in left_out(audit)] == [
        ("/1", EXACT),
        ("/1", CROSS_CLASS),
        ("/3", CROSS_CLASS),
        ("/4", LEAK),
        ("/3", LABEL),
        ("/6", UNREADABLE),
    ]


def test_photos_that_all_vanished_meanwhile_still_give_a_page(tmp_path: Path) -> None:
    photos = (photo("/gone/1"), photo("/gone/2", "b"))
    audit = Audit(Dataset(photos, ("a", "b")), photos, (None, None), (), (), None, None, "onnxruntime")
    written = write_report(audit, tmp_path / "report.html", 1, 0.0)
    assert written.excluded == 0
    assert "cannot be shown" in written.page.read_text("utf-8")


def test_a_report_that_is_no_page_and_a_folder_that_is_not_there_are_refused(tmp_path: Path) -> None:
    assert "must end with .html" in nameplate("audit", tmp_path, "-o", tmp_path / "report", check=2).stderr
    assert "There is no" in nameplate("audit", tmp_path / "no", "-o", tmp_path / "r.html", check=1).stderr


def test_copies_under_two_classes_and_leaks_are_reported_once() -> None:
    def copies(*photos: Photo) -> list[Finding]:
        return list(copy_findings([each.with_(sha256="same") for each in photos], 1.0))

    (crossing,) = copies(photo("/1"), photo("/2", "b"))
    assert (crossing.kind, crossing.photos) == (CROSS_CLASS, ("/1", "/2"))
    (both,) = copies(photo("/1", split="train"), photo("/2", "b", split="test"))
    assert (both.kind, both.detail) == (CROSS_CLASS, "one picture under a and b, in test and train")
    (leak,) = copies(photo("/1", split="train"), photo("/2", split="test"))
    assert leak.kind == LEAK
    photos = [photo("/a copy").with_(sha256="x"), photo("/a").with_(sha256="x"), photo("/b", side=5).with_(sha256="y")]
    exact, near = copy_findings(photos, 0.96)
    assert (exact.kind, exact.photos) == (EXACT, ("/a copy", "/a"))
    assert (near.kind, near.photos) == (NEAR, ("/a", "/b"))
    audit = Audit(Dataset(tuple(photos), ("a",)), tuple(photos), (None,) * 3, (exact, near), (), None, None, "")
    assert [row["path"] for row in left_out(audit)] == ["/a copy", "/b"]


def test_the_next_line_keeps_names_and_all_data_and_the_list_keeps_what_was_on_one_before(tmp_path: Path) -> None:
    for number, folder in enumerate(sorted(photos_folder("train").iterdir())[:2], start=1):
        (tmp_path / "my cars" / str(number)).mkdir(parents=True)
        for path in sorted(folder.iterdir())[:6]:
            shutil.copyfile(path, tmp_path / "my cars" / str(number) / path.name)
    (tmp_path / "names.csv").write_text("id,name\n1,Lada Niva\n2,Lada Vesta\n", "utf-8")
    gone = sorted((tmp_path / "my cars" / "1").iterdir())[0]
    (tmp_path / "before.csv").write_text(f"path\n{gone}\n", "utf-8")
    options = ("--names", tmp_path / "names.csv", "--exclude", tmp_path / "before.csv", "--no-shortcuts")
    done = nameplate("audit", tmp_path / "my cars", "-o", tmp_path / "r.html", *options)
    listed = tmp_path / "r.exclude.csv"
    following = "".join(done.stdout.split("Next", 1)[1].split("\n")).replace(" ", "")
    assert f"'{tmp_path / 'my cars'}'--names{tmp_path / 'names.csv'}--exclude{listed}".replace(" ", "") in following
    assert str(gone) in [row["path"] for row in csv.DictReader(listed.read_text("utf-8").splitlines())]
    page = (tmp_path / "r.html").read_text("utf-8")
    assert all(
        page.count(f"<figcaption>{path.name}</figcaption>")
        for path in (tmp_path / "my cars").glob("*/*")
        if path != gone
    )


def test_a_notebook_shows_an_audit_and_it_can_be_written(tmp_path: Path) -> None:
    for folder in sorted(photos_folder("train").iterdir())[:2]:
        (tmp_path / "cars" / folder.name).mkdir(parents=True)
        for photo in sorted(folder.iterdir())[:3]:
            shutil.copy(photo, tmp_path / "cars" / folder.name)
    shutil.copy(photo, tmp_path / "cars" / folder.name / "again.jpg")
    made = audit(tmp_path / "cars", shortcuts=False)
    assert [finding.kind for finding in made.found.findings if finding.kind == EXACT] == [EXACT]
    assert "7 photos of 2 classes" in made._repr_html_()
    assert "Machine-readable" not in made.html  # nothing is written beside it
    written = made.write(tmp_path / "report.html")
    assert "report.exclude.csv" in written.page.read_text("utf-8")
    assert written.excluded == 1
