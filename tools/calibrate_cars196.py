"""Calibrate the bundle that ships: a temperature for each runtime that this machine has, and all that verdicts need.

    python tools/calibrate_cars196.py src/nameplate/model/shipped/cars196 CARS196 NOT_CARS [--dry-run]
    python tools/calibrate_cars196.py src/nameplate/model/shipped/cars196 CARS196 --thresholds

The OOD detector is fitted on the training photos. Temperatures and thresholds are chosen on the held-out photos of
CARS196, and the threshold of "not a car" on NOT_CARS, a folder of photos of other things. Backbone, classifier and
table of photos do not change. With `--thresholds` only the thresholds of `unknown car` and of the prediction sets
change.

CARS196 may be a copy in other colours or with other bytes: training photos are also found by nameplate and file name.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import numpy as np

from nameplate.data import read_dataset
from nameplate.data.dataset import Dataset, list_photos
from nameplate.errors import RuntimeUnavailableError
from nameplate.evaluate.calibration import calibrate, fit_temperatures
from nameplate.evaluate.evaluator import EvaluationResult, evaluate_model
from nameplate.evaluate.significance import paired
from nameplate.evaluate.thresholds import choose_thresholds, with_reference, with_verdicts
from nameplate.model.bundle import SCHEMA, Bfloat16Check, Bundle, Manifest, load_bundle, save_bundle
from nameplate.model.classifier import log_losses, probabilities
from nameplate.model.embeddings import embed_photos
from nameplate.model.model import Model
from nameplate.model.ood import MahalanobisDetector, fit_detector
from nameplate.runtime.select import RUNTIMES

NOT_CARS_PASSED = 0.05
"""Share of photos of other things that may pass for cars."""


def judged_by(bundle: Path, dataset: Dataset) -> dict[str, EvaluationResult]:
    """The bundle's answers by every runtime that can be had."""
    found: dict[str, EvaluationResult] = {}
    for runtime in RUNTIMES[1:]:
        try:
            found[runtime] = evaluate_model(Model.load(bundle, runtime=runtime), dataset)
        except RuntimeUnavailableError as error:
            print(f"{runtime}: left out, {error}")
    return found


def bfloat16_cost(judged: dict[str, EvaluationResult]) -> Bfloat16Check | None:
    """Top-1 in float32 and in bfloat16; None where one of the two did not run."""
    exact, fast = judged.get("openvino"), judged.get("openvino-bf16")
    if exact is None or fast is None:
        return None
    return Bfloat16Check(len(exact.y_true), float(exact.right.mean()), float(fast.right.mean()))


def by_name(dataset: Dataset, bundle: Bundle, *, trained: bool) -> Dataset:
    """The photos that the bundle's own table names as trained on, or those that it names as held out.

    They are found by `NAMEPLATE/FILE`: a copy in other colours has other digests, and would pass for held out.
    """
    rows = csv.DictReader((bundle.photos or b"").decode().splitlines())
    names = {row["path"] for row in rows if (row["split"] == "train") is trained}
    photos = tuple(photo for photo in dataset.photos if "/".join(Path(photo.path).parts[-2:]) in names)
    return replace(dataset, photos=photos)


def choose_thresholds_again(folder: Path, dataset: Dataset) -> None:
    """Choose the thresholds of `unknown car` and of the sets again; all else in the bundle stays."""
    model = Model.load(folder, runtime="onnxruntime")
    bundle = model.bundle
    assert bundle.ood_detector is not None
    assert bundle.weight is not None
    assert bundle.bias is not None
    before, reference = bundle.manifest.thresholds, evaluate_model(model, by_name(dataset, bundle, trained=False))
    distances, odds = (
        bundle.ood_detector.distances(reference.embeddings),
        bundle.ood_detector.non_car_log_odds(reference.embeddings),
    )
    makes = bundle.manifest.makes
    after = choose_thresholds(
        reference.probabilities, reference.y_true, makes, distances, before.far, before.no_car, odds
    )
    print(before, after, sep="\n")
    manifest = replace(bundle.manifest, thresholds=after)
    save_bundle(folder, replace(bundle, manifest=manifest), overwrite=True)


