"""The choice of the runtime, with real runtimes in real processes."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from nameplate.demo import photos_folder
from nameplate.errors import BundleError, RuntimeUnavailableError, UsageError
from nameplate.images import decode, preprocess
from nameplate.model.bundle import Bfloat16Check, Bundle, load_bundle
from nameplate.model.runtime_choice import (
    MAX_BFLOAT16_COST,
    PROBE_PHOTOS,
    ChosenRuntime,
    common_runtime,
    open_runtime,
    preferred,
    probe,
)
from nameplate.runtime.base import BATCH, Batch, Embedding
from nameplate.runtime.benchmark import ProbeResult
from nameplate.runtime.ort import import_onnxruntime
from nameplate.runtime.select import ON_CPU, available_cpus, make_runtime
from nameplate.storage import cache_folder
from nameplate.types import Floats
from tests.shipped import EMBEDDING

OPENVINO = importlib.util.find_spec("openvino") is not None
needs_openvino = pytest.mark.skipif(not OPENVINO, reason="needs the fast extra")
BOTH = ["onnxruntime", pytest.param("openvino", marks=needs_openvino)]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle("cars196")


@pytest.fixture(scope="module")
def pictures(bundle: Bundle) -> Batch:
    """Pictures of 45 embedded photos: renders, which are more alike than cars are."""
    return pictures_of(photos_folder("train"), bundle)


def pictures_of(folder: Path, bundle: Bundle) -> Batch:
    paths = sorted(folder.glob("*/*.jpg"))
    size = bundle.manifest.preprocess
    chosen = paths[:: len(paths) // 45][:45]
    return np.stack([preprocess(decode(path, at_least=(size.height, size.width)), size) for path in chosen])


@pytest.fixture(scope="module")
def reference(bundle: Bundle, pictures: Batch) -> Embedding:
    return run("onnxruntime", bundle, pictures)


def batches(pictures: Batch, size: int = BATCH) -> Iterator[Batch]:
    return (pictures[at : at + size] for at in range(0, len(pictures), size))


def run(name: str, bundle: Bundle, pictures: Batch, size: int = BATCH, threads: int = 2) -> Embedding:
    return np.concatenate(list(make_runtime(name, bundle.backbone, threads).embed(batches(pictures, size))))


def cosines(a: Embedding, b: Embedding) -> Floats:
    found: Floats = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return found


def test_embeddings_of_different_photos_differ(reference: Embedding) -> None:
    """What the cosines below are held against: other photos are far away, however alike photos are as such.

    All embeddings lie in one narrow cone, the more so those of renders, so they are seen from its middle.
    """
    assert reference.dtype == np.float32
    assert reference.shape == (45, EMBEDDING)
    assert others(reference).max() < 0.9
    noisy = reference + np.random.default_rng(0).normal(0, 0.01, reference.shape).astype(np.float32)
    centre = reference.mean(0)
    assert cosines(noisy - centre, reference - centre).min() > 0.9, "the same photo, a hair away, is none of them"


def others(found: Embedding) -> Floats:
    """The cosines of every two photos, from the middle of all."""
    centred = found - found.mean(0)
    return np.concatenate([cosines(centred, np.roll(centred, shift, axis=0)) for shift in range(1, len(centred))])


@needs_openvino
def test_runtimes_agree_on_real_photos_too(bundle: Bundle, cars196: Path) -> None:
    pictures = pictures_of(cars196, bundle)
    reference = run("onnxruntime", bundle, pictures)
    assert cosines(reference, np.roll(reference, 1, axis=0)).max() < 0.97
    assert others(reference).max() < 0.9
    assert cosines(run("openvino", bundle, pictures), reference).min() >= 0.9999


@needs_openvino
def test_openvino_agrees_with_onnx_runtime(bundle: Bundle, pictures: Batch, reference: Embedding) -> None:
    found = run("openvino", bundle, pictures)
    assert found.dtype == np.float32
    assert cosines(found, reference).min() >= 0.9999
    assert np.abs(found - reference).max() < 1e-3


@needs_openvino
def test_bfloat16_is_close_where_the_processor_supports_it(
    bundle: Bundle, pictures: Batch, reference: Embedding
) -> None:
    from nameplate.runtime.openvino import import_openvino

    if "BF16" not in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor does not compute in bfloat16")
    found = run("openvino-bf16", bundle, pictures)
    # Whitening enlarges what bfloat16 rounds off; accuracy does not suffer (docs/experiments.md, 2026-11-28).
    assert 0.98 <= cosines(found, reference).min() < 0.999999


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("size", [1, 5])
def test_short_batches_give_the_same(
    name: str, size: int, bundle: Bundle, pictures: Batch, reference: Embedding
) -> None:
    found = run(name, bundle, pictures[:13], size)
    assert found.shape == (13, EMBEDDING)
    assert np.abs(found - reference[:13]).max() < 1e-3


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("threads", [1, 3])
def test_the_order_is_kept_over_many_batches(
    name: str, threads: int, bundle: Bundle, pictures: Batch, reference: Embedding
) -> None:
    order = np.random.default_rng(0).integers(0, len(pictures), 6 * BATCH + 3)
    found = run(name, bundle, pictures[order], threads=threads)
    assert np.abs(found - reference[order]).max() < 1e-3


@needs_openvino
def test_openvino_reads_few_batches_ahead_of_its_streams(bundle: Bundle, pictures: Batch) -> None:
    taken = 0

    def counted() -> Iterator[Batch]:
        nonlocal taken
        for batch in batches(np.concatenate([pictures] * 5)):
            taken += 1
            yield batch

    for given, _ in enumerate(make_runtime("openvino", bundle.backbone, 2).embed(counted())):
        assert taken - given <= 2 + 2


def test_no_batches_give_nothing(bundle: Bundle) -> None:
    for name in ON_CPU if OPENVINO else ON_CPU[:1]:
        assert list(make_runtime(name, bundle.backbone, 1).embed(iter(()))) == []


def test_an_unknown_runtime_is_a_usage_error(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="'tensorrt'.*auto, onnxruntime, openvino, openvino-bf16"):
        open_runtime(bundle, "tensorrt", 1)


def test_openvino_that_cannot_be_loaded_says_how_to_get_it(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "openvino.py").write_text("raise ImportError('of another processor')")
    code = (
        "from nameplate.model.bundle import load_bundle\n"
        "from nameplate.model.runtime_choice import open_runtime\n"
        "from nameplate.errors import RuntimeUnavailableError\n"
        "try: open_runtime(load_bundle('cars196'), 'openvino', 1)\n"
        "except RuntimeUnavailableError as error: print(error)"
    )
    said = python(code, PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    assert "of another processor" in said
    assert "pip install 'nameplate[fast]'" in said
    assert issubclass(RuntimeUnavailableError, Exception)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("backbone", [b"", b"\x08\x08", b"garbage"])
def test_a_backbone_that_does_not_load_is_a_bundle_error(name: str, backbone: bytes) -> None:
    with pytest.raises(BundleError, match="cannot load the backbone"):
        make_runtime(name, backbone, 1)


@pytest.mark.parametrize("name", BOTH)
def test_inputs_that_the_backbone_does_not_accept_are_a_bundle_error(bundle: Bundle, name: str) -> None:
    runtime = make_runtime(name, bundle.backbone, 1)
    with pytest.raises(BundleError, match=r"does not accept model inputs of shape \(2, 100, 224, 3\)"):
        list(runtime.embed([np.zeros((2, 100, 224, 3), np.uint8)]))


def test_onnx_runtimes_own_format_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    """The guard reads ONNX alone, so the runtime must not read anything else."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(bundle.backbone, options, providers=["CPUExecutionProvider"])
    data = (tmp_path / "model.ort").read_bytes()
    onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])  # left to itself it reads it
    with pytest.raises(BundleError, match="cannot load"):
        make_runtime("onnxruntime", data, 1)


