"""`nameplate export` as a user runs it, `--int8` and `--onnx`: output, refusals, and that others read the result."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path

import pytest

if importlib.util.find_spec("onnx") is None:
    pytest.skip("needs onnx", allow_module_level=True)

from nameplate.demo import photos_folder
from nameplate.model.bundle import load_bundle
from tests.cli.run import nameplate
from tests.fit.tiny_backbone import tiny_bundle

TRAIN, TEST = photos_folder("train"), photos_folder("test")
LENIENT = ("--min-photos", "50", "--max-loss", "10", "--min-speedup", "0")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    tiny_bundle(folder)
    return folder / "tiny"


@pytest.fixture(scope="module")
def int8(tiny: Path) -> tuple[Path, dict[str, object]]:
    target = tiny.parent / "tiny-int8"
    done = nameplate("export", tiny, "--int8", "--calibrate", TRAIN, "-o", target, *LENIENT, "--json")
    return target, json.loads(done.stdout)


def test_the_bundle_says_how_it_was_made(int8: tuple[Path, dict[str, object]], tiny: Path) -> None:
    target, said = int8
    before, after = load_bundle(tiny), load_bundle(target)
    assert after.int8
    assert not before.int8
    assert after.manifest.nameplates == before.manifest.nameplates
    assert after.weight is not None
    assert (after.weight == before.weight).all()
    assert after.manifest.name == "tiny-int8"
    assert after.manifest.temperatures["onnxruntime"] == after.manifest.temperature != before.manifest.temperature
    assert after.manifest.thresholds.photos == 500
    assert after.manifest.thresholds != before.manifest.thresholds
    assert after.manifest.golden is not None
    assert after.manifest.golden.int8
    made = after.manifest.provenance["int8"]
    assert isinstance(made, dict)
    assert made["from"]["backbone"] == before.digest
    assert made["calibration"]["photos"] == 300
    assert made["judged"]["photos"] == 500
    assert not made["failed"]
    assert {each["runtime"] for each in made["held"]} >= {"onnxruntime"}
    assert made["top1_float32"] == before.manifest.provenance["metrics"]["top1"]  # type: ignore[index]
    metrics = after.manifest.provenance["metrics"]
    assert isinstance(metrics, dict)
    [reference] = [each for each in made["held"] if each["runtime"] == "onnxruntime"]
    assert (metrics["top1"], metrics["log_loss"]) == (reference["top1"], pytest.approx(reference["log_loss"]))
    assert said["output"] == str(target)
    assert (said["speedup"], said["failed"]) == (pytest.approx(made["speedup"], abs=1e-3), [])


def test_it_identifies_predicts_and_is_a_backbone(int8: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    target, _ = int8
    photos = sorted(TEST.glob("*/*.jpg"))[:40]
    [answer] = json.loads(nameplate("identify", photos[0], "--model", target, "--json").stdout)
    assert answer["nameplate"] in load_bundle(target).manifest.nameplates
    nameplate("predict", target, TEST, "-o", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert not any(row["error"] for row in csv.DictReader(file))
    nameplate("train", TEST, "-o", tmp_path / "head", "--backbone", target, "--no-mirror")
    head = load_bundle(tmp_path / "head")
    assert head.digest == load_bundle(target).digest
    assert head.manifest.golden is not None
    assert head.manifest.golden.int8


def test_a_gate_that_fails_says_its_figures_and_writes_nothing_unless_kept(tiny: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    command = ("export", tiny, "--int8", "--calibrate", TRAIN, "-o", target, *LENIENT[:4], "--min-speedup", "1000")
    done = nameplate(*command, check=1)
    assert "times as fast as float32, less than 1000" in done.stderr
    assert "Not written" in done.stdout
    assert " points (" in done.stdout
    assert not target.exists()
    said = json.loads(nameplate(*command, "--keep", "--json").stdout)
    assert len(said["failed"]) == 1
    provenance = load_bundle(target).manifest.provenance["int8"]
    assert isinstance(provenance, dict)
    assert provenance["failed"] == said["failed"]


def test_few_photos_are_refused_and_nothing_is_written(tiny: Path, tmp_path: Path) -> None:
    done = nameplate("export", tiny, "--int8", "--calibrate", TRAIN, "-o", tmp_path / "out", check=1)
    said = " ".join(done.stderr.split())
    assert "Only 500 photos of the data can evaluate" in said
    assert "1,000 are needed" in said
    assert "--min-photos" in said
    assert not (tmp_path / "out").exists()


def test_data_that_did_not_train_it_is_refused(tiny: Path, tmp_path: Path) -> None:
    done = nameplate("export", tiny, "--int8", "--calibrate", TEST, "-o", tmp_path / "out", *LENIENT, check=1)
    assert "none of the data trained this model" in done.stderr


def test_int8_once_more_is_refused(int8: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    done = nameplate("export", int8[0], "--int8", "--calibrate", TRAIN, "-o", tmp_path / "out", *LENIENT, check=1)
    assert "in int8 already" in done.stderr


def test_a_bundle_that_is_there_is_kept(tiny: Path, int8: tuple[Path, dict[str, object]]) -> None:
    done = nameplate("export", tiny, "--int8", "--calibrate", TRAIN, "-o", int8[0], *LENIENT, check=1)
    assert "is there already" in done.stderr


def test_one_file(tiny: Path, tmp_path: Path) -> None:
    photos = [str(path) for path in sorted(TEST.glob("*/*.jpg"))[:3]]
    given = [word for photo in photos for word in ("--photos", photo)]
    target = tmp_path / "tiny.onnx"
    said = json.loads(nameplate("export", tiny, "--onnx", target, "--with-resize", *given, "--json").stdout)
    assert (said["model"], said["photos"], said["same"], said["detector"]) == (str(target), 3, 3, None)
    assert said["bytes"] == target.stat().st_size
    shown = nameplate("export", tiny, "--onnx", target, *given, "--overwrite").stdout
    assert "3 with the same nameplate" in shown
    assert "there already" in nameplate("export", tiny, "--onnx", target, check=2).stderr


def test_a_site_of_another_bundle(tiny: Path, tmp_path: Path, runtime_of_sites: dict[str, bytes]) -> None:
    """With the fixture's files in the folder of an unpacked package."""
    (tmp_path / "package" / "dist").mkdir(parents=True)
    for name, data in runtime_of_sites.items():
        (tmp_path / "package" / "dist" / name).write_bytes(data)
    photos = [str(path) for path in sorted(TEST.glob("*/*.jpg"))[:2]]
    chosen = [word for photo in photos for word in ("--photos", photo)]
    given = ("--web", str(tmp_path / "site"), "--onnxruntime-web", str(tmp_path / "package"), *chosen)
    said = json.loads(nameplate("export", tiny, *given, "--json").stdout)
    files = [path for path in (tmp_path / "site").rglob("*") if path.is_file()]
    assert (said["files"], said["bytes"]) == (len(files), sum(path.stat().st_size for path in files))
    assert (said["photos"], said["same"], said["left_out"]) == (2, 2, [])
    assert said["gap"] < 1e-5
    assert not (tmp_path / "site" / "model" / "detector.onnx").exists()  # this bundle locates no cars
    assert (tmp_path / "site" / "model" / "head.safetensors").read_bytes() == (tiny / "head.safetensors").read_bytes()
    assert "is there already" in nameplate("export", tiny, *given, check=1).stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Give --onnx FILE"),
        (("-o", "b"), "Give --onnx FILE"),
        (("-o", "b", "--calibrate", "photos"), "Give --onnx FILE"),
        (("--onnx", "a.onnx", "--int8"), "Give --onnx FILE"),
        (("--onnx", "a.onnx", "-o", "b"), "leave out --calibrate and -o"),
        (("--int8", "--with-resize"), "belongs to --onnx"),
        (("--int8", "--photos", "a.jpg"), "belongs to --onnx, and --photos to --onnx and --web"),
        (("--int8", "-o", "b"), "give --calibrate DATA"),
        (("--onnx", "a.tflite"), "must end in .onnx"),
        (("--onnx", "a.onnx", "--web", "site"), "--web FOLDER to write a site"),
        (("--web", "site", "--with-resize"), "names the folder to write: leave out"),
        (("--onnx", "a.onnx", "--onnxruntime-web", "package"), "belongs to --web"),
    ],
)
def test_options_that_do_not_go_together(words: tuple[str, ...], said: str, tiny: Path, tmp_path: Path) -> None:
    assert said in nameplate("export", tiny, *words, check=2, cwd=tmp_path).stderr
    assert not list(tmp_path.iterdir())
