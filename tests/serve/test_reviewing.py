"""The review of an audit: decisions and the two tables, foreign requests, and the page in a real Chromium."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from nameplate.audit.inspect import EXACT, LABEL, NEAR, Audit, Finding
from nameplate.data import read_dataset
from nameplate.demo import photos_folder
from nameplate.serve.reviewing import BY_HAND, Decision, Review, open_review, suggested

pytest.importorskip("uvicorn")


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text("utf-8").splitlines()))


@pytest.fixture
def cars(tmp_path: Path) -> Path:
    for folder in sorted(photos_folder("test").iterdir())[:2]:
        (tmp_path / "cars" / folder.name).mkdir(parents=True)
        for photo in sorted(folder.iterdir())[:4]:
            shutil.copy(photo, tmp_path / "cars" / folder.name)
    return tmp_path / "cars"


@pytest.fixture
def audit(cars: Path) -> Audit:
    """Findings as an audit makes them: a sure copy, a suspect label, a near copy under one nameplate."""
    dataset = read_dataset(cars)
    photos = tuple(photo.with_(sha256=str(n), width=1, height=1) for n, photo in enumerate(dataset.photos))
    paths, (first, second) = [photo.path for photo in photos], dataset.nameplates
    findings = (
        Finding(EXACT, (paths[0], paths[1]), 1.0, "2 files of the same bytes"),
        Finding(NEAR, (paths[2], paths[3]), 0.96, "one picture in 2 files: cropped, resized or mirrored"),
        Finding(LABEL, (paths[4],), 0.93, f"labelled {second}, looks like {first} (93% to 2%)"),
    )
    return Audit(dataset, photos, (None,) * len(photos), findings, (), None, None, "onnxruntime")


@pytest.fixture
def review(audit: Audit, tmp_path: Path) -> Review:
    return open_review(audit, tmp_path / "report.html")


def test_without_decisions_the_list_is_the_audits_own(review: Review) -> None:
    listed = {Path(row["path"]).name for row in rows(review.exclude)}
    assert len(listed) == 2
    assert rows(review.relabel) == []


def test_decisions_change_both_tables_and_a_later_review_goes_on_from_them(review: Review, audit: Audit) -> None:
    listed = [row["path"] for row in rows(review.exclude)]
    kept = review.photos.index(listed[0])
    other = review.photos.index(audit.photos[0].path if audit.photos[0].path != listed[0] else audit.photos[1].path)
    first, second = audit.dataset.nameplates
    review.decide(Decision(kept, "keep"))
    review.decide(Decision(other, "exclude"))
    review.decide(Decision(4, "relabel", first))
    now = {row["path"]: row["kind"] for row in rows(review.exclude)}
    assert listed[0] not in now
    assert now[review.photos[other]] == BY_HAND
    assert rows(review.relabel) == [{"path": review.photos[4], "label": first, "was": second}]
    again = open_review(audit, review.exclude.with_name("report.html"))
    assert again.decided == review.decided
    assert {row["path"]: row["kind"] for row in rows(again.exclude)} == now
    changed = read_dataset(Path(review.photos[0]).parents[1], exclude=review.exclude, relabel=review.relabel)
    assert [photo.label for photo in changed.photos if photo.path == review.photos[4]] == [first]
    assert changed.excluded == len(now)
    again.decide(Decision(4, "undecided"))
    assert rows(again.relabel) == []


@pytest.mark.parametrize("decision", [Decision(99, "keep"), Decision(-1, "keep"), Decision(0, "relabel", "Lada")])
def test_a_decision_on_nothing_is_refused(review: Review, decision: Decision) -> None:
    before = review.exclude.read_bytes()
    with pytest.raises(ValueError, match="no photo|no nameplate"):
        review.decide(decision)
    assert (review.decided, review.exclude.read_bytes()) == ({}, before)


def test_a_suspect_label_suggests_the_nameplate_that_it_looks_like() -> None:
    names = ("A (old)", "B")
    assert suggested(Finding(LABEL, ("x",), 0.9, "labelled B, looks like A (old) (90% to 3%)"), names) == "A (old)"
    assert suggested(Finding(EXACT, ("x",), 1.0, "2 files of the same bytes"), names) == ""


@pytest.fixture
def served(cars: Path, tmp_path: Path) -> Iterator[str]:
    """`nameplate audit --serve` in a process of its own, on photos with a copy; yields the page's address."""
    first = sorted(cars.glob("*/*.jpg"))[0]
    shutil.copy(first, first.with_name("a copy.jpg"))
    shutil.copy(first, sorted(cars.iterdir())[1] / "moved.jpg")
    arguments = ["audit", cars, "-o", tmp_path / "report.html", "--no-shortcuts", "--threads", "1", "--serve"]
    command = [sys.executable, "-m", "nameplate", *map(str, arguments)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        assert process.stderr is not None
        line = next((line for line in process.stderr if line.startswith("review ")), "")
        yield line.split()[1]
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0, out
        assert "--relabel" in out


def test_a_person_decides_with_the_keyboard(served: str, tmp_path: Path, chromium: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    first = sorted((tmp_path / "cars").iterdir())[0].name
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=str(chromium), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(served)
        expect = playwright.expect
        expect(page.locator("#progress")).to_contain_text(re.compile(r"^1 of (\d) · 0 of \1 photos decided$"))
        expect(page.locator("figure.chosen img")).to_have_js_property("complete", True)
        assert page.evaluate("document.querySelector('figure.chosen img').naturalWidth") > 0
        page.keyboard.press("k")
        expect(page.locator("#progress")).to_contain_text(re.compile(r"^2 of .* · 1 of"))
        page.keyboard.press("x")
        expect(page.locator("#progress")).to_contain_text(re.compile(r"^3 of .* · 2 of"))
        page.keyboard.press("r")
        page.keyboard.type("Nothing")
        page.keyboard.press("Enter")
        expect(page.locator("#failed")).to_contain_text("is no nameplate")
        page.locator("#label").fill(first)
        page.keyboard.press("Enter")
        expect(page.locator("#progress")).to_contain_text(re.compile(r"· 3 of"))
        page.keyboard.press("ArrowLeft")
        expect(page.locator("figure.chosen .state.relabel")).to_contain_text(first)
        page.screenshot(path=str(tmp_path / "review.png"))
        browser.close()
    assert errors == []
    assert [row["label"] for row in rows(tmp_path / "report.relabel.csv")] == [first]
    assert [row["kind"] for row in rows(tmp_path / "report.exclude.csv")] != []
    assert len(json.loads((tmp_path / "report.review.json").read_text("utf-8"))) == 3


def test_other_hosts_other_origins_and_those_without_the_token_are_refused(served: str, tmp_path: Path) -> None:
    before = (tmp_path / "report.exclude.csv").read_bytes()
    decision = json.dumps({"photo": 0, "choice": "keep"})
    root = re.sub(r"/[^/]+/$", "/", served)

    def post(address: str, **headers: str) -> int:
        return httpx.post(f"{address}decide", content=decision, headers=headers, timeout=30).status_code

    assert httpx.get(root, timeout=30).status_code == 404
    assert post(f"{root}guess/") == 404
    assert post(served, origin="https://evil.example") == 403
    assert post(served, **{"sec-fetch-site": "cross-site"}) == 403
    assert httpx.get(served, headers={"host": "evil.example"}, timeout=30).status_code == 403
    assert httpx.get(f"{served}../../../etc/passwd", timeout=30).status_code == 404
    assert httpx.get(f"{served}photo/99", timeout=30).status_code == 404
    assert httpx.post(f"{served}decide", content="{}", timeout=30).status_code == 422
    assert httpx.post(f"{served}decide", content=b"x" * 20_000, timeout=30).status_code == 413
    assert (tmp_path / "report.exclude.csv").read_bytes() == before
    assert "default-src 'none'" in httpx.get(served, timeout=30).headers["content-security-policy"]
    assert post(served, origin=root.rstrip("/")) == 204
    assert (tmp_path / "report.exclude.csv").read_bytes() != before
