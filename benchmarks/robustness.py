"""Measures a bundle on degraded photos: held-out photos unchanged, and each of them blurred, small, dark and so on.

    python benchmarks/robustness.py BUNDLE PHOTOS [--photos N] [--tta NAME] [--json]

A photo is decoded once by the pipeline, and each variant then goes through the ordinary pipeline. Photos that trained
the model are left out. With `--tta` every variant is also predicted with those TTA views, and compared with a single
view. The table is Markdown.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from colours import VIEWS  # type: ignore[import-not-found]  # beside this file
from nameplate.data import read_dataset
from nameplate.defaults import NO_TTA
from nameplate.errors import DataError, NameplateError, PhotoError
from nameplate.evaluate.evaluator import trained_digests
from nameplate.evaluate.metrics import by_make, wilson
from nameplate.evaluate.significance import Paired, paired
from nameplate.images.decode import decode, read_bytes
from nameplate.images.transforms import PAD_GREY
from nameplate.model.model import Model
from nameplate.model.tta import parse_tta
from nameplate.storage import sha256
from nameplate.types import Metric, Photo, Prediction, Preprocess, Verdict
from whole_scenes import scene  # type: ignore[import-not-found]  # beside this file

Pixels = NDArray[np.uint8]
Vary = Callable[[Sequence[Pixels], int, Preprocess], Pixels | bytes]
"""All photos, the place of one among them and the model's picture → that photo varied: pixels, or a file's bytes."""

LONG_SIDE, QUALITY, LIGHT, DEGREES, PART, NOISE, SEED = 100, 20, 4, 10, 3, 25, 20
"""Pixels; of JPEG; a part of the light; of rotation; of the frame; standard deviation in 255; what draws the noise."""
PLAIN = "as they are"


def blurred(sigma: float) -> Vary:
    """Gaussian blur of so many pixels of the model's picture: a photo twice as long and high is blurred by twice."""

    def vary(photos: Sequence[Pixels], place: int, size: Preprocess) -> Pixels:
        photo = photos[place]
        scale = float(np.sqrt(photo.shape[0] * photo.shape[1] / (size.height * size.width)))
        return np.asarray(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(sigma * scale)))

    return vary


def made_small(photos: Sequence[Pixels], place: int, _: Preprocess) -> Pixels:
    """A thumbnail; a photo that is smaller stays as it is."""
    image = Image.fromarray(photos[place])
    image.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.BICUBIC, reducing_gap=None)
    return np.asarray(image)


def compressed(photos: Sequence[Pixels], place: int, _: Preprocess) -> bytes:
    """A JPEG file of low quality."""
    file = io.BytesIO()
    Image.fromarray(photos[place]).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def darkened(photos: Sequence[Pixels], place: int, _: Preprocess) -> Pixels:
    """With a part of the light: 8-bit values divided, as an underexposed photo's are not far from."""
    return photos[place] // np.uint8(LIGHT)


def rotated(photos: Sequence[Pixels], place: int, _: Preprocess) -> Pixels:
    """Anticlockwise about its centre, the corners grey."""
    image = Image.fromarray(photos[place])
    return np.asarray(image.rotate(DEGREES, Image.Resampling.BICUBIC, fillcolor=(PAD_GREY,) * 3))


def on_a_scene(photos: Sequence[Pixels], place: int, _: Preprocess) -> Pixels:
    """A part of a frame that shows the sky and houses of another photo."""
    return np.asarray(scene(photos, place, PART**-0.5, "scene"))


def noisy(photos: Sequence[Pixels], place: int, _: Preprocess) -> Pixels:
    """Gaussian noise, another for each pixel and colour."""
    draw = np.random.default_rng([SEED, place])
    values = photos[place] + draw.normal(0, NOISE, photos[place].shape)
    return values.round().clip(0, 255).astype(np.uint8)


def coloured(name: str) -> Vary:
    """One of `colours.VIEWS`."""
    return lambda photos, place, _: VIEWS[name](photos[place])


