"""The bundle on disk: it is written completely or not at all, and a damaged one is refused."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from safetensors.numpy import save as save_tensors
from scipy.special import softmax

import nameplate
from nameplate.demo import photos_folder
from nameplate.errors import BundleError, NameplateError
from nameplate.model.bundle import (
    BACKBONE,
    DIGEST,
    HEAD,
    KNOWN,
    MANIFEST,
    PHOTOS,
    SCHEMA,
    Bfloat16Check,
    Bundle,
    File,
    Manifest,
    load_bundle,
    save_bundle,
    shipped,
)
from nameplate.model.model import Model
from nameplate.model.ood import fit_detector
from nameplate.model.pipeline import Settings
from nameplate.model.verdict import Thresholds
from nameplate.model.verification import MOST_PHOTOS, RATES, ClaimThresholds
from nameplate.storage import sha256
from nameplate.types import Preprocess
from tests.shipped import EMBEDDING, LIKENESS

MANIFEST_3 = Manifest(
    schema=SCHEMA,
    name="three",
    nameplates=("Лада Веста", "Audi S4 2007", "audi s4 2012"),
    ids=("0", "17", "4"),
    preprocess=Preprocess(96, 128, "pad", "lanczos"),
    embedding=4,
    temperature=0.7,
    files={},
    bfloat16=Bfloat16Check(1057, 0.77, 0.768),
    provenance={"recipe": {"name": "head", "seed": 20}, "metrics": None},
)
BACKBONE_BYTES = b"\x08\x08\x12\x04test"  # a ModelProto of a version and a producer's name
WEIGHT = (np.arange(12).reshape(4, 3) / 7).astype(np.float32)
BIAS = np.array([0.5, -1, 0], np.float32)
PHOTOS_BYTES = "path,label,split\na.jpg,Лада Веста,train\n".encode()
KNOWN_3 = fit_detector(np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32), np.arange(60) % 3)
CUTS = [[0.5] * len(RATES)] * MOST_PHOTOS


def write(folder: Path, manifest: Manifest = MANIFEST_3, weight: Any = WEIGHT, bias: Any = BIAS) -> Path:
    save_bundle(folder, Bundle(manifest, BACKBONE_BYTES, weight, bias, PHOTOS_BYTES, KNOWN_3), overwrite=True)
    return folder


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change what bundle.json says and seal it again, as one who means harm would."""
    path = folder / MANIFEST
    said = json.loads(path.read_text())
    change(said)
    said.pop(DIGEST)
    said[DIGEST] = sha256(msgspec.json.encode(said, order="deterministic"))
    path.write_text(json.dumps(said))
    return folder


def what_computes(bundle: Bundle) -> tuple[object, ...]:
    assert bundle.weight is not None
    assert bundle.bias is not None
    manifest = replace(bundle.manifest, provenance={})
    return manifest, bundle.backbone, bundle.weight.tobytes(), bundle.bias.tobytes(), bundle.photos


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("pristine") / "three")


def test_what_was_saved_is_loaded_again(tmp_path: Path) -> None:
    cuts = tuple(map(tuple, CUTS))
    claims = ClaimThresholds(60, cuts, cuts, {"alike": cuts})
    manifest = replace(
        MANIFEST_3,
        makes=("Лада", "Audi", "Audi"),
        thresholds=Thresholds(60, 0.1, 0.2, near=3.0, far=2.0),
        claims=claims,
    )
    saved = save_bundle(tmp_path / "b", Bundle(manifest, BACKBONE_BYTES, WEIGHT, BIAS, PHOTOS_BYTES, KNOWN_3))
    loaded = load_bundle(tmp_path / "b")
    assert what_computes(loaded) == what_computes(saved)
    assert loaded.manifest == saved.manifest
    assert loaded.manifest.nameplates == MANIFEST_3.nameplates
    assert np.array_equal(loaded.weight, WEIGHT)  # type: ignore[arg-type]
    assert loaded.digest == sha256(BACKBONE_BYTES)
    assert {file.name for file in (tmp_path / "b").iterdir()} == {MANIFEST, BACKBONE, HEAD, PHOTOS, KNOWN}
    assert loaded.ood_detector is not None
    for name, tensor in KNOWN_3.tensors.items():
        assert np.array_equal(loaded.ood_detector.tensors[name], tensor)


