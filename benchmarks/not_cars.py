"""Measures how often photos of whole cars get the verdict "not a car", and how often other photos do not get it.

    python benchmarks/not_cars.py [--model BUNDLE] FOLDER ...

Only that half of each folder is evaluated that chose no threshold (`chooses`); with --all it is every photo.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from nameplate.data.dataset import list_photos
from nameplate.defaults import DEFAULT_BUNDLE
from nameplate.evaluate.metrics import wilson
from nameplate.evaluate.thresholds import in_calibration_half
from nameplate.images.quality import flaws
from nameplate.model.embeddings import embed_photos
from nameplate.model.model import Model
from nameplate.model.verdict import with_flaws
from nameplate.types import Verdict

OTHERS: tuple[Verdict, ...] = ("answer", "unsure", "unknown car", "poor photo")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--model", default=DEFAULT_BUNDLE)
    parser.add_argument("--all", action="store_true", help="judge every photo")
    arguments = parser.parse_args()
    model = Model.load(arguments.model, runtime="onnxruntime")
    print("| photos | not a car | answer | unsure | unknown car | poor photo |\n| --- |" + 5 * " ---: |")
    for folder in arguments.folders:
        embedded = embed_photos(list_photos(folder), model)
        kept = np.array([arguments.all or not in_calibration_half(photo.sha256) for photo in embedded.photos])
        embeddings = embedded.embeddings[kept]
        probs = model.probabilities(embeddings, embedded.runtime)
        qualities = [quality for quality, there in zip(embedded.qualities, kept, strict=True) if there]
        counts = Counter(
            with_flaws(model.decide("", row, embedding), flaws(quality)).verdict
            for row, embedding, quality in zip(probs, embeddings, qualities, strict=True)
        )
        share = wilson(counts["not a car"], len(embeddings))
        said = f"{share.value:.1%} ({100 * share.low:.1f}–{100 * share.high:.1f})"
        rest = " | ".join(f"{counts[verdict] / len(embeddings):.1%}" for verdict in OTHERS)
        print(f"| {folder.name} ({len(embeddings)}) | {said} | {rest} |")


if __name__ == "__main__":
    main()
