"""Fit a bundle's temperatures, one for each runtime that this machine has, on photos that trained nothing of it.

    python tools/calibrate_cars196.py src/nameplate/models/shipped/cars196 CARS196 [--dry-run]

Backbone, head and table of photos stay as they are; only bundle.json changes.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from nameplate.datasets import read_dataset
from nameplate.datasets.sources import Dataset
from nameplate.errors import RuntimeUnavailableError
from nameplate.evaluation.calibration import calibrate, fit_temperatures
from nameplate.evaluation.judge import Judged, judge
from nameplate.evaluation.significance import paired
from nameplate.models.bundle import load_bundle, save_bundle
from nameplate.models.head import log_losses, probabilities
from nameplate.models.model import Model
from nameplate.models.runtime import RUNTIMES


def judged_by(bundle: Path, dataset: Dataset) -> dict[str, Judged]:
    """The bundle's answers by every runtime that can be had."""
    found: dict[str, Judged] = {}
    for runtime in RUNTIMES[1:]:
        try:
            found[runtime] = judge(Model.load(bundle, runtime=runtime), dataset)
        except RuntimeUnavailableError as error:
            print(f"{runtime}: left out, {error}")
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--dry-run", action="store_true", help="say what would change, and write nothing")
    arguments = parser.parse_args()
    bundle = load_bundle(arguments.bundle)
    model = Model.load(arguments.bundle)
    judged = judged_by(arguments.bundle, read_dataset(arguments.photos))
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
    default = temperatures.get("onnxruntime", bundle.manifest.temperature)
    save_bundle(
        arguments.bundle,
        replace(bundle.manifest, temperature=default, temperatures=temperatures),
        bundle.backbone,
        (bundle.weight, bundle.bias),
        bundle.photos,
        overwrite=True,
    )


if __name__ == "__main__":
    main()
