"""Photos → embeddings in order, in bounded memory; and the cache of embeddings."""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nameplate.demo import photos_folder
from nameplate.errors import BundleError, DataError
from nameplate.images import decode, preprocess
from nameplate.images.parallel import ordered_map
from nameplate.model.bundle import BACKBONE, Bundle, File, load_bundle
from nameplate.model.embeddings import DatasetEmbeddings, embed_photos
from nameplate.model.model import Model
from nameplate.model.pipeline import (
    AHEAD,
    CachedPhoto,
    EmbeddedPhoto,
    Outcome,
    Settings,
    Source,
    UnreadablePhoto,
    embed_prepared,
    embed_stream,
    prepare_photo,
    prepare_uncached,
)
from nameplate.runtime.base import BATCH, Batch, Embedding, Runtime
from nameplate.runtime.select import make_runtime
from nameplate.storage import sha256
from nameplate.types import Cars, Limits, Photo, Preprocess
from tests.outcomes import all_embedded, prepared, unreadable
from tests.shipped import EMBEDDING

PATHS = sorted(photos_folder("train").glob("*/*.jpg"))[::40][:24]
JUNK = b"no photo at all"


class MeanColour:
    """A backbone of three numbers, so that many photos can be embedded and each embedding known."""

    name = "mean colour"

    def embed(self, batches: Iterable[Batch]) -> Iterator[Embedding]:
        for batch in batches:
            assert 1 <= len(batch) <= BATCH
            yield batch.mean((1, 2), dtype=np.float64).astype(np.float32)


SMALL = Preprocess(16, 24)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle("cars196")


@pytest.fixture(scope="module")
def small(bundle: Bundle) -> Bundle:
    return replace(bundle, manifest=replace(bundle.manifest, embedding=3, preprocess=SMALL))


def mean_colour(path: Path) -> list[float]:
    picture = preprocess(decode(path, at_least=(SMALL.height, SMALL.width)), SMALL)
    return [float(x) for x in picture.mean((0, 1), dtype=np.float64).astype(np.float32)]


def embed_uncached(
    bundle: Bundle, sources: Iterable[Source], settings: Settings, cached: Callable[[str], bool], runtime: Runtime
) -> Iterator[Outcome | CachedPhoto]:
    size = bundle.manifest.preprocess
    photos = ordered_map(
        lambda source: prepare_uncached(source, size, settings, cached), sources, settings.threads, AHEAD
    )
    return embed_prepared(bundle, photos, runtime)


COLOURS = [mean_colour(path) for path in PATHS]


def test_the_colours_distinguish_the_photos() -> None:
    assert len({tuple(colour) for colour in COLOURS}) == len(PATHS) == 24


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.integers(0, 23)), max_size=150),
    st.integers(1, 4),
    st.sets(st.integers(0, 23), max_size=6),
)
def test_rows_come_in_order_with_unreadable_and_known_photos_among_them(
    small: Bundle, photos: list[int | None], threads: int, known: set[int]
) -> None:
    sources = [JUNK if number is None else PATHS[number] for number in photos]
    digests = {sha256(PATHS[number].read_bytes()): number for number in known}
    rows = list(embed_uncached(small, sources, Settings(threads=threads), digests.__contains__, MeanColour()))
    assert len(rows) == len(photos)
    for number, row in zip(photos, rows, strict=True):
        if number is None:
            assert isinstance(row, UnreadablePhoto)
            assert row.failure.reason == "not a photo"
        elif number in known:
            assert isinstance(row, CachedPhoto)
            assert digests[row.digest] == number
        else:
            assert isinstance(row, EmbeddedPhoto)
            assert row.embedding.tolist() == COLOURS[number]
            assert (row.file.width, row.file.height) == (320, 240)