def recalibrated(
    model: Model,
    temperatures: dict[str, float],
    found: EvaluationResult,
    detector: MahalanobisDetector,
    gates: tuple[float | None, float | None],
) -> Manifest:
    """The model's manifest with these temperatures, and with thresholds chosen on these answers.

    Args:
        model: has the classifier.
        temperatures: runtime → temperature.
        found: answers to photos that trained nothing.
        detector: the OOD detector that the bundle will have.
        gates: the thresholds `far` and `no_car`.
    """
    bundle = model.bundle
    assert bundle.weight is not None
    assert bundle.bias is not None
    manifest = replace(bundle.manifest, schema=SCHEMA, temperatures=temperatures)
    manifest = replace(manifest, temperature=temperatures.get("onnxruntime", manifest.temperature))
    probs = probabilities(model.logits(found.embeddings), manifest.temperature_of(found.runtime))
    distances, odds = detector.distances(found.embeddings), detector.non_car_log_odds(found.embeddings)
    manifest = with_verdicts(manifest, probs, found.y_true, distances, *gates, odds)
    return with_reference(manifest, bundle.backbone, bundle.weight, bundle.bias)


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
        choose_thresholds_again(arguments.bundle, dataset)
        return
    if arguments.not_cars is None:
        parser.error("NOT_CARS is missing: a folder of photos of other things")
    bundle = load_bundle(arguments.bundle)
    model = Model.load(arguments.bundle)
    judged = judged_by(arguments.bundle, by_name(dataset, bundle, trained=False))
    logits = {runtime: model.logits(found.embeddings) for runtime, found in judged.items()}
    temperatures = fit_temperatures({runtime: (logits[runtime], found.y_true) for runtime, found in judged.items()})
    for runtime, temperature in temperatures.items():
        found = judged[runtime]
        probs = probabilities(logits[runtime], temperature)
        before, after = (log_losses(each, found.y_true) for each in (found.probabilities, probs))
        change = paired(before, after, found.groups)
        errors = [calibrate(each.max(1), found.right, found.groups).ece for each in (found.probabilities, probs)]
        print(
            f"{runtime}: temperature {bundle.manifest.temperature_of(runtime):.4f} -> {temperature:.4f}; log-loss "
            f"{before.mean():.4f} -> {after.mean():.4f} "
            f"({change.difference.value:+.5f}, {change.difference.low:+.5f} to {change.difference.high:+.5f}); "
            f"ECE {errors[0].value:.4f} -> {errors[1].value:.4f}; {found.evaluation.photos:,} photos"
        )
    if arguments.dry_run:
        return
    reference = next(iter(judged.values()))
    gate, no_car = (
        (None, None) if bundle.ood_detector is None else (bundle.ood_detector.gate, bundle.manifest.thresholds.no_car)
    )
    training = embed_photos(
        by_name(dataset, bundle, trained=True).photos, model.with_settings(runtime=reference.runtime)
    )
    columns = np.array([model.nameplates.index(str(photo.label)) for photo in training.photos])
    known = replace(fit_detector(training.embeddings, columns), gate=gate)
    others = embed_photos(list_photos(arguments.not_cars), model)
    far = float(np.quantile(known.distances(others.embeddings)[1], NOT_CARS_PASSED))
    manifest = recalibrated(model, temperatures, reference, known, (far, no_car))
    manifest = replace(manifest, bfloat16=bfloat16_cost(judged) or manifest.bfloat16)
    print(manifest.thresholds)
    save_bundle(arguments.bundle, replace(bundle, manifest=manifest, ood_detector=known), overwrite=True)


if __name__ == "__main__":
    main()