# --- the choice ---------------------------------------------------------------------------------------

ORT, VINO, HALF = ON_CPU
FREE, CHEAP, DEAR = (Bfloat16Check(1000, 0.8, 0.8 - cost) for cost in (-0.01, 0.0029, 0.0031))


@pytest.mark.parametrize(
    ("check", "trials", "chosen"),
    [
        (FREE, (), ORT),
        (FREE, (ProbeResult(ORT, 1),), ORT),
        (FREE, (ProbeResult(ORT, 1), ProbeResult(VINO, 1)), VINO),
        (FREE, (ProbeResult(ORT, 1), ProbeResult(VINO, 1), ProbeResult(HALF, 0.9996)), HALF),
        (CHEAP, (ProbeResult(ORT, 1), ProbeResult(VINO, 1), ProbeResult(HALF, 0.9996)), HALF),
        (DEAR, (ProbeResult(ORT, 1), ProbeResult(VINO, 1), ProbeResult(HALF, 0.9996)), VINO),
        (None, (ProbeResult(ORT, 1), ProbeResult(VINO, 1), ProbeResult(HALF, 0.9996)), VINO),
        (FREE, (ProbeResult(ORT, 1), ProbeResult(VINO, 0.99989)), ORT),
        (FREE, (ProbeResult(ORT, 1), ProbeResult(HALF, 0.9899)), ORT),
        (FREE, (ProbeResult(ORT, 1), ProbeResult(VINO, -1.0), ProbeResult(HALF, -1.0)), ORT),
        (FREE, (ProbeResult(ORT, 1), ProbeResult(VINO, 1, error="ended with -8")), ORT),
        (FREE, (ProbeResult(ORT, error="died"), ProbeResult(VINO, error="died"), ProbeResult(HALF, error="died")), ORT),
    ],
)
def test_the_first_candidate_that_agrees_and_loses_nothing_is_chosen(
    bundle: Bundle, check: Bfloat16Check | None, trials: Sequence[ProbeResult], chosen: str
) -> None:
    assert MAX_BFLOAT16_COST == 0.003
    mine = with_check(bundle, check)
    assert preferred(trials, mine) == preferred(trials[::-1], mine) == chosen


