"""The recipes of docs/export.md, run as they are written: they name the car that `Model` names."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

if importlib.util.find_spec("onnx") is None:
    pytest.skip("needs onnx", allow_module_level=True)

from nameplate.demo import photos_folder
from nameplate.fit.one_file import export_one_file
from nameplate.images.decode import decode
from nameplate.model.model import Model
from nameplate.model.pipeline import Settings
from nameplate.types import Prediction

PAGE = (Path(__file__).parents[1] / "docs/export.md").read_text("utf-8")
PHOTO = sorted(photos_folder("test").glob("*/*.jpg"))[7]
MODULES = "NAMEPLATE_NODE_MODULES"
"""Names the folder node_modules in which onnxruntime-web is installed."""

pytestmark = pytest.mark.whole


def recipe(language: str, which: int = 0) -> str:
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found[which]


@pytest.fixture(scope="module")
def answer() -> Prediction:
    return Model.load(runtime="onnxruntime").predict(decode(PHOTO))[0]


def exported(folder: Path, *, with_resize: bool) -> None:
    model = Model.load()
    export_one_file(
        model.bundle, folder / "cars.onnx", [str(PHOTO)], with_resize=with_resize, settings=Settings("onnxruntime")
    )
    shutil.copy(PHOTO, folder / "photo.jpg")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    exported(folder, with_resize=True)
    return folder


def python(folder: Path, code: str) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8", check=True)
    return done.stdout


def test_python_with_resize(whole: Path, answer: Prediction) -> None:
    lines = python(whole, recipe("python")).splitlines()
    found = [(name, float(value)) for value, name in (line.split(" ", 1) for line in lines)]
    assert [name for name, _ in found] == [name for name, _ in answer.top]
    assert np.allclose([value for _, value in found], [value for _, value in answer.top], atol=0.005)


def test_python_with_the_detectors_file(tmp_path: Path, answer: Prediction) -> None:
    exported(tmp_path, with_resize=False)
    printed = python(tmp_path, recipe("python", 1) + "\nprint(probabilities.max())")
    assert float(printed) == pytest.approx(answer.confidence, abs=0.005)


def test_javascript(whole: Path, answer: Prediction) -> None:
    node, modules = shutil.which("node"), os.environ.get(MODULES)
    if node is None or modules is None:
        pytest.skip(f"needs node, and {MODULES}: a node_modules with onnxruntime-web (npm install onnxruntime-web)")
    pixels = decode(PHOTO)
    opaque = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    (whole / "photo.rgba").write_bytes(np.concatenate([pixels, opaque], axis=2).tobytes())
    driver = f"""
const fs = require("fs");
const ort = require({json.dumps(str(Path(modules, "onnxruntime-web")))});
(async () => {{
  const session = await ort.InferenceSession.create(new Uint8Array(fs.readFileSync("cars.onnx")));
  const {{ nameplates }} = JSON.parse(fs.readFileSync("cars.json"));
  const data = new Uint8ClampedArray(fs.readFileSync("photo.rgba"));
  const image = {{ data, width: {pixels.shape[1]}, height: {pixels.shape[0]} }};
  console.log(JSON.stringify(await nameCar(ort, session, nameplates, image)));
}})();
"""
    (whole / "run.cjs").write_text(recipe("js") + driver, "utf-8")
    done = subprocess.run([node, "run.cjs"], cwd=whole, capture_output=True, text=True, encoding="utf-8", check=True)
    found = json.loads(done.stdout)
    assert [name for name, _ in found] == [name for name, _ in answer.top]
    assert np.allclose([value for _, value in found], [value for _, value in answer.top], atol=0.005)
