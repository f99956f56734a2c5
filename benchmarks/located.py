"""Measures what it gains to find the car first: on photos, on scenes made of them, and on adverts.

    python benchmarks/located.py CARS196 [--adverts UKRAINE63] [--every 1] [--rounds 5]

Photos that trained the model are left out, and so is every third of the others, because these chose the detector's
constants (docs/detector.md). Scenes are made as in `whole_scenes.py`, and pass through the pipeline as JPEG files.
UKRAINE63 is a folder with `scenes/`, `crops/` of some of the same photos, and `labels.csv` (file, kind, nameplate,
advert). On it heads with five photos of each nameplate are trained on half of the adverts and judged on the others.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from nameplate.data.dataset import list_photos
from nameplate.defaults import DEFAULT_BUNDLE
from nameplate.evaluate.metrics import share
from nameplate.evaluate.significance import paired
from nameplate.images.decode import decode
from nameplate.model.classifier import ONE_PHOTO_STRENGTH, fit_at
from nameplate.model.model import Model
from nameplate.model.pipeline import EmbeddedPhoto, Source
from nameplate.types import Cars, Floats
from whole_scenes import scene  # type: ignore[import-not-found]  # beside this file

CHOSE = 3
"""Every so many-th of the held-out photos chose constants."""
PARTS = {1: "as it is", 2: "a half of the frame", 3: "a third", 5: "a fifth"}
"""What share of a scene a photo is."""
QUALITY = 95
"""Of the scenes' JPEG files."""
FEW, DRAWS = 5, 20
"""Photos of each nameplate that train a head, and draws of them."""
WAYS: tuple[Cars, ...] = ("whole", "main")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("cars196", type=Path)
    parser.add_argument("--adverts", type=Path)
    parser.add_argument("--model", default=DEFAULT_BUNDLE)
    parser.add_argument("--every", type=int, default=1, help="Take every so many-th photo.")
    parser.add_argument("--rounds", type=int, default=5, help="How often the speed is measured.")
    arguments = parser.parse_args()
    models = {way: opened(arguments.model, way) for way in WAYS}
    photos = held_out(models["whole"], arguments.cars196)[:: arguments.every]
    speeds(models, [path for path, _ in photos], arguments.rounds)
    judge_scenes(models, photos)
    if arguments.adverts:
        judge_adverts(models, arguments.adverts)


def opened(name: str, way: Cars) -> Model:
    """A bundle that names whole photos, or the main car."""
    model = Model.load(name, cars=way)
    manifest = model.bundle.manifest
    locates = replace(manifest, preprocess=replace(manifest.preprocess, locate="ssd"))
    return Model(replace(model.bundle, manifest=locates), model.settings)


def held_out(model: Model, folder: Path) -> list[tuple[str, int]]:
    """Path and class of the photos that neither trained the model nor chose a constant.

    The folder may be a copy in other colours: photos are known by nameplate and file name.
    """
    rows = csv.DictReader((model.bundle.photos or b"").decode().splitlines())
    names = {Path(row["path"]).parts[-2:] for row in rows if row["split"] != "train"}
    paths = [Path(photo.path) for photo in list_photos(folder)]
    kept = [(str(path), model.nameplates.index(path.parent.name)) for path in paths if path.parts[-2:] in names]
    return [photo for place, photo in enumerate(kept) if place % CHOSE]


def embedded(model: Model, sources: Iterable[Source]) -> Iterator[EmbeddedPhoto]:
    """The photos with their embeddings; one that cannot be read ends the benchmark."""
    for photo in model.embedder.rows(sources):
        if not isinstance(photo, EmbeddedPhoto):
            raise SystemExit(f"A photo cannot be read: {photo.failure}")
        yield photo


def speeds(models: dict[Cars, Model], paths: list[str], rounds: int) -> None:
    """Photos a second from files, alternately with and without the detector; the first pass of each is not timed."""
    found: dict[Cars, list[float]] = {way: [] for way in WAYS}
    for number in range(rounds + 1):
        for way, model in models.items():
            begun = time.monotonic()
            count = sum(1 for _ in embedded(model, paths))
            if number:
                found[way].append(count / (time.monotonic() - begun))
    ratios = np.array(found["main"]) / np.array(found["whole"])
    print(
        f"{len(paths)} photos, {models['main'].runtime.name}: {np.median(found['whole']):.0f} photos/s whole, "
        f"{np.median(found['main']):.0f} located; ratio {np.median(ratios):.2f} "
        f"({', '.join(f'{ratio:.2f}' for ratio in ratios)})",
        flush=True,
    )