@pytest.mark.parametrize("readable", [0, 1, 50, 500, 1000])
def test_few_photos_are_read_ahead_of_the_rows_given(small: Bundle, readable: int) -> None:
    data = PATHS[0].read_bytes()
    taken = 0

    def sources() -> Iterator[Source]:
        nonlocal taken
        for number in range(3000):
            taken += 1
            yield data if number % 1000 < readable else JUNK

    most = 0
    for given_, _ in enumerate(embed_stream(small, sources(), Settings(threads=2), runtime=MeanColour())):
        most = max(most, taken - given_)
    assert given_ == 2999
    assert most <= (130 if readable == 1000 else 390)


def test_no_photos_give_no_rows(bundle: Bundle) -> None:
    assert list(embed_stream(bundle, [], Settings())) == []


def test_only_unreadable_photos_open_no_runtime(bundle: Bundle) -> None:
    broken = replace(bundle, backbone=b"none")
    rows = list(embed_stream(broken, [JUNK] * 40, Settings(runtime="onnxruntime")))
    assert [unreadable(row).failure.reason for row in rows] == ["not a photo"] * 40


def test_a_photo_is_the_same_by_path_by_bytes_and_by_pixels(bundle: Bundle) -> None:
    path = PATHS[3]
    pixels = decode(path, at_least=(192, 288))
    sources: list[Source] = [path, str(path), path.read_bytes(), pixels]
    rows = all_embedded(embed_stream(bundle, sources, Settings("onnxruntime", hashes=True)))
    for row in rows:
        assert np.array_equal(row.embedding, rows[0].embedding)
        assert row.hash is not None
        assert row.hash.tolist() == rows[0].hash.tolist()  # type: ignore[union-attr]
    assert {row.digest for row in rows[:3]} == {sha256(path.read_bytes())}
    assert rows[3].digest is None


def test_mirrored_is_the_embedding_of_the_mirrored_pixels(bundle: Bundle) -> None:
    size = bundle.manifest.preprocess
    photos = (prepared(prepare_photo(path, size, Settings())) for path in PATHS[:8])
    pictures = [photo.car.inputs[0] for photo in photos]
    backwards: list[Source] = [np.ascontiguousarray(picture[:, ::-1]) for picture in pictures]

    def embed(sources: list[Source], mirror: bool) -> Embedding:
        cars: Cars = "main" if isinstance(sources[0], Path) else "whole"  # a model input is not cropped once more
        rows = embed_stream(bundle, sources, Settings("onnxruntime", mirror=mirror, cars=cars))
        return np.stack([row.embedding for row in all_embedded(rows)])

    mirrored = embed(list(PATHS[:8]), True)
    assert np.array_equal(mirrored, embed(backwards, False))
    assert np.abs(mirrored - embed(list(PATHS[:8]), False)).max() > 0.1


def test_limits_hold_for_every_photo(bundle: Bundle) -> None:
    rows = list(embed_stream(bundle, PATHS[:3], Settings("onnxruntime", limits=Limits(pixels=1000))))
    assert [unreadable(row).failure.reason for row in rows] == ["too large"] * 3


@pytest.mark.parametrize("size", [1407, 1])
def test_a_backbone_of_another_size_than_the_bundle_says_is_refused(bundle: Bundle, size: int) -> None:
    wrong = replace(bundle, manifest=replace(bundle.manifest, embedding=size))
    with pytest.raises(BundleError, match=f"{EMBEDDING}.* says N×{size}"):
        list(embed_stream(wrong, PATHS[:2], Settings("onnxruntime")))


@pytest.mark.parametrize("cars", ["main", "all", "whole"])
def test_invalid_pixels_are_an_error_of_the_caller(bundle: Bundle, cars: Cars) -> None:
    with pytest.raises(ValueError, match="uint8 H×W×3"):
        list(embed_stream(bundle, [np.zeros((5, 5), np.uint8)], Settings("onnxruntime", cars=cars)))


