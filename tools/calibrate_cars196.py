"""Calibrate the bundle that ships: a temperature for each runtime that this machine has, and all that verdicts need.

    python tools/calibrate_cars196.py src/nameplate/models/shipped/cars196 CARS196 NOT_CARS [--dry-run]
    python tools/calibrate_cars196.py src/nameplate/models/shipped/cars196 CARS196 --thresholds

Where its cars lie is learned from the photos that trained it; temperatures and thresholds are chosen on CARS196's
photos that trained nothing, and "not a car" on NOT_CARS, a folder of photos of other things. Backbone, head and table
of photos stay as they are. With `--thresholds` all stays as it is but the thresholds of `unknown car` and of the sets.

CARS196 may be a copy in other colours or other bytes: who trained is told by nameplate and file name, too.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import numpy as np

from nameplate.datasets import read_dataset
from nameplate.datasets.sources import Dataset, list_photos
from nameplate.errors import RuntimeUnavailableError
from nameplate.evaluation.calibration import calibrate, fit_temperatures
from nameplate.evaluation.golden import with_golden
from nameplate.evaluation.judge import Judged, judge
from nameplate.evaluation.significance import paired
from nameplate.evaluation.thresholds import choose
from nameplate.evaluation.verdicts import with_verdicts
from nameplate.models.bundle import SCHEMA, Bundle, load_bundle, save_bundle
from nameplate.models.collection import embed_photos
from nameplate.models.head import log_losses, probabilities
from nameplate.models.known import fit_known
from nameplate.models.model import Model
from nameplate.models.runtime import RUNTIMES

NOT_CARS_PASSED = 0.05
"""Share of photos of other things that may pass for cars."""


def judged_by(bundle: Path, dataset: Dataset) -> dict[str, Judged]:
    """The bundle's answers by every runtime that can be had."""
    found: dict[str, Judged] = {}
    for runtime in RUNTIMES[1:]:
        try:
            found[runtime] = judge(Model.load(bundle, runtime=runtime), dataset)
        except RuntimeUnavailableError as error:
            print(f"{runtime}: left out, {error}")
    return found


def held_out(dataset: Dataset, bundle: Bundle) -> Dataset:
    """The photos that the bundle's own table names as held out, by `NAMEPLATE/FILE`."""
    rows = csv.DictReader((bundle.photos or b"").decode().splitlines())
    names = {row["path"] for row in rows if row["split"] != "train"}
    photos = tuple(photo for photo in dataset.photos if "/".join(Path(photo.path).parts[-2:]) in names)
    return replace(dataset, photos=photos)


def choose_thresholds(folder: Path, dataset: Dataset) -> None:
    """Choose the thresholds of `unknown car` and of the sets again; all else in the bundle stays."""
    model = Model.load(folder, runtime="onnxruntime")
    bundle = model.bundle
    assert bundle.known is not None
    assert bundle.weight is not None
    assert bundle.bias is not None
    before, truth = bundle.manifest.thresholds, judge(model, held_out(dataset, bundle))
    distances, odds = bundle.known.distances(truth.embeddings), bundle.known.no_car_odds(truth.embeddings)
    makes = bundle.manifest.makes
    after = choose(truth.probabilities, truth.truths, makes, distances, before.far, before.no_car, odds)
    print(before, after, sep="\n")
    manifest = replace(bundle.manifest, thresholds=after)
    save_bundle(folder, replace(bundle, manifest=manifest), overwrite=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("not_cars", type=Path, nargs="?", help="left out with --thresholds")
    parser.add_argument("--thresholds", action="store_true", help="choose these alone")
    parser.add_argument("--dry-run", action="store_true", help="say what would change, and write nothing")
    arguments = parser.parse_args()
    dataset = read_dataset(arguments.photos)
    if arguments.thresholds:
        choose_thresholds(arguments.bundle, dataset)
        return
    if arguments.not_cars is None:
        parser.error("NOT_CARS is missing: a folder of photos of other things")
    bundle = load_bundle(arguments.bundle)
    model = Model.load(arguments.bundle)
    judged = judged_by(arguments.bundle, dataset)
    logits = {runtime: model.logits(found.embeddings) for runtime, found in judged.items()}
    temperatures = fit_temperatures({runtime: (logits[runtime], found.truths) for runtime, found in judged.items()})
    for runtime, temperature in temperatures.items():
        found = judged[runtime]
        chances = probabilities(logits[runtime], temperature)
        before, after = (log_losses(each, found.truths) for each in (found.probabilities, chances))
        change = paired(before, after, found.groups)
        errors = [calibrate(each.max(1), found.right, found.groups).ece for each in (found.probabilities, chances)]
        print(
            f"{runtime}: temperature {bundle.manifest.temperature_of(runtime):.4f} -> {temperature:.4f}; log-loss "
            f"{before.mean():.4f} -> {after.mean():.4f} "
            f"({change.difference.value:+.5f}, {change.difference.low:+.5f} to {change.difference.high:+.5f}); "
            f"ECE {errors[0].value:.4f} -> {errors[1].value:.4f}; {found.evaluation.photos:,} photos"
        )
    if arguments.dry_run:
        return
    assert bundle.weight is not None
    assert bundle.bias is not None
    manifest = replace(bundle.manifest, schema=SCHEMA, temperatures=temperatures)
    manifest = replace(manifest, temperature=temperatures.get("onnxruntime", manifest.temperature))
    truth = next(iter(judged.values()))
    gate, no_car = (None, None) if bundle.known is None else (bundle.known.gate, bundle.manifest.thresholds.no_car)
    known = replace(fit_known(truth.training.embeddings, truth.training.columns), gate=gate)
    others = embed_photos(list_photos(arguments.not_cars), model)
    far = float(np.quantile(known.distances(others.embeddings)[1], NOT_CARS_PASSED))
    chances = probabilities(logits[truth.runtime], manifest.temperature_of(truth.runtime))
    distances, odds = known.distances(truth.embeddings), known.no_car_odds(truth.embeddings)
    manifest = with_verdicts(manifest, chances, truth.truths, distances, far, no_car, odds)
    manifest = with_golden(manifest, bundle.backbone, bundle.weight, bundle.bias)
    print(manifest.thresholds)
    save_bundle(arguments.bundle, replace(bundle, manifest=manifest, known=known), overwrite=True)


if __name__ == "__main__":
    main()
