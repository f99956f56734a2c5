"""A whole data set, with planted defects."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from nameplate.audit.inspect import CROSS_CLASS, EXACT, LABEL, LEAK, NEAR, OUTLIER, UNREADABLE, Audit, Finding, inspect
from nameplate.data import read_dataset
from nameplate.demo import photos_folder
from nameplate.experiments.further import NO_CAR, clean
from nameplate.model.model import Model
from nameplate.report.audit import left_out
from tests.audit.plant import Planted, plant


def of_kind(audit: Audit, *kinds: str) -> list[Finding]:
    return [finding for finding in audit.findings if finding.kind in kinds]


def together(audit: Audit, kind: str, pairs: list[tuple[str, str]]) -> float:
    """Share of the pairs that are in one finding."""
    found = [set(finding.photos) for finding in of_kind(audit, kind)]
    return sum(any({*pair} <= photos for photos in found) for pair in pairs) / len(pairs)


def test_planted_defects_among_real_photos_are_found(cars196: Path, not_cars: Path, tmp_path: Path) -> None:
    dataset = read_dataset(cars196)
    names = set(dataset.nameplates[::6])
    strange = sorted(not_cars.rglob("*.jpg"))[::22][:15]
    planted = plant([photo for photo in dataset.photos if photo.label in names], strange, tmp_path / "cars")
    audit = inspect(read_dataset(planted.folder), Model.load(), shortcuts=False)
    assert {finding.photos[0] for finding in of_kind(audit, UNREADABLE)} == set(planted.damaged)
    assert together(audit, EXACT, planted.exact) == 1
    assert together(audit, NEAR, planted.near + planted.mirrored) >= 0.95
    assert _clean_that_are_named(audit, planted) < 0.015  # eleven, in six groups, are copies in the set itself
    labels = [finding.photos[0] for finding in of_kind(audit, LABEL)]
    assert len(set(labels[:80]) & set(planted.swapped)) >= 0.7 * len(planted.swapped)
    outliers = [finding.photos[0] for finding in of_kind(audit, OUTLIER)]
    assert len(set(outliers[:30]) & set(planted.not_cars)) >= 0.8 * len(planted.not_cars)


def _clean_that_are_named(audit: Audit, planted: Planted) -> float:
    copied = {path for pairs in (planted.exact, planted.near, planted.mirrored) for pair in pairs for path in pair}
    clean = set(planted.clean) - copied
    named = {path for finding in of_kind(audit, EXACT, NEAR) for path in finding.photos}
    return len(named & clean) / len(clean)


@pytest.fixture(scope="module")
def renders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Audit]:
    """The embedded photos in two parts, with a leak, a copy under another name and a class from one dealer."""
    folder = tmp_path_factory.mktemp("renders")
    for part in ("train", "test"):
        for nameplate in photos_folder(part).iterdir():
            (folder / part / nameplate.name).mkdir(parents=True)
            for path in sorted(nameplate.iterdir())[:20]:
                shutil.copyfile(path, folder / part / nameplate.name / path.name)
    lark, cadence = (sorted((folder / "train" / name).iterdir()) for name in ("Corvane Lark", "Ostrel Cadence"))
    shutil.copyfile(lark[0], folder / "test" / "Corvane Lark" / "leak.jpg")
    shutil.copyfile(lark[1], folder / "train" / "Halden Pine" / "other.jpg")
    (folder / "train" / "Halden Pine" / "damaged.jpg").write_bytes(lark[2].read_bytes()[:900])
    for path in [*cadence, *(folder / "test" / "Ostrel Cadence").iterdir()]:
        image = Image.open(path)
        draw = ImageDraw.Draw(image)
        draw.rectangle((0, image.height * 0.9, image.width, image.height), fill=(255, 190, 0))  # a dealer's strip
        draw.text((image.width * 0.1, image.height * 0.91), "CADENCE CENTRE  555-0199", fill=(20, 20, 120))
        image.save(path, quality=90)
    return folder, inspect(read_dataset(folder), Model.load())


def test_leaks_and_copies_under_several_classes_are_reported(renders: tuple[Path, Audit]) -> None:
    audit = renders[1]
    (leak,) = of_kind(audit, LEAK)
    assert {Path(path).name for path in leak.photos} >= {"leak.jpg"}
    assert leak.detail == "one picture in test and train"
    (crossing,) = of_kind(audit, CROSS_CLASS)
    assert {Path(path).parent.name for path in crossing.photos} == {"Corvane Lark", "Halden Pine"}
    assert [Path(finding.photos[0]).name for finding in of_kind(audit, UNREADABLE)] == ["damaged.jpg"]
    assert len(audit.photos) == len(audit.measurements) == 402


def test_a_dealers_strip_is_found_as_a_shortcut_and_nothing_else(renders: tuple[Path, Audit]) -> None:
    found = renders[1].shortcuts
    assert found is not None
    assert [telltale.nameplate for telltale in found.telltales] == ["Ostrel Cadence"]
    assert found.whole.value > found.border.value > found.guessing


def test_findings_come_by_kind_and_the_worst_first(renders: tuple[Path, Audit]) -> None:
    for kind in {finding.kind for finding in renders[1].findings}:
        scores = [finding.score for finding in of_kind(renders[1], kind)]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1 for score in scores)


def test_one_class_alone_is_inspected_without_a_label_check(tmp_path: Path) -> None:
    shutil.copytree(photos_folder("train") / "Ostrel Tarn", tmp_path / "cars" / "Ostrel Tarn")
    audit = inspect(read_dataset(tmp_path / "cars"), Model.load())
    assert audit.accuracy is None
    assert audit.shortcuts is None
    assert audit.aliases == ()
    assert not of_kind(audit, LABEL)
    assert np.isfinite([finding.score for finding in audit.findings]).all()


def test_photos_without_a_car_are_the_only_outliers_on_the_list(tmp_path: Path) -> None:
    """One judgement: the audit's, the list's and `extra-data`'s are `identify`'s."""
    for nameplate in sorted(photos_folder("train").iterdir())[:3]:
        (tmp_path / "cars" / nameplate.name).mkdir(parents=True)
        for path in sorted(nameplate.iterdir())[:12]:
            shutil.copyfile(path, tmp_path / "cars" / nameplate.name / path.name)
    for number, colour in enumerate(((250, 250, 250), (30, 90, 160))):
        image = Image.new("RGB", (400, 300), colour)
        ImageDraw.Draw(image).ellipse((90, 40, 300, 260), fill=(200, 160, 40))
        image.save(tmp_path / "cars" / nameplate.name / f"drawing-{number}.png")
    dataset, model = read_dataset(tmp_path / "cars"), Model.load(runtime="onnxruntime", threads=1)
    audit = inspect(dataset, model, shortcuts=False)
    called = {answer.photo for answer in model.stream(p.path for p in dataset.photos) if answer.verdict == "not a car"}
    assert {path for path in called if "drawing" in path} == {p.path for p in dataset.photos if "drawing" in p.path}
    assert {finding.photos[0] for finding in of_kind(audit, OUTLIER) if finding.sure} == called
    assert {str(row["path"]) for row in left_out(audit) if row["kind"] == OUTLIER} == called
    taken = clean([photo.with_(split="train") for photo in dataset.photos], [], audit.findings).taken_out
    assert {entry.path for entry in taken if entry.reason == NO_CAR} == called
    assert not called & {finding.photos[0] for finding in of_kind(audit, LABEL)}
