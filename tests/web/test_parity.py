"""A site is held against its bundle before it is written: the real engine, in Node.js."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from safetensors.numpy import load, save

if importlib.util.find_spec("onnx") is None:
    pytest.skip("needs onnx", allow_module_level=True)

from nameplate.demo import photos_folder
from nameplate.errors import NameplateError
from nameplate.model.bundle import Bundle, save_bundle
from nameplate.model.pipeline import Settings
from nameplate.web.parity import compare_site
from nameplate.web.site import export_site, site_files
from tests.fit.tiny_backbone import random_bundle

PHOTOS = [str(path) for path in sorted(photos_folder("test").glob("*/000.jpg"))[:2]]
SETTINGS = Settings("onnxruntime")
HEAD = "model/head.safetensors"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return save_bundle(tmp_path_factory.mktemp("bundles") / "tiny", random_bundle())


def test_a_site_that_answers_otherwise_is_not_written(
    bundle: Bundle, tmp_path: Path, runtime_of_sites: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = site_files(bundle, runtime_of_sites)
    head = load(files[HEAD])
    wrong = {**files, HEAD: save({**head, "weight": -head["weight"]})}
    monkeypatch.setattr("nameplate.web.site.site_files", lambda *_: wrong)
    with pytest.raises(NameplateError, match=r"The site does not answer as 'tiny' does: \d of 2 photos .* nothing is"):
        export_site(bundle, tmp_path / "site", PHOTOS, settings=SETTINGS)
    assert not list(tmp_path.iterdir())


def test_an_engine_that_fails_says_why(bundle: Bundle, runtime_of_sites: dict[str, bytes]) -> None:
    files = site_files(bundle, runtime_of_sites) | {"engine/pipeline.js": b""}
    with pytest.raises(NameplateError, match=r"its engine failed in Node\.js \(SyntaxError: .*'identify'"):
        compare_site(bundle, files, PHOTOS, SETTINGS)


def test_without_node_it_says_what_to_do(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NameplateError, match=r"Node\.js, which runs its engine, is missing\. Install it"):
        compare_site(bundle, {}, PHOTOS, SETTINGS)