def test_a_bundle_without_a_head_is_loaded_again(tmp_path: Path) -> None:
    save_bundle(tmp_path / "b", Bundle(replace(MANIFEST_3, nameplates=(), ids=()), BACKBONE_BYTES))
    loaded = load_bundle(tmp_path / "b")
    assert (loaded.weight, loaded.bias, loaded.photos) == (None, None, None)
    assert set(loaded.manifest.files) == {BACKBONE}


def test_a_head_with_another_memory_layout_is_stored_the_same(tmp_path: Path) -> None:
    turned = np.asfortranarray(WEIGHT)
    strided = np.repeat(BIAS, 2)[::2]
    write(tmp_path / "b", weight=turned, bias=strided)
    loaded = load_bundle(tmp_path / "b")
    assert np.array_equal(loaded.weight, WEIGHT)  # type: ignore[arg-type]
    assert np.array_equal(loaded.bias, BIAS)  # type: ignore[arg-type]


def test_provenance_with_tuples_and_floats_survives(tmp_path: Path) -> None:
    provenance = {"interval": (0.1, 0.30000000000000004), "n": 1 << 40, "none": None, "e": 1e-300}
    write(tmp_path / "b", replace(MANIFEST_3, provenance=provenance))
    found = load_bundle(tmp_path / "b").manifest.provenance
    assert found == {**provenance, "interval": [0.1, 0.30000000000000004]}


def test_a_bundle_with_another_file_layout_loads(pristine: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(pristine, tmp_path / "b")
    said = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps(dict(reversed(said.items())), indent=7))
    assert what_computes(load_bundle(copy)) == what_computes(load_bundle(pristine))


def test_the_bundle_that_ships_loads_by_its_name() -> None:
    bundle = load_bundle("cars196")
    assert len(bundle.manifest.nameplates) == 206
    assert bundle.weight is not None
    assert bundle.weight.shape == (EMBEDDING, 206)
    assert list(shipped()) == ["cars196"]


def test_the_likeness_is_what_the_bundle_says_of_the_nameplates_and_changes_no_probability() -> None:
    model = Model.load("cars196", runtime="onnxruntime")
    found = model.embed(sorted(photos_folder("train").rglob("*.jpg"))[:8])
    likeness = found[:, -LIKENESS:]
    expected = softmax(model.logits(found)[:, :LIKENESS] / 1.5, axis=1)
    assert likeness**2 / (likeness**2).sum(1, keepdims=True) == pytest.approx(expected, abs=2e-3)
    others = found.copy()
    others[:, -LIKENESS:] = found[::-1, -LIKENESS:]
    assert np.abs(likeness[::-1] - likeness).max() > 1
    assert np.array_equal(model.logits(others), model.logits(found))
    detector = model.bundle.ood_detector
    assert detector is not None
    distances = [detector.distances(each)[1] for each in (others, found)]
    assert distances[0] == pytest.approx(distances[1], rel=0.1), "it weighs little"
    assert np.abs(distances[0] - distances[1]).max() > 0.01, "and is seen"
    odds = [detector.non_car_log_odds(each) for each in (others, found)]
    assert odds[0] is not None
    assert odds[1] is not None
    assert np.array_equal(odds[0], odds[1])


def test_a_folder_of_photos_of_the_same_name_does_not_hide_the_bundle_that_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cars196" / "Audi S4").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert load_bundle("cars196").manifest.name == "cars196"


def test_a_bundle_of_the_user_takes_precedence_over_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "cars196")
    monkeypatch.chdir(tmp_path)
    assert load_bundle("cars196").manifest.name == "three"


@pytest.mark.parametrize("name", ["no-such", "", "a\0b", "x" * 5000, "../cars196", "cars196/bundle.json", "é"])
def test_an_unknown_name_is_refused_and_the_shipped_ones_are_listed(name: str) -> None:
    with pytest.raises(BundleError, match="ships: cars196"):
        load_bundle(name)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no bundle\.json"):
        load_bundle(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'"text"',
        b"\xff\xfe\x00",
        b'{"schema": 1}',
        b'{"schema": "1"}',
        b'{"schema": 1e400}',
        b'{"schema": 1, "x": ' + b"[" * 100_000,
        b"\x00" * 100,
    ],
)
def test_an_invalid_manifest_is_refused(pristine: Path, tmp_path: Path, text: bytes) -> None:
    copy = shutil.copytree(pristine, tmp_path / "b")
    (copy / MANIFEST).write_bytes(text)
    with pytest.raises(BundleError, match=r"bundle\.json' is damaged"):
        load_bundle(copy)


