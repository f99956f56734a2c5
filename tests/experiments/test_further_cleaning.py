from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image, ImageOps

from nameplate.audit.inspect import CROSS_CLASS, EXACT, LABEL, LEAK, NEAR, OUTLIER, UNREADABLE, Finding, inspect
from nameplate.data.dataset import Dataset
from nameplate.demo import photos_folder
from nameplate.experiments.further import (
    ADVERT_OF_HELD,
    CONTRADICTS,
    NO_CAR,
    OF_HELD,
    OF_TRAIN,
    REPEATED,
    UNREAD,
    Cleaning,
    clean,
)
from nameplate.model.model import Model
from nameplate.types import Photo

BASE = [
    Photo("t1", "a", "train"),
    Photo("t2", "b", "train"),
    Photo("v1", "a", "validation", group="advert 7"),
    Photo("x1", "b", "test"),
]
EXTRA = [Photo(f"e{number}", "a" if number % 2 else "b", "train") for number in range(1, 7)]


def finding(kind: str, *photos: str, detail: str = "") -> Finding:
    return Finding(kind, photos, 1.0, detail)


def out(cleaning: Cleaning) -> dict[str, str]:
    return {entry.path: entry.reason for entry in cleaning.taken_out}


def kept(cleaning: Cleaning) -> list[str]:
    return [photo.path for photo in cleaning.kept]


def test_without_findings_everything_stays() -> None:
    found = clean(EXTRA, BASE, [])
    assert found == Cleaning(tuple(EXTRA), (), ())
    assert found.counts == {}


def test_copies_of_evaluation_photos_are_removed_also_those_of_the_test_part() -> None:
    found = clean(EXTRA, BASE, [finding(NEAR, "e1", "v1", "e2"), finding(LEAK, "x1", "e3")])
    assert out(found) == {"e1": OF_HELD, "e2": OF_HELD, "e3": OF_HELD}
    assert [entry.detail for entry in found.taken_out] == ["v1", "v1", "x1"]


def test_photos_without_a_car_are_removed() -> None:
    found = clean(EXTRA, BASE, [finding(UNREADABLE, "e1", detail="truncated"), finding(OUTLIER, "e2", detail="a map")])
    assert out(found) == {"e1": UNREAD, "e2": NO_CAR}
    assert found.taken_out[1].detail == "a map"


def test_copies_of_training_photos_are_removed_under_any_label() -> None:
    found = clean(EXTRA, BASE, [finding(EXACT, "t1", "e1"), finding(CROSS_CLASS, "t2", "e3")])
    assert out(found) == {"e1": OF_TRAIN, "e3": OF_TRAIN}


def test_a_copy_in_both_parts_counts_as_one_of_the_evaluation_part() -> None:
    assert out(clean(EXTRA, BASE, [finding(NEAR, "e1", "t1", "v1")])) == {"e1": OF_HELD}


def test_the_first_of_several_copies_is_kept() -> None:
    found = clean(EXTRA, BASE, [finding(NEAR, "e5", "e1", "e3")])
    assert out(found) == {"e3": REPEATED, "e5": REPEATED}
    assert {entry.detail for entry in found.taken_out} == {"e1"}


def test_an_unreadable_copy_is_not_the_one_that_stays() -> None:
    found = clean(EXTRA, BASE, [finding(NEAR, "e1", "e3"), finding(OUTLIER, "e1")])
    assert out(found) == {"e1": NO_CAR}


def test_copies_under_two_nameplates_are_all_removed() -> None:
    found = clean(EXTRA, BASE, [finding(CROSS_CLASS, "e1", "e2")])
    assert out(found) == {"e1": CONTRADICTS, "e2": CONTRADICTS}


def test_findings_that_share_a_photo_are_of_one_image() -> None:
    found = clean(EXTRA, BASE, [finding(EXACT, "e1", "e3"), finding(NEAR, "e3", "e5"), finding(NEAR, "e5", "v1")])
    assert out(found) == {"e1": OF_HELD, "e3": OF_HELD, "e5": OF_HELD}


def test_photos_of_an_advert_in_the_evaluation_are_removed() -> None:
    extra = [EXTRA[0].with_(group="advert 7"), EXTRA[1].with_(group="advert 8")]
    assert out(clean(extra, BASE, [])) == {"e1": ADVERT_OF_HELD}


def test_a_file_that_both_name_is_a_copy_of_itself() -> None:
    extra = [Photo("v1", "a"), Photo("t1", "b"), Photo("e1", "a")]
    found = clean(extra, BASE, [])
    assert out(found) == {"v1": OF_HELD, "t1": OF_TRAIN}
    assert kept(found) == ["e1"]


def test_suspects_stay_and_are_listed() -> None:
    findings = [finding(LABEL, "e1"), finding(LABEL, "t1"), finding(LABEL, "e2"), finding(OUTLIER, "e2")]
    found = clean(EXTRA, BASE, findings)
    assert found.suspects == (findings[0],)
    assert "e1" in kept(found)


def test_findings_about_base_alone_change_nothing() -> None:
    findings = [finding(EXACT, "t1", "t2"), finding(LEAK, "t1", "v1"), finding(OUTLIER, "v1")]
    assert clean(EXTRA, BASE, findings).kept == tuple(EXTRA)


def test_copies_are_found_among_real_photos(tmp_path: Path) -> None:
    first, other = sorted(photos_folder().glob("*/*.jpg"))[::30][:2]
    shutil.copy(first, tmp_path / "same.jpg")
    with Image.open(first) as image:
        ImageOps.mirror(image).save(tmp_path / "mirrored.png")
    (tmp_path / "broken.jpg").write_bytes(first.read_bytes()[:900])
    extra = [Photo(str(tmp_path / name), "a") for name in ("same.jpg", "mirrored.png", "broken.jpg")]
    base = [Photo(str(first), "a", "validation"), Photo(str(other), "b", "train")]
    together = Dataset((*base, *extra), ("a", "b"))
    findings = inspect(together, Model.load(runtime="onnxruntime", threads=1), shortcuts=False).findings
    found = clean(extra, base, findings)
    assert {Path(path).name: reason for path, reason in out(found).items()} == {
        "same.jpg": OF_HELD,
        "mirrored.png": OF_HELD,
        "broken.jpg": UNREAD,
    }


def test_the_one_of_two_copies_that_is_named_copy_is_removed() -> None:
    extra = [Photo("a copy.jpg", "a", "train"), Photo("a.jpg", "a", "train")]
    found = clean(extra, BASE, [finding(EXACT, "a copy.jpg", "a.jpg")])
    assert out(found) == {"a copy.jpg": REPEATED}
    assert kept(found) == ["a.jpg"]