def judge_scenes(models: dict[Cars, Model], photos: list[tuple[str, int]]) -> None:
    """Top-1 of photos and of scenes, whole and located."""
    pixels, classes = [decode(path) for path, _ in photos], np.array([number for _, number in photos])
    print("| the photo is | whole photo | car located first | gain in points | found |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    for part, words in PARTS.items():

        def scenes(part: int = part) -> Iterator[Source]:
            for place, (path, _) in enumerate(photos):
                made = scene(pixels, place, part**-0.5, "scene")
                yield path if part == 1 else simplejpeg.encode_jpeg(made, QUALITY, "RGB", "444")

        right, located = {}, 0
        for way, model in models.items():
            rows = [(model.probs(photo).argmax(), bool(photo.covered)) for photo in embedded(model, scenes())]
            right[way] = np.array([answer for answer, _ in rows]) == classes
            located = sum(there for _, there in rows)
        tell(words, right, located / len(photos))


def tell(words: str, right: dict[Cars, NDArray[np.bool_]], found: float) -> None:
    """A row of the table, with 95 % intervals."""
    whole, main = (share(right[way]) for way in WAYS)
    gain = paired(right["whole"], right["main"])
    print(
        f"| {words} | {whole.value:.3f} ({whole.low:.3f}–{whole.high:.3f}) | "
        f"{main.value:.3f} ({main.low:.3f}–{main.high:.3f}) | {100 * gain.difference.value:+.1f} "
        f"({100 * gain.difference.low:+.1f} to {100 * gain.difference.high:+.1f}), p {gain.p:.2g} | {found:.1%} |",
        flush=True,
    )


def judge_adverts(models: dict[Cars, Model], folder: Path) -> None:
    """Top-1 of heads on few photos of adverts, over draws: scenes whole and located, and the set's own crops."""
    rows = list(csv.DictReader((folder / "labels.csv").read_text("utf-8").splitlines()))
    scenes, crops = ([row for row in rows if (row["kind"] == "scene") == kind] for kind in (True, False))
    by_name = {Path(row["file"]).parts[1:]: place for place, row in enumerate(crops)}
    same = np.array([by_name[Path(row["file"]).parts[1:]] for row in scenes])

    def embeddings(way: Cars, chosen: list[dict[str, str]]) -> Floats:
        sources = [str(folder / row["file"]) for row in chosen]
        return np.stack([photo.embedding for photo in embedded(models[way], sources)])

    of_crops = embeddings("whole", crops)
    seen = {way: embeddings(way, scenes) for way in WAYS} | {"the set's own crops": of_crops[same]}
    print(
        f"\n| {len(scenes)} scenes | heads on five crops | heads on five photos of the same kind |\n| --- | --- | --- |"
    )
    for words, judged in seen.items():
        there = Labelled(judged, scenes)
        cells = []
        for trained in (Labelled(of_crops, crops), there):
            found = [few_photos(np.random.default_rng(seed), trained, there) for seed in range(DRAWS)]
            low, high = (float(edge) for edge in np.percentile(found, [2.5, 97.5]))
            cells.append(f"{np.mean(found):.3f} ({low:.3f}–{high:.3f})")
        print(f"| {words} | {' | '.join(cells)} |", flush=True)


class Labelled:
    """Embeddings of photos with their nameplates and adverts."""

    def __init__(self, embeddings: Floats, rows: list[dict[str, str]]) -> None:
        self.embeddings = embeddings
        self.nameplates = np.array([row["nameplate"] for row in rows])
        self.adverts = np.array([row["advert"] for row in rows])


def few_photos(random: np.random.Generator, trained: Labelled, judged: Labelled) -> float:
    """Top-1 of a head that is trained on few photos of half of the adverts, on the photos of the other half."""
    adverts = np.union1d(trained.adverts, judged.adverts)
    half = random.permutation(adverts)[: len(adverts) // 2]
    usable = [
        random.permutation(np.flatnonzero((trained.nameplates == name) & np.isin(trained.adverts, half)))[:FEW]
        for name in np.unique(trained.nameplates)
    ]
    places = np.concatenate(usable)
    nameplates, classes = np.unique(trained.nameplates[places], return_inverse=True)
    head = fit_at(trained.embeddings[places], classes, ONE_PHOTO_STRENGTH)
    asked = np.isin(judged.nameplates, nameplates) & ~np.isin(judged.adverts, half)
    answers = nameplates[(judged.embeddings[asked] @ head.weight + head.bias).argmax(1)]
    return float((answers == judged.nameplates[asked]).mean())


if __name__ == "__main__":
    main()