@pytest.mark.parametrize("schema", [SCHEMA + 1, 99, 10**30])
def test_a_newer_schema_is_refused_whatever_else_it_says(tmp_path: Path, schema: int) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps({"schema": schema, "tensors": []}))
    with pytest.raises(BundleError, match=rf"newer Nameplate \(schema {schema}.*pip install -U nameplate"):
        load_bundle(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", 0),
        ("schema", -1),
        ("name", 5),
        ("nameplates", "abc"),
        ("nameplates", ["a", "b", 3]),
        ("nameplates", ["a", "b"]),
        ("nameplates", ["a", "b", "a"]),
        ("nameplates", []),
        ("ids", ["0", "1"]),
        ("ids", ["0", "1", "2", "3"]),
        ("ids", None),
        ("preprocess", None),
        ("preprocess", {"height": 0, "width": 5, "fit": "pad", "interpolation": "bicubic"}),
        ("preprocess", {"height": 5, "width": -1, "fit": "pad", "interpolation": "bicubic"}),
        ("preprocess", {"height": 4097, "width": 5, "fit": "pad", "interpolation": "bicubic"}),
        ("preprocess", {"height": 5, "width": 10**9, "fit": "pad", "interpolation": "bicubic"}),
        ("preprocess", {"height": 5, "width": 5, "fit": "zoom", "interpolation": "bicubic"}),
        ("preprocess", {"height": 5, "width": 5, "fit": "pad", "interpolation": "nearest"}),
        ("preprocess", {"height": 5.5, "width": 5, "fit": "pad", "interpolation": "bicubic"}),
        ("embedding", 0),
        ("embedding", 5),
        ("embedding", "4"),
        ("temperature", 0),
        ("temperature", -0.5),
        ("temperature", None),
        ("temperatures", {"onnxruntime": 0}),
        ("temperatures", {"openvino": "1"}),
        ("temperatures", [1.0]),
        ("files", {}),
        ("files", {"head.safetensors": {"sha256": "", "bytes": 0}}),
        ("bfloat16", {"photos": 1}),
        ("bfloat16", 3),
        ("provenance", []),
        ("makes", ["Лада"]),
        ("makes", None),
        ("thresholds", None),
        ("thresholds", {"spread": 0}),
        ("thresholds", {"nameplate": 2.0}),
        ("thresholds", {"near": "far"}),
        ("claims", {"photos": 60}),
        ("claims", {"photos": 60, "accept": CUTS[:2], "reject": CUTS}),
        ("make_claims", {"photos": 60, "accept": CUTS, "reject": [[0.5]] * MOST_PHOTOS}),
    ],
)
def test_an_impossible_value_is_refused(pristine: Path, tmp_path: Path, field: str, value: object) -> None:
    copy = edit(shutil.copytree(pristine, tmp_path / "b"), lambda said: said.update({field: value}))
    with pytest.raises(BundleError):
        load_bundle(copy)


@pytest.mark.parametrize("field", ["schema", "name", "nameplates", "ids", "embedding", "temperature", "files"])
def test_a_missing_field_is_refused(pristine: Path, tmp_path: Path, field: str) -> None:
    copy = edit(shutil.copytree(pristine, tmp_path / "b"), lambda said: said.pop(field))
    with pytest.raises(BundleError, match=field):
        load_bundle(copy)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "x.pkl", "backbone.onnx/../y", "", "bundle.json"])
def test_a_file_of_another_name_is_refused(pristine: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "x").write_bytes(b"x")
    entry = {"sha256": sha256(b"x"), "bytes": 1}
    copy = edit(shutil.copytree(pristine, tmp_path / "b"), lambda said: said["files"].update({name: entry}))
    with pytest.raises(BundleError, match="its files are"):
        load_bundle(copy)


@pytest.mark.parametrize("wrong", [-1, 0, 1, 10**18])
def test_a_wrong_length_is_refused(pristine: Path, tmp_path: Path, wrong: int) -> None:
    copy = edit(shutil.copytree(pristine, tmp_path / "b"), lambda s: s["files"][HEAD].update(bytes=wrong))
    with pytest.raises(BundleError, match=r"head\.safetensors"):
        load_bundle(copy)


