"""`Model`: from photos to predictions, and which packages importing it does not load."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import nameplate
from nameplate.demo import photos_folder
from nameplate.errors import BundleError, PhotoError, UsageError
from nameplate.images import decode
from nameplate.model.bundle import BACKBONE, Bundle, Manifest, save_bundle
from nameplate.model.model import Model
from nameplate.model.pipeline import Source
from nameplate.model.sources import PhotoLike
from nameplate.types import Limits
from tests.outcomes import all_embedded, unreadable
from tests.shipped import EMBEDDING

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
    probs = model.probabilities(model.embed(PHOTOS), "onnxruntime")
    assert len(answers) == len(PHOTOS) == 16
    for path, answer, row in zip(PHOTOS, answers, probs, strict=True):
        assert answer.photo == str(path)
        assert answer.error is None
        assert len(answer.top) == 5
        assert answer.nameplate == answer.top[0][0] == model.nameplates[int(row.argmax())]
        assert answer.confidence == answer.top[0][1]
        assert [chance for _, chance in answer.top] == pytest.approx(np.sort(row)[:-6:-1].tolist(), rel=1e-4)


def test_probabilities_sum_to_one(model: Model) -> None:
    probs = model.probabilities(model.embed(PHOTOS), "onnxruntime")
    assert probs.shape == (16, 206)
    assert probs.dtype == np.float32
    assert probs.sum(1) == pytest.approx(np.ones(16), abs=1e-5)


def test_the_bundles_temperature_is_used(model: Model) -> None:
    embeddings = model.embed(PHOTOS[:4])
    manifest = replace(model.bundle.manifest, temperature=50.0, temperatures={})
    flat = Model(replace(model.bundle, manifest=manifest), model.settings)
    assert flat.probabilities(embeddings, "onnxruntime").max() < 0.1
    assert (
        flat.probabilities(embeddings, "onnxruntime").argmax(1)
        == model.probabilities(embeddings, "onnxruntime").argmax(1)
    ).all()


def test_the_temperature_is_that_of_the_runtime_that_computed_the_embedding(model: Model) -> None:
    manifest = replace(model.bundle.manifest, temperature=1.0, temperatures={"onnxruntime": 50.0})
    flat = Model(replace(model.bundle, manifest=manifest), replace(model.settings, runtime="auto"))
    embeddings = flat.embed(PHOTOS[:4])
    *read, junk = flat.rows([*PHOTOS[:2], b"no photo"])
    assert [photo.runtime for photo in all_embedded(read)] == ["onnxruntime", "onnxruntime"]
    assert unreadable(junk).failure.reason == "not a photo"
    assert flat.probabilities(embeddings, "onnxruntime").max() < 0.1
    assert flat.probabilities(embeddings, "openvino").max() > 0.1
    assert max(answer.confidence or 1 for answer in flat.predict(PHOTOS[:4])) < 0.1


def test_it_names_real_cars_that_it_was_not_trained_on(model: Model, cars196: Path) -> None:
    import csv

    assert model.bundle.photos is not None
    rows = [row for row in csv.DictReader(model.bundle.photos.decode().splitlines()) if row["split"] != "train"]
    chosen = [row for row in rows if (cars196 / row["path"]).is_file()][::15]
    answers = model.predict([cars196 / row["path"] for row in chosen])
    right = [answer.nameplate == row["label"] for answer, row in zip(answers, chosen, strict=True)]
    assert len(right) > 60
    assert sum(right) / len(right) > 0.65


@pytest.mark.parametrize(("top", "given"), [(1, 1), (3, 3), (206, 206), (1000, 206)])
def test_as_many_nameplates_as_asked_for(model: Model, top: int, given: int) -> None:
    [answer] = model.predict(PHOTOS[:1], top=top)
    assert len(answer.top) == given
    assert len({name for name, _ in answer.top}) == given


def test_an_unreadable_photo_gets_its_reason_and_does_not_affect_others(model: Model, tmp_path: Path) -> None:
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
    assert model.embed([]).shape == (0, EMBEDDING)
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
def test_a_bundle_without_a_head_predicts_nothing_and_says_what_to_do(headless: Model, call: str) -> None:
    said = "'lite0' has no head, so it embeds photos but knows no nameplates.*nameplate train"
    with pytest.raises(BundleError, match=said):
        if call == "predict":
            headless.predict(PHOTOS[:1])
        elif call == "stream":
            next(headless.stream(PHOTOS[:1]))
        elif call == "probabilities":
            headless.probabilities(np.zeros((1, EMBEDDING), np.float32), "onnxruntime")
        else:
            headless.require_head()


def test_a_bundle_without_a_head_embeds(headless: Model, model: Model) -> None:
    assert np.array_equal(headless.embed(PHOTOS[:2]), model.embed(PHOTOS[:2]))
    assert headless.nameplates == ()


def test_a_bundle_saved_and_loaded_answers_the_same(model: Model, tmp_path: Path) -> None:
    bundle = model.bundle
    save_bundle(tmp_path / "copy", bundle)
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
        nameplate.Modell  # type: ignore[attr-defined]  # noqa: B018


HEAVY = ("torch", "timm", "sklearn", "matplotlib", "openvino", "pandas", "onnx", "scipy.optimize", "rich")


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import nameplate", (*HEAVY, "numpy", "onnxruntime", "PIL", "scipy")),
        ("import nameplate.model.model", (*HEAVY, "onnxruntime")),
        (
            "from nameplate import Model; from nameplate.demo import photo\n"
            "Model.load(runtime='onnxruntime').predict([photo()])",
            HEAVY,
        ),
        ("import nameplate.fit.linear_probe", tuple(name for name in HEAVY if name != "scipy.optimize")),
    ],
)
def test_what_is_not_needed_is_not_imported(code: str, absent: tuple[str, ...]) -> None:
    code += "\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "nameplate" in loaded
    assert not loaded & set(absent)


# --- one photo or many, of every usual kind ---------------------------------------------------------------


def as_files(path: Path) -> list[PhotoLike]:
    """A photo as every kind that keeps the file's bytes."""
    data = path.read_bytes()
    return [str(path), path, data, bytearray(data), memoryview(data), io.BytesIO(data), path.open("rb")]


