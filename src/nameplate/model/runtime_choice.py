"""Which runtime runs a bundle's backbone, and in which batches: chosen once for each machine, and cached.

With `auto`, every candidate embeds a few model inputs in a process of its own (`runtime/benchmark.py`) before the
first job of at least `PROBE_PHOTOS` photos. Of the candidates whose embeddings agree with ONNX Runtime's, the first of
`PREFERRED` is used. The choice is not timed and does not look at the job's photos. So it depends on the machine and
the bundle alone, and is the same tomorrow (docs/decisions/0005).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import msgspec

from nameplate.errors import NameplateError
from nameplate.model.bundle import Bundle
from nameplate.model.reference import reference_inputs
from nameplate.runtime.base import BATCH, Batch, Batching, Embedding, Runtime, Watch, no_watch
from nameplate.runtime.benchmark import ProbeResult, fastest_batching, probe_runtimes
from nameplate.runtime.select import PREFERRED, check_runtime, cpu_name, make_runtime
from nameplate.storage import cache_folder, sha256, whole_file

PROBE_PHOTOS = 32
"""A shorter job runs on ONNX Runtime, which is ready soonest."""
BENCHMARK_PHOTOS = 5_000
"""A job of fewer photos does not repay the seconds that it takes to find the fastest batching."""
MIN_COSINE = {"openvino": 0.9999, "openvino-bf16": 0.99}
"""The least cosine of each embedding to ONNX Runtime's float32 one."""
MIN_COSINE_INT8 = 0.99
"""The same for an int8 backbone, compared with ONNX Runtime's embedding of the same file. Each runtime rounds in its
own places, and one step of 1/255 then propagates through all later layers (0.9986 is the least seen: docs/int8.md)."""
MAX_BFLOAT16_COST = 0.003
"""Largest share of labelled photos that bfloat16 may lose (0.3 points)."""


def open_runtime(bundle: Bundle, choice: str, threads: int, photos: int = 0) -> Runtime:
    """Open the runtime to use, with its default batching; see `choose_runtime`.

    Raises:
        UsageError: an unknown choice.
        RuntimeUnavailableError: OpenVINO was asked for by name and cannot be loaded.
    """
    return make_runtime(choose_runtime(bundle, choice, threads, photos), bundle.backbone, threads)


def choose_runtime(bundle: Bundle, choice: str, threads: int, photos: int = 0) -> str:
    """The name of the runtime to use.

    Args:
        bundle: whose backbone to run.
        choice: one of `RUNTIMES`; only `auto` probes.
        threads: processors to use.
        photos: in the job; with `auto` a short job runs on ONNX Runtime.

    Raises:
        UsageError: an unknown choice.
    """
    check_runtime(choice)
    if choice != "auto":
        return choice
    return preferred(probe(bundle, threads), bundle) if photos >= PROBE_PHOTOS else "onnxruntime"


def common_runtime(bundles: Sequence[Bundle], choice: str, threads: int) -> str:
    """The runtime for bundles whose answers are compared: the first of `PREFERRED` that every one of them can use.

    Args:
        bundles: whose backbones to run.
        choice: one of `RUNTIMES`; only `auto` probes.
        threads: processors to use.

    Raises:
        UsageError: an unknown choice.
    """
    check_runtime(choice)
    if choice != "auto":
        return choice
    return first_of([usable(probe(bundle, threads), bundle) for bundle in bundles])


