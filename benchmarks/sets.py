"""Measures gates and prediction sets together, for several ways to divide the permitted 5 % of errors between them.

    python benchmarks/sets.py CARS196 --strangers RUSSIAN10 EUROPE20 [--scenes 2 3] [--halvings 20]

Thresholds are chosen on one half of the held-out photos, and evaluated on the other half and on OOD photos. Scenes are
made of the other half as in `whole_scenes.py` (each photo is 1/N of the frame). CARS196 may be a copy in other
colours: training photos are also found by nameplate and file name.
"""

from __future__ import annotations

import argparse
import csv
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nameplate.data import read_dataset
from nameplate.data.dataset import list_photos
from nameplate.defaults import DEFAULT_BUNDLE
from nameplate.evaluate.evaluator import evaluate_model
from nameplate.evaluate.thresholds import KEPT, choose_gates, conformal_threshold, selection_conditional_threshold
from nameplate.images.decode import decode
from nameplate.model.embeddings import embed_photos
from nameplate.model.model import Model
from nameplate.model.verdict import COVERAGE, Thresholds, gated
from nameplate.types import Floats
from whole_scenes import scene  # type: ignore[import-not-found]  # beside this file

Flags = NDArray[np.bool_]
WAYS = {
    "sets of all": KEPT,
    "sets of what passes": KEPT,
    "the lower of both": KEPT,
    "95 % of all, gates keep 96 %": 0.96,
    "95 % of all, gates keep 97 %": 0.97,
    "95 % of all, gates keep 98 %": 0.98,
    "95 % of all, gates keep 99 %": 0.99,
}
"""Ways of choosing, and what share of known cars the gate of `unknown car` keeps in each."""


@dataclass(frozen=True)
class Seen:
    """Photos as a model sees them."""

    probs: Floats
    """N×C."""
    distances: tuple[Floats, Floats]
    odds: Floats | None
    theirs: Thresholds
    """Of the model."""

    def __getitem__(self, some: NDArray[np.int64]) -> Seen:
        """Those at these places."""
        near, cars = self.distances
        return Seen(
            self.probs[some], (near[some], cars[some]), None if self.odds is None else self.odds[some], self.theirs
        )

    def passed(self, thresholds: Thresholds) -> Flags:
        """Those that no gate stops."""
        return ~np.logical_or(*gated(self.probs, self.distances, self.odds, thresholds))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", default=DEFAULT_BUNDLE)
    parser.add_argument("--strangers", type=Path, nargs="*", default=[])
    parser.add_argument("--scenes", type=int, nargs="*", default=[])
    parser.add_argument("--halvings", type=int, default=20)
    arguments = parser.parse_args()
    model = Model.load(arguments.model)
    dataset = read_dataset(arguments.photos)
    rows = csv.DictReader((model.bundle.photos or b"").decode().splitlines())
    names = {row["path"] for row in rows if row["split"] != "train"}
    kept = tuple(photo for photo in dataset.photos if "/".join(Path(photo.path).parts[-2:]) in names)
    judged = evaluate_model(model, replace(dataset, photos=kept))
    known = {"photos": seen(model, judged.embeddings)}
    pixels = [decode(photo.path) for photo in judged.photos] if arguments.scenes else []
    for part in arguments.scenes:
        scenes = (scene(pixels, place, part**-0.5, "scene") for place in range(len(pixels)))
        known[f"scenes 1/{part}"] = seen(model, model.embed(list(scenes)))
    strangers = {
        path.name: seen(model, embed_photos(list_photos(path), model).embeddings) for path in arguments.strangers
    }
    random = np.random.default_rng(0)
    config = [random.permutation(len(judged.y_true)) for _ in range(arguments.halvings)]
    print("| way | of | passes | sets hold, of what passes | of all | mean set | answered | of these right |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for way in WAYS:
        report(way, known, strangers, judged.y_true, config)


def report(
    way: str,
    known: dict[str, Seen],
    strangers: dict[str, Seen],
    y_true: NDArray[np.int64],
    config: list[NDArray[np.int64]],
) -> None:
    """Lines of the table: means over the halvings."""
    half = len(y_true) // 2
    chosen = [chosen_by(way, known["photos"][order[:half]], y_true[order[:half]]) for order in config]
    for name, photos in known.items():
        shares = [
            figures(photos[order[half:]], y_true[order[half:]], cut) for order, cut in zip(config, chosen, strict=True)
        ]
        passes, held, of_all, size, answered, right = np.nanmean(shares, 0)
        print(
            f"| {way} | {name} | {100 * passes:.1f} % | {100 * held:.1f} % | {100 * of_all:.1f} % | {size:.2f} | "
            f"{100 * answered:.1f} % | {100 * right:.1f} % |"
        )
    for name, photos in strangers.items():
        passed = np.mean([photos.passed(cut).mean() for cut in chosen])
        answered = np.mean([(photos.passed(cut) & (sets(photos, cut).sum(1) == 1)).mean() for cut in chosen])
        print(f"| {way} | {name} | {100 * passed:.1f} % | | | | {100 * answered:.1f} % | |", flush=True)


def chosen_by(way: str, photos: Seen, y_true: NDArray[np.int64]) -> Thresholds:
    """Thresholds."""
    found = choose_gates(photos.probs, photos.distances, photos.theirs.far, photos.theirs.no_car, WAYS[way])
    passed = photos.passed(found)
    if way == "sets of all":
        cut = conformal_threshold(photos.probs, y_true)
    elif way == "sets of what passes":
        cut = conformal_threshold(photos.probs[passed], y_true[passed])
    elif way == "the lower of both":
        cut = selection_conditional_threshold(photos.probs, y_true, passed)
    else:
        cut = least_of_all(photos.probs, y_true, passed)
    return replace(found, nameplate=cut)


def least_of_all(probs: Floats, y_true: NDArray[np.int64], passed: Flags) -> float:
    """`conformal_threshold`, where a photo that a gate stops counts as one whose set lacks the truth."""
    of_truth = np.sort(np.where(passed, probs[np.arange(len(y_true)), y_true], -1))[::-1]
    rank = math.ceil((len(y_true) + 1) * COVERAGE)
    return 0.0 if rank > len(y_true) else max(0.0, float(of_truth[rank - 1]))


def figures(photos: Seen, y_true: NDArray[np.int64], cut: Thresholds) -> tuple[float, ...]:
    """Shares that pass, whose sets hold the truth, of what passes and of all; mean set; answered; of these right."""
    passed, inside = photos.passed(cut), sets(photos, cut)
    holds, single = inside[np.arange(len(y_true)), y_true], passed & (inside.sum(1) == 1)
    return (
        float(passed.mean()),
        float(holds[passed].mean()),
        float((holds & passed).mean()),
        float(inside[passed].sum(1).mean()),
        float(single.mean()),
        float(holds[single].mean()) if single.any() else math.nan,
    )


def sets(photos: Seen, cut: Thresholds) -> Flags:
    """Which nameplates are in each photo's set, bool N×C; the most probable always is."""
    assert cut.nameplate is not None
    inside = photos.probs >= np.float32(cut.nameplate)
    inside[np.arange(len(inside)), photos.probs.argmax(1)] = True
    return np.asarray(inside)


def seen(model: Model, embeddings: Floats) -> Seen:
    """Photos, from their embeddings."""
    known, theirs = model.bundle.ood_detector, model.bundle.manifest.thresholds
    assert known is not None
    return Seen(
        model.probabilities(embeddings, model.runtime.name),
        known.distances(embeddings),
        known.non_car_log_odds(embeddings),
        theirs,
    )


if __name__ == "__main__":
    main()
