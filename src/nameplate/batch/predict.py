"""`predict_photos`: one row per photo, in one file or in a folder of shards, in constant memory.

The same command resumes an interrupted run, and the files are byte for byte those of a run without interruption.
`job.py` describes what is on disk. With `profile`, the time of each stage is measured and compared with what decoding
and inference alone allow (`profile_job`).
"""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from nameplate import __version__
from nameplate.batch.job import Job, JobSpec, locked, plan, remove
from nameplate.batch.shards import MakeShards, Reader, make_shards
from nameplate.batch.tables import FORMATS, SUFFIXES, Format, join_files
from nameplate.batch.uris import list_entries, lists_in
from nameplate.data.archive import Refused
from nameplate.data.inputs import refuse_overwriting_input
from nameplate.data.listing import LeftOut
from nameplate.data.tables import import_pyarrow
from nameplate.data.uris import check_address, is_remote
from nameplate.defaults import PART, TOP
from nameplate.errors import UsageError
from nameplate.images.parallel import ordered_map
from nameplate.model.model import Model
from nameplate.model.pipeline import AHEAD, PreparedPhoto, Settings, UnreadablePhoto, prepare_photo
from nameplate.model.runtime_choice import BENCHMARK_PHOTOS, PROBE_PHOTOS, best_batching, choose_runtime
from nameplate.runtime.base import BATCH, Batch, Batching, Stopwatch, no_watch
from nameplate.storage import printable, whole_file

FORMAT: Format = "parquet"
"""The format of a folder's shards if none is given."""
TOUCHED_BY = ("numpy", "onnxruntime", "openvino", "pillow", "pyarrow", "simplejpeg")
"""Packages whose version may change a row's bytes."""
SAMPLED = 8 * PROBE_PHOTOS
"""Photos among which readable ones are sought to time runtimes on."""


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a job did. `predict --json` prints it, so the field names are JSON keys: `parts` are the shards."""

    photos: int
    unreadable: int
    resumed: int
    """Photos whose rows an interrupted run had written."""
    parts: int
    """Number of shards."""
    resumed_parts: int
    """Shards that an interrupted run had finished."""
    verdicts: dict[str, int]
    errors: dict[str, int]
    """Reason → photos that could not be read."""
    runtime: str
    left_out: LeftOut
    """Entries of the sources that are no photos, also those that an interrupted run listed."""
    seconds: float
    """Seconds that this run took for its photos, without listing them and choosing a runtime."""
    photos_per_second: float
    profile: Profile | None = None
    """Where the time went; None if that was not asked for, or nothing was left to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a row holds, and how the rows are made."""

    top: int = TOP
    """How many nameplates a row holds besides the answer (columns top1, top1_confidence, top2, …)."""
    shard_size: int = PART
    """Photos per shard."""
    profile: bool = False
    """Whether to measure where the time goes."""
    make: MakeShards | None = None
    """Makes the shards in other processes (see `on_ray`); None makes them in this process."""


@dataclass(frozen=True, slots=True)
class Output:
    """Where the rows go."""

    root: Path
    """The job's folder."""
    format: Format
    file: Path | None
    """The file that the shards are joined into; None if they stay as they are."""


def find_output(path: Path, format_: Format | None = None) -> Output:
    """Find out whether an output is one file, with a suffix of `SUFFIXES`, or a folder of shards.

    Raises:
        UsageError: the suffix or the format is unknown, or both a file's name and a format are given.
        RuntimeUnavailableError: the format is Parquet, and pyarrow is not installed.
    """
    suffix = path.suffix.lower()
    if format_ is not None and format_ not in FORMATS:
        raise UsageError(f"Unknown format '{format_}'. There are {', '.join(FORMATS)}.")
    if suffix in SUFFIXES and format_ is not None:
        raise UsageError(f"'{path}' is the name of a file, but --format is for a folder of parts: give one of the two.")
    if suffix not in SUFFIXES and suffix and format_ is None and not path.is_dir():
        raise UsageError(
            f"Cannot write '{path}': its name must end in {', '.join(SUFFIXES)}. For a folder of parts add --format."
        )
    kind = next((kind for kind in FORMATS if suffix == f".{kind}"), format_ or FORMAT)
    if kind == "parquet":
        import_pyarrow()  # fails now rather than after an hour
    return Output(path.with_name(f".{path.name}.job"), kind, path) if suffix in SUFFIXES else Output(path, kind, None)