def with_check(bundle: Bundle, check: Bfloat16Check | None) -> Bundle:
    return replace(bundle, manifest=replace(bundle.manifest, bfloat16=check))


def keep_trials(bundle: Bundle, *trials: ProbeResult) -> None:
    """What the probe of an earlier run left in the cache."""
    probe(bundle, 1)
    [report] = (cache_folder() / "runtimes").iterdir()
    report.write_bytes(msgspec.json.encode(trials))


@needs_openvino
def test_compared_answers_come_from_a_runtime_that_both_can_use(bundle: Bundle, own_cache: Path) -> None:
    keep_trials(bundle, ProbeResult(ORT, 1), ProbeResult(VINO, 1), ProbeResult(HALF, 0.9996))
    free, dear = with_check(bundle, FREE), with_check(bundle, DEAR)
    assert [common_runtime([each], "auto", 1) for each in (free, dear)] == [HALF, VINO]
    assert common_runtime([free, dear], "auto", 1) == common_runtime([dear, free], "auto", 1) == VINO
    assert common_runtime([free, dear], HALF, 1) == HALF
    with pytest.raises(UsageError, match="'tensorrt'"):
        common_runtime([free], "tensorrt", 1)


def test_int8_is_rounded_slightly_differently_by_each_runtime(bundle: Bundle) -> None:
    int8 = replace(bundle, backbone=bundle.backbone + b"DequantizeLinear")
    trials = (ProbeResult(ORT, 1), ProbeResult(VINO, 0.9986))
    assert (bundle.int8, preferred(trials, bundle)) == (False, ORT)
    assert (int8.int8, preferred(trials, int8)) == (True, VINO)
    assert preferred((ProbeResult(ORT, 1), ProbeResult(VINO, 0.98)), int8) == ORT


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAMEPLATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def interpreter(folder: Path, monkeypatch: pytest.MonkeyPatch, rule: str) -> Path:
    """Have candidates run by a script that obeys `rule` first; returns the log of what was tried."""
    script, log = folder / "python", folder / "log"
    script.write_text(f'#!/bin/sh\necho "$@" >> "{log}"\n{rule}\nexec "{sys.executable}" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return log


DIES = 'case "$*" in *openvino*) echo boom >&2; kill -FPE $$;; esac'


@needs_openvino
def test_a_candidate_that_dies_of_a_signal_is_not_used(
    bundle: Bundle, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = interpreter(tmp_path, monkeypatch, DIES)
    runtime = open_runtime(bundle, "auto", 1, PROBE_PHOTOS)
    assert runtime.name == "onnxruntime"
    [report] = (own_cache / "runtimes").iterdir()
    trials = msgspec.json.decode(report.read_bytes(), type=tuple[ProbeResult, ...])
    assert [trial.runtime for trial in trials] == [ORT, VINO, HALF]
    assert trials[0].error is None
    assert trials[0].cosine == pytest.approx(1)
    assert [trial.error for trial in trials[1:]] == ["ended with -8: boom"] * 2
    # The outcome is kept: nothing is tried again, in this process or the next.
    assert len(log.read_text().splitlines()) == 3
    assert open_runtime(bundle, "auto", 1, PROBE_PHOTOS).name == "onnxruntime"
    assert len(log.read_text().splitlines()) == 3
    # But not for another number of threads, nor where the report cannot be read.
    report.write_bytes(report.read_bytes()[:-5])
    assert probe(bundle, 1)[1:] == trials[1:]
    assert len(log.read_text().splitlines()) == 6
    assert msgspec.json.decode(report.read_bytes(), type=tuple[ProbeResult, ...])[1:] == trials[1:]
    probe(bundle, 2)
    assert len(log.read_text().splitlines()) == 9


@needs_openvino
def test_the_candidates_are_tried_in_real_processes(
    bundle: Bundle, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And import nothing from the working folder, which may hold anything."""
    for name in ("msgspec", "numpy", "openvino", "random"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('from the working folder')")
    monkeypatch.chdir(tmp_path)
    onnx, vino, half = probe(bundle, 1)
    assert (onnx.error, vino.error) == (None, None)
    assert vino.cosine >= 0.9999
    assert half.error in (None, "this CPU does not compute in bfloat16")


@needs_openvino
def test_a_cache_that_cannot_be_written_does_not_stop_the_choice(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("NAMEPLATE_CACHE", str(tmp_path / "file" / "cache"))
    log = interpreter(tmp_path, monkeypatch, "exit 3")
    assert open_runtime(bundle, "auto", 1, PROBE_PHOTOS).name == "onnxruntime"
    assert len(log.read_text().splitlines()) == 3


def test_a_short_job_tries_nothing(
    bundle: Bundle, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = interpreter(tmp_path, monkeypatch, "exit 3")
    assert open_runtime(bundle, "auto", 1, PROBE_PHOTOS - 1).name == "onnxruntime"
    assert open_runtime(bundle, "auto", 1).name == "onnxruntime"
    assert not log.exists()
    assert not own_cache.exists()


def test_a_runtime_is_opened_for_the_first_inputs_and_then_kept(
    bundle: Bundle, pictures: Batch, reference: Embedding, own_cache: Path
) -> None:
    runtime = ChosenRuntime(bundle, "auto", 1)
    assert list(runtime.embed(iter(()))) == []
    assert runtime.name == "auto"
    found = np.concatenate(list(runtime.embed(batches(pictures[:11]))))
    assert np.abs(found - reference[:11]).max() < 1e-3
    assert runtime.name == "onnxruntime"
    assert not own_cache.exists(), "so short a job tries nothing"
    broken = ChosenRuntime(replace(bundle, backbone=b"none"), "onnxruntime", 1)
    assert list(broken.embed(iter(()))) == []
    with pytest.raises(BundleError):
        list(broken.embed(batches(pictures)))


def python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_openvino
def test_nothing_is_written_into_the_home_folder(tmp_path: Path) -> None:
    home, cache = tmp_path / "home", tmp_path / "cache"
    home.mkdir()
    code = (
        "from nameplate.demo import photos_folder\n"
        "from nameplate.model.model import Model\n"
        "photos = sorted(photos_folder('train').glob('*/*.jpg'))[::20][:40]\n"
        "print(Model.load().embed(photos).shape)\n"
        "print(Model.load(runtime='openvino').embed(photos[:2]).shape)"
    )
    said = python(code, HOME=str(home), XDG_CACHE_HOME=str(cache), NAMEPLATE_CACHE="")
    assert said.splitlines() == [f"(40, {EMBEDDING})", f"(2, {EMBEDDING})"]
    assert list(home.rglob("*")) == []
    [report] = (cache / "nameplate" / "runtimes").iterdir()
    trials = msgspec.json.decode(report.read_bytes(), type=tuple[ProbeResult, ...])
    assert trials[1].error is None, "OpenVINO did run"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs processor affinity")
def test_processors_that_this_process_may_not_use_do_not_count() -> None:
    code = (
        "import os\n"
        "from nameplate.runtime.select import available_cpus\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "print(available_cpus())"
    )
    assert python(code) == "1"
    assert 1 <= available_cpus() <= len(os.sched_getaffinity(0))


def test_onnx_runtime_sends_no_telemetry_and_leaves_no_file(tmp_path: Path) -> None:
    """Its telemetry begins with a file `.ses` in the temporary folder."""
    program = "from nameplate import Model; from nameplate.demo import photo; Model.load().embed([photo()])"
    env = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([sys.executable, "-c", program], env={**env, "TMPDIR": str(tmp_path)}, check=True)
    assert list(tmp_path.iterdir()) == []
