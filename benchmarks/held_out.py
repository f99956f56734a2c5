"""Measures bundles on nameplates and photos that were held out from training the network that ships.

    python benchmarks/held_out.py --data DATA --cars196 CARS196 [--models BUNDLE BUNDLE ...] [--draws 40]

DATA holds the folders `ukraine63`, `europe20` and `russian10`, and CARS196 the photos of cars196 in their right
colours. All models are evaluated on the same draws. The lists below are the protocol: what they name trained nothing.

A photo of an advert shows the same car as the other photos of the advert. So in `ukraine63` the few photos that train a
head come from one half of the adverts of each nameplate, drawn at random, and the photos to evaluate on from the other
half.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nameplate.defaults import DEFAULT_BUNDLE
from nameplate.evaluate.calibration import calibrate
from nameplate.evaluate.evaluator import same_picture
from nameplate.evaluate.thresholds import in_calibration_half
from nameplate.model.classifier import fit_head, log_loss
from nameplate.model.embeddings import DatasetEmbeddings, embed_photos
from nameplate.model.model import Model
from nameplate.types import Floats, HeadRecipe, Photo

UKRAINE = (
    "audi_a4",
    "audi_a6",
    "bmw_3-series",
    "bmw_5-series",
    "bmw_7-series",
    "ford_mondeo",
    "honda_accord",
    "hyundai_accent",
    "hyundai_sonata",
    "lexus_is",
    "mazda_3",
    "mazda_6",
    "mercedes-benz_c-class",
    "mitsubishi_lancer",
    "opel_vectra",
    "peugeot_407",
    "toyota_avensis",
    "toyota_camry",
    "vaz-lada_21099",
    "volkswagen_bora",
)
"""Held-out nameplates of ukraine63: of the 23 with ten crops or more in two adverts or more that have no partner in
europe20, all but the three with the most crops."""
UKRAINE_UNUSED = ("vaz-lada_1118-kalina", "opel_astra")
"""Nameplates of ukraine63 that neither train nor are evaluated, since they are in russian10, which is held out."""
EUROPE = ("bmw serie 1", "chevrolet spark", "hyundai tucson", "nemo citroen", "polo")
"""Held-out nameplates of europe20: five without a partner in ukraine63, drawn with seed 18 among fourteen."""
PHOTOS = (1, 3, 5, 10, 20)
"""Numbers of photos of each nameplate that train a head."""


@dataclass(frozen=True, slots=True)
class FewPhotos:
    """Labelled photos from which few are drawn to train a head, the others to evaluate it."""

    name: str
    paths: tuple[str, ...]
    classes: NDArray[np.int64]
    """int64 (N,)."""
    adverts: NDArray[np.int64]
    """int64 (N,): photos of one advert are of one car."""


def ukraine(data: Path, nameplates: Sequence[str] = UKRAINE) -> FewPhotos:
    """The crops of some nameplates of ukraine63."""
    with (data / "ukraine63" / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "crop" and row["nameplate"] in nameplates]
    return FewPhotos(
        "ukraine63",
        tuple(str(data / "ukraine63" / row["file"]) for row in rows),
        np.array([nameplates.index(row["nameplate"]) for row in rows]),
        np.array([int(row["advert"]) for row in rows]),
    )


def folders(root: Path, nameplates: Sequence[str] | None = None) -> FewPhotos:
    """A folder for each nameplate, each photo for itself."""
    nameplates = nameplates or sorted(path.name for path in root.iterdir() if path.is_dir())
    found = [(path, number) for number, name in enumerate(nameplates) for path in sorted((root / name).iterdir())]
    return FewPhotos(
        root.name,
        tuple(str(path) for path, _ in found),
        np.array([number for _, number in found]),
        np.arange(len(found)),
    )


def draws(
    photos: FewPhotos, number: int, times: int, copies: NDArray[np.int64] | None = None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Places of the photos that train and of those that are evaluated; nameplates with too few photos are left out.

    Args:
        photos: the labelled photos.
        number: photos of each nameplate that train.
        times: number of draws.
        copies: int64 (N,), photos with the same number are copies; None takes each photo for itself.
    """
    groups = photos.adverts if copies is None else copies
    for seed in range(times):
        random = np.random.default_rng([seed, number])
        train, test = [], []
        for c in np.unique(photos.classes):
            places = np.flatnonzero(photos.classes == c)
            adverts = random.permutation(np.unique(groups[places]))
            half = -(-len(adverts) // 2) if random.random() < 0.5 else len(adverts) // 2
            mine = places[np.isin(groups[places], adverts[:half])]
            others = np.setdiff1d(places, mine)
            if len(mine) < number and len(others) >= number:
                mine, others = others, mine
            if len(mine) >= number and len(others):
                train.append(random.permutation(mine)[:number])
                test.append(others)
        if len(train) > 1:
            yield np.concatenate(train), np.concatenate(test)


Answer = Callable[[Floats, NDArray[np.int64], Floats], Floats]
"""Embeddings and classes 0 … C-1 of the photos that train, embeddings to evaluate → scores N×C."""


def few_photos(
    photos: FewPhotos, embeddings: Floats, number: int, times: int, answer: Answer, mirrored: Floats | None = None
) -> NDArray[np.float64]:
    """Top-1 and top-5 accuracy of each draw, each nameplate with equal weight: float64 `times`×2."""
    found = []
    for train, test in draws(photos, number, times):
        names, classes = np.unique(photos.classes[train], return_inverse=True)
        truth = np.searchsorted(names, photos.classes[test])
        rows = embeddings[train]
        if mirrored is not None:
            rows, classes = np.concatenate([rows, mirrored[train]]), np.tile(classes, 2)
        scores = answer(rows, classes, embeddings[test])
        rank = (scores > scores[np.arange(len(test)), truth][:, None]).sum(1)
        weight = 1 / np.bincount(truth)[truth]
        found.append([np.average(rank < best, weights=weight) for best in (1, 5)])
    return np.array(found)


def reports(name: str) -> bool:
    """Whether a held-out photo of cars196 belongs to the half that reports; the other half chooses.

    Args:
        name: `NAMEPLATE/FILE`.
    """
    return hashlib.sha256(name.encode()).digest()[0] % 2 == 1


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cars196", type=Path)
    parser.add_argument("--models", nargs="+", default=[DEFAULT_BUNDLE])
    parser.add_argument("--sets", nargs="+", default=["ukraine63", "europe20", "russian10"])
    parser.add_argument("--photos", type=int, nargs="+", default=PHOTOS)
    parser.add_argument("--draws", type=int, default=20)
    arguments = parser.parse_args()
    models = {name: Model.load(name, runtime="onnxruntime") for name in arguments.models}
    sets = {
        "ukraine63": lambda: ukraine(arguments.data),
        "europe20": lambda: folders(arguments.data / "europe20", EUROPE),
        "russian10": lambda: folders(arguments.data / "russian10"),
    }
    for name in arguments.sets:
        report_few_photos(sets[name](), models, arguments.photos, arguments.draws)
    if arguments.cars196:
        report_cars196(arguments.cars196, models)
    report_others([arguments.data / name for name in ("not_cars", "interiors", "motorbikes", "russian10")], models)


def report_few_photos(photos: FewPhotos, models: dict[str, Model], numbers: Sequence[int], times: int) -> None:
    """Print the accuracy of heads on few photos, for each model and number of photos."""
    listed = [Photo(path, label=str(c)) for path, c in zip(photos.paths, photos.classes, strict=True)]
    first: dict[int, NDArray[np.float64]] = {}
    for name, model in models.items():
        plain = embed_photos(listed, model, also_mirrored=True)
        mirrored = embed_photos(plain.photos, model, mirror=True)
        if not first and photos.name != "ukraine63":  # adverts are not known there, but copies can be found
            copies = same_picture(plain)
            photos = FewPhotos(photos.name, photos.paths, photos.classes, copies)
        for number in numbers:
            found = few_photos(photos, plain.embeddings, number, times, head_answers, mirrored.embeddings)
            if not len(found):
                continue
            before = first.setdefault(number, found)
            change = (found - before)[:, 0]
            error = 2 * change.std(ddof=1) / len(change) ** 0.5
            print(
                f"{photos.name}, {number} photos: top-1 {found[:, 0].mean():.3f} (draws {found[:, 0].min():.3f} to "
                f"{found[:, 0].max():.3f}), top-5 {found[:, 1].mean():.3f}; against the first model "
                f"{change.mean():+.3f} ± {error:.3f}  [{name}]",
                flush=True,
            )


def head_answers(rows: Floats, classes: NDArray[np.int64], others: Floats) -> Floats:
    """Logits of the head that `nameplate train` fits; the second half of the rows are the mirrored photos."""
    single = classes[: len(classes) // 2]
    fold = np.zeros(len(single), np.int64)
    for c in np.unique(single):
        places = np.flatnonzero(single == c)
        fold[places] = np.arange(len(places)) % min(HeadRecipe().folds, len(places))
    head = fit_head(rows, classes, np.tile(fold, 2))
    return np.asarray(others @ head.weight + head.bias)


def photos_at(root: Path) -> dict[str, Path]:
    """`NAMEPLATE/FILE`, as a bundle's table has it, → where the photo is."""
    return {"/".join(path.parts[-2:]): path for path in sorted(root.rglob("*.jpg"))}


def report_cars196(root: Path, models: dict[str, Model]) -> None:
    """Print accuracy and calibration on the reporting half of the held-out photos of cars196."""
    from nameplate.model.bundle import load_bundle

    rows = csv.DictReader((load_bundle(DEFAULT_BUNDLE).photos or b"").decode().splitlines())
    held = {row["path"]: row["label"] for row in rows if row["split"] == "validation" and reports(row["path"])}
    found = photos_at(root)
    listed = [Photo(str(found[name]), label=label) for name, label in held.items() if name in found]
    for name, model in models.items():
        embedded = embed_photos(listed, model)
        truth = np.array([model.nameplates.index(str(photo.label)) for photo in embedded.photos])
        probs = model.probabilities(embedded.embeddings, embedded.runtime)
        right = probs.argmax(1) == truth
        passed = np.mean([verdict not in STOPPED for verdict in verdicts(model, embedded)])
        error = calibrate(probs.max(1), right).ece
        print(
            f"cars196, {len(truth)} photos: top-1 {right.mean():.4f}, log-loss {log_loss(probs, truth):.4f}, ECE "
            f"{error.value:.4f} ({error.low:.4f} to {error.high:.4f}), not stopped {passed:.3f}  [{name}]",
            flush=True,
        )


STOPPED = ("not a car", "unknown car")


def report_others(roots: Sequence[Path], models: dict[str, Model]) -> None:
    """Print how many photos of other things and of unknown cars are stopped; only of the half that chose no gate."""
    for root in roots:
        listed = [Photo(str(path)) for path in sorted(root.rglob("*")) if path.is_file()]
        for name, model in models.items():
            embedded = embed_photos(listed, model)
            said = [
                verdict
                for verdict, photo in zip(verdicts(model, embedded), embedded.photos, strict=True)
                if not in_calibration_half(photo.sha256)
            ]
            shares = {verdict: said.count(verdict) / len(said) for verdict in STOPPED}
            print(f"{root.name}, {len(said)} photos: {shares}  [{name}]", flush=True)


def verdicts(model: Model, embedded: DatasetEmbeddings) -> list[str]:
    """The verdict on each photo."""
    probs = model.probabilities(embedded.embeddings, embedded.runtime)
    return [model.decide("", row, embedding).verdict for row, embedding in zip(probs, embedded.embeddings, strict=True)]


if __name__ == "__main__":
    main()
