"""Runtimes: what computes a backbone. ONNX Runtime always; OpenVINO where it is installed and proves itself.

With `auto`, before the first job of at least `PROBE_PHOTOS` photos every candidate runs a few pictures in a
subprocess (OpenVINO has died of a floating-point exception on some CPUs, openvino#35943). The outcome is cached, and
of those whose embeddings agree with ONNX Runtime's the first of `PREFERRED` is used. Nothing is timed and no photo of
the job is looked at, so the choice is the machine's and the bundle's, today and tomorrow (docs/decisions/0005).
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import numpy as np

from nameplate.errors import BundleError, NameplateError, RuntimeUnavailableError, UsageError
from nameplate.model.bundle import Bundle
from nameplate.model.lanes import BATCH as BATCH
from nameplate.model.lanes import Batch as Batch
from nameplate.model.lanes import Embedding as Embedding
from nameplate.model.lanes import Tuning, side_by_side
from nameplate.model.reference import reference_inputs
from nameplate.model.stopwatch import Watch, no_watch
from nameplate.runtime.onnx_file import first_output_alone
from nameplate.storage import cache_folder, sha256, whole_file
from nameplate.types import Floats

RUNTIMES = ("auto", "onnxruntime", "openvino", "openvino-bf16")
PREFERRED = ("openvino-bf16", "openvino", "onnxruntime")
"""The fastest first, on every CPU that was measured (docs/benchmarks.md)."""

PROBE_PHOTOS = 32
"""A shorter job runs on ONNX Runtime, which is soonest ready."""
PROBE_SECONDS = 120
"""A candidate that takes longer than this is not used."""
OUTPUTS = ("embedding", "map")
"""The backbone's outputs: N×D, and from many backbones the embedding of each place, N×h×w×D."""
MIN_COSINE = {"openvino": 0.9999, "openvino-bf16": 0.99}
"""How near each embedding must be to ONNX Runtime's float32 one."""
MIN_COSINE_INT8 = 0.99
"""The same where the backbone is in int8, and ONNX Runtime's embedding that of the same file: each runtime rounds in
its own places, and one step of 255 then goes through all layers behind (0.9986 is the least seen: docs/int8.md)."""
MAX_BFLOAT16_COST = 0.003
"""Share of labelled photos that bfloat16 may lose (0.3 points)."""


class Runtime(Protocol):
    """Runs one backbone."""

    @property
    def name(self) -> str:
        """One of `RUNTIMES`."""
        ...

    def embed(self, batches: Iterable[Batch]) -> Iterator[Embedding]:
        """uint8 N×H×W×3 batches → float32 N×D, in order; N ≤ `BATCH`."""
        ...


@dataclass(frozen=True, slots=True)
class Trial:
    """How one candidate fared in the probe."""

    runtime: str
    cosine: float = 0.0
    """The least cosine between its embeddings and ONNX Runtime's of the same file."""
    error: str | None = None
    timed_out: bool = False


