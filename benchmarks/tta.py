"""Measures the gain of each kind of test-time augmentation on labelled photos, against a single view.

    python benchmarks/tta.py DATA [--every 1] [--ways mirror,scales original]

Photos that trained the model are left out. All TTA views of a plan are computed once; plans that are parts of it
(mirror and scales of "mirror,scales") are evaluated on the same embeddings.
"""

from __future__ import annotations

import argparse
import time
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nameplate.data import read_dataset
from nameplate.defaults import DEFAULT_BUNDLE, NO_TTA
from nameplate.evaluate.evaluator import trained_digests
from nameplate.evaluate.significance import paired
from nameplate.model.classifier import log_loss
from nameplate.model.model import Model
from nameplate.model.pipeline import EmbeddedPhoto
from nameplate.model.tta import ADDED_VIEWS
from nameplate.storage import sha256
from nameplate.types import Floats


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default=DEFAULT_BUNDLE)
    parser.add_argument("--every", type=int, default=1, help="Take every so many-th photo.")
    parser.add_argument("--ways", nargs="+", default=["mirror,scales", "original"])
    arguments = parser.parse_args()
    model, dataset = Model.load(arguments.model, runtime="onnxruntime"), read_dataset(arguments.data)
    known = trained_digests(model.bundle)
    photos = [p for p in dataset.photos if sha256(Path(p.path).read_bytes()) not in known][:: arguments.every]
    y_true = np.array([model.nameplates.index(str(photo.label)) for photo in photos])
    groups = np.unique([photo.group or photo.path for photo in photos], return_inverse=True)[1]
    paths = [photo.path for photo in photos]
    plain = probs_of(model, paths, (NO_TTA,))[NO_TTA]
    tell(NO_TTA, plain, plain, y_true, groups)
    for way in arguments.ways:
        for name, probs in probs_of(model.with_settings(tta=way), paths, parts_of(way)).items():
            tell(name, plain, probs, y_true, groups)


def parts_of(way: str) -> tuple[str, ...]:
    """The ways whose looks are among those of one."""
    names = way.split(",")
    if not set(names) <= set(ADDED_VIEWS):
        return (way,)
    return tuple(",".join(some) for count in range(1, len(names) + 1) for some in combinations(names, count))


def probs_of(model: Model, paths: list[str], names: tuple[str, ...]) -> dict[str, Floats]:
    """Way → probabilities float32 N×C, from one run of the model's looks; says how fast it was."""
    found: dict[str, list[Floats]] = {name: [] for name in names}
    looks = 0.0
    begun = time.monotonic()
    for row in model.embedder.rows(paths):
        assert isinstance(row, EmbeddedPhoto), row
        views = row.car.views
        looks += len(np.unique(views, axis=0))
        each = model.probabilities(views, row.runtime)
        for name in names:
            found[name].append(each[chosen(name, names[-1], len(views))].mean(0))
    seconds = time.monotonic() - begun
    print(
        f"{names[-1]}: {len(paths)} photos, {looks / len(paths):.2f} looks at each, {len(paths) / seconds:.1f} photos/s"
    )
    return {name: np.stack(rows) for name, rows in found.items()}


def chosen(name: str, way: str, count: int) -> list[int]:
    """Which of `count` looks, made by a way, those of one of its parts are."""
    if not set(way.split(",")) <= set(ADDED_VIEWS):
        return list(range(count))
    order = [None, *(part for part in ADDED_VIEWS if part in way.split(",") for _ in ADDED_VIEWS[part])]
    return [place for place, part in enumerate(order) if part is None or part in name.split(",")]


def tell(
    name: str,
    plain: Floats,
    probs: Floats,
    y_true: NDArray[np.int64],
    groups: NDArray[np.int64],
) -> None:
    """A line."""
    right = probs.argmax(1) == y_true
    found = paired(plain.argmax(1) == y_true, right, groups)
    losses = [-np.log(np.maximum(each[np.arange(len(y_true)), y_true], 1e-12)) for each in (plain, probs)]
    loss = paired(losses[0], losses[1], groups)
    gain, less = found.difference, loss.difference
    print(
        f"{name:22} top-1 {100 * right.mean():6.2f} %  gain {100 * gain.value:+.2f} ({100 * gain.low:+.2f} to "
        f"{100 * gain.high:+.2f}) p {found.p:.2g} (+{found.better} -{found.worse})  log-loss "
        f"{log_loss(probs, y_true):.4f} ({less.value:+.4f}, {less.low:+.4f} to {less.high:+.4f})",
        flush=True,
    )


if __name__ == "__main__":
    main()