VARIANTS: dict[str, Vary] = {
    PLAIN: lambda photos, place, _: photos[place],
    **{name: coloured(name) for name in VIEWS if name != PLAIN},
    "blurred, sigma 1": blurred(1),
    "blurred, sigma 2": blurred(2),
    f"long side {LONG_SIDE} px": made_small,
    f"JPEG quality {QUALITY}": compressed,
    f"1/{LIGHT} of the light": darkened,
    f"rotated by {DEGREES} degrees": rotated,
    f"1/{PART} of a scene": on_a_scene,
    f"noise, sigma {NOISE} of 255": noisy,
}


@dataclass(frozen=True, slots=True)
class Result:
    """The results of one variant with one set of TTA views."""

    variant: str
    tta: str
    top1: Metric
    make: float
    """Mean over the makes of the share of their photos whose make was named."""
    verdicts: dict[str, float]
    """Shares of the photos."""
    wrong_answers: float
    """Share of the photos that were answered, and wrongly."""
    against_plain: Paired | None
    """The comparison with the unchanged photos and the same views; None for the unchanged photos."""
    gain: Paired | None
    """The comparison with a single view of the same variant; None for a single view."""
    photos_per_second: float


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("bundle")
    parser.add_argument("photos_of", metavar="PHOTOS", type=Path)
    parser.add_argument("--photos", type=int, help="So many of them, spread evenly.")
    parser.add_argument("--tta", default=NO_TTA, help="A way of looking (docs/tta.md).")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true", help="Nothing but one JSON value on stdout.")
    arguments = parser.parse_args()
    if arguments.photos is not None and arguments.photos < 1:
        parser.error("--photos takes 1 or more")
    try:
        model = Model.load(arguments.bundle, runtime=arguments.runtime, threads=arguments.threads)
        parse_tta(arguments.tta)
        photos, pixels = held_out(model, arguments.photos_of, arguments.photos)
        results = measure(model, tuple(dict.fromkeys((NO_TTA, arguments.tta))), photos, pixels)
    except NameplateError as error:
        sys.exit(f"robustness: {error}")
    said = {
        "bundle": model.bundle.manifest.name,
        "photos": len(photos),
        "runtime": model.runtime.name,
        "versions": {name: version(name) for name in ("nameplate", "openvino", "onnxruntime", "pillow", "numpy")},
    }
    if arguments.json:
        print(json.dumps({**said, "variants": [as_json(result) for result in results]}, indent=1))
    else:
        tell(results, said)


def held_out(model: Model, folder: Path, count: int | None) -> tuple[list[Photo], list[Pixels]]:
    """Labelled photos to evaluate on and their pixels; prints how many were left out, and why."""
    model.require_head()
    trained, known = trained_digests(model.bundle), set(model.nameplates)
    dataset = read_dataset(folder)
    left, photos = Counter(each.reason for each in dataset.refused), list[Photo]()
    for photo in dataset.photos:
        if photo.label not in known:
            left["of no nameplate of the model's"] += 1
        elif sha256(read_bytes(photo.path)) in trained:
            left["it trained the model"] += 1
        else:
            photos.append(photo)
    if count is not None and count < len(photos):
        left[f"more than --photos {count}"] += len(photos) - count
        photos = [photos[place] for place in np.linspace(0, len(photos) - 1, count).round().astype(int)]
    size = model.bundle.manifest.preprocess
    kept, pixels = [], []
    for photo in photos:
        try:
            pixels.append(decode(photo.path, at_least=(size.height, size.width)))
            kept.append(photo)
        except PhotoError as error:
            left[f"unreadable: {error}"] += 1
    for reason, number in left.items():
        print(f"left out: {number:,} photos, {reason}", file=sys.stderr)
    if not kept:
        sys.exit(f"robustness: no photo of '{folder}' is left to judge")
    return kept, pixels