def available_cpus() -> int:
    """Processors that this process may use: its affinity and its cgroup's quota (v2 and v1)."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text().strip()
            period = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return count
    if quota in ("max", "-1"):
        return count
    return max(1, min(count, -(-int(quota) // int(period))))


class OnnxRuntime:
    """ONNX Runtime on the CPU, float32, with several batches under way where that is asked for."""

    name = "onnxruntime"

    def __init__(
        self, backbone: bytes, threads: int, *, maps: bool = False, batch: int = BATCH, streams: int = 1
    ) -> None:
        """Load a backbone.

        Args:
            backbone: the ONNX file.
            threads: processors to use.
            batch: photos that `embed` runs at once at most. The embeddings are the same bits.
            streams: batches that `embed` runs side by side, each on its share of the processors.
            maps: whether `maps` will be called; without, what only leads to them is cut off, so that it
                costs nothing.

        Raises:
            BundleError: it cannot be loaded.
        """
        onnxruntime = import_onnxruntime()
        backbone = backbone if maps else first_output_alone(backbone)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = max(1, threads // streams)
        options.log_severity_level = 4  # what fails comes as an exception
        options.add_session_config_entry("session.load_model_format", "ONNX")  # none that onnx_guard does not read
        try:
            self._session = onnxruntime.InferenceSession(backbone, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common base but Exception
            raise BundleError(f"ONNX Runtime cannot load the backbone: {error}") from None
        self.batch, self.streams = batch, streams
        self.watch: Watch = no_watch
        self._input = self._session.get_inputs()[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]

    @property
    def has_maps(self) -> bool:
        """Whether there are maps to ask for."""
        return OUTPUTS[1] in self._outputs[1:]

    def embed(self, batches: Iterable[Batch]) -> Iterator[Embedding]:
        """Batches run side by side, one a stream; the results come in order."""
        return side_by_side(self.run, batches, self.batch, self.streams)

    def run(self, batch: Batch) -> Embedding:
        """One batch; several threads may each run one at once."""
        return checked_output(self._run(self._outputs[:1], batch)[0], len(batch))

    def maps(self, batches: Iterable[Batch]) -> Iterator[tuple[Embedding, Floats]]:
        """Batches → embeddings N×D and maps float32 N×h×w×D, in order; only where `has_maps`."""
        for batch in batches:
            embedding, places = self._run([self._outputs[0], OUTPUTS[1]], batch)
            yield checked_output(embedding, len(batch)), checked_output(places, len(batch), sides=4)

    def _run(self, outputs: list[str], batch: Batch) -> list[Any]:
        try:
            with self.watch("infer"):
                found: list[Any] = self._session.run(outputs, {self._input: batch})
        except Exception as error:  # as above
            raise BundleError(f"The backbone does not take pictures of {batch.shape}: {error}") from None
        return found


class OpenVino:
    """OpenVINO on the CPU, float32 or bfloat16, with several batches under way."""

    def __init__(
        self,
        backbone: bytes,
        threads: int,
        precision: Literal["f32", "bf16"],
        batch: int = BATCH,
        streams: int | None = None,
    ) -> None:
        """Load a backbone.

        Args:
            backbone: the ONNX file.
            threads: processors to use.
            precision: to compute in.
            batch: photos a batch at most; a smaller one is filled up. The embeddings are the same bits.
            streams: batches that `embed` runs side by side; None: one a thread.

        Raises:
            BundleError: it cannot be loaded.
            RuntimeUnavailableError: OpenVINO cannot.
        """
        self.batch, self.streams = batch, streams or max(1, threads)
        self.watch: Watch = no_watch
        self._openvino = import_openvino()
        self.name = "openvino" if precision == "f32" else "openvino-bf16"
        self._own = threading.local()
        settings = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": self.streams,
        }
        core = self._openvino.Core()
        try:
            model = core.read_model(first_output_alone(backbone))
            shape = model.inputs[0].partial_shape
            shape[0] = batch  # a fixed shape runs faster; a short last batch is filled up
            model.reshape(shape)
            self._compiled = core.compile_model(model, "CPU", settings)
        except Exception as error:  # openvino's errors have no common base but Exception
            raise BundleError(f"OpenVINO cannot load the backbone: {error}") from None

    def embed(self, batches: Iterable[Batch]) -> Iterator[Embedding]:
        """Batches run side by side, one a stream; the results come in order."""
        return side_by_side(self.run, batches, self.batch, self.streams)

    def run(self, batch: Batch) -> Embedding:
        """One batch; several threads may each run one at once."""
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        full = self._filled(batch)
        try:
            with self.watch("infer"):
                self._own.request.infer({0: self._openvino.Tensor(full, shared_memory=True)})
        except Exception as error:  # as above
            raise BundleError(f"The backbone does not take pictures of {batch.shape}: {error}") from None
        found = self._own.request.get_output_tensor().data
        return checked_output(found[: len(batch)].copy() if found.shape else found, len(batch))

    def _filled(self, batch: Batch) -> Batch:
        missing = self.batch - len(batch)
        return np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), np.uint8)]) if missing else batch


def checked_output(found: object, photos: int, sides: int = 2) -> Floats:
    """What a backbone gave for some photos, once it has the form that it must have: float32, a row a photo.

    Whether its numbers are any is asked photo by photo (`embedding.Row.take`).

    Args:
        found: from a runtime.
        photos: in the batch.
        sides: of the array.

    Raises:
        BundleError: it is something else.
    """
    if not isinstance(found, np.ndarray):
        raise BundleError("The backbone gives a sequence, not an array of numbers.")
    if found.dtype != np.float32:
        raise BundleError(f"The backbone gives {found.dtype}, not float32.")
    if found.ndim != sides or len(found) != photos:
        raise BundleError(
            f"The backbone gives {'×'.join(map(str, found.shape)) or 'one number'} for "
            f"{photos} photos, not a row for each."
        )
    return found


def import_onnxruntime() -> Any:
    """ONNX Runtime without its telemetry: since 1.32 its Linux wheel reports to Microsoft unless it is told not to."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when it is loaded; workers inherit it
    import onnxruntime

    return onnxruntime


