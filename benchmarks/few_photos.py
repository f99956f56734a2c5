"""Accuracy of a head fitted on a few photos of each nameplate, over random draws.

    python benchmarks/few_photos.py FOLDER --draws 10

Judged on all other photos, less the copies of those trained on. `--model` names another bundle whose backbone
embeds; `--only` takes a file that lists the nameplates to use, a line each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from nameplate.datasets import read_dataset
from nameplate.datasets.duplicates import groups
from nameplate.models.collection import embed_photos
from nameplate.models.head import fit_head
from nameplate.models.model import Model
from nameplate.types import DEFAULT_BUNDLE, HeadRecipe


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, nargs="+", default=[1, 3, 5, 10, 20])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--model", default=DEFAULT_BUNDLE)
    parser.add_argument("--only", type=Path)
    arguments = parser.parse_args()
    model, dataset = Model.load(arguments.model), read_dataset(arguments.folder)
    only = set(arguments.only.read_text("utf-8").splitlines()) if arguments.only else set(dataset.nameplates)
    nameplates = [name for name in dataset.nameplates if name in only]
    plain = embed_photos([photo for photo in dataset.photos if photo.label in only], model)
    mirrored = embed_photos(plain.photos, model, mirror=True)
    copies = groups([str(photo.sha256) for photo in plain.photos], plain.hashes)
    classes = np.array([nameplates.index(str(photo.label)) for photo in plain.photos])
    for photos in arguments.photos:
        found = []
        for draw in range(arguments.draws):
            random = np.random.default_rng(draw)
            each = [random.permutation(np.flatnonzero(classes == c))[:photos] for c in range(len(nameplates))]
            train = np.concatenate(each)
            test = np.setdiff1d(np.flatnonzero(~np.isin(copies, copies[train])), train)
            fold = np.concatenate([np.arange(len(rows)) % min(HeadRecipe().folds, photos) for rows in each])
            rows = np.concatenate([plain.embeddings[train], mirrored.embeddings[train]])
            head = fit_head(rows, np.tile(classes[train], 2), np.tile(fold, 2))
            answers = (plain.embeddings[test] @ head.weight + head.bias).argmax(1)
            found.append(float((answers == classes[test]).mean()))
        low, high = np.percentile(found, [2.5, 97.5])
        print(f"{photos:3} photos a nameplate: {np.mean(found):.3f}  (95 % of draws {low:.3f}–{high:.3f})", flush=True)


if __name__ == "__main__":
    main()
