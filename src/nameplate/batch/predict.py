"""Many photos: one row a photo, in one file or in parts, in flat memory; an interrupted run is gone on with.

The same command again goes on where the last one ended, and the bytes are those of a run that nothing interrupted.
See `job` for what lies on disk.
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
from nameplate.batch.tables import FORMATS, SUFFIXES, Format, join_files
from nameplate.batch.uris import list_entries, lists_in
from nameplate.batch.work import Make, Reader, make_parts
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
"""Of a folder's parts, where none is named."""
TOUCHED_BY = ("numpy", "onnxruntime", "openvino", "pillow", "pyarrow", "simplejpeg")
"""Packages whose version may change a row's bytes."""
SAMPLED = 8 * PROBE_PHOTOS
"""Photos among which those are looked for that a runtime is timed on."""


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a job did."""

    photos: int
    unreadable: int
    resumed: int
    """Photos taken over from an interrupted run."""
    parts: int
    resumed_parts: int
    """Parts that an interrupted run had finished."""
    verdicts: dict[str, int]
    errors: dict[str, int]
    """Reason → photos that could not be read."""
    runtime: str
    left_out: LeftOut
    """What was no photo among what the sources hold, also where an interrupted run listed them."""
    seconds: float
    """That this run took to name its photos, listing and choice of a runtime left out."""
    photos_per_second: float
    profile: Profile | None = None
    """Where the time went; None where that was not asked for, or nothing was left to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a row holds, and how the rows are made."""

    top: int = TOP
    """How many nameplates a row holds besides the answer (columns top1, top1_confidence, top2, …)."""
    part: int = PART
    """Photos a part."""
    profile: bool = False
    """Whether to measure where the time goes."""
    elsewhere: Make | None = None
    """Makes the parts in other processes (see `on_ray`); None: they are made here."""


@dataclass(frozen=True, slots=True)
class Output:
    """Where the rows go."""

    root: Path
    """The job's folder."""
    format: Format
    file: Path | None
    """The one file that the parts become; None where they stay."""


def find_output(path: Path, format_: Format | None = None) -> Output:
    """What an output's name and format stand for: a file of `SUFFIXES`, or a folder of parts.

    Raises:
        UsageError: another suffix or format, or both a file's name and a format.
        RuntimeUnavailableError: Parquet without pyarrow.
    """
    suffix = path.suffix.lower()
    if format_ is not None and format_ not in FORMATS:
        raise UsageError(f"Unknown format '{format_}'. There are {', '.join(FORMATS)}.")
    if suffix in SUFFIXES and format_ is not None:
        raise UsageError(f"'{path}' is a file's name, and a format is for a folder of parts: give one of both.")
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
    """Name every photo behind some sources.

    Args:
        model: what names them.
        sources: see `list_entries`.
        output: from `find_output`.
        options: what a row holds, and how the rows are made.
        listed: called with photos listed so far.
        progress: called with photos done and in all.

    Raises:
        UsageError: a source that cannot be one.
        DataError: a source that cannot be read.
        NameplateError: the folder holds something else, another run writes it, or it cannot be written to.
    """
    options = options or Options()
    if options.profile and options.elsewhere is not None:
        raise UsageError("A profile is of one process: leave out --profile or --ray.")
    for source in sources:
        if is_remote(source):
            check_address(source)  # before anything is written
    folder = os.getcwd() if any(not _is_absolute(source) for source in sources) else ""  # noqa: PTH109
    terms = _terms(model, output, options.top, options.part, tuple(map(printable, sources)), printable(folder))
    refuse_overwriting_input([output.file or output.root], (path for source in sources for path in lists_in(source)))

    def entries() -> Iterable[str | Refused]:
        return list_entries(sources, [str(output.root)])

    return _run(model, terms, entries, output, options, listed, progress)


def _is_absolute(source: str) -> bool:
    return is_remote(source) or os.path.isabs(source)  # noqa: PTH117


def _terms(model: Model, output: Output, top: int, part: int, sources: tuple[str, ...], folder: str) -> JobSpec:
    settings = model.settings
    return JobSpec(
        model.bundle.full_digest,
        settings.runtime,
        settings.tta,
        top,
        output.format,
        part,
        repr(settings.limits),
        versions(),
        sources,
        folder,
    )


def versions() -> dict[str, str]:
    """Package → version of all that touches a photo; those that are not installed are left out."""
    return {"nameplate": __version__} | {name: found for name in TOUCHED_BY if (found := _version(name))}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _run(
    model: Model,
    terms: JobSpec,
    entries: Callable[[], Iterable[str | Refused]],
    output: Output,
    options: Options,
    listed: Callable[[int], None],
    progress: Callable[[int, int], None],
) -> JobResult:
    model.require_head()
    with locked(output.root):
        job = plan(
            output.root,
            terms,
            entries,
            lambda first: _pin(model, first),
            replace_other=output.file is not None,
            listed=listed,
        )
        done = _make(model, job, progress, options.elsewhere, profile=options.profile)
        if output.file is not None:
            with whole_file(output.file) as temporary:
                join_files(map(job.path, range(job.parts)), temporary, job.terms.format, job.terms.top)
            remove(output.root)
    return done