def as_pixels(pixels: NDArray[np.uint8]) -> list[PhotoLike]:
    """RGB pixels as every kind that keeps those."""
    opaque = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    return [pixels, pixels[::-1][::-1], opaque, Image.fromarray(pixels), Image.fromarray(pixels).convert("RGBA")]


@pytest.mark.filterwarnings("ignore:unclosed file")
def test_a_single_photo_of_any_kind_gets_one_answer(model: Model) -> None:
    path = PHOTOS[3]
    [expected] = model.predict([path])
    for photo in as_files(path):
        [answer] = model.predict(photo)
        assert replace(answer, photo=expected.photo) == expected
        assert answer.photo == (str(path) if isinstance(photo, (str, Path)) else "photo 1")
    pixels = decode(path)
    [expected] = model.predict([pixels])
    for photo in as_pixels(pixels):
        assert model.predict(photo) == [expected]
        assert list(model.stream(photo)) == [expected]
        assert model.embed(photo).shape == (1, EMBEDDING)
        assert model.verify(photo, "Audi").photos[0][0].nameplate == expected.nameplate


def test_many_photos_of_all_kinds_get_an_answer_each(model: Model) -> None:
    pixels = decode(PHOTOS[3])
    [expected] = model.predict(pixels)
    answers = model.predict(as_pixels(pixels))
    assert [answer.photo for answer in answers] == [f"photo {number}" for number in range(1, 6)]
    assert {replace(answer, photo="") for answer in answers} == {replace(expected, photo="")}
    assert len(model.predict(np.stack([pixels, pixels]))) == 2
    assert model.predict(photo for photo in (pixels,)) == [expected]
    assert len(model.predict({PHOTOS[3]: 1})) == 1


def test_grey_is_grey_in_all_three_and_what_is_transparent_is_white(model: Model) -> None:
    grey = decode(PHOTOS[3])[:, :, 1]
    rgb = np.dstack([grey] * 3)
    expected = model.embed(rgb)
    for photo in (grey, grey[:, :, None], Image.fromarray(grey)):
        assert np.array_equal(model.embed(photo), expected)
    clear = np.dstack([rgb, np.zeros_like(grey)])
    assert np.array_equal(model.embed(clear), model.embed(np.full_like(rgb, 255)))