def test_a_reader_that_stops_early_leaves_no_thread_and_little_work_behind(small: Bundle) -> None:
    taken = prepared = 0

    def sources() -> Iterator[Source]:
        nonlocal taken
        for _ in range(500):
            taken += 1
            yield PATHS[0]

    def slow(_: str) -> bool:
        nonlocal prepared
        prepared += 1
        time.sleep(0.002)
        return False

    rows = embed_uncached(small, sources(), Settings(threads=1), slow, runtime=MeanColour())
    next(rows)
    assert any(thread.name.startswith("nameplate-decode") for thread in threading.enumerate())
    del rows
    assert not any(thread.name.startswith("nameplate-decode") for thread in threading.enumerate())
    assert taken > 90
    assert prepared < 50


def test_an_error_of_the_source_reaches_the_caller(small: Bundle) -> None:
    def sources() -> Iterator[Source]:
        yield from [PATHS[0]] * 20
        raise KeyError("of the source")

    with pytest.raises(KeyError, match="of the source"):
        list(embed_stream(small, sources(), Settings(), runtime=MeanColour()))


# --- the cache ----------------------------------------------------------------------------------------

PHOTOS = [Photo(str(path)) for path in PATHS]
NO_PIXELS = Limits(pixels=1)
"""Under these limits no photo can be decoded: only what is in the cache is embedded."""


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAMEPLATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "embeddings"


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load("cars196", runtime="onnxruntime", threads=2)


def shards(cache: Path) -> list[Path]:
    return sorted(cache.glob("*/*"))


def same(a: DatasetEmbeddings, b: DatasetEmbeddings) -> bool:
    return a.photos == b.photos and np.array_equal(a.embeddings, b.embeddings) and np.array_equal(a.hashes, b.hashes)


def test_a_second_run_decodes_nothing(model: Model, own_cache: Path) -> None:
    first = embed_photos(PHOTOS, model)
    second = embed_photos(PHOTOS, model.with_settings(limits=NO_PIXELS))
    assert len(first.photos) == 24
    assert same(first, second)
    assert [photo.width for photo in second.photos] == [320] * 24


def test_without_a_cache_these_limits_refuse_every_photo(model: Model, own_cache: Path) -> None:
    with pytest.raises(DataError, match=r"None of 24 photos can be read.*too large"):
        embed_photos(PHOTOS, model.with_settings(limits=NO_PIXELS))


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "garbage"])
def test_a_damaged_shard_is_dropped_and_computed_again(model: Model, own_cache: Path, damage: str) -> None:
    first = embed_photos(PHOTOS[:4], model)
    [shard] = shards(own_cache)
    data = shard.read_bytes()
    at = data.index(first.embeddings[2].tobytes()) + 7
    flipped = data[:at] + bytes([data[at] ^ 64]) + data[at + 1 :]
    shard.write_bytes({"flip": flipped, "cut": data[:-1], "empty": b"", "garbage": b"\xff" * 99}[damage])
    with pytest.raises(DataError):  # nothing of it is taken
        embed_photos(PHOTOS[:4], model.with_settings(limits=NO_PIXELS))
    assert shards(own_cache) == []
    assert same(embed_photos(PHOTOS[:4], model), first)
    assert shards(own_cache) == [shard]
    assert shard.read_bytes() == data


def test_each_preprocessing_runtime_and_mirroring_has_its_own_cache(model: Model, own_cache: Path) -> None:
    embed_photos(PHOTOS[:2], model)
    manifest = model.bundle.manifest
    padded = replace(model.bundle, manifest=replace(manifest, preprocess=replace(manifest.preprocess, fit="pad")))
    other = [
        (Model(padded, model.settings), False),
        (model, True),
        (Model(replace(model.bundle, manifest=replace(manifest, files=other_backbone(model))), model.settings), False),
    ]
    for number, (changed, mirror) in enumerate(other, start=2):
        with pytest.raises(DataError):
            embed_photos(PHOTOS[:2], changed.with_settings(limits=NO_PIXELS), mirror=mirror)
        embed_photos(PHOTOS[:2], changed, mirror=mirror)
        assert len(list(own_cache.iterdir())) == number