def _make(
    model: Model, job: Job, progress: Callable[[int, int], None], elsewhere: Make | None, *, profile: bool
) -> JobResult:
    """Make the parts that are not done."""
    before, todo = job.done(), job.todo()
    finished = sum(line.rows for line in before.values())
    watch = Stopwatch() if profile else no_watch
    batching = None if elsewhere else _batching(model, job, todo)
    running = model.with_settings(runtime=job.terms.runtime, batching=batching, watch=watch)
    if elsewhere is None and sum(map(job.rows, todo)) >= PROBE_PHOTOS:
        running.runtime.open(0)  # what it takes to load the backbone is not the photos' time
    start = time.perf_counter()
    make = elsewhere or make_parts
    made = make(running, job, todo, job.record, lambda done: progress(finished + done, job.terms.photos))
    seconds = time.perf_counter() - start
    named = job.terms.photos - finished
    found = profile_job(running, job, watch.seconds, seconds, named) if isinstance(watch, Stopwatch) and named else None
    lines = [*before.values(), *made]
    return JobResult(
        job.terms.photos,
        sum(sum(line.errors.values()) for line in lines),
        finished,
        job.parts,
        len(before),
        _added(line.verdicts for line in lines),
        _added(line.errors for line in lines),
        job.terms.runtime,
        job.left_out(),
        round(seconds, 3),
        round(named / seconds, 1),
        found,
    )


def _added(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Counts by name, added up, the largest first."""
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total.most_common())


def _pin(model: Model, first: Sequence[str]) -> str:
    """The runtime for the whole job, by how many photos there are at least."""
    return choose_runtime(model.bundle, model.settings.runtime, model.settings.threads, len(first))


def _batching(model: Model, job: Job, todo: Sequence[int]) -> Batching | None:
    if sum(map(job.rows, todo)) < BENCHMARK_PHOTOS:
        return None
    pictures = lambda: _pictures(model, job.references(todo[0]))  # noqa: E731
    return best_batching(model.bundle, job.terms.runtime, model.settings.threads, pictures)


def _pictures(model: Model, references: Sequence[str]) -> Batch | None:
    """Pictures of `PROBE_PHOTOS` photos, uint8 N×H×W×3, of the first that can be read."""
    size, plain = model.bundle.manifest.preprocess, Settings(limits=model.settings.limits)
    with Reader(model.settings.limits) as reader:
        photos = (prepare_photo(source, size, plain) for source in reader.sources(references[:SAMPLED]))
        readable = (photo.inputs[0] for photo in photos if isinstance(photo, PreparedPhoto))
        pictures = list(itertools.islice(readable, PROBE_PHOTOS))
    return np.stack(pictures) if pictures else None


# JOINED Where a job's time went, and how far that is from what decoding and inference allow together.


STAGES = ("read", "decode", "resize", "infer", "judge", "write")
"""A photo's way; `judge` is the head, the verdict and the row."""
SAMPLE = 256
"""Photos of the job that decoding alone and inference alone are timed on."""
ROUNDS = 2
"""Times that each is timed; the faster counts."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the run."""

    stage: str
    seconds: float
    """Added up over all threads, waiting for a processor included."""
    share: float
    """Of the run's time on all its processors, 0–1 (more where threads waited for each other)."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the time went."""

    threads: int
    seconds: float
    """Of the run, photos alone."""
    stages: tuple[Stage, ...]
    photos_per_second: float
    decode_alone: float
    """Photos a second when nothing but reading, decoding and resizing runs, on all processors."""
    infer_alone: float
    """Photos a second when nothing but the runtime runs, on all processors."""
    floor: float
    """Photos a second that these two allow on the same processors: 1 / (1 / decode_alone + 1 / infer_alone)."""
    reached: float
    """Share of that which the run reached; above 1 where the machine was busier while it was measured."""


def profile_job(model: Model, job: Job, spent: Mapping[str, float], seconds: float, photos: int) -> Profile | None:
    """The profile of a run that has ended; None where no photo of the sample can be read.

    Args:
        model: that ran, its runtime open.
        job: whose photos are sampled.
        spent: seconds by stage.
        seconds: of the run.
        photos: that it named.
    """
    threads = model.settings.threads
    decoding, prepared = min((_decode(model, _sample(job)) for _ in range(ROUNDS)), key=lambda timed: timed[0])
    pictures = [photo.inputs[0] for photo in prepared if isinstance(photo, PreparedPhoto)]
    if not pictures:
        return None
    batches = [np.stack(pictures[start : start + BATCH]) for start in range(0, len(pictures), BATCH)]
    runtime = model.runtime.open(0)
    inferring = min(_timed(lambda: list(runtime.embed(iter(batches)))) for _ in range(ROUNDS))
    decode, infer, reached = len(prepared) / decoding, len(pictures) / inferring, photos / seconds
    floor = 1 / (1 / decode + 1 / infer)
    stages = tuple(
        Stage(name, round(spent[name], 3), round(spent[name] / seconds / threads, 3))
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
    """Photos from all over the job, of no more than eight of its parts."""
    parts = sorted({round(place * (job.parts - 1) / 7) for place in range(8)})
    each = -(-SAMPLE // len(parts))
    found = []
    for part in parts:
        references = job.references(part)
        found += references[:: max(1, len(references) // each)][:each]
    return found


def _decode(model: Model, references: list[str]) -> tuple[float, list[PreparedPhoto | UnreadablePhoto]]:
    """How long all threads take to read, decode and resize some photos, and these."""
    size, settings = model.bundle.manifest.preprocess, Settings(limits=model.settings.limits)

    with Reader(settings.limits) as reader:
        start = time.perf_counter()
        sources = reader.sources(references)
        prepared = list(
            ordered_map(lambda source: prepare_photo(source, size, settings), sources, model.settings.threads, AHEAD)
        )
        return time.perf_counter() - start, prepared


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
