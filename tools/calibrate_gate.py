"""Give the bundle that ships its gate, which tells whole cars from everything else, and choose its thresholds again.

    python tools/calibrate_gate.py src/nameplate/model/shipped/cars196 CARS196 \
        --cars RUSSIAN10 EUROPE20 src/nameplate/demo/photos/train --others NOT_CARS INTERIORS MOTORBIKES

The gate learns from photos of CARS196 that trained the network, and from one half of every other folder, each photo
also blurred, dark, small, pale or in a tall frame; the other halves, and all that is not named here, are for
`benchmarks/not_cars.py`. The thresholds of verdicts and claims are chosen on CARS196's photos that trained nothing.
Temperatures, backbone, head and all else stay as they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from calibrate_cars196 import by_name  # type: ignore[import-not-found]  # beside this file
from nameplate.data import read_dataset
from nameplate.data.dataset import list_photos
from nameplate.evaluate.evaluator import evaluate_model
from nameplate.evaluate.thresholds import fit_gate, in_calibration_half, with_reference, with_verdicts
from nameplate.images.decode import decode
from nameplate.model.bundle import load_bundle, save_bundle
from nameplate.model.embeddings import embed_photos
from nameplate.model.model import Model
from nameplate.types import Floats, Photo

OWN_CARS = 2000
"""Photos of CARS196 that the gate learns from."""
SIDE = 400
"""Photos are made so small before they are varied, in pixels."""
Pixels = NDArray[np.uint8]


def blurred(image: Image.Image) -> Image.Image:
    """As by a hand that moved."""
    return image.filter(ImageFilter.GaussianBlur(image.width / 150))


def dark(image: Image.Image) -> Image.Image:
    """As at dusk."""
    return ImageEnhance.Brightness(image).enhance(0.25)


def small(image: Image.Image) -> Image.Image:
    """A thumbnail made large."""
    return image.resize((64, max(1, 64 * image.height // image.width))).resize(image.size)


def pale(image: Image.Image) -> Image.Image:
    """As in fog at night."""
    return ImageEnhance.Contrast(ImageEnhance.Brightness(image).enhance(0.4)).enhance(0.5)


def tall(image: Image.Image) -> Image.Image:
    """In a tall frame, as a telephone held upright takes it: edges mirrored above and below."""
    pixels = np.asarray(image)
    above = max(0, image.width * 16 // 9 - image.height) // 2
    return Image.fromarray(np.pad(pixels, ((above, above), (0, 0), (0, 0)), "symmetric"))


VARIANTS: tuple[Callable[[Image.Image], Image.Image], ...] = (blurred, dark, small, pale, tall)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--cars", type=Path, nargs="+", required=True)
    parser.add_argument("--others", type=Path, nargs="+", required=True)
    parser.add_argument("-o", "--output", type=Path, help="another folder to write to")
    arguments = parser.parse_args()
    bundle = load_bundle(arguments.bundle)
    model = Model.load(arguments.bundle, runtime="onnxruntime")
    dataset = read_dataset(arguments.photos)
    reference = evaluate_model(model, by_name(dataset, bundle, trained=False))
    training = embed_photos(by_name(dataset, bundle, trained=True).photos, model)
    own = sorted(training.photos, key=lambda photo: str(photo.sha256))[:OWN_CARS]
    car_sources = {arguments.photos.name: own} | halves(model, arguments.cars)
    other_sources = halves(model, arguments.others)
    cars, of_cars = learned_from(model, [photo for part in car_sources.values() for photo in part], once=True)
    others, of_others = learned_from(model, [photo for part in other_sources.values() for photo in part], once=False)
    gate, no_car = fit_gate(cars, others, (of_cars, of_others))
    print(f"gate of {len(cars):,} pictures of cars and {len(others):,} of other things, cut at {no_car:.3f}")
    assert bundle.ood_detector is not None
    assert bundle.weight is not None
    assert bundle.bias is not None
    known = replace(bundle.ood_detector, gate=gate)
    far = bundle.manifest.thresholds.far
    distances = known.distances(reference.embeddings)
    odds = known.non_car_log_odds(reference.embeddings)
    manifest = with_verdicts(bundle.manifest, reference.probabilities, reference.y_true, distances, far, no_car, odds)
    sources = {
        side: {name: len(photos) for name, photos in found.items()}
        for side, found in (("cars", car_sources), ("others", other_sources))
    }
    manifest = replace(manifest, provenance=manifest.provenance | {"gate": sources})  # the model card names them
    manifest = with_reference(manifest, bundle.backbone, bundle.weight, bundle.bias)
    print(manifest.thresholds)
    target = arguments.output or arguments.bundle
    save_bundle(target, replace(bundle, manifest=manifest, ood_detector=known), overwrite=True)


def halves(model: Model, folders: Iterable[Path]) -> dict[str, list[Photo]]:
    """The photos of each folder that may choose, by the folder's name."""
    found: dict[str, list[Photo]] = {}
    for folder in folders:
        photos = embed_photos(list_photos(folder), model).photos
        found.setdefault(folder.name, []).extend(photo for photo in photos if in_calibration_half(photo.sha256))
    return found


def learned_from(model: Model, photos: Sequence[Photo], *, once: bool) -> tuple[Floats, NDArray[np.int64]]:
    """Embeddings of photos and of their variants, and the number of the photo that each is of.

    Args:
        model: embeds.
        photos: what to learn from.
        once: one variant of each, in turn, instead of all.
    """
    kinds = [[VARIANTS[i % len(VARIANTS)]] if once else list(VARIANTS) for i in range(len(photos))]
    plain = model.embed([photo.path for photo in photos])
    varied = model.embed(list(_varied(photos, kinds)))
    numbers = np.concatenate([np.arange(len(photos)), np.repeat(np.arange(len(photos)), [len(k) for k in kinds])])
    return np.concatenate([plain, varied]), numbers.astype(np.int64)


def _varied(
    photos: Sequence[Photo], kinds: Sequence[Sequence[Callable[[Image.Image], Image.Image]]]
) -> Iterator[Pixels]:
    for photo, variants in zip(photos, kinds, strict=True):
        image = Image.fromarray(decode(photo.path, at_least=(SIDE, SIDE)))
        image.thumbnail((SIDE, SIDE))
        yield from (np.asarray(vary(image)) for vary in variants)


if __name__ == "__main__":
    main()
