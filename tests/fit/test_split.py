"""Which photos train and which evaluate: no photo twice, none lost, no copy in both parts."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nameplate.data.dataset import Dataset
from nameplate.errors import DataError
from nameplate.fit.run import data_record
from nameplate.fit.split import Split, photos_csv, split_photos
from nameplate.model.embeddings import DatasetEmbeddings
from nameplate.storage import sha256
from nameplate.types import Photo, SplitName

NAMES = ("Alto", "Brisa", "Cato", "Dune")


def embedded(photos: list[Photo], seed: int = 0) -> DatasetEmbeddings:
    """Photos as if read; those of one digest are copies."""
    hashes = {str(p.sha256): np.random.default_rng([seed, int(str(p.sha256), 16)]) for p in photos}
    rows = {digest: draw.integers(0, 2**64, 4, np.uint64) for digest, draw in hashes.items()}
    found = np.array([rows[str(p.sha256)] for p in photos], np.uint64).reshape(-1, 4)
    return DatasetEmbeddings(
        tuple(photos), np.zeros((len(photos), 1), np.float32), found, (("bad.jpg", "empty: x"),), "none"
    )


def dataset(photos: list[Photo]) -> Dataset:
    """Only the fields that a split reads."""
    return cast(Dataset, _Named(NAMES, {"Alto": "1", "Brisa": "2"}, tuple(photos)))


class _Named:
    def __init__(self, nameplates: tuple[str, ...], ids: dict[str, str], photos: tuple[Photo, ...]) -> None:
        self.nameplates, self.ids, self.photos = nameplates, ids, photos
        self.excluded_paths: tuple[str, ...] = ()


def photo(number: int, label: str, digest: int | None = None, **more: Any) -> Photo:
    content = f"{number if digest is None else digest:064x}"
    return replace(Photo(f"{number}.jpg", label, source="s", sha256=content, width=40, height=30), **more)


Photos = st.lists(
    st.tuples(st.sampled_from(NAMES[:3]), st.integers(0, 30), st.none() | st.sampled_from(["a", "b"])),
    min_size=6, max_size=60,
)  # fmt: skip


def split(photos: list[Photo], holdout: float = 0.25, seed: int = 20) -> Split:
    return split_photos(dataset(photos), embedded(photos), holdout, seed)


@settings(max_examples=80, deadline=None)
@given(rows=Photos, holdout=st.sampled_from([0.0, 0.15, 0.5]), seed=st.integers(0, 5))
def test_every_photo_has_one_part_and_copies_share_it(
    rows: list[tuple[str, int, str | None]], holdout: float, seed: int
) -> None:
    photos = [photo(i, label, digest, group=group) for i, (label, digest, group) in enumerate(rows)]
    try:
        parts = split(photos, holdout, seed)
    except DataError:
        assert len({label for label, _, _ in rows}) < 2 or len({d for _, d, _ in rows}) < len(rows)
        return
    assert [p.path for p in parts.photos] == [p.path for p in photos]
    assert not (parts.train & parts.holdout).any()
    assert set(parts.nameplates) == {p.label for p in parts.photos if p.split == "train"}
    assert list(parts.nameplates) == [name for name in NAMES if name in parts.nameplates]
    for group in np.unique(parts.groups):
        assert len({p.split for p, g in zip(parts.photos, parts.groups, strict=True) if g == group}) == 1
    for a, one in enumerate(rows):
        for b, other in enumerate(rows[:a]):
            if one[1] == other[1] or (one[2] is not None and one[2] == other[2]):
                assert parts.groups[a] == parts.groups[b]
    for p, of, train, held in zip(parts.photos, parts.classes, parts.train, parts.holdout, strict=True):
        assert (p.split == "train") == train
        assert parts.nameplates[of] == p.label if of >= 0 else p.label not in parts.nameplates
        assert not (held and of < 0)
    assert parts.leaked == 0
    assert parts.copies == len(rows) - len(set(parts.groups.tolist()))
    if holdout == 0:
        assert parts.train.all()


def test_the_split_depends_on_the_seed_and_has_the_same_share_of_every_nameplate() -> None:
    photos = [photo(i, NAMES[i % 3]) for i in range(60)]
    one, again, other = split(photos), split(photos), split(photos, seed=21)
    assert np.array_equal(one.holdout, again.holdout)
    assert not np.array_equal(one.holdout, other.holdout)
    assert Counter(p.label for p, held in zip(photos, one.holdout, strict=True) if held) == dict.fromkeys(NAMES[:3], 5)


def test_the_parts_of_the_data_are_kept_and_copies_across_them_are_not_evaluated() -> None:
    parts_said: list[SplitName | None] = ["train", "train", None, "validation", "test", "validation", "test"]
    labels = ["Alto", "Brisa", "Alto", "Alto", "Brisa", "Brisa", "Dune"]
    digests = [0, 1, 2, 0, 4, 5, 6]  # the fourth is a copy of the first
    photos = [photo(i, labels[i], digests[i], split=parts_said[i]) for i in range(7)]
    parts = split(photos, holdout=0.9)
    assert [p.split for p in parts.photos] == ["train", "train", "train", "validation", "test", "validation", "test"]
    assert parts.nameplates == ("Alto", "Brisa")
    assert parts.ids == ("1", "2")
    assert parts.classes.tolist() == [0, 1, 0, 0, 1, 1, -1]
    assert parts.holdout.tolist() == [False, False, False, False, True, True, False]
    assert parts.leaked == 1
    assert parts.copies == 1
    assert parts.unreadable == (("bad.jpg", "empty: x"),)
    assert parts.sources == ("s",)


def test_nameplates_without_training_or_readable_photos_are_listed_and_counted() -> None:
    said: list[SplitName] = ["train", "train", "validation", "test", "validation"]
    labels = ["Alto", "Brisa", "Alto", "Cato", "Cato"]
    photos = [photo(i, labels[i], 0 if i == 2 else None, split=said[i]) for i in range(5)]
    found = split_photos(dataset([*photos, photo(9, "Dune"), photo(10, "Dune")]), embedded(photos), 0.2, 1)
    assert found.untrained == {"Cato": 2}
    assert found.lost == (("Dune", 2),)
    assert [(entry.name, entry.reason) for entry in found.left_out] == [
        ("2.jpg", "held out, but a copy of a training photo, so it is not evaluated"),
        ("3.jpg", "its nameplate, 'Cato', has no training photo"),
        ("4.jpg", "its nameplate, 'Cato', has no training photo"),
    ]
    assert found.notes == [
        "Cato: it has no training photo, so its 2 held-out photos cannot be evaluated.",
        "In total, 1 nameplate without a training photo, with 2 held-out photos; the metrics do not include them.",
        "Dune: none of its 2 photos can be read.",
        "1 held-out photo not evaluated: copies of training photos.",
    ]


def test_exact_copies_under_two_nameplates_are_counted() -> None:
    photos = [photo(i, NAMES[i % 2]) for i in range(8)]
    assert split(photos).contradictory == 0
    assert split([*photos, photo(8, "Brisa", 0)]).contradictory == 2


def test_one_nameplate_is_not_enough() -> None:
    with pytest.raises(DataError, match="Only 1 nameplate .* two or more"):
        split([photo(i, "Alto") for i in range(8)])


def test_the_digest_depends_on_contents_and_parts_not_on_paths() -> None:
    photos = [photo(i, NAMES[i % 2]) for i in range(12)]
    moved = [p.with_(path=f"/elsewhere/{p.path}") for p in reversed(photos)]
    assert split(photos).digest == split(moved).digest
    assert split(photos).digest != split(photos, seed=4).digest
    assert split(photos).digest != split([photos[0].with_(label="Brisa"), *photos[1:]]).digest


def test_the_table_holds_every_photo_whatever_its_name() -> None:
    photos = [photo(i, NAMES[i % 2]) for i in range(8)]
    photos[0] = photos[0].with_(path='/data/a,"b"\udcff.jpg')
    parts = split(photos)
    text = photos_csv(parts.photos, parts.groups).decode("utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[0]["path"] == '/data/a,"b"\\xff.jpg'
    assert [(r["label"], r["split"], r["group"], r["sha256"], r["width"], r["height"]) for r in rows] == [
        (p.label, p.split, str(g), p.sha256, "40", "30") for p, g in zip(parts.photos, parts.groups, strict=True)
    ]


def test_excluded_photos_are_known_by_their_contents(tmp_path: Path) -> None:
    for name, content in (("a.jpg", b"wrong"), ("b.jpg", b"wrong"), ("c.jpg", b"kept elsewhere"), ("d.jpg", b"no car")):
        (tmp_path / name).write_bytes(content)
    photos = [photo(number, NAMES[number % 2]) for number in range(12)]
    photos.append(replace(photos[0], path="copy.jpg", sha256=sha256(b"kept elsewhere")))
    data = dataset(photos)
    data.excluded_paths = tuple(str(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg", "gone.jpg"))  # type: ignore[misc]
    found = split_photos(data, embedded(photos), 0.25, 20)
    assert found.excluded == tuple(sorted((sha256(b"wrong"), sha256(b"no car"))))
    assert data_record(found)["excluded"] == list(found.excluded)