def test_a_pillow_image_is_turned_as_its_exif_says(model: Model, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.open(PHOTOS[3]).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        assert np.array_equal(model.embed(image), model.embed(tmp_path / "turned.png"))


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (np.zeros((8, 8, 3)), r"not a photo: the array is float64 8×8×3; give uint8 .*\(array \* 255\)\.round"),
        (np.zeros((8, 8, 3), np.float32), "not a photo: the array is float32"),
        (np.zeros((8, 8), bool), "not a photo: the array is bool 8×8; give uint8"),
        (np.zeros((8, 8, 3), np.int64), "not a photo: the array is int64"),
        (np.zeros((3, 8, 8), np.uint8), r"not a photo: the array is 3×8×8; give .*array\.transpose\(1, 2, 0\)"),
        (np.zeros((8, 8, 2), np.uint8), "not a photo: the array is 8×8×2"),
        (np.zeros((8,), np.uint8), "not a photo: the array is 8;"),
        (np.zeros((0, 8, 3), np.uint8), "empty: the array is 0×8×3"),
        (Image.new("RGB", (0, 5)), "empty: the image is 0×5"),
        (io.StringIO("text"), "not a photo: the file is opened as text; open it with 'rb'"),
        (io.BytesIO(b""), r"empty: nothing is left to read of the file; seek\(0\)"),
        (b"", "empty"),
        (None, "not a photo: this is of type NoneType; give a path"),
        (7, "not a photo: this is of type int"),
        (["a.jpg"], "not a photo: this is of type list"),
    ],
)
def test_a_bad_photo_gets_its_row_and_does_not_stop_others(model: Model, bad: Any, why: str) -> None:
    first, answer, last = model.predict([PHOTOS[0], bad, PHOTOS[1]])
    assert re.match(why, str(answer.error)), answer.error
    assert (answer.photo, answer.nameplate, answer.verdict) == ("photo 2", None, "unreadable")
    assert first.error is None
    assert last.error is None
    with pytest.raises(PhotoError, match="photo 2"):
        model.embed([PHOTOS[0], bad])


def test_a_closed_or_truncated_file_gets_its_row(model: Model, tmp_path: Path) -> None:
    with PHOTOS[0].open("rb") as closed:
        pass
    (tmp_path / "cut.jpg").write_bytes(PHOTOS[0].read_bytes()[:3000])
    with Image.open(tmp_path / "cut.jpg") as cut, PHOTOS[0].open(encoding="utf-8") as text:
        found = model.predict([closed, cut, text])  # type: ignore[list-item]
    assert [str(answer.error).split(":")[0] for answer in found] == ["missing", "damaged", "not a photo"]


def test_a_pillow_image_of_more_pixels_than_allowed_is_too_large(model: Model) -> None:
    small = model.with_settings(limits=Limits(pixels=99))
    assert str(small.predict(Image.new("RGB", (10, 10)))[0].error) == "too large: 10×10 = 100 pixels, the limit is 99"
    few = model.with_settings(limits=Limits(bytes=99))
    assert "too large" in str(few.predict(io.BytesIO(PHOTOS[0].read_bytes()))[0].error)


@pytest.mark.parametrize("photos", [7, None, 1.5, object()])
@pytest.mark.parametrize("call", ["predict", "stream", "embed", "rows"])
def test_other_arguments_are_a_usage_error(model: Model, photos: Any, call: str) -> None:
    with pytest.raises(UsageError, match="is no photo and no list of photos. Give a path"):
        getattr(model, call)(photos)


@pytest.mark.parametrize("top", [0, -1])
@pytest.mark.parametrize("call", ["predict", "stream"])
def test_fewer_than_one_nameplate_is_a_usage_error(model: Model, top: int, call: str) -> None:
    with pytest.raises(UsageError, match=f"top is {top}"):
        getattr(model, call)(PHOTOS[:1], top=top)


def test_fewer_than_one_thread_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="threads is 0"):
        Model.load(threads=0)


USER = """
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

import nameplate
from nameplate import Model, Prediction

model: Model = Model.load("cars196", runtime="onnxruntime")
one: list[Prediction] = model.predict("photo.jpg")
many: Iterator[Prediction] = model.stream([Path("a.jpg"), b"", np.zeros((2, 2, 3), np.uint8), Image.new("L", (2, 2))])
with open("photo.jpg", "rb") as file:
    model.embed(file).mean()
reveal_type(model.predict([Path("a.jpg")])[0].confidence)
reveal_type(model.verify(["a.jpg"], "Audi A4").verdict)
reveal_type(nameplate.decode("a.jpg").shape)
model.predict(5)
nameplate.Modell
"""


def test_a_users_type_checker_sees_the_types(tmp_path: Path) -> None:
    """In an environment of its own, where the package lies as pip puts it."""
    pytest.importorskip("mypy")
    packages = tmp_path / "venv" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    venv.create(tmp_path / "venv", symlinks=True)
    shutil.copytree(Path(nameplate.__file__).parent, packages / "nameplate", ignore=shutil.ignore_patterns("*.onnx"))
    (packages / "others.pth").write_text(str(Path(np.__file__).parents[1]))
    (tmp_path / "user.py").write_text(USER)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    options = ["--strict", "--no-incremental", "--config-file=", "--python-executable", "venv/bin/python"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "user.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line.partition(": ")[2] for line in done.stdout.splitlines()]
    lines = USER.splitlines()
    numbers = [int(line.split(":")[1]) for line in done.stdout.splitlines()[:-1]]
    assert [lines[number - 1] for number in numbers] == lines[-5:], done.stdout
    assert "float | None" in said[0]
    assert "Literal['accept'" in said[1]
    assert "tuple" in said[2]
    assert "arg-type" in said[3]
    assert "attr-defined" in said[4]