class ChosenRuntime:
    """Opens the runtime that `choose_runtime` names as soon as the length of the job is known, and keeps it open."""

    def __init__(
        self, bundle: Bundle, choice: str, threads: int, batching: Batching | None = None, watch: Watch = no_watch
    ) -> None:
        check_runtime(choice)
        self._bundle, self._choice, self._threads = bundle, choice, threads
        self._batching, self._watch = batching or Batching(streams=threads), watch
        self._small: Runtime | None = None
        self._large: Runtime | None = None

    @property
    def name(self) -> str:
        """The runtime that ran last; before the first run, what was asked for."""
        opened = self._large or self._small
        return opened.name if opened else self._choice

    def embed(self, batches: Iterable[Batch]) -> Iterator[Embedding]:
        """Embed batches on the chosen runtime; without any batch none is opened."""
        batches = iter(batches)
        # So many batches tell whether this is a long job.
        first = list(itertools.islice(batches, -(-PROBE_PHOTOS // BATCH)))
        if first:
            yield from self.open(sum(map(len, first))).embed(itertools.chain(first, batches))

    def open(self, photos: int) -> Runtime:
        """The open runtime for a job of so many photos; what a long job opened is kept for all jobs after it."""
        if self._large is None and self._choice in ("auto", "onnxruntime") and 0 < photos < PROBE_PHOTOS:
            # All processors work on each batch: a short job ends sooner so, although a long one would be slower.
            self._small = self._small or open_runtime(self._bundle, "onnxruntime", self._threads)
            return self._small
        if self._large is None:
            name = choose_runtime(self._bundle, self._choice, self._threads, photos)
            batch, streams = self._batching.batch, self._batching.streams
            opened = make_runtime(name, self._bundle.backbone, self._threads, batch, streams)
            opened.watch = self._watch
            self._large = opened
        return self._large


# What the probe found, and what follows from it.


def preferred(results: Iterable[ProbeResult], bundle: Bundle) -> str:
    """The first of `PREFERRED` that this bundle can use. If none is, ONNX Runtime, whose error then says why."""
    return first_of([usable(results, bundle)])


def first_of(usable: Sequence[frozenset[str]]) -> str:
    """The first of `PREFERRED` that is in every set; `onnxruntime` where none is."""
    return next((name for name in PREFERRED if all(name in each for each in usable)), "onnxruntime")


def usable(results: Iterable[ProbeResult], bundle: Bundle) -> frozenset[str]:
    """The candidates that agree with ONNX Runtime and cost this bundle no accuracy."""
    check = bundle.manifest.bfloat16
    found = {result.runtime for result in results if agrees(result, bundle)}
    if check is None or check.cost > MAX_BFLOAT16_COST:
        found.discard("openvino-bf16")
    return frozenset(found)


def agrees(result: ProbeResult, bundle: Bundle) -> bool:
    """Whether a candidate ran, and its embeddings are near enough to ONNX Runtime's."""
    least = MIN_COSINE.get(result.runtime, -1)
    return result.error is None and result.cosine >= (min(least, MIN_COSINE_INT8) if bundle.int8 else least)


def probe(bundle: Bundle, threads: int) -> tuple[ProbeResult, ...]:
    """Try every candidate on the reference inputs, once for each machine, backbone and version; cached.

    Returns:
        One result for each runtime; none where OpenVINO is not installed, since there is nothing to choose.
    """
    try:
        installed = version("openvino")
    except PackageNotFoundError:
        return ()
    size = bundle.manifest.preprocess
    parts = bundle.digest, size, installed, version("onnxruntime"), threads, cpu_name(), BATCH
    report = cache_folder() / "runtimes" / f"{sha256(repr(parts).encode())[:32]}.json"
    try:
        return msgspec.json.decode(report.read_bytes(), type=tuple[ProbeResult, ...])
    except (OSError, msgspec.DecodeError):
        results = probe_runtimes(bundle.backbone, reference_inputs(size), threads)
    if not any(result.timed_out for result in results):  # the next run may find a less busy machine
        with suppress(NameplateError, OSError), whole_file(report) as temporary:
            temporary.write_bytes(msgspec.json.encode(results))
    return results


def best_batching(bundle: Bundle, runtime: str, threads: int, inputs: Callable[[], Batch | None]) -> Batching | None:
    """The fastest batching on this machine, cached; None where it cannot be measured: then the default is used.

    Args:
        bundle: whose backbone runs.
        runtime: one of `RUNTIMES`, not `auto`.
        threads: processors to use.
        inputs: called only where there is something to measure; returns model inputs, uint8 N×H×W×3, or None.
    """
    versions = [_version("onnxruntime"), _version("openvino")]
    key = sha256(repr((bundle.digest, runtime, threads, cpu_name(), versions, BATCH)).encode())[:32]
    report = cache_folder() / "tuning" / f"{key}.json"
    with suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(report.read_bytes(), type=Batching)
    batch = inputs()
    found = None if batch is None else fastest_batching(bundle.backbone, runtime, threads, batch)
    if found is not None:
        with suppress(NameplateError, OSError), whole_file(report) as temporary:
            temporary.write_bytes(msgspec.json.encode(found))
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