def test_mirrored_photos_are_embedded_in_the_same_pass_and_have_the_same_bits(
    model: Model, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = [photo.with_(split=(None, "train", "test")[n % 3]) for n, photo in enumerate(PHOTOS)]
    trained = [photo for photo in photos if photo.split != "test"]
    plain = embed_photos(photos, model, also_mirrored=True)
    at_hand = embed_photos(trained, model.with_settings(limits=NO_PIXELS), mirror=True)
    assert len(at_hand.photos) == 16
    with pytest.raises(DataError):  # what cannot train was not mirrored
        embed_photos([photos[2]], model.with_settings(limits=NO_PIXELS), mirror=True)
    again = embed_photos(photos, model.with_settings(limits=NO_PIXELS), also_mirrored=True)
    assert same(plain, again)
    monkeypatch.setenv("NAMEPLATE_CACHE", str(tmp_path / "other cache"))
    assert same(plain, embed_photos(photos, model))
    assert same(at_hand, embed_photos(trained, model, mirror=True))
    monkeypatch.setenv("NAMEPLATE_CACHE", str(tmp_path / "third cache"))
    embed_photos(photos, model)  # photos are at hand, and their twins are not
    embed_photos(photos, model, also_mirrored=True)
    assert same(at_hand, embed_photos(trained, model.with_settings(limits=NO_PIXELS), mirror=True))


def other_backbone(model: Model) -> dict[str, File]:
    files = dict(model.bundle.manifest.files)
    return files | {BACKBONE: replace(files[BACKBONE], sha256="0" * 64)}


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs the fast extra")
def test_each_runtime_has_its_own_cache(model: Model, own_cache: Path) -> None:
    embed_photos(PHOTOS[:2], model)
    with pytest.raises(DataError):
        embed_photos(PHOTOS[:2], model.with_settings(runtime="openvino", limits=NO_PIXELS))


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("after", [1, 9, 17])
def test_an_interrupted_run_continues_where_it_stopped(model: Model, own_cache: Path, after: int) -> None:
    def stop(_: str, done: int, all_: int) -> None:
        assert all_ == 24
        if done == after:
            raise Interrupted

    with pytest.raises(Interrupted):
        embed_photos(PHOTOS, model, stop)
    kept = embed_photos(PHOTOS, model.with_settings(limits=NO_PIXELS))
    assert [photo.path for photo in kept.photos] == [photo.path for photo in PHOTOS[:after]]
    assert len(kept.unreadable) == 24 - after
    whole = embed_photos(PHOTOS, model)
    assert len(whole.photos) == 24
    assert np.array_equal(whole.embeddings[:after], kept.embeddings)


def test_a_cache_that_cannot_be_written_is_no_error(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("NAMEPLATE_CACHE", str(tmp_path / "file" / "cache"))
    assert len(embed_photos(PHOTOS[:3], model).photos) == 3


def test_unreadable_photos_are_listed_with_their_reasons(model: Model, own_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(JUNK)
    photos = [PHOTOS[0], Photo(str(tmp_path / "bad.jpg")), Photo(str(tmp_path / "gone.jpg")), PHOTOS[1]]
    found = embed_photos(photos, model)
    assert [photo.path for photo in found.photos] == [PHOTOS[0].path, PHOTOS[1].path]
    assert [(Path(path).name, why.split(":")[0]) for path, why in found.unreadable] == [
        ("bad.jpg", "not a photo"),
        ("gone.jpg", "missing"),
    ]
    assert found.embeddings.shape == (2, EMBEDDING)


def test_an_open_runtime_is_used_as_it_is(bundle: Bundle) -> None:
    runtime = make_runtime("onnxruntime", bundle.backbone, 1)
    broken = replace(bundle, backbone=b"none")
    [row] = embed_stream(broken, [PATHS[0]], Settings(), runtime=runtime)
    assert isinstance(row, EmbeddedPhoto)