def predict_photos(
    model: Model,
    sources: Sequence[str],
    output: Output,
    options: Options | None = None,
    *,
    listed: Callable[[int], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> JobResult:
    """Identify the car in every photo of some sources, and write the rows.

    Args:
        model: the model.
        sources: photos, folders, tables, archives and so on; see `list_entries`.
        output: where the rows go; see `find_output`.
        options: what a row holds, and how the rows are made.
        listed: called with the number of photos listed so far.
        progress: called with the numbers of photos done and in all.

    Raises:
        UsageError: a source is malformed.
        DataError: a source cannot be read.
        NameplateError: the folder holds something else, another run writes it, or it cannot be written to.
    """
    options = options or Options()
    if options.profile and options.make is not None:
        raise UsageError("A profile can be made of one process only: leave out --profile or --ray.")
    for source in sources:
        if is_remote(source):
            check_address(source)  # a malformed address is refused before anything is written
    # The same relative paths mean other photos in another folder, so the folder is part of the job.
    folder = os.getcwd() if any(not _is_absolute(source) for source in sources) else ""  # noqa: PTH109
    spec = _spec(model, output, options.top, options.shard_size, tuple(map(printable, sources)), printable(folder))
    refuse_overwriting_input([output.file or output.root], (path for source in sources for path in lists_in(source)))

    def entries() -> Iterable[str | Refused]:
        return list_entries(sources, [str(output.root)])

    return _run(model, spec, entries, output, options, listed, progress)


def _is_absolute(source: str) -> bool:
    return is_remote(source) or os.path.isabs(source)  # noqa: PTH117


def _spec(model: Model, output: Output, top: int, shard_size: int, sources: tuple[str, ...], folder: str) -> JobSpec:
    settings = model.settings
    return JobSpec(
        model.bundle.full_digest,
        settings.runtime,
        settings.tta,
        top,
        output.format,
        shard_size,
        repr(settings.limits),
        versions(),
        sources,
        folder,
        cars=settings.cars,
    )


def versions() -> dict[str, str]:
    """Return the versions of all packages that process a photo; packages that are not installed are left out."""
    return {"nameplate": __version__} | {name: found for name in TOUCHED_BY if (found := _version(name))}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _run(
    model: Model,
    spec: JobSpec,
    entries: Callable[[], Iterable[str | Refused]],
    output: Output,
    options: Options,
    listed: Callable[[int], None],
    progress: Callable[[int, int], None],
) -> JobResult:
    model.require_head()  # fails now rather than in the first shard
    # The lock is held to the end, so that two runs cannot write the same shards.
    with locked(output.root):
        job = plan(
            output.root,
            spec,
            entries,
            lambda first: _pin(model, first),
            # The folder of a single file is hidden and ours; a folder of parts may be another job's result.
            replace_other=output.file is not None,
            listed=listed,
        )
        done = _make(model, job, progress, options.make, profile=options.profile)
        if output.file is not None:
            with whole_file(output.file) as temporary:
                join_files(map(job.path, range(job.shards)), temporary, job.spec.format, job.spec.top)
            # Only after the joined file is complete under its final name; a crash before loses nothing.
            remove(output.root)
    return done


def _make(
    model: Model, job: Job, progress: Callable[[int, int], None], remote: MakeShards | None, *, profile: bool
) -> JobResult:
    """Make the shards that are not done: in this process, or by `remote`."""
    before, todo = job.done(), job.todo()
    finished = sum(record.rows for record in before.values())
    watch = Stopwatch() if profile else no_watch
    batching = None if remote else _batching(model, job, todo)
    running = model.with_settings(runtime=job.spec.runtime, batching=batching, watch=watch)
    if remote is None and sum(map(job.rows, todo)) >= PROBE_PHOTOS:
        running.runtime.open(0)  # loading the backbone must not count as the photos' time
    start = time.perf_counter()
    make = remote or make_shards
    # `step` counts photos of this run; progress also includes those of earlier runs.
    made = make(running, job, todo, job.record, lambda done: progress(finished + done, job.spec.photos))
    seconds = time.perf_counter() - start
    named = job.spec.photos - finished
    found = profile_job(running, job, watch.seconds, seconds, named) if isinstance(watch, Stopwatch) and named else None
    records = [*before.values(), *made]
    return JobResult(
        job.spec.photos,
        sum(sum(record.errors.values()) for record in records),
        finished,
        job.shards,
        len(before),
        _added(record.verdicts for record in records),
        _added(record.errors for record in records),
        job.spec.runtime,
        job.left_out(),
        round(seconds, 3),
        round(named / seconds, 1),
        found,
    )


def _added(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Add up counts by name; the largest comes first."""
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total.most_common())


def _pin(model: Model, first: Sequence[str]) -> str:
    """Choose the runtime for the whole job, given the URIs of its first shard: long jobs are worth a benchmark."""
    return choose_runtime(model.bundle, model.settings.runtime, model.settings.threads, len(first))


def _batching(model: Model, job: Job, todo: Sequence[int]) -> Batching | None:
    """Benchmark how many batches at once are fastest; None for jobs too short to be worth it."""
    if sum(map(job.rows, todo)) < BENCHMARK_PHOTOS:
        return None

    def inputs() -> Batch | None:
        return _probe_inputs(model, job.uris(todo[0]))

    return best_batching(model.bundle, job.spec.runtime, model.settings.threads, inputs)


def _probe_inputs(model: Model, uris: Sequence[str]) -> Batch | None:
    """Prepare the first `PROBE_PHOTOS` photos that can be read: uint8 N×H×W×3; None if none can."""
    size, settings = model.bundle.manifest.preprocess, model.settings
    plain = Settings(limits=settings.limits, cars=settings.cars)
    with Reader(model.settings.limits) as reader:
        photos = (prepare_photo(source, size, plain) for source in reader.sources(uris[:SAMPLED]))
        readable = (photo.inputs[0] for photo in photos if isinstance(photo, PreparedPhoto))
        inputs = list(itertools.islice(readable, PROBE_PHOTOS))
    return np.stack(inputs) if inputs else None


# The profile of a job.

STAGES = ("read", "decode", "locate", "resize", "infer", "judge", "write")
"""The stages of a photo, by the names that `Settings.watch` gets; `judge` is the head, the verdict and the row."""
SAMPLE = 256
"""Photos of the job on which decoding alone and inference alone are timed."""
ROUNDS = 2
"""How often each is timed; the fastest counts."""


@dataclass(frozen=True, slots=True)
class StageTime:
    """One stage of the run."""

    stage: str
    seconds: float
    """Seconds added up over all threads, including those spent waiting for a processor."""
    share: float
    """Share of the run's time on all its processors, 0–1; larger if threads waited for each other."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the time of a run went. The field names are keys of `predict --json`."""

    threads: int
    seconds: float
    """Seconds of the run, for its photos alone."""
    stages: tuple[StageTime, ...]
    photos_per_second: float
    decode_alone: float
    """Photos per second if all processors only read, decode and resize."""
    infer_alone: float
    """Photos per second if all processors only run the backbone."""
    floor: float
    """Photos per second that both together allow on these processors: 1 / (1 / decode_alone + 1 / infer_alone)."""
    reached: float
    """Share of `floor` that the run reached; above 1 if the machine was busier while `floor` was measured."""


def profile_job(model: Model, job: Job, spent: Mapping[str, float], seconds: float, photos: int) -> Profile | None:
    """Make the profile of a run that has ended.

    Args:
        model: the model of the run; its runtime is open.
        job: the job whose photos are sampled.
        spent: stage → seconds added up over all threads.
        seconds: the duration of the run.
        photos: the number of photos of the run.

    Returns:
        The profile; None if no photo of the sample can be read.
    """
    threads = model.settings.threads
    decoding, prepared = min((_decode(model, _sample(job)) for _ in range(ROUNDS)), key=lambda timed: timed[0])
    inputs = [photo.inputs[0] for photo in prepared if isinstance(photo, PreparedPhoto)]
    if not inputs:
        return None
    batches = [np.stack(inputs[start : start + BATCH]) for start in range(0, len(inputs), BATCH)]
    runtime = model.runtime.open(0)
    inferring = min(_timed(lambda: list(runtime.embed(iter(batches)))) for _ in range(ROUNDS))
    decode, infer, reached = len(prepared) / decoding, len(inputs) / inferring, photos / seconds
    floor = 1 / (1 / decode + 1 / infer)
    stages = tuple(
        StageTime(name, round(spent[name], 3), round(spent[name] / seconds / threads, 3))
        for name in STAGES
        if name in spent
    )
    return Profile(
        threads,
        round(seconds, 3),
        stages,
        round(reached, 1),
        round(decode, 1),
        round(infer, 1),
        round(floor, 1),
        round(reached / floor, 3),
    )


def _sample(job: Job) -> list[str]:
    """Sample URIs evenly from up to eight of the job's shards."""
    shards = sorted({round(place * (job.shards - 1) / 7) for place in range(8)})
    each = -(-SAMPLE // len(shards))
    found = []
    for shard in shards:
        uris = job.uris(shard)
        found += uris[:: max(1, len(uris) // each)][:each]
    return found


def _decode(model: Model, uris: list[str]) -> tuple[float, list[PreparedPhoto | UnreadablePhoto]]:
    """Read, decode and resize some photos with all threads; return the seconds that it took, and the photos."""
    size = model.bundle.manifest.preprocess
    settings = Settings(limits=model.settings.limits, cars=model.settings.cars)
    with Reader(settings.limits) as reader:
        start = time.perf_counter()
        sources = reader.sources(uris)
        prepared = list(
            ordered_map(lambda source: prepare_photo(source, size, settings), sources, model.settings.threads, AHEAD)
        )
        return time.perf_counter() - start, prepared


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
