"""Render the photos of the cars that Nameplate's built-in demonstration learns from.

    python -m tools.render_cars --out photos

Needs the packages `bpy` (Blender as a module), `numpy` and `pillow`.  Every photo has
its own seed, made of the design's name and the photo's number, so photos can be made
in any order; photos that are there already are left alone.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import random
import sys
import time
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from .designs import DESIGNS

SIZE = (320, 240)
SAMPLES = 5
BYTES_MAX = 8300
# blur outside the car (pixels) and JPEG quality, tried in turn until the file is small enough
STEPS = [(s, q) for s in (0.0, 0.6, 1.0, 1.5) for q in (82, 77, 72, 68)] + [(2.0, q) for q in range(66, 40, -4)]
# training photos that show each design from five sides, for the contact sheet
SHOWN = {
    "Halden Pine": (55, 71, 39, 18, 96),
    "Halden Pine Estate": (81, 0, 95, 25, 2),
    "Corvane Lark": (67, 23, 40, 24, 14),
    "Corvane Lark II": (18, 7, 67, 36, 29),
    "Ostrel Cadence": (6, 29, 80, 7, 60),
    "Ostrel Tarn": (39, 41, 80, 62, 15),
    "Tamblin Wisp": (63, 35, 64, 49, 42),
    "Tamblin Stow": (59, 69, 72, 79, 62),
    "Vessoro Cala": (33, 3, 95, 70, 76),
    "Vessoro Borda": (75, 32, 12, 20, 26),
}


def finish(image: Image.Image, exposure: float, frame: tuple[float, float, float, float], rng: random.Random) -> bytes:
    """Give a render the marks of a small camera and pack it as a JPEG."""
    noise = np.random.default_rng(rng.randint(0, 2**31))
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.7)))
    pixels = np.asarray(image.convert("RGB"), dtype=np.float64) / 255
    grey = float(np.mean(pixels**2.2)) ** (1 / 2.2)  # meter the light as a camera does, imperfectly
    gain = float(np.clip((0.53 / max(grey, 0.02)) ** 0.75, 0.8, 2.6)) * 2.0 ** (exposure * 0.6)
    pixels = pixels * gain
    pixels = pixels - 0.035 * np.sin(2 * np.pi * np.clip(pixels, 0, 1))  # a little more contrast
    pixels = np.where(pixels > 0.8, 0.8 + 0.2 * np.tanh((pixels - 0.8) / 0.2), pixels)
    pixels = pixels * np.array([rng.gauss(1, 0.02), 1.0, rng.gauss(1, 0.025)])
    y, x = np.mgrid[-1 : 1 : SIZE[1] * 1j, -1 : 1 : SIZE[0] * 1j]
    pixels *= (1 - rng.uniform(0, 0.10) * (x * x + y * y) / 2)[:, :, None]
    grain = noise.normal(0, rng.choice((0.0, 0.002, 0.005)), (*pixels.shape[:2], 1))
    final = Image.fromarray((np.clip(pixels + grain, 0, 1) * 255 + 0.5).astype(np.uint8))
    # A photo with much fine texture is softened outside the car rather than crushed.
    box = Image.new("L", SIZE, 0)
    ImageDraw.Draw(box).rectangle(frame, fill=255)
    box = box.filter(ImageFilter.GaussianBlur(6))
    for soft, quality in STEPS:
        packed = io.BytesIO()
        shown = Image.composite(final, final.filter(ImageFilter.GaussianBlur(soft)), box) if soft else final
        shown.save(packed, "JPEG", quality=quality, subsampling="4:2:0", optimize=True)
        if packed.tell() <= BYTES_MAX:
            break
    return packed.getvalue()


def render_design(name: str, photos: list[tuple[int, Path]], threads: int) -> None:
    """Render photos of one design in this process."""
    import bpy

    bpy.ops.wm.read_factory_settings(use_empty=True)
    from .car import Car
    from .scene import Stage

    design = next(d for d in DESIGNS if d.name == name)
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.render.resolution_x, scene.render.resolution_y = SIZE
    scene.render.use_persistent_data = True
    scene.render.threads_mode, scene.render.threads = "FIXED", threads
    scene.render.image_settings.file_format = "PNG"
    scene.render.image_settings.compression = 0
    scene.view_settings.view_transform = "AgX"
    scene.view_settings.look = "AgX - Medium High Contrast"
    cycles = scene.cycles
    cycles.device, cycles.samples, cycles.use_adaptive_sampling = "CPU", SAMPLES, False
    cycles.use_denoising, cycles.denoiser = True, "OPENIMAGEDENOISE"
    cycles.denoising_prefilter, cycles.denoising_quality = "FAST", "HIGH"
    cycles.max_bounces, cycles.diffuse_bounces, cycles.glossy_bounces = 3, 1, 2
    cycles.use_light_tree = False
    cycles.caustics_reflective = cycles.caustics_refractive = False
    stage, car = Stage(), Car(design)
    for number, target in photos:
        start = time.perf_counter()
        seed = zlib.crc32(f"{name}/{number}".encode())
        rng = random.Random(seed)  # noqa: S311 (not for secrets)
        shot = stage.arrange(rng, car.corners)
        car.dress(rng, shot.dusk)
        cycles.seed = seed % 2**31
        scene.view_settings.exposure = 0.8 + (0.9 if shot.dusk else 0.0)
        raw = target.with_suffix(f".{os.getpid()}.png")
        scene.render.filepath = str(raw)
        with Quiet():
            bpy.ops.render.render(write_still=True)
        with Image.open(raw) as image:
            packed = finish(image, shot.exposure, shot.frame, rng)
        raw.unlink()
        partial = target.with_suffix(".part")
        partial.write_bytes(packed)
        partial.rename(target)
        print(f"{target.parent.name}/{target.name} {time.perf_counter() - start:.2f} s", flush=True)


class Quiet:
    """Keep Blender's progress lines off the standard output."""

    def __enter__(self) -> None:
        sys.stdout.flush()
        self.saved = os.dup(1)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)

    def __exit__(self, *_: object) -> None:
        os.dup2(self.saved, 1)
        os.close(self.saved)


