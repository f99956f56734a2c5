"""`Model`: photos in, predictions out; and what importing it does not load."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import nameplate
from nameplate.demo import photos_folder
from nameplate.errors import BundleError, PhotoError, UsageError
from nameplate.models.bundle import BACKBONE, Bundle, Manifest, save_bundle
from nameplate.models.embedding import Source
from nameplate.models.model import Model
from nameplate.photos import decode
from nameplate.types import Limits

PHOTOS = sorted(photos_folder("test").glob("*/*.jpg"))[::12][:16]


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load(runtime="onnxruntime", threads=2)


@pytest.fixture(scope="module")
def headless(model: Model) -> Model:
    manifest: Manifest = replace(model.bundle.manifest, name="lite0", nameplates=(), ids=())
    return Model(Bundle(manifest, model.bundle.backbone), model.settings)


def test_an_answer_holds_the_best_nameplates_best_first(model: Model) -> None:
    answers = model.predict(PHOTOS)
    chances = model.probabilities(model.embed(PHOTOS))
    assert len(answers) == len(PHOTOS) == 16
    for path, answer, row in zip(PHOTOS, answers, chances, strict=True):
        assert answer.photo == str(path)
        assert answer.error is None
        assert len(answer.top) == 5
        assert answer.nameplate == answer.top[0][0] == model.nameplates[int(row.argmax())]
        assert answer.confidence == answer.top[0][1]
        assert [chance for _, chance in answer.top] == pytest.approx(np.sort(row)[:-6:-1].tolist(), rel=1e-4)


def test_probabilities_sum_to_one(model: Model) -> None:
    chances = model.probabilities(model.embed(PHOTOS))
    assert chances.shape == (16, 196)
    assert chances.dtype == np.float32
    assert chances.sum(1) == pytest.approx(np.ones(16), abs=1e-5)


def test_the_bundles_temperature_is_used(model: Model) -> None:
    embeddings = model.embed(PHOTOS[:4])
    manifest = replace(model.bundle.manifest, temperature=50.0, temperatures={})
    flat = Model(replace(model.bundle, manifest=manifest), model.settings)
    assert flat.probabilities(embeddings).max() < 0.1
    assert (flat.probabilities(embeddings).argmax(1) == model.probabilities(embeddings).argmax(1)).all()


def test_the_temperature_is_that_of_the_runtime_that_computed_the_embedding(model: Model) -> None:
    manifest = replace(model.bundle.manifest, temperature=1.0, temperatures={"onnxruntime": 50.0})
    flat = Model(replace(model.bundle, manifest=manifest), replace(model.settings, runtime="auto"))
    embeddings = flat.embed(PHOTOS[:4])
    assert [row.runtime for row in flat.rows([*PHOTOS[:2], b"no photo"])] == ["onnxruntime", "onnxruntime", ""]
    assert flat.probabilities(embeddings).max() < 0.1
    assert flat.probabilities(embeddings, "openvino").max() > 0.1
    assert max(answer.confidence or 1 for answer in flat.predict(PHOTOS[:4])) < 0.1


def test_it_names_real_cars_that_it_was_not_trained_on(model: Model, cars196: Path) -> None:
    import csv

    assert model.bundle.photos is not None
    rows = [row for row in csv.DictReader(model.bundle.photos.decode().splitlines()) if row["split"] != "train"]
    chosen = rows[::15]
    answers = model.predict([cars196 / row["path"] for row in chosen])
    right = [answer.nameplate == row["label"] for answer, row in zip(answers, chosen, strict=True)]
    assert len(right) > 60
    assert sum(right) / len(right) > 0.65


@pytest.mark.parametrize(("top", "given"), [(1, 1), (3, 3), (196, 196), (1000, 196)])
def test_as_many_nameplates_as_asked_for(model: Model, top: int, given: int) -> None:
    [answer] = model.predict(PHOTOS[:1], top=top)
    assert len(answer.top) == given
    assert len({name for name, _ in answer.top}) == given


def test_an_unreadable_photo_gets_its_reason_and_spoils_no_other(model: Model, tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(PHOTOS[0].read_bytes()[:3000])
    photos: list[Source] = [PHOTOS[0], tmp_path / "cut.jpg", "gone.jpg", b"", PHOTOS[1]]
    answers = model.predict(photos)
    assert [answer.photo for answer in answers] == [
        str(PHOTOS[0]),
        str(tmp_path / "cut.jpg"),
        "gone.jpg",
        "photo 4",
        str(PHOTOS[1]),
    ]
    assert [str(answer.error).split(":")[0] for answer in answers] == [
        "None",
        "truncated",
        "missing",
        "empty",
        "None",
    ]
    for answer in answers[1:4]:
        assert (answer.nameplate, answer.confidence, answer.top) == (None, None, ())
    assert [answers[0], answers[4]] == model.predict([PHOTOS[0], PHOTOS[1]])


def test_embedding_an_unreadable_photo_raises_its_error(model: Model) -> None:
    with pytest.raises(PhotoError, match=r"missing: gone\.jpg: cannot open") as caught:
        model.embed([PHOTOS[0], "gone.jpg"])
    assert caught.value.reason == "missing"
    with pytest.raises(PhotoError, match="empty: photo 2: "):
        model.embed([PHOTOS[0], b""])


def test_embedding_nothing_gives_no_rows_of_the_right_size(model: Model) -> None:
    assert model.embed([]).shape == (0, 1604)
    assert model.embed([]).dtype == np.float32
    assert model.predict([]) == []


def test_paths_bytes_and_pixels_get_the_same_answer(model: Model) -> None:
    path = PHOTOS[2]
    photos: list[Source] = [path, path.read_bytes(), decode(path, at_least=(192, 288))]
    first, *others = model.predict(photos)
    for number, other in enumerate(others, start=2):
        assert replace(other, photo=first.photo) == first
        assert other.photo == f"photo {number}"


def test_a_stream_answers_as_predict_does_and_before_all_photos_are_read(model: Model) -> None:
    taken = 0

    def photos() -> Iterator[Source]:
        nonlocal taken
        for path in PHOTOS * 40:
            taken += 1
            yield path

    stream = model.stream(photos())
    first = next(stream)
    assert taken < 300
    stream.close()  # type: ignore[attr-defined]
    assert replace(first, confidence=None, top=()) == replace(model.predict(PHOTOS[:1])[0], confidence=None, top=())


@pytest.mark.parametrize("call", ["predict", "stream", "probabilities", "require_head"])
def test_a_bundle_without_a_head_names_nothing_and_says_what_to_do(headless: Model, call: str) -> None:
    with pytest.raises(BundleError, match="'lite0' embeds photos but names no cars.*nameplate train"):
        if call == "predict":
            headless.predict(PHOTOS[:1])
        elif call == "stream":
            next(headless.stream(PHOTOS[:1]))
        elif call == "probabilities":
            headless.probabilities(np.zeros((1, 1604), np.float32))
        else:
            headless.require_head()


def test_a_bundle_without_a_head_embeds(headless: Model, model: Model) -> None:
    assert np.array_equal(headless.embed(PHOTOS[:2]), model.embed(PHOTOS[:2]))
    assert headless.nameplates == ()


def test_a_bundle_saved_and_loaded_answers_the_same(model: Model, tmp_path: Path) -> None:
    bundle = model.bundle
    assert bundle.weight is not None
    assert bundle.bias is not None
    head = bundle.weight, bundle.bias
    save_bundle(tmp_path / "copy", bundle.manifest, bundle.backbone, head, known=bundle.known)
    again = Model.load(tmp_path / "copy", runtime="onnxruntime", threads=2)
    assert again.predict(PHOTOS[:3]) == model.predict(PHOTOS[:3])
    assert (tmp_path / "copy" / BACKBONE).read_bytes() == bundle.backbone


def test_the_number_of_threads_changes_no_answer(model: Model) -> None:
    one = model.with_settings(threads=1)
    for mine, other in zip(one.predict(PHOTOS), model.predict(PHOTOS), strict=True):
        assert mine.nameplate == other.nameplate
        assert mine.confidence == pytest.approx(other.confidence, abs=1e-4)


def test_one_model_serves_many_threads(model: Model) -> None:
    expected = model.embed(PHOTOS)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda path: model.embed([path])[0], PHOTOS))
    assert np.abs(np.stack(found) - expected).max() < 1e-3


def test_limits_are_kept(model: Model) -> None:
    [answer] = model.with_settings(limits=Limits(bytes=100)).predict(PHOTOS[:1])
    assert (answer.error or "").startswith("too large")


def test_auto_embeds_a_large_job_nearly_as_onnx_runtime_does(model: Model) -> None:
    """Whatever it chose: by its own rule no embedding is further away than a cosine of 0.99."""
    many = PHOTOS * 3
    auto, exact = Model.load(threads=2).embed(many), model.embed(many)
    lengths = np.linalg.norm(auto, axis=1) * np.linalg.norm(exact, axis=1)
    assert ((auto * exact).sum(1) / lengths).min() > 0.99


def test_an_unknown_runtime_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="Unknown runtime 'gpu'"):
        Model.load(runtime="gpu").predict(PHOTOS[:1])


def test_a_model_is_loaded_by_the_packages_own_name() -> None:
    assert nameplate.Model is Model
    with pytest.raises(AttributeError, match="no attribute 'Modell'"):
        nameplate.Modell  # noqa: B018


HEAVY = ("torch", "timm", "sklearn", "matplotlib", "openvino", "pandas", "onnx", "scipy.optimize", "rich")


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import nameplate", (*HEAVY, "numpy", "onnxruntime", "PIL", "scipy")),
        ("import nameplate.models.model", (*HEAVY, "onnxruntime")),
        (
            "from nameplate import Model; from nameplate.demo import photo\n"
            "Model.load(runtime='onnxruntime').predict([photo()])",
            HEAVY,
        ),
        ("import nameplate.training.frozen", tuple(name for name in HEAVY if name != "scipy.optimize")),
    ],
)
def test_what_is_not_needed_is_not_imported(code: str, absent: tuple[str, ...]) -> None:
    code += "\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "nameplate" in loaded
    assert not loaded & set(absent)
