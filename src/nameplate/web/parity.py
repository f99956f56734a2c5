"""Compares a site with its bundle before it is written: the site's own engine answers photos in Node.js.

The files are those of the site, ONNX Runtime Web among them; the page and the browser's decoder alone are missing. The
car detector computes in int8, where a sum that rounds the other way moves an edge of a box, in about one of a hundred
photos. Such an edge is held against a tolerance of its own, and the answer against the bundle's for the site's box.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, replace
from importlib import resources
from pathlib import Path
from typing import IO

import msgspec
import numpy as np
from numpy.typing import NDArray

from nameplate.errors import NameplateError
from nameplate.fit.parity import FULL, FileParity, parity
from nameplate.images.parallel import ordered_map
from nameplate.model.bundle import Bundle
from nameplate.model.embeddings import Progress
from nameplate.model.model import Model
from nameplate.model.pipeline import Settings, UnreadablePhoto, decode_photo
from nameplate.types import Floats, PixelBox

BOX_GAP = 0.01
"""The largest difference of a box's edge, as a share of the photo's side."""


class _Share(msgspec.Struct):
    nameplate: str
    confidence: float


class _Row(msgspec.Struct):
    """The parts of a row of /v1/identify that are compared."""

    nameplate: str | None
    verdict: str
    top: list[_Share]
    box: PixelBox | None


def compare_site(
    bundle: Bundle,
    files: Mapping[str, bytes],
    photos: Sequence[str],
    settings: Settings,
    progress: Progress = lambda *_: None,
) -> tuple[FileParity, tuple[tuple[str, str], ...]]:
    """Compare a site with `Model`, photo by photo.

    Args:
        bundle: the bundle that the site was made from.
        files: all files of the site, see `site.site_files`.
        photos: paths of photos.
        settings: threads and limits; the runtime must be `onnxruntime`.
        progress: see `Progress`.

    Returns:
        The agreement on nameplate, verdict and box, and on the probabilities of all nameplates; and path and reason of
        each photo that could not be read.

    Raises:
        DataError: none of the photos can be read.
        NameplateError: Node.js is missing, or the site's engine fails in it.
    """
    model = Model(bundle, settings)
    whole = Model(bundle, replace(settings, cars="whole"), model.runtime)
    gaps: list[float] = []
    same: list[bool] = []
    unreadable: list[tuple[str, str]] = []
    decoded = ordered_map(lambda path: decode_photo(path, settings, FULL), photos, settings.threads)
    with _engine(files) as (asked, answered):
        for number, (path, photo) in enumerate(zip(photos, decoded, strict=True), start=1):
            progress("compare", number, len(photos))
            if isinstance(photo, UnreadablePhoto):
                unreadable.append((path, str(photo.failure)))
                continue
            pixels = photo.pixels
            _ask(asked, pixels)
            [(expected, probs)] = list(model.answers([pixels]))  # while the engine computes
            row = msgspec.json.decode(answered.readline() or _silence(), type=_Row)
            near = _near(row.box, expected.box, pixels)
            if row.box != expected.box:
                [(expected, probs)] = list(whole.answers([_part(pixels, row.box)]))
            if probs is None:
                unreadable.append((path, str(expected.failure)))
                continue
            gaps.append(_gap(row, model.nameplates, probs))
            same.append(near and (row.nameplate, row.verdict) == (expected.nameplate, expected.verdict))
    return parity(same, gaps, unreadable), tuple(unreadable)


def _gap(row: _Row, nameplates: Sequence[str], probs: Floats) -> float:
    found = {each.nameplate: each.confidence for each in row.top}
    listed = np.array([found.get(name, np.nan) for name in nameplates])
    return float(np.abs(listed - probs).max())  # NaN where one is


def _near(box: PixelBox | None, other: PixelBox | None, pixels: NDArray[np.uint8]) -> bool:
    if box is None or other is None:
        return box is other
    height, width = pixels.shape[:2]
    apart = np.abs(np.subtract(astuple(box), astuple(other))) / (width, height, width, height)
    return bool(apart.max() <= BOX_GAP)


def _part(pixels: NDArray[np.uint8], box: PixelBox | None) -> NDArray[np.uint8]:
    return pixels if box is None else pixels[box.top : box.bottom, box.left : box.right]


class _EngineError(Exception):
    """The process of the engine has ended."""


def _silence() -> bytes:
    raise _EngineError


def _ask(engine: IO[bytes], pixels: NDArray[np.uint8]) -> None:
    engine.write(struct.pack("<II", *pixels.shape[:2]))
    engine.write(pixels.tobytes())
    engine.flush()


@contextmanager
def _engine(files: Mapping[str, bytes]) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """The site's engine in Node.js: where it takes photos, and where it gives answers (`node/answer.js`).

    Raises:
        NameplateError: Node.js is missing, or the engine has failed.
    """
    node = shutil.which("node")
    if node is None:
        raise NameplateError(
            "A site is compared with its bundle before it is written, and Node.js, which runs its engine, is missing. "
            "Install it: it comes with npm."
        )
    script = (resources.files("nameplate.web") / "node" / "answer.js").read_bytes()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, {**files, "answer.js": script, "package.json": b'{"type": "module"}'})
        with (folder / "errors.txt").open("w+b") as errors:
            command = [node, "answer.js"]
            pipe = subprocess.PIPE
            with subprocess.Popen(command, cwd=folder, stdin=pipe, stdout=pipe, stderr=errors) as running:
                assert running.stdin is not None
                assert running.stdout is not None
                try:
                    yield running.stdin, running.stdout
                except (_EngineError, BrokenPipeError):
                    running.wait()
                    errors.seek(0)
                    said = [line for line in errors.read().decode(errors="replace").splitlines() if "Error" in line]
                    why = said[0].strip() if said else f"it ended with {running.returncode}"
                    raise NameplateError(
                        f"The site does not work, so nothing is written: its engine failed in Node.js ({why[:300]})."
                    ) from None
                finally:
                    running.kill()


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files, path → bytes, below a folder."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