def import_openvino() -> Any:
    """OpenVINO without its telemetry, which would write an id below the home folder.

    Raises:
        RuntimeUnavailableError: not installed, or it cannot be loaded.
    """
    telemetry, loaded = "openvino_telemetry", "openvino" in sys.modules
    before = sys.modules.get(telemetry)
    try:
        if not loaded:
            sys.modules[telemetry] = None  # type: ignore[assignment]  # an import of it fails, a stub is used
        import openvino
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"OpenVINO cannot be loaded ({error}). Install it with pip install 'nameplate[fast]', "
            "or use --runtime onnxruntime."
        ) from None
    finally:
        if not loaded:
            sys.modules.pop(telemetry)
            if before is not None:
                sys.modules[telemetry] = before
    return openvino


def open_runtime(bundle: Bundle, choice: str, threads: int, photos: int = 0) -> Runtime:
    """The runtime to use, for one batch at a time; see `choose_runtime`.

    Raises:
        UsageError: an unknown choice.
        RuntimeUnavailableError: OpenVINO was asked for by name and cannot be had.
    """
    return make_runtime(choose_runtime(bundle, choice, threads, photos), bundle.backbone, threads)


def choose_runtime(bundle: Bundle, choice: str, threads: int, photos: int = 0) -> str:
    """The name of the runtime to use.

    Args:
        bundle: whose backbone to run.
        choice: one of `RUNTIMES`; only `auto` probes.
        threads: processors to use.
        photos: in the job: with `auto` a short one runs on ONNX Runtime.

    Raises:
        UsageError: an unknown choice.
    """
    check_runtime(choice)
    if choice != "auto":
        return choice
    return preferred(probe(bundle, threads), bundle) if photos >= PROBE_PHOTOS else "onnxruntime"


def common_runtime(bundles: Sequence[Bundle], choice: str, threads: int) -> str:
    """The runtime for bundles whose answers are held against each other: the first of `PREFERRED` that is fit for all.

    Args:
        bundles: whose backbones run.
        choice: one of `RUNTIMES`; only `auto` probes.
        threads: processors to use.

    Raises:
        UsageError: an unknown choice.
    """
    check_runtime(choice)
    if choice != "auto":
        return choice
    return first_of([fit(probe(bundle, threads), bundle) for bundle in bundles])


def check_runtime(choice: str) -> None:
    """
    Raises:
        UsageError: it is none of `RUNTIMES`.
    """
    if choice not in RUNTIMES:
        raise UsageError(f"Unknown runtime '{choice}'. There are {', '.join(RUNTIMES)}.")


