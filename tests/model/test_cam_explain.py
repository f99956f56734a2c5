"""`explain`: the map shows what the answer depends on, and a claimed nameplate is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nameplate import Model
from nameplate.demo import photos_folder
from nameplate.errors import BundleError, PhotoError, UsageError
from nameplate.images import decode
from nameplate.model.cam import evidence_map, explain, find_nameplate, hot_region, photo_maps
from nameplate.model.pipeline import GREY
from tests.outcomes import all_mapped


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load(threads=1, runtime="onnxruntime")


def render(number: int = 0) -> Path:
    return sorted(photos_folder("test").glob("*/*.jpg"))[number]


def test_hiding_the_hot_region_costs_more_than_hiding_another_one(model: Model) -> None:
    random = np.random.default_rng(20)
    mapped = all_mapped(photo_maps(model, sorted(photos_folder("test").glob("*/*.jpg"))[::3]))
    whole, falls = model.with_settings(cars="whole"), []  # a model input is not to be cropped once more
    for each in mapped:
        probs = model.probabilities(each.places.mean((0, 1))[None], "onnxruntime")[0]
        named = int(probs.argmax())
        box = hot_region(evidence_map(model, each.places, named, "onnxruntime"))
        height, width = each.model_input.shape[:2]
        across, down = round((box.right - box.left) * width), round((box.bottom - box.top) * height)
        corners = [(round(box.left * width), round(box.top * height))]
        corners += [(int(random.integers(width - across)), int(random.integers(height - down))) for _ in range(2)]
        painted = []
        for left, top in corners:
            picture = each.model_input.copy()
            picture[top : top + down, left : left + across] = GREY
            painted.append(picture)
        after = model.probabilities(whole.embed(painted), "onnxruntime")[:, named]
        falls.append(probs[named] - after)
    hot, *others = np.array(falls).T
    assert len(hot) > 10
    assert hot.mean() > 1.5 * np.mean(others)


def test_an_explanation_agrees_with_the_prediction(model: Model) -> None:
    [answer] = model.predict([render()])
    found = explain(model, render(), model.nameplates[100])
    assert (found.predicted.nameplate, found.photo) == (answer.nameplate, str(render()))
    assert [name for name, _ in found.top] == [name for name, _ in answer.top]
    assert found.predicted.confidence == pytest.approx(answer.confidence, abs=1e-5)
    assert found.claimed is not None
    assert found.claimed.nameplate == model.nameplates[100]
    assert 0 <= found.claimed.confidence < found.predicted.confidence
    assert not np.allclose(found.claimed.evidence, found.predicted.evidence)
    assert found.nearest is None
    whole = decode(render())
    assert (found.height, found.width) == whole.shape[:2]
    assert found.predicted.region is not None
    left, top, right, bottom = found.predicted.region
    assert 0 <= left < right <= found.width
    assert 0 <= top < bottom <= found.height
    seen = (found.part[2] - found.part[0]) * (found.part[3] - found.part[1]) * found.width * found.height
    assert (right - left) * (bottom - top) == pytest.approx(0.15 * seen, rel=0.1)


def test_confidence_and_evidence_use_the_temperature_of_the_runtime_that_gives_maps(model: Model) -> None:
    """Whatever ran before, and whatever the bundle says of other runtimes: an explanation agrees with `identify`."""
    manifest = replace(model.bundle.manifest, temperature=0.02, temperatures={"onnxruntime": 5.0, "openvino": 0.02})
    bundle = replace(model.bundle, manifest=manifest)
    fresh = explain(Model(bundle, replace(model.settings, runtime="auto")), render(), model.nameplates[100])
    [answer] = Model(bundle, model.settings).predict([render()])
    assert answer.confidence is not None
    assert answer.confidence < 0.9
    assert fresh.predicted.confidence == pytest.approx(answer.confidence, abs=1e-5)
    # at so high a temperature many nameplates speak against the named one; at 0.02 only the second one would
    [mapped] = all_mapped(photo_maps(model, [render()]))
    [number] = [place for place, name in enumerate(model.nameplates) if name == fresh.predicted.nameplate]
    warm = Model(bundle, model.settings)
    assert np.array_equal(fresh.predicted.evidence, evidence_map(warm, mapped.places, number, "onnxruntime"))
    assert not np.allclose(fresh.predicted.evidence, evidence_map(warm, mapped.places, number, "openvino"))


def test_a_photo_on_its_side_is_explained_upright(model: Model, tmp_path: Path) -> None:
    upright = decode(render())
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(np.rot90(upright)).save(tmp_path / "side.jpg", quality=97, exif=exif)
    found, straight = explain(model, tmp_path / "side.jpg"), explain(model, render())
    assert (found.width, found.height) == (straight.width, straight.height)
    assert found.pixels.shape == straight.pixels.shape
    assert np.abs(found.pixels.astype(int) - straight.pixels).mean() < 4
    assert found.predicted.nameplate == straight.predicted.nameplate


def test_a_nameplate_is_found_by_name_or_id(model: Model) -> None:
    name = model.nameplates[33]
    assert find_nameplate(model, name) == find_nameplate(model, name.upper()) == 33
    assert find_nameplate(model, model.bundle.manifest.ids[33]) == 33
    assert model.nameplates[find_nameplate(model, "bmw m3")] == "BMW M3 Coupe 2012"
    with pytest.raises(UsageError, match="may be any of 13 nameplates, such as BMW"):
        find_nameplate(model, "bmw")
    with pytest.raises(UsageError, match=r"knows no nameplate 'BMW 3 Series Sedn 2012'. Did you mean 'BMW 3"):
        find_nameplate(model, "BMW 3 Series Sedn 2012")


def test_an_unreadable_photo_has_its_reason(model: Model, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    for path in (tmp_path / "bad.jpg", tmp_path / "none.jpg", tmp_path):
        with pytest.raises(PhotoError):
            explain(model, path)


def test_one_nameplate_has_no_other_to_be_compared_with(model: Model) -> None:
    bundle = model.bundle
    assert bundle.weight is not None
    assert bundle.bias is not None
    manifest = replace(bundle.manifest, nameplates=("A",), ids=("A",))
    alone = Model(replace(bundle, manifest=manifest, weight=bundle.weight[:, :1], bias=bundle.bias[:1]), model.settings)
    with pytest.raises(BundleError, match="knows only one nameplate"):
        explain(alone, render())
    with pytest.raises(BundleError, match="no head"):
        explain(Model(replace(bundle, weight=None, bias=None), model.settings), render())
