"""A leaderboard (`leaderboard`): bundles and runs as they are, judged on photos that trained none of them.

Each bundle is evaluated as `nameplate evaluate` does, with its own head. The rows are of the photos that all of them
could judge, and pairs are tested as in `compare`, so that ties are called ties.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from nameplate.data.dataset import Dataset, digest, read_dataset
from nameplate.errors import DataError, NameplateError, UsageError
from nameplate.evaluate.evaluator import EvaluationResult, evaluate_model
from nameplate.evaluate.metrics import wilson
from nameplate.experiments.bundles import with_bundle_cost
from nameplate.experiments.compare import RUNS, SETTINGS
from nameplate.experiments.paired import (
    PairedAnswers,
    answers,
    ordered,
    pairs,
    photo_keys,
    summary,
    with_ranks,
    with_verdicts,
)
from nameplate.fit.run import EVALUATION_RUNTIME, RUN, versions
from nameplate.model.bundle import PHOTOS, is_bundle
from nameplate.model.classifier import log_loss
from nameplate.model.embeddings import Progress
from nameplate.model.model import Model
from nameplate.report.compare import Comparison, ComparisonRow
from nameplate.runtime.base import BATCH
from nameplate.runtime.select import available_cpus
from nameplate.types import Cars, Photo

PROTOCOL = "leaderboard"


def find_entries(paths: Sequence[str]) -> list[str]:
    """The bundles and runs that paths name; the folder of a comparison of networks stands for all its runs.

    Raises:
        UsageError: a path is none of these, or there are fewer than two entries.
    """
    found: list[str] = []
    for path in paths:
        runs = Path(path) / RUNS
        if is_bundle(path) or (Path(path) / RUN).is_file():
            found.append(path)
        elif (Path(path) / SETTINGS).is_file() and runs.is_dir():
            found += sorted(str(run) for run in runs.iterdir() if (run / RUN).is_file())
        elif (Path(path) / SETTINGS).is_file():
            raise UsageError(f"'{path}' is a comparison of heads, which keeps no bundles. Its rows are in compare.csv.")
        else:
            raise UsageError(
                f"'{path}' is no bundle, no run and no comparison: give folders that 'nameplate train' or 'nameplate "
                "compare' made, or a bundle that ships."
            )
    found = list(dict.fromkeys(found))
    if len(found) < 2:
        raise UsageError(
            f"A leaderboard needs two or more different entries; here there is {', '.join(found) or 'none'}."
        )
    return found


def held_out_photos(entries: Sequence[str]) -> Dataset:
    """The labelled photos that the first entry was made from; each entry leaves out those that trained it.

    Raises:
        DataError: no entry lists its photos, or they are gone.
    """
    for entry in entries:
        for folder in (Path(entry), Path(entry) / "bundle"):
            if (folder / PHOTOS).is_file():
                return read_dataset(folder / PHOTOS)
    raise DataError(f"None of {', '.join(entries)} lists the photos that it was made from. Name labelled ones: --data.")


def leaderboard(
    paths: Sequence[str],
    dataset: Dataset | None = None,
    *,
    threads: int | None = None,
    cars: Cars = "main",
    progress: Progress = lambda *_: None,
    say: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Judge bundles on the photos that trained none of them.

    Args:
        paths: see `find_entries`.
        dataset: labelled photos; None: those that the first entry was made from, see `held_out_photos`.
        threads: processors to use; None: all that this process may use.
        cars: see `Model.load`.
        progress: see `Progress`.
        say: called with a line for each entry that was evaluated.

    Returns:
        The comparison, the best first. Entries that cannot be judged have rows with the reason.

    Raises:
        UsageError: see `find_entries`.
        DataError: there are no photos that all entries could judge, or none can be read.
    """
    entries = find_entries(paths)
    data = held_out_photos(entries) if dataset is None else dataset
    threads = threads or available_cpus()
    results: dict[str, EvaluationResult] = {}
    rows: dict[str, ComparisonRow] = {}
    for name, entry in zip(_names(entries), entries, strict=True):
        begun = time.monotonic()
        row = ComparisonRow(name, f"bundle {name}")
        try:
            model = Model.load(entry, runtime=EVALUATION_RUNTIME, threads=threads, cars=cars)
            results[name] = evaluate_model(model, data, progress=_named(progress, name))
            rows[name] = replace(with_bundle_cost(row, model), seconds=time.monotonic() - begun)
            say(f"{name}: {len(results[name].photos):,} photos judged, {results[name].trained:,} trained it")
        except NameplateError as error:
            rows[name] = replace(row, error=str(error))
            say(f"{name}: {error}")
    return _compared(rows, results, {"entries": len(entries), "threads": threads, "cars": cars})


def _named(progress: Progress, name: str) -> Progress:
    return lambda step, done, of: progress(f"{name}: {step}", done, of)


def _names(entries: Sequence[str]) -> list[str]:
    """The last parts of the paths, or as many as make them different."""
    parts = [Path(entry).parts or (entry,) for entry in entries]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-depth:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return list(entries)


def _compared(
    rows: dict[str, ComparisonRow], results: dict[str, EvaluationResult], settings: dict[str, object]
) -> Comparison:
    """The comparison on the photos that all results have."""
    keys = {name: photo_keys(result.photos) for name, result in results.items()}
    common = set.intersection(*map(set, keys.values())) if keys else set()
    if results and not common:
        counts = ", ".join(f"{len(found):,} by {name}" for name, found in keys.items())
        raise DataError(f"No photo can be judged by all: {counts}, none of them the same. Name others with --data.")
    found: dict[str, PairedAnswers] = {}
    groups: dict[str, int] = {}
    photos: dict[str, Photo] = {}
    for name, result in results.items():
        kept = np.array([number for number, key in enumerate(keys[name]) if key in common], np.int64)
        chosen = [keys[name][number] for number in kept.tolist()]
        probs, y_true = result.probabilities[kept], result.y_true[kept]
        right = int((probs.argmax(1) == y_true).sum())
        rows[name] = replace(
            rows[name], photos=len(kept), top1=wilson(right, len(kept)), log_loss=log_loss(probs, y_true)
        )
        found[name] = answers(chosen, probs, y_true, result.nameplates)
        groups = groups or dict(zip(chosen, result.groups[kept].tolist(), strict=True))
        photos |= dict(zip(chosen, (result.photos[number] for number in kept.tolist()), strict=True))
    done = ordered(list(rows.values()))
    tested = pairs(found, groups)
    reference = done[0].name if found else None
    judged = [photos[key] for key in sorted(photos)]
    unreadable = max((result.unreadable for result in results.values()), key=len, default=())
    return Comparison(
        protocol=PROTOCOL,
        judged=f"Judged on {len(judged):,} photos of {len({photo.label for photo in judged})} nameplates that trained "
        f"none of them, by {EVALUATION_RUNTIME}.",
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        settings={**settings, "runtime": EVALUATION_RUNTIME, "batch": BATCH},
        data={"photos": len(judged), "sha256": digest(judged), "unreadable": len(unreadable)},
        versions=versions("numpy", "pillow", "scipy", "simplejpeg", "onnxruntime"),
        rows=with_ranks(with_verdicts(done, tested, reference, False), tested, False) if reference else done,
        reference=reference,
        summary=summary(done, tested, reference, False) if reference else "No entry could be judged.",
        pairs=tested,
        unreadable=unreadable,
    )