class ChosenRuntime:
    """Opens the runtime that `choose_runtime` names once it is seen how long the job is, and keeps it open."""

    def __init__(
        self, bundle: Bundle, choice: str, threads: int, tuning: Tuning | None = None, watch: Watch = no_watch
    ) -> None:
        check_runtime(choice)
        self._bundle, self._choice, self._threads = bundle, choice, threads
        self._tuning, self._watch = tuning or Tuning(streams=threads), watch
        self._small: Runtime | None = None
        self._large: Runtime | None = None

    @property
    def name(self) -> str:
        """What ran last, or what was asked for."""
        opened = self._large or self._small
        return opened.name if opened else self._choice

    def embed(self, batches: Iterable[Batch]) -> Iterator[Embedding]:
        """As the chosen runtime does; nothing is opened for no pictures."""
        batches = iter(batches)
        first = list(itertools.islice(batches, -(-PROBE_PHOTOS // BATCH)))
        if first:
            yield from self.open(sum(map(len, first))).embed(itertools.chain(first, batches))

    def open(self, photos: int) -> Runtime:
        """The open runtime for a job of so many photos; what a long job opened is kept for all after it."""
        if self._large is None and self._choice in ("auto", "onnxruntime") and 0 < photos < PROBE_PHOTOS:
            # all processors on each batch: that is sooner done, though slower where there are many
            self._small = self._small or open_runtime(self._bundle, "onnxruntime", self._threads)
            return self._small
        if self._large is None:
            name = choose_runtime(self._bundle, self._choice, self._threads, photos)
            batch, streams = self._tuning.batch, self._tuning.streams
            opened = make_runtime(name, self._bundle.backbone, self._threads, batch, streams)
            opened.watch = self._watch
            self._large = opened
        return self._large


def make_runtime(
    name: str, backbone: bytes, threads: int, batch: int = BATCH, streams: int | None = None
) -> OnnxRuntime | OpenVino:
    """The runtime of that name (not `auto`).

    Args:
        name: one of `RUNTIMES`.
        backbone: the ONNX file.
        threads: processors to use.
        batch: photos that it runs at once at most.
        streams: batches that it runs side by side; None: as is its way, ONNX Runtime one, OpenVINO one a thread.
    """
    if name == "onnxruntime":
        return OnnxRuntime(backbone, threads, batch=batch, streams=streams or 1)
    return OpenVino(backbone, threads, "bf16" if name.endswith("bf16") else "f32", batch, streams)


def preferred(trials: Iterable[Trial], bundle: Bundle) -> str:
    """The first of `PREFERRED` that is fit for this bundle; where none is, ONNX Runtime, which says why."""
    return first_of([fit(trials, bundle)])


def first_of(fit: Sequence[frozenset[str]]) -> str:
    """The first of `PREFERRED` that is in every set."""
    return next((name for name in PREFERRED if all(name in each for each in fit)), "onnxruntime")


def fit(trials: Iterable[Trial], bundle: Bundle) -> frozenset[str]:
    """The candidates that agree with ONNX Runtime and cost this bundle no accuracy."""
    check = bundle.manifest.bfloat16
    found = {trial.runtime for trial in trials if agrees(trial, bundle)}
    if check is None or check.cost > MAX_BFLOAT16_COST:
        found.discard("openvino-bf16")
    return frozenset(found)


def agrees(trial: Trial, bundle: Bundle) -> bool:
    """Whether a candidate ran, and its embeddings are ONNX Runtime's."""
    least = MIN_COSINE.get(trial.runtime, -1)
    return trial.error is None and trial.cosine >= (min(least, MIN_COSINE_INT8) if bundle.int8 else least)


def probe(bundle: Bundle, threads: int) -> tuple[Trial, ...]:
    """Try every candidate on the golden pictures in a subprocess, once for each machine, backbone and version."""
    try:
        installed = version("openvino")
    except PackageNotFoundError:
        return ()
    size = bundle.manifest.preprocess
    parts = bundle.digest, size, installed, version("onnxruntime"), threads, cpu_name(), BATCH
    report = cache_folder() / "runtimes" / f"{sha256(repr(parts).encode())[:32]}.json"
    try:
        return msgspec.json.decode(report.read_bytes(), type=tuple[Trial, ...])
    except (OSError, msgspec.DecodeError):
        trials = _run_probe(bundle.backbone, reference_inputs(size), threads)
    if not any(trial.timed_out for trial in trials):  # the next run may find a less busy machine
        with suppress(NameplateError, OSError), whole_file(report) as temporary:
            temporary.write_bytes(msgspec.json.encode(trials))
    return trials


def _run_probe(backbone: bytes, photos: Batch, threads: int) -> tuple[Trial, ...]:
    """Each candidate in a process of its own, so that none can take another, or us, down."""
    trials = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "backbone.onnx").write_bytes(backbone)
        np.save(Path(folder) / "photos.npy", photos)
        for name in RUNTIMES[1:]:
            command = [sys.executable, "-P", "-m", "nameplate.model.probe", folder, name, str(threads)]
            try:
                done = subprocess.run(command, capture_output=True, timeout=PROBE_SECONDS, check=False)
            except subprocess.TimeoutExpired:
                trials.append(Trial(name, error=f"took longer than {PROBE_SECONDS} s", timed_out=True))
                continue
            try:
                trials.append(msgspec.json.decode(done.stdout, type=Trial))
            except msgspec.DecodeError:
                last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
                trials.append(Trial(name, error=f"ended with {done.returncode}: {' '.join(last)}"))
    return tuple(trials)


def cpu_name() -> str:
    """What kind of processor this is, with its abilities."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        import platform

        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))