def test_an_edit_without_a_new_digest_is_refused(pristine: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(pristine, tmp_path / "b")
    text = (copy / MANIFEST).read_text()
    assert '"temperature": 0.7' in text
    (copy / MANIFEST).write_text(text.replace('"temperature": 0.7', '"temperature": 0.9'))
    with pytest.raises(BundleError, match="its own SHA-256"):
        load_bundle(copy)


@pytest.mark.parametrize("name", [BACKBONE, HEAD, PHOTOS, KNOWN, MANIFEST])
def test_a_file_cut_by_one_byte_is_refused(pristine: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(pristine, tmp_path / "b")
    data = (copy / name).read_bytes().rstrip(b"\n") if name == MANIFEST else (copy / name).read_bytes()
    (copy / name).write_bytes(data[:-1])
    with pytest.raises(BundleError, match=name):
        load_bundle(copy)


@pytest.mark.parametrize("name", [BACKBONE, HEAD, PHOTOS, KNOWN])
def test_every_flipped_byte_is_refused(pristine: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(pristine, tmp_path / "b")
    data = (copy / name).read_bytes()
    for at in range(len(data)):
        (copy / name).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(BundleError, match=rf"{name}' is damaged"):
            load_bundle(copy)


@pytest.mark.parametrize("name", [BACKBONE, HEAD, PHOTOS, KNOWN])
def test_an_absent_file_is_refused(pristine: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(pristine, tmp_path / "b")
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"Cannot read .*{name}.*No such file"):
        load_bundle(copy)


def test_a_folder_in_place_of_a_file_is_refused(pristine: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(pristine, tmp_path / "b")
    (copy / HEAD).unlink()
    (copy / HEAD).mkdir()
    with pytest.raises(BundleError, match=HEAD):
        load_bundle(copy)


@pytest.mark.parametrize(
    ("weight", "bias"),
    [
        (WEIGHT.T, BIAS),
        (WEIGHT[:, :2], BIAS),
        (WEIGHT[:3], BIAS),
        (WEIGHT, BIAS[:2]),
        (WEIGHT, BIAS[:, None]),
        (WEIGHT.ravel(), BIAS),
        (WEIGHT.astype(np.float64), BIAS),
        (WEIGHT, BIAS.astype(np.float64)),
        (WEIGHT.astype(np.int32), BIAS),
        (np.where(WEIGHT == 0, np.float32("nan"), WEIGHT), BIAS),
        (WEIGHT, np.array([0, np.inf, 0], np.float32)),
    ],
)
def test_a_head_of_other_numbers_is_refused(tmp_path: Path, weight: Any, bias: Any) -> None:
    write(tmp_path / "b", weight=weight, bias=bias)
    with pytest.raises(BundleError, match=r"head\.safetensors' holds"):
        load_bundle(tmp_path / "b")


def test_a_head_that_float16_holds_exactly_is_stored_so(tmp_path: Path) -> None:
    half = WEIGHT.astype(np.float16).astype(np.float32)
    write(tmp_path / "half", weight=half, bias=BIAS)
    write(tmp_path / "single", weight=WEIGHT, bias=np.array([1e6, 0, 0], np.float32))
    stored = [load_file(tmp_path / name / HEAD) for name in ("half", "single")]
    kinds = [(str(each["weight"].dtype), str(each["bias"].dtype)) for each in stored]
    assert kinds == [("float16", "float16"), ("float32", "float32")]
    read = load_bundle(tmp_path / "half")
    assert read.weight is not None
    assert read.bias is not None
    assert read.weight.dtype == read.bias.dtype == np.float32
    assert np.array_equal(read.weight, half)
    assert np.array_equal(read.bias, BIAS)


@pytest.mark.parametrize("kind", ["BF16", "F8_E4M3", "BOOL"])
def test_a_head_of_a_type_that_numpy_does_not_have_is_refused(pristine: Path, tmp_path: Path, kind: str) -> None:
    size = 2 if kind == "BF16" else 1
    header = json.dumps(
        {
            "weight": {"dtype": kind, "shape": [4, 3], "data_offsets": [0, 12 * size]},
            "bias": {"dtype": kind, "shape": [3], "data_offsets": [12 * size, 15 * size]},
        }
    ).encode()
    check_head_is_refused(pristine, tmp_path, len(header).to_bytes(8, "little") + header + bytes(15 * size))


@pytest.mark.parametrize("data", [b"", b"garbage that is no head", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}"])
def test_an_invalid_head_is_refused(pristine: Path, tmp_path: Path, data: bytes) -> None:
    check_head_is_refused(pristine, tmp_path, data)


def check_head_is_refused(pristine: Path, tmp_path: Path, data: bytes) -> None:
    copy = shutil.copytree(pristine, tmp_path / "b")
    (copy / HEAD).write_bytes(data)
    entry = msgspec.to_builtins(File(sha256(data), len(data)))
    edit(copy, lambda said: said["files"].update({HEAD: entry}))
    with pytest.raises(BundleError, match=HEAD):
        load_bundle(copy)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"garbage", "damaged"),
        (save_tensors({"mean": np.zeros(4, np.float32)}), "it holds no 'scale'"),
        (save_tensors(KNOWN_3.tensors | {"centres": np.zeros((2, 4), np.float16)}), "'centres' is"),
        (save_tensors(KNOWN_3.tensors | {"scale": np.zeros(4, np.float32)}), "not above 0"),
        (save_tensors(KNOWN_3.tensors | {"mean": np.full(4, np.nan, np.float32)}), "not finite"),
    ],
)
def test_an_invalid_detector_is_refused(pristine: Path, tmp_path: Path, data: bytes, problem: str) -> None:
    copy = shutil.copytree(pristine, tmp_path / "b")
    (copy / KNOWN).write_bytes(data)
    edit(copy, lambda said: said["files"].update({KNOWN: msgspec.to_builtins(File(sha256(data), len(data)))}))
    with pytest.raises(BundleError, match=problem):
        load_bundle(copy)


def test_a_bundle_older_than_verdicts_is_read(pristine: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(pristine, tmp_path / "b")
    (copy / KNOWN).unlink()
    newer = ("makes", "thresholds", "claims", "make_claims", "temperatures")

    def age(said: dict[str, Any]) -> None:
        for field in newer:
            del said[field]
        del said["files"][KNOWN]
        said["schema"] = 1

    bundle = load_bundle(edit(copy, age))
    assert bundle.ood_detector is None
    answer = Model(bundle, Settings()).decide("a", np.array([0.96, 0.03, 0.01], np.float32), np.zeros(4, np.float32))
    assert (answer.verdict, answer.make) == ("answer", "Лада Веста")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_random_flip_or_cut_is_refused_or_changes_nothing(pristine: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([MANIFEST, BACKBONE, HEAD, PHOTOS]), "file")
    whole = (pristine / name).read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1), "at")
    if data.draw(st.booleans(), "cut"):
        changed = whole[:at]
    else:
        changed = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255), "flip")]) + whole[at + 1 :]
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(pristine, Path(folder) / "b")
        (copy / name).write_bytes(changed)
        try:
            loaded = load_bundle(copy)
        except BundleError:
            return
        assert name == MANIFEST
        assert what_computes(loaded) == what_computes(load_bundle(pristine))


