"""Measures the accuracy of a linear classifier with a few photos of each nameplate, over random draws.

    python benchmarks/few_photos.py FOLDER --draws 10
    python benchmarks/few_photos.py FOLDER --draws 20 --unknown CARS

The classifier is evaluated on all other photos, without copies of the training photos. `--model` gives another bundle,
whose backbone embeds the photos. `--only` is a file with the nameplates to use, one on each line. With `--unknown
CARS`, a folder of cars of other nameplates, each draw is trained like `nameplate train`, and the verdicts on both are
counted.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nameplate.data import Dataset, read_dataset
from nameplate.defaults import DEFAULT_BUNDLE
from nameplate.evaluate.evaluator import same_picture
from nameplate.fit.linear_probe import train_head
from nameplate.model.classifier import fit_head, log_loss
from nameplate.model.embeddings import DatasetEmbeddings, embed_photos
from nameplate.model.model import Model
from nameplate.types import Floats, HeadRecipe


def verdicts(model: Model, embeddings: Floats, runtime: str) -> list[float]:
    """Shares of `answer` and of `unknown car`."""
    probs = model.probabilities(embeddings, runtime)
    found = [model.decide("", row, embedding).verdict for row, embedding in zip(probs, embeddings, strict=True)]
    return [found.count("answer") / len(found), found.count("unknown car") / len(found)]


def judge_unknown(
    model: Model,
    plain: DatasetEmbeddings,
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    others: DatasetEmbeddings,
    nameplates: list[str],
) -> tuple[float, ...]:
    """Log-loss, shares of `answer` and `unknown car` on the own cars, and the same two on cars of other nameplates."""
    with tempfile.TemporaryDirectory() as folder:
        drawn = Dataset(tuple(plain.photos[place].with_(split=None) for place in train), tuple(nameplates))
        made = train_head(drawn, Path(folder) / "bundle", model=model)
        few = Model(made.bundle, model.settings)
    y_true = np.array([few.nameplates.index(str(plain.photos[place].label)) for place in test])
    loss = log_loss(few.probabilities(plain.embeddings[test], plain.runtime), y_true)
    own = verdicts(few, plain.embeddings[test], plain.runtime)
    return loss, *own, *verdicts(few, others.embeddings, others.runtime)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, nargs="+", default=[1, 3, 5, 10, 20])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--model", default=DEFAULT_BUNDLE)
    parser.add_argument("--only", type=Path)
    parser.add_argument("--unknown", type=Path)
    arguments = parser.parse_args()
    model, dataset = Model.load(arguments.model), read_dataset(arguments.folder)
    only = set(arguments.only.read_text("utf-8").splitlines()) if arguments.only else set(dataset.nameplates)
    nameplates = [name for name in dataset.nameplates if name in only]
    plain = embed_photos([photo for photo in dataset.photos if photo.label in only], model)
    mirrored = embed_photos(plain.photos, model, mirror=True)
    copies = same_picture(plain)
    others = None if arguments.unknown is None else embed_photos(read_dataset(arguments.unknown).photos, model)
    classes = np.array([nameplates.index(str(photo.label)) for photo in plain.photos])
    for photos in arguments.photos:
        found, verdicts_found = [], []
        for draw in range(arguments.draws):
            random = np.random.default_rng(draw)
            each = [random.permutation(np.flatnonzero(classes == c))[:photos] for c in range(len(nameplates))]
            train = np.concatenate(each)
            test = np.setdiff1d(np.flatnonzero(~np.isin(copies, copies[train])), train)
            if others is not None:
                verdicts_found.append(judge_unknown(model, plain, train, test, others, nameplates))
                continue
            fold = np.concatenate([np.arange(len(rows)) % min(HeadRecipe().folds, photos) for rows in each])
            rows = np.concatenate([plain.embeddings[train], mirrored.embeddings[train]])
            head = fit_head(rows, np.tile(classes[train], 2), np.tile(fold, 2))
            answers = (plain.embeddings[test] @ head.weight + head.bias).argmax(1)
            found.append(float((answers == classes[test]).mean()))
        if verdicts_found:
            loss, answered, called, wrongly, rightly = np.mean(verdicts_found, 0)
            print(
                f"{photos:3} photos a nameplate: log-loss {loss:.3f}; own cars answered {answered:.1%}, unknown "
                f"{called:.1%}; others answered {wrongly:.1%} (at worst {np.max(verdicts_found, 0)[3]:.1%}), "
                f"unknown {rightly:.1%}",
                flush=True,
            )
            continue
        low, high = np.percentile(found, [2.5, 97.5])
        print(f"{photos:3} photos a nameplate: {np.mean(found):.3f}  (95 % of draws {low:.3f}–{high:.3f})", flush=True)


if __name__ == "__main__":
    main()
