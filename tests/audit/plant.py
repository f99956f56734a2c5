"""A copy of a labelled set with known defects in it."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from nameplate.types import Photo


@dataclass
class Planted:
    """Where the defects are; pairs are (copy, original)."""

    folder: Path
    exact: list[tuple[str, str]] = field(default_factory=list)
    near: list[tuple[str, str]] = field(default_factory=list)
    mirrored: list[tuple[str, str]] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    swapped: list[str] = field(default_factory=list)
    not_cars: list[str] = field(default_factory=list)
    clean: list[str] = field(default_factory=list)


def plant(
    photos: Sequence[Photo],
    not_cars: Sequence[Path],
    folder: Path,
    *,
    copies: int = 20,
    damaged: int = 10,
    swapped: int = 40,
    seed: int = 0,
) -> Planted:
    """Copy photos into a folder per class and spoil some: each photo has at most one defect."""
    random = np.random.default_rng(seed)
    made = Planted(folder)
    labels = sorted({str(photo.label) for photo in photos})
    for label in labels:
        (folder / label).mkdir(parents=True, exist_ok=True)
    order = random.permutation(len(photos)).tolist()
    roles = iter(order)
    for kind in (made.exact, made.near, made.mirrored):
        for number in [next(roles) for _ in range(copies)]:
            photo = photos[number]
            path = _put(photo, folder, str(photo.label))
            other = path.with_name(f"{path.stem}-again{path.suffix}")
            if kind is made.exact:
                shutil.copyfile(path, other)
            else:
                other.write_bytes(_varied(path, random, mirror=kind is made.mirrored))
            kind.append((str(other), str(path)))
            made.clean.append(str(path))
    for number in [next(roles) for _ in range(damaged)]:
        path = _put(photos[number], folder, str(photos[number].label))
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] if random.random() < 0.7 else b"\0" * 600 + data[600:])
        made.damaged.append(str(path))
    for number in [next(roles) for _ in range(swapped)]:
        wrong = str(random.choice([label for label in labels if label != photos[number].label]))
        made.swapped.append(str(_put(photos[number], folder, wrong)))
    for number, picture in enumerate(not_cars):
        target = folder / labels[int(random.integers(len(labels)))] / f"strange-{number}{picture.suffix}"
        shutil.copyfile(picture, target)
        made.not_cars.append(str(target))
    made.clean += [str(_put(photos[number], folder, str(photos[number].label))) for number in roles]
    return made


def _put(photo: Photo, folder: Path, label: str) -> Path:
    source = Path(photo.path)
    target = folder / label / f"{source.parent.name}-{source.name}".replace(" ", "_")
    shutil.copyfile(source, target)
    return target


def _varied(path: Path, random: np.random.Generator, *, mirror: bool) -> bytes:
    """Mirrored and recompressed; or cropped by up to 4 % a side, resized and recompressed."""
    image = Image.open(path).convert("RGB")
    if mirror:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    else:
        width, height = image.size
        left, top, right, bottom = random.uniform(0, 0.04, 4) * [width, height, width, height]
        image = image.crop((round(left), round(top), width - round(right), height - round(bottom)))
        scale = random.uniform(0.5, 0.9)
        image = image.resize((max(32, round(image.width * scale)), max(32, round(image.height * scale))))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(random.integers(50, 90)))
    return buffer.getvalue()