def contact_sheet(out: Path, names: list[str], target: Path) -> None:
    """Put photos of each design on one labelled page."""
    wide, tall, gap, label, columns = 176, 132, 4, 118, 5
    page = Image.new("RGB", (label + columns * (wide + gap) + gap, len(names) * (tall + gap) + gap), "white")
    draw = ImageDraw.Draw(page)
    font, small = ImageFont.load_default(17), ImageFont.load_default(13)
    for row, name in enumerate(names):
        y = gap + row * (tall + gap)
        make, _, model = name.partition(" ")
        draw.text((10, y + tall / 2 - 10), make, fill=(110, 110, 110), font=small, anchor="lm")
        draw.text((10, y + tall / 2 + 9), model, fill=(20, 20, 20), font=font, anchor="lm")
        photos = [out / "train" / name / f"{number:03d}.jpg" for number in SHOWN[name]]
        if not all(path.exists() for path in photos):
            photos = sorted((out / "train" / name).glob("*.jpg"))[:columns]
        for column, path in enumerate(photos):
            with Image.open(path) as image:
                small_photo = image.resize((wide, tall), Image.Resampling.LANCZOS)
            page.paste(small_photo, (label + column * (wide + gap), y))
    target.parent.mkdir(parents=True, exist_ok=True)
    page.save(target, quality=74, optimize=True)


def main() -> None:
    """Read the command line and render what is missing."""
    names = [d.name for d in DESIGNS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for train/ and test/")
    parser.add_argument("--designs", nargs="+", default=names, choices=names, metavar="NAME")
    parser.add_argument("--count", type=int, default=100, help="training photos a design")
    parser.add_argument("--test-count", type=int, default=20, help="test photos a design")
    parser.add_argument("--jobs", type=int, default=1, help="designs rendered at the same time")
    parser.add_argument("--contact-sheet", type=Path, help="write an overview picture here")
    args = parser.parse_args()
    tasks = []
    threads = max(1, (os.cpu_count() or 1) // args.jobs)
    for name in args.designs:
        missing = []
        for part, count, first in (("train", args.count, 0), ("test", args.test_count, 10_000)):
            folder = args.out / part / name
            folder.mkdir(parents=True, exist_ok=True)
            missing += [(first + i, folder / f"{i:03d}.jpg") for i in range(count)]
        missing = [(number, path) for number, path in missing if not path.exists()]
        if missing:
            tasks.append((name, missing, threads))
    context = multiprocessing.get_context("spawn")
    with context.Pool(args.jobs, maxtasksperchild=1) as pool:
        pool.starmap(render_design, tasks, chunksize=1)
    if args.contact_sheet:
        contact_sheet(args.out, args.designs, args.contact_sheet)
