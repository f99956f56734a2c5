"""Many photos: one row a photo, in one file or in parts, in flat memory; an interrupted run is gone on with.

The same command again goes on where the last one ended, and the bytes are those of a run that nothing interrupted.
See `job` for what lies on disk.
"""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from nameplate import __version__
from nameplate.bulk.job import Job, Terms, locked, plan, remove
from nameplate.bulk.objects import check_address, is_remote
from nameplate.bulk.profile import Profile, measure
from nameplate.bulk.references import list_entries, lists_in
from nameplate.bulk.tables import FORMATS, SUFFIXES, Format, join_files
from nameplate.bulk.work import Make, Reader, make_parts
from nameplate.datasets.archive import Refused
from nameplate.datasets.inputs import refuse_overwriting_input
from nameplate.datasets.listing import LeftOut
from nameplate.datasets.tables import import_pyarrow
from nameplate.errors import UsageError
from nameplate.models.lanes import Tuning
from nameplate.models.model import Model
from nameplate.models.pipeline import PreparedPhoto, Settings, prepare_photo
from nameplate.models.runtime import PROBE_PHOTOS, Batch, choose_runtime
from nameplate.models.stopwatch import Stopwatch, no_watch
from nameplate.models.tuning import TUNE_PHOTOS, tuned
from nameplate.storage import printable, whole_file
from nameplate.types import PART, TOP

FORMAT: Format = "parquet"
"""Of a folder's parts, where none is named."""
TOUCHED_BY = ("numpy", "onnxruntime", "openvino", "pillow", "pyarrow", "simplejpeg")
"""Packages whose version may change a row's bytes."""
SAMPLED = 8 * PROBE_PHOTOS
"""Photos among which those are looked for that a runtime is timed on."""


@dataclass(frozen=True, slots=True)
class Done:
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
) -> Done:
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


def _terms(model: Model, output: Output, top: int, part: int, sources: tuple[str, ...], folder: str) -> Terms:
    settings = model.settings
    return Terms(
        model.bundle.seal,
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
    terms: Terms,
    entries: Callable[[], Iterable[str | Refused]],
    output: Output,
    options: Options,
    listed: Callable[[int], None],
    progress: Callable[[int, int], None],
) -> Done:
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
) -> Done:
    """Make the parts that are not done."""
    before, todo = job.done(), job.todo()
    finished = sum(line.rows for line in before.values())
    watch = Stopwatch() if profile else no_watch
    tuning = None if elsewhere else _tuning(model, job, todo)
    running = model.with_settings(runtime=job.terms.runtime, tuning=tuning, watch=watch)
    if elsewhere is None and sum(map(job.rows, todo)) >= PROBE_PHOTOS:
        running.runtime.open(0)  # what it takes to load the backbone is not the photos' time
    start = time.perf_counter()
    make = elsewhere or make_parts
    made = make(running, job, todo, job.record, lambda done: progress(finished + done, job.terms.photos))
    seconds = time.perf_counter() - start
    named = job.terms.photos - finished
    found = measure(running, job, watch.seconds, seconds, named) if isinstance(watch, Stopwatch) and named else None
    lines = [*before.values(), *made]
    return Done(
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


def _tuning(model: Model, job: Job, todo: Sequence[int]) -> Tuning | None:
    if sum(map(job.rows, todo)) < TUNE_PHOTOS:
        return None
    pictures = lambda: _pictures(model, job.references(todo[0]))  # noqa: E731
    return tuned(model.bundle, job.terms.runtime, model.settings.threads, pictures)


def _pictures(model: Model, references: Sequence[str]) -> Batch | None:
    """Pictures of `PROBE_PHOTOS` photos, uint8 N×H×W×3, of the first that can be read."""
    size, plain = model.bundle.manifest.preprocess, Settings(limits=model.settings.limits)
    with Reader(model.settings.limits) as reader:
        photos = (prepare_photo(source, size, plain) for source in reader.sources(references[:SAMPLED]))
        readable = (photo.inputs[0] for photo in photos if isinstance(photo, PreparedPhoto))
        pictures = list(itertools.islice(readable, PROBE_PHOTOS))
    return np.stack(pictures) if pictures else None