# --- writing ------------------------------------------------------------------------------------------

WRITE_TOO_MUCH = """
import resource, signal, sys
from pathlib import Path
from dataclasses import replace
from nameplate.model.bundle import load_bundle, save_bundle
target, outcome = Path(sys.argv[1]), sys.argv[2]
old = load_bundle(target)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL if outcome == "killed" else signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
save_bundle(target, replace(old, photos=b"x" * 10_000), overwrite=True)
"""


@pytest.mark.parametrize("outcome", ["full", "killed"])
def test_a_failure_while_writing_leaves_the_old_bundle_intact(tmp_path: Path, outcome: str) -> None:
    folder = write(tmp_path / "b")
    before = what_computes(load_bundle(folder))
    done = subprocess.run(
        [sys.executable, "-c", WRITE_TOO_MUCH, str(folder), outcome], capture_output=True, text=True, check=False
    )
    left = [entry for entry in tmp_path.iterdir() if entry != folder]
    if outcome == "full":
        assert done.returncode == 1
        assert "File too large" in done.stderr
        assert left == []
    else:
        assert done.returncode == -signal.SIGXFSZ
        [part] = left
        assert {file.name for file in part.iterdir()} == {BACKBONE, HEAD, PHOTOS}  # bundle.json would be last
        with pytest.raises(BundleError):
            load_bundle(part)
    assert what_computes(load_bundle(folder)) == before


