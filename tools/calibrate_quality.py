"""Fit the thresholds of `images/quality.py`: below which size, light and sharpness a photo is a poor one.

    python tools/calibrate_quality.py CARS196 RUSSIAN10 DEALER_MIXED SCENES CROPS [--also FOLDER ...]

The thresholds are the quantiles `SHARES` of one half of the photos; the other half, which chose nothing, is judged:
first as it is, folder by folder, then degraded. Of a folder `MOST` photos are taken at most. `--also` names folders
that are judged and choose nothing. Nothing is written: the fitted numbers are printed beside those in force, for
`SMALL`, `DARK` and `BLURRED`.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from nameplate.data.dataset import list_photos
from nameplate.errors import PhotoError
from nameplate.evaluate.thresholds import in_calibration_half
from nameplate.images.decode import decode_with_header, read_bytes, read_header
from nameplate.images.quality import BLURRED, DARK, SMALL, VIEW, measure_quality
from nameplate.images.transforms import preprocess
from nameplate.types import Doubles

Pixels = NDArray[np.uint8]
Table = Doubles
"""N×3: short side, light and sharpness of photos."""

SHARES = {"small": 0.004, "dark": 0.003, "blurred": 0.004}
"""Flaw → share of adverts' photos that may have it. Together, since small photos are often blurred as well, fewer than
1 %. Dark ones fewest: what light costs is little, and interiors are dark by nature."""
MOST = 2000
"""Photos of one folder, so that no large one outweighs all others."""
IN_FORCE = (SMALL, DARK, BLURRED)


def blurred(sigma: float) -> Callable[[Pixels], Pixels]:
    """Gaussian blur of so many pixels of `VIEW`."""

    def vary(photo: Pixels) -> Pixels:
        scale = float(np.sqrt(photo.shape[0] * photo.shape[1] / (VIEW.height * VIEW.width)))
        return np.asarray(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(sigma * scale)))

    return vary


def thumbnail(long_side: int) -> Callable[[Pixels], Pixels]:
    """A photo made smaller."""

    def vary(photo: Pixels) -> Pixels:
        image = Image.fromarray(photo)
        image.thumbnail((long_side, long_side), Image.Resampling.BICUBIC)
        return np.asarray(image)

    return vary


def exposed(light: float) -> Callable[[Pixels], Pixels]:
    """With a part of the light: linear values scaled, then encoded by sRGB's curve (IEC 61966-2-1) again."""
    encoded = np.arange(256) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4) * light
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    table = (255 * curve).round().astype(np.uint8)
    return lambda photo: table[photo]


VARIANTS: dict[str, Callable[[Pixels], Pixels]] = {
    "blurred, sigma 1": blurred(1),
    "blurred, sigma 2": blurred(2),
    "blurred, sigma 4": blurred(4),
    "long side 100 px": thumbnail(100),
    "long side 64 px": thumbnail(64),
    "values / 4": lambda photo: photo // np.uint8(4),
    "values / 10": lambda photo: photo // np.uint8(10),
    "light x 0.25": exposed(0.25),
    "light x 0.1": exposed(0.1),
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--also", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    halves = {folder: split(folder) for folder in (*arguments.folders, *arguments.also)}
    chosen = np.concatenate([measured(halves[folder][0]) for folder in arguments.folders])
    fitted = [float(np.quantile(chosen[:, place], share)) for place, share in enumerate(SHARES.values())]
    print(f"{len(chosen):,} photos chose:")
    for flaw, found, now in zip(SHARES, fitted, IN_FORCE, strict=True):
        print(f"  {flaw}: {found:.4g} (in force: {now})")
    print(f"\nJudged on the other photos, by what is in force:\n\n| photos | {' | '.join(SHARES)} | any |")
    print("| --- |" + " ---: |" * 4)
    for folder, (_, others) in halves.items():
        tell(f"{folder.parent.name}/{folder.name} ({len(others):,})", measured(others))
    for name, vary in VARIANTS.items():
        tell(name, np.concatenate([measured(halves[folder][1], vary) for folder in arguments.folders]))


def split(folder: Path) -> tuple[list[bytes], list[bytes]]:
    """The files of a folder: those that choose the thresholds, and those that evaluate them."""
    files = sorted((read_bytes(photo.path) for photo in list_photos(folder)), key=_digest)[:MOST]
    first = [in_calibration_half(_digest(data)) for data in files]
    return (
        [data for data, there in zip(files, first, strict=True) if there],
        [data for data, there in zip(files, first, strict=True) if not there],
    )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def measured(files: Sequence[bytes], vary: Callable[[Pixels], Pixels] | None = None) -> Table:
    """The quality of photos, varied or as they are; those that cannot be read are left out."""
    with ThreadPoolExecutor() as pool:
        rows = [row for row in pool.map(lambda data: _measured(data, vary), files) if row is not None]
    return np.array(rows, np.float64).reshape(-1, 3)


def _measured(data: bytes, vary: Callable[[Pixels], Pixels] | None) -> tuple[int, float, float] | None:
    try:
        header = read_header(data)
        pixels = decode_with_header(data, header, at_least=(VIEW.height, VIEW.width))
    except PhotoError:
        return None
    varied = pixels if vary is None else vary(pixels)
    # A thumbnail's own size counts; other variants leave the photo as large as it is.
    side = min(header.width, header.height) if varied.shape == pixels.shape else min(varied.shape[:2])
    return astuple(measure_quality(varied, preprocess(varied, VIEW), VIEW, side))


def tell(name: str, table: Table) -> None:
    """A line: the share of each flaw, and of photos with any."""
    found = table < np.array(IN_FORCE)
    shares = (*found.mean(0), found.any(1).mean())
    print(f"| {name} | {' | '.join(f'{100 * share:.1f} %' for share in shares)} |", flush=True)


if __name__ == "__main__":
    main()
