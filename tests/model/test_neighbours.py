"""The neighbour index: training photos are their own nearest neighbours, and no content of the file is trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load, save

from nameplate.demo import photos_folder
from nameplate.errors import BundleError, DataError
from nameplate.images import decode
from nameplate.model import neighbours as module
from nameplate.model.bundle import INDEX, MAX_BYTES, Bundle, Manifest, load_bundle, save_bundle
from nameplate.model.neighbours import LONGEST, NeighbourIndex, make_index, nearest, read_index
from nameplate.storage import sha256
from nameplate.types import Floats, Photo, Preprocess

SIZE = 12
NAMES = ("Лада Веста", "Audi S4 2007")


def photos() -> list[Photo]:
    paths = sorted(photos_folder("train").glob("*/*.jpg"))[::25]
    return [Photo(str(p), NAMES[i % 2], "train", sha256=sha256(p.read_bytes())) for i, p in enumerate(paths)]


def embeddings(count: int) -> Floats:
    return (np.random.default_rng(1).normal(size=(count, SIZE)) * 7 + 30).astype(np.float32)


def bundle_with(folder: Path, data: bytes | None) -> Bundle:
    manifest = Manifest(1, "two", NAMES, NAMES, Preprocess(), SIZE, 1.0, {})
    head = np.zeros((SIZE, 2), np.float32), np.zeros(2, np.float32)
    save_bundle(folder, Bundle(manifest, b"\x08\x08\x12\x04test", *head), index=data, overwrite=True)
    return load_bundle(folder)


@pytest.fixture(scope="module")
def data() -> bytes:
    found = photos()
    return make_index(found, embeddings(len(found)), 1)


def loaded(folder: Path, data: bytes) -> NeighbourIndex:
    index = read_index(bundle_with(folder / "b", data))
    assert index is not None
    return index


def test_each_photo_is_its_own_nearest(tmp_path: Path, data: bytes) -> None:
    index, found = loaded(tmp_path, data), photos()
    rows = embeddings(len(found))
    assert len(index.paths) == len(found) > 5
    for photo, row in zip(found, rows, strict=True):
        first, second, *_ = nearest(index, row, 3)
        assert photo.path.endswith(first.path)
        assert first.nameplate == photo.label
        assert first.similarity == pytest.approx(1, abs=2e-3)
        assert second.similarity < 0.95
        picture = decode(first.thumbnail)
        assert max(picture.shape[:2]) == LONGEST
        whole = decode(photo.path)
        assert abs(float(picture.mean()) - float(whole.mean())) < 3
    assert len(nearest(index, rows[0], 1000)) == len(found)


def test_similarity_is_the_cosine_about_the_centre(tmp_path: Path, data: bytes) -> None:
    index, rows = loaded(tmp_path, data), embeddings(len(photos()))
    less = (rows.astype(np.float64) - rows.mean(0)) / rows.std(0)
    other = np.random.default_rng(5).normal(size=SIZE).astype(np.float32) * 7 + 30
    query = (other - rows.mean(0)) / rows.std(0)
    expected = sorted((less @ query) / np.linalg.norm(less, axis=1) / np.linalg.norm(query), reverse=True)
    assert [n.similarity for n in nearest(index, other, 4)] == pytest.approx(expected[:4], abs=2e-3)


def test_paths_do_not_reveal_folders_of_this_machine(tmp_path: Path, data: bytes) -> None:
    index = loaded(tmp_path, data)
    assert all(path.count("/") == 1 and not path.startswith((".", "/")) for path in index.paths)
    assert str(Path.home()).encode() not in data


def test_a_photo_that_vanished_is_left_out(tmp_path: Path) -> None:
    found = photos()
    there = [*found[:3], found[3].with_(path="/nowhere.jpg"), *found[4:]]
    index = loaded(tmp_path, make_index(there, embeddings(len(found)), 2))
    assert len(index.paths) == len(found) - 1
    with pytest.raises(DataError, match="None of the 1 photos"):
        make_index([there[3]], embeddings(1), 1)


def test_more_photos_than_fit_are_drawn_by_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = photos()
    monkeypatch.setattr(module, "MOST_PHOTOS", 3)
    index = loaded(tmp_path, make_index(found, embeddings(len(found)), 1))
    kept = sorted(found, key=lambda photo: str(photo.sha256))[:3]
    assert {Path(path).name for path in index.paths} == {Path(photo.path).name for photo in kept}
    assert all(any(p.path.endswith(path) for p in kept) for path in index.paths)


def test_an_index_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MAX_BYTES, INDEX, 1000)
    with pytest.raises(DataError, match=r"1,000 is the most. Train without --index"):
        make_index(photos(), embeddings(len(photos())), 1)


def test_a_bundle_without_one_has_none(tmp_path: Path) -> None:
    assert read_index(bundle_with(tmp_path / "b", None)) is None
    assert read_index(load_bundle("cars196")) is None


def test_the_index_is_read_and_checked_on_request_only(tmp_path: Path, data: bytes) -> None:
    folder = tmp_path / "b"
    bundle_with(folder, data)
    (folder / INDEX).write_bytes(data[:-1] + b"\0")
    bundle = load_bundle(folder)
    with pytest.raises(BundleError, match="damaged"):
        read_index(bundle)
    (folder / INDEX).unlink()
    with pytest.raises(BundleError, match="Cannot read"):
        read_index(bundle)


Change = Callable[[dict[str, Any]], object]


def named(rows: list[Any]) -> NDArray[np.uint8]:
    return np.frombuffer(msgspec.json.encode(rows), np.uint8)


def with_ends(change: Callable[[NDArray[np.int64]], object]) -> Change:
    def apply(tensors: dict[str, Any]) -> None:
        ends = tensors["ends"].copy()
        change(ends)
        tensors["ends"] = ends

    return apply


HOSTILE: dict[str, Change] = {
    "a part is missing": lambda t: t.pop("ends"),
    "embeddings of another size": lambda t: t.update(embeddings=t["embeddings"][:, :-1].copy()),
    "embeddings of another type": lambda t: t.update(embeddings=t["embeddings"].astype(np.float32)),
    "fewer embeddings": lambda t: t.update(embeddings=t["embeddings"][1:].copy()),
    "no numbers": lambda t: t.update(embeddings=np.full_like(t["embeddings"], np.nan)),
    "huge numbers": lambda t: t.update(embeddings=np.full_like(t["embeddings"], 60000)),
    "a centre of no numbers": lambda t: t.update(centre=np.full_like(t["centre"], np.inf)),
    "a spread of nothing": lambda t: t.update(spread=np.zeros_like(t["spread"])),
    "a spread of no numbers": lambda t: t.update(spread=np.full_like(t["spread"], np.nan)),
    "a flat centre": lambda t: t.update(centre=t["centre"][None].copy()),
    "ends of a scalar": lambda t: t.update(ends=np.array(5, np.int64)),
    "ends that go back": with_ends(lambda ends: ends.__setitem__(1, 0)),
    "ends below zero": with_ends(lambda ends: ends.__setitem__(0, -5)),
    "ends beyond the file": with_ends(lambda ends: ends.__setitem__(-1, 1 << 40)),
    "ends a little beyond the file": with_ends(lambda ends: ends.__setitem__(-1, ends[-1] + 1)),
    "pictures that nothing points at": lambda t: t.update(pictures=np.append(t["pictures"], np.uint8(0))),
    "ends that wrap": with_ends(lambda ends: ends.__setitem__(0, -(1 << 63))),
    "a picture that is too large": with_ends(lambda ends: ends.__setitem__(slice(0, -1), ends[-1] - 1)),
    "a stranger's nameplate": lambda t: t.update(names=named([["a.jpg", "Tank"]] * len(t["ends"]))),
    "names of no form": lambda t: t.update(names=named([["a.jpg"]] * len(t["ends"]))),
    "names that are none": lambda t: t.update(names=np.zeros(9, np.uint8)),
    "nested names": lambda t: t.update(names=np.frombuffer(b"[" * 100_000, np.uint8)),
    "nothing": lambda t: t.update(
        names=named([]), ends=t["ends"][:0].copy(), embeddings=t["embeddings"][:0].copy(), pictures=t["pictures"][:0]
    ),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_hostile_content_is_refused(tmp_path: Path, data: bytes, how: str) -> None:
    tensors: dict[str, Any] = dict(load(data))
    if how == "a picture that is too large":
        tensors["pictures"] = np.concatenate([tensors["pictures"], np.zeros(600_000, np.uint8)])
        tensors["ends"] = np.concatenate([tensors["ends"][:-1], [len(tensors["pictures"])]])
    HOSTILE[how](tensors)
    with pytest.raises(BundleError, match=r"index.safetensors of 'two' is damaged"):
        read_index(bundle_with(tmp_path / "b", save({k: np.ascontiguousarray(v) for k, v in tensors.items()})))


@pytest.mark.parametrize("junk", [b"", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}"])
def test_a_file_that_is_not_safetensors_is_refused(tmp_path: Path, junk: bytes) -> None:
    with pytest.raises(BundleError, match="damaged"):
        read_index(bundle_with(tmp_path / "b", junk))


def test_an_index_of_another_bundle_is_refused(tmp_path: Path, data: bytes) -> None:
    bundle = bundle_with(tmp_path / "b", data)
    manifest = replace(bundle.manifest, nameplates=("a", "b"), ids=("a", "b"))
    with pytest.raises(BundleError, match="nameplate that the bundle does not know"):
        read_index(replace(bundle, manifest=manifest))