def measure(model: Model, ways: Sequence[str], photos: Sequence[Photo], pixels: Sequence[Pixels]) -> list[Result]:
    """A result for each variant and way.

    Args:
        model: with a head.
        ways: of looking, `none` first.
        photos: N, labelled with nameplates of the model.
        pixels: of each, uint8 H×W×3.
    """
    y_true = np.array([model.nameplates.index(str(photo.label)) for photo in photos])
    groups = np.unique([photo.group or photo.path for photo in photos], return_inverse=True)[1]
    looking = {way: model.with_settings(tta=way) for way in ways}
    results: list[Result] = []
    right: dict[tuple[str, str], NDArray[np.bool_]] = {}
    for name in VARIANTS:
        for way in ways:
            begun = time.monotonic()
            answers, named = answered(looking[way], name, pixels)
            speed = len(pixels) / (time.monotonic() - begun)
            here = right[name, way] = named == y_true
            plain, once = (right.get(key) for key in ((PLAIN, way), (name, ways[0])))
            results.append(
                Result(
                    variant=name,
                    tta=way,
                    top1=wilson(int(here.sum()), len(here)),
                    make=float(np.mean([make.recall for make in by_make(y_true, named, model.nameplates).results])),
                    verdicts=shares(answers),
                    wrong_answers=float(np.mean([a.verdict == "answer" for a in answers] & ~here)),
                    against_plain=None if plain is None or name == PLAIN else paired(plain, here, groups),
                    gain=None if once is None or way == ways[0] else paired(once, here, groups),
                    photos_per_second=speed,
                )
            )
            print(f"{name}, {way}: {results[-1].top1.value:.3f}, {speed:.0f} photos/s", file=sys.stderr, flush=True)
    return results


def shares(answers: Sequence[Prediction]) -> dict[str, float]:
    """Verdict → its share of the answers."""
    told = Counter(answer.verdict for answer in answers)
    return {verdict: told[verdict] / len(answers) for verdict in get_args(Verdict)}


def answered(model: Model, variant: str, pixels: Sequence[Pixels]) -> tuple[list[Prediction], NDArray[np.int64]]:
    """What a model says of photos in one variant, and the classes named, int64 (N,).

    Raises:
        DataError: of one the model computes no numbers.
    """
    size = model.bundle.manifest.preprocess
    varied = (VARIANTS[variant](pixels, place, size) for place in range(len(pixels)))
    answers = list(model.stream(varied))
    for answer in answers:
        if answer.error is not None:
            raise DataError(f"{variant}, {answer.photo}: {answer.error}")
    return answers, np.array([model.nameplates.index(str(answer.nameplate)) for answer in answers])


def as_json(result: Result) -> dict[str, Any]:
    """A row for `--json`."""
    return {
        "variant": result.variant,
        "tta": result.tta,
        "top1": result.top1.value,
        "top1_interval": result.top1.interval,
        "macro_make": result.make,
        "verdicts": result.verdicts,
        "wrong_answers": result.wrong_answers,
        "against_as_they_are": _paired_json(result.against_plain),
        "against_one_look": _paired_json(result.gain),
        "photos_per_second": result.photos_per_second,
    }


def _paired_json(found: Paired | None) -> dict[str, Any] | None:
    if found is None:
        return None
    gain = found.difference
    return {
        "difference": gain.value,
        "interval": gain.interval,
        "p": found.p,
        "better": found.better,
        "worse": found.worse,
        "told": found.significant,
    }


def tell(results: Sequence[Result], said: dict[str, Any]) -> None:
    """A Markdown table, and what it is of."""
    verdicts = [name for name in get_args(Verdict) if any(result.verdicts[name] for result in results)]
    gains = any(result.gain is not None for result in results)
    columns = ["photos", "top-1", "make, macro", "against as they are", *verdicts, "answered wrongly"]
    columns += ["against one look"] if gains else []
    print(f"{said['bundle']}, {said['photos']:,} photos, {said['runtime']}, {said['versions']}\n")
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for result in results:
        top1 = result.top1
        row = [
            result.variant if result.tta == NO_TTA else f"— `--tta {result.tta}`",
            f"{top1.value:.3f} ({top1.low:.3f}–{top1.high:.3f})",
            f"{result.make:.3f}",
            _points(result.against_plain),
            *(f"{100 * result.verdicts[name]:.1f} %" for name in verdicts),
            f"{100 * result.wrong_answers:.1f} %",
        ]
        row += [_points(result.gain)] if gains else []
        print(f"| {' | '.join(row)} |")


def _points(found: Paired | None) -> str:
    if found is None:
        return ""
    gain = found.difference
    return f"{100 * gain.value:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f}), p {found.p:.2g}"


if __name__ == "__main__":
    main()