def test_an_existing_bundle_is_not_replaced_without_overwrite(tmp_path: Path) -> None:
    folder = write(tmp_path / "b")
    other = replace(MANIFEST_3, name="other")
    with pytest.raises(NameplateError, match="is there already"):
        save_bundle(folder, Bundle(other, BACKBONE_BYTES, WEIGHT, BIAS))
    assert load_bundle(folder).manifest.name == "three"
    save_bundle(folder, Bundle(other, BACKBONE_BYTES, WEIGHT, BIAS), overwrite=True)
    assert load_bundle(folder).manifest.name == "other"
    assert [entry.name for entry in tmp_path.iterdir()] == ["b"]


def test_a_bundle_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NameplateError, match="Cannot write"):
        write(tmp_path / "file" / "b")


def test_no_module_unpickles() -> None:
    modules = sorted(Path(nameplate.__file__).parent.rglob("*.py"))
    assert len(modules) > 20
    unsafe = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    for module in modules:
        for node in ast.walk(ast.parse(module.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [str(node.module), *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":  # convert-weights alone
                assert "weights_only=True" in ast.unparse(node), module
            elif isinstance(node, ast.keyword):
                assert node.arg != "allow_pickle" or ast.unparse(node.value) == "False", module
            assert not unsafe & {part for name in names for part in name.split(".")}, module


# --- numbers, devices, operators ------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1e-30, 1e-4, 1e4, 1e300])
@pytest.mark.parametrize("field", ["temperature", "temperatures"])
def test_a_temperature_out_of_range_is_refused(pristine: Path, tmp_path: Path, field: str, temperature: float) -> None:
    copy = shutil.copytree(pristine, tmp_path / "b")
    value = temperature if field == "temperature" else {"onnxruntime": temperature}
    edit(copy, lambda said: said.update({field: value}))
    with pytest.raises(BundleError, match=r"the temperature is .*, and none lies outside 0\.001 to 1000"):
        load_bundle(copy)


@pytest.mark.parametrize(
    "cut", [{"spread": 1e-300}, {"spread": 1e300}, {"middle": 1e308}, {"near": -1e300}, {"far": 1e12}]
)
def test_a_threshold_beyond_all_measure_is_refused(pristine: Path, tmp_path: Path, cut: dict[str, float]) -> None:
    copy = shutil.copytree(pristine, tmp_path / "b")
    edit(copy, lambda said: said["thresholds"].update(cut))
    with pytest.raises(BundleError, match="the thresholds are"):
        load_bundle(copy)


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_head_of_huge_numbers_is_refused(tmp_path: Path, part: str) -> None:
    head = {"weight": WEIGHT.copy(), "bias": BIAS.copy()}
    head[part].flat[1] = -3e38
    with pytest.raises(BundleError, match=r"holds numbers beyond ±1e\+09, which no head that was trained has"):
        load_bundle(write(tmp_path / "b", MANIFEST_3, head["weight"], head["bias"]))


@pytest.mark.parametrize("name", [MANIFEST, BACKBONE, HEAD, PHOTOS, KNOWN])
@pytest.mark.parametrize("what", ["device", "pipe"])
def test_a_device_or_a_pipe_in_place_of_a_file_is_refused_at_once(
    pristine: Path, tmp_path: Path, name: str, what: str
) -> None:
    copy = shutil.copytree(pristine, tmp_path / "b")
    (copy / name).unlink()
    if what == "device":
        (copy / name).symlink_to("/dev/zero")
    else:
        os.mkfifo(copy / name)
    with pytest.raises(BundleError, match=r"no bundle\.json" if name == MANIFEST else "it is not a regular file"):
        load_bundle(copy)


def test_a_backbone_with_a_loop_is_refused_before_it_runs(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    loop = onnx.helper.make_node("Loop", ["", ""], ["embedding"])
    model = onnx.helper.make_model(onnx.helper.make_graph([loop], "g", [], []))
    save_bundle(tmp_path / "b", Bundle(MANIFEST_3, model.SerializeToString(), WEIGHT, BIAS))
    with pytest.raises(BundleError, match=r"backbone\.onnx' uses the operator 'Loop', which no network"):
        load_bundle(tmp_path / "b")
