"""A bundle: the model on disk, as a folder.

bundle.json        labels, preprocessing, calibration, thresholds and provenance; written last
backbone.onnx      uint8 N×H×W×3 in, float32 N×D embedding out. It normalises, but never resizes. Many backbones have a
                   second output `map`, float32 N×h×w×D, whose mean over the places is the embedding (cam.py)
head.safetensors   weight D×C and bias C, float32, or float16 where that holds the same numbers; a bundle that only
                   embeds has none
known.safetensors  the detector of unknown cars, for verdicts (optional, ood.py)
photos.csv         the photos that the bundle was made from, with their split (optional)
index.safetensors  embeddings and thumbnails of the photos that trained it (optional, neighbours.py)

There is no pickle. Every byte is checked before it is used: bundle.json contains the SHA-256 of every other file and of
its own content.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from nameplate.errors import BundleError, NameplateError
from nameplate.hub import fetch, hub_name
from nameplate.model.ood import MahalanobisDetector
from nameplate.model.reference import ReferenceAnswer
from nameplate.model.verdict import Thresholds
from nameplate.model.verification import ClaimThresholds
from nameplate.runtime.onnx_file import check_backbone
from nameplate.storage import open_regular, sha256, whole_folder
from nameplate.types import Fields, Floats, Preprocess

SCHEMA = 3
"""The version of bundle.json that this Nameplate writes. It reads this one and all earlier ones. Schema 3 may say that
the car is located first: an older Nameplate would not do so and would answer otherwise, so that it has to refuse it."""
MANIFEST, BACKBONE, HEAD, PHOTOS = "bundle.json", "backbone.onnx", "head.safetensors", "photos.csv"
KNOWN, INDEX = "known.safetensors", "index.safetensors"
IN_RUN = "bundle"
"""Name of the bundle's folder inside the folder of a training run."""
HEAD_PARTS, DIGEST = ("weight", "bias"), "sha256"
"""The tensors of the head's file, and the field of bundle.json that holds the digest of all its other fields."""
EXCLUDED = "excluded"
"""The key in the `data` of bundle.json's provenance that lists digests of photos that the user kept from training."""
MAX_BYTES = {
    MANIFEST: 64 << 20,
    BACKBONE: 2 << 30,
    HEAD: 2 << 30,
    PHOTOS: 4 << 30,
    KNOWN: 2 << 30,
    INDEX: 1 << 30,
}
"""A file larger than this is not read."""
LARGEST = 1e9
"""Largest absolute value in a head or an embedding. Beyond it, sums and squares overflow float32."""
TEMPERATURES = (1e-3, 1e3)
"""Temperatures outside this range are refused: no fit gives them."""


@dataclass(frozen=True, slots=True)
class File:
    """What bundle.json says about one file of the bundle."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Bfloat16Check:
    """The accuracy that bfloat16 costs, measured on labelled photos."""

    photos: int
    top1_float32: float
    top1_bfloat16: float

    @property
    def cost(self) -> float:
        """Loss of top-1 accuracy, as a share of photos (0.003 is 0.3 points)."""
        return self.top1_float32 - self.top1_bfloat16


@dataclass(frozen=True, slots=True)
class Manifest:
    """bundle.json. The fields are its keys, so their names stay as they are in all versions."""

    schema: int
    """Version of this format."""
    name: str
    """What the model is called."""
    nameplates: tuple[str, ...]
    """The classes, in the order of the head's columns; empty where there is no head."""
    ids: tuple[str, ...]
    """The classes as the data set names them, in the same order (a competition's Category)."""
    preprocess: Preprocess
    """How a decoded photo becomes the model input."""
    embedding: int
    """D, the size of an embedding."""
    temperature: float
    """Logits are divided by it before the softmax (calibration), unless `temperatures` has one for the runtime."""
    files: dict[str, File]
    """The other files."""
    bfloat16: Bfloat16Check | None = None
    """Decides whether bfloat16 may be used; None where it was not measured, and then it may not."""
    provenance: dict[str, object] = field(default_factory=dict)
    """Recipe, seed, versions, data digest, metrics, licence."""
    temperatures: dict[str, float] = field(default_factory=dict)
    """Runtime → the temperature fitted on its embeddings. The runtime's name includes the precision."""
    makes: tuple[str, ...] = ()
    """The make of each nameplate, in their order; empty in bundles of schema 1."""
    fields: tuple[Fields, ...] = ()
    """Model, body and years of each nameplate, in their order; empty in older bundles."""
    thresholds: Thresholds = field(default_factory=Thresholds)
    """Thresholds of the verdicts."""
    claims: ClaimThresholds | None = None
    """Thresholds of `verify`; None where no photos were held out to choose them on."""
    make_claims: ClaimThresholds | None = None
    """The same for claims of a make."""
    golden: ReferenceAnswer | None = None
    """The answer to the reference image when the bundle was made; None in older bundles."""

    def temperature_of(self, runtime: str) -> float:
        """The calibration temperature for embeddings that this runtime computed."""
        return self.temperatures.get(runtime, self.temperature)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle in memory; every file was checked."""

    manifest: Manifest
    backbone: bytes
    """The ONNX file."""
    weight: Floats | None = None
    """float32 D×C; None where there is no head."""
    bias: Floats | None = None
    """float32 (C,); None where there is no head."""
    photos: bytes | None = None
    """photos.csv; None where the bundle has none."""
    ood_detector: MahalanobisDetector | None = None
    """Tells known cars from unknown ones and from other things; None where the bundle has none."""
    folder: Path | None = None
    """The folder that it was read from or written to; None where it exists in memory only."""

    @property
    def digest(self) -> str:
        """SHA-256 of the backbone. Two bundles with the same one give the same embeddings."""
        return self.manifest.files[BACKBONE].sha256

    @property
    def int8(self) -> bool:
        """Whether its backbone computes in int8; such a file contains the operator that turns int8 into float32."""
        return b"DequantizeLinear" in self.backbone

    @property
    def full_digest(self) -> str:
        """SHA-256 of bundle.json's content, which includes the files' digests. Two bundles with the same one give the
        same answers.
        """
        return _content_digest(msgspec.json.decode(msgspec.json.encode(self.manifest)))

    @property
    def terms(self) -> dict[str, str]:
        """The terms of use, part → terms, that the provenance records; empty where it has none."""
        licence = self.manifest.provenance.get("licence")
        return {str(part): str(terms) for part, terms in licence.items()} if isinstance(licence, dict) else {}

    def index_bytes(self) -> bytes | None:
        """Read and check index.safetensors; None where the bundle has none.

        Raises:
            BundleError: the file is damaged or missing.
        """
        if self.folder is None or INDEX not in self.manifest.files:
            return None
        return _read(self.folder, INDEX, self.manifest)


def shipped() -> dict[str, Path]:
    """Name → folder of the bundles in the package."""
    root = Path(str(resources.files("nameplate.model"))) / "shipped"
    return {folder.name: folder for folder in sorted(root.iterdir()) if (folder / MANIFEST).is_file()}


@cache
def shipped_backbones() -> frozenset[str]:
    """SHA-256 of the backbones in the package."""
    return frozenset(_read_manifest(folder).files[BACKBONE].sha256 for folder in shipped().values())


def load_bundle(name: str | Path) -> Bundle:
    """Read a bundle and check every file.

    Args:
        name: a bundle's folder, the folder of a training run that made one, the name of a shipped bundle, or one on
            the hub, `hf:USER/NAME@REVISION`.

    Raises:
        BundleError: there is no such bundle, or it is damaged, unsafe or made by a newer Nameplate.
    """
    remote = hub_name(str(name))
    folder = Path(name) if remote is None else fetch(remote, MAX_BYTES)
    if not _is_bundle(folder) and _is_bundle(folder / IN_RUN):
        folder = folder / IN_RUN
    # Only now, because a folder of photos in the working folder may have the name of a shipped bundle.
    if not _is_bundle(folder):
        folder = shipped().get(str(name), folder)
    if not _is_bundle(folder):
        raise BundleError(
            f"'{name}' is no bundle: there is no {MANIFEST} in it. "
            f"Give a folder made by 'nameplate train', or one that ships: {', '.join(shipped())}."
        )
    manifest = _read_manifest(folder)
    backbone = _read(folder, BACKBONE, manifest)
    # A digest only shows that the file is complete; whoever made the bundle also wrote the digest.
    check_backbone(backbone, str(folder / BACKBONE))
    weight, bias = _read_head(folder, manifest) if HEAD in manifest.files else (None, None)
    photos = _read(folder, PHOTOS, manifest) if PHOTOS in manifest.files else None
    known = _read_detector(folder, manifest) if KNOWN in manifest.files else None
    return Bundle(manifest, backbone, weight, bias, photos, known, folder)


def is_bundle(name: str | Path) -> bool:
    """Whether `load_bundle` would find a bundle by this name; it is not read."""
    if hub_name(str(name)) is not None:  # nothing is fetched to find out
        return True
    return _is_bundle(Path(name)) or _is_bundle(Path(name) / IN_RUN) or str(name) in shipped()


def refuse_other_folder(target: Path) -> None:
    """Prevent `overwrite` from replacing a folder that is no bundle.

    Raises:
        NameplateError: `target` is a folder with other content.
    """
    if target.is_dir() and not _is_bundle(target) and any(target.iterdir()):
        raise NameplateError(f"'{target}' exists and is no bundle, so it is not replaced. Choose another name.")


def _is_bundle(folder: Path) -> bool:
    return os.path.isfile(folder / MANIFEST)  # noqa: PTH113 - unlike pathlib's, returns False for impossible names


def save_bundle(target: Path, bundle: Bundle, *, index: bytes | None = None, overwrite: bool = False) -> Bundle:
    """Write a bundle completely or not at all.

    Args:
        target: the bundle's folder.
        bundle: the bundle in memory. Its `folder` and the `files` of its manifest are not used.
        index: content of index.safetensors; None for a bundle without one.
        overwrite: whether to replace a bundle that exists there.

    Returns:
        The bundle as written, with its `files` and its `folder`.

    Raises:
        NameplateError: `target` exists, or cannot be written.
    """
    refuse_other_folder(target)
    contents = _contents(bundle) | ({} if index is None else {INDEX: index})
    files = {name: File(sha256(data), len(data)) for name, data in contents.items()}
    complete = replace(bundle.manifest, files=files)
    with whole_folder(target, overwrite=overwrite) as temporary:  # a reader sees the old folder or the new one
        for name, data in contents.items():
            (temporary / name).write_bytes(data)
        content = msgspec.json.decode(msgspec.json.encode(complete))
        text = msgspec.json.format(msgspec.json.encode(content | {DIGEST: _content_digest(content)}), indent=2)
        (temporary / MANIFEST).write_bytes(text + b"\n")
    return replace(bundle, manifest=complete, folder=target)


def _contents(bundle: Bundle) -> dict[str, bytes]:
    """File name → bytes, for all files of a bundle except bundle.json and the index."""
    contents = {BACKBONE: bundle.backbone}
    if bundle.weight is not None and bundle.bias is not None:
        parts = (bundle.weight, bundle.bias)
        # safetensors writes an array's buffer as it is in memory, so the array must be in row-major order.
        contents[HEAD] = save_tensors(
            {name: np.ascontiguousarray(_smallest(part)) for name, part in zip(HEAD_PARTS, parts, strict=True)}
        )
    if bundle.photos is not None:
        contents[PHOTOS] = bundle.photos
    if bundle.ood_detector is not None:
        contents[KNOWN] = save_tensors(bundle.ood_detector.tensors)
    return contents


def _smallest(part: Floats) -> NDArray[np.floating[Any]]:
    """The numbers as float16 where that holds them exactly."""
    if part.dtype != np.float32:
        return part
    with np.errstate(over="ignore"):
        half = part.astype(np.float16)
    return half if np.array_equal(half, part) else part


class _Version(msgspec.Struct):
    schema: int


def _content_digest(content: dict[str, object]) -> str:
    """SHA-256 of bundle.json's content, independent of white space and of the order of keys."""
    return sha256(msgspec.json.encode(content, order="deterministic"))


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        text = _read_bytes(path)
        version = msgspec.json.decode(text, type=_Version).schema
        if version > SCHEMA:  # asked before the rest is decoded: a newer schema may have any form
            raise BundleError(
                f"'{folder}' was made by a newer Nameplate (schema {version}, this one reads up to "
                f"{SCHEMA}). Update it: pip install -U nameplate."
            )
        manifest = msgspec.json.decode(text, type=Manifest)
        content = msgspec.json.decode(text)  # as it is in the file: a field added later changes no old digest
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"'{path}' is damaged: {error}.") from None
    if content.pop(DIGEST, None) != _content_digest(content):
        raise BundleError(f"'{path}' is damaged: its own SHA-256 does not match its content. Copy it again.")
    problem = _problem(manifest)
    if problem:
        raise BundleError(f"'{path}' is damaged: {problem}.")
    return manifest


def _problem(manifest: Manifest) -> str | None:
    """The first value that cannot be right in a manifest whose types are right; None where all can."""
    if not set(manifest.files) <= {BACKBONE, HEAD, PHOTOS, KNOWN, INDEX} or BACKBONE not in manifest.files:
        return f"its files are {', '.join(manifest.files) or 'none'}"
    if len(manifest.nameplates) != len(manifest.ids) or len(set(manifest.nameplates)) != len(manifest.nameplates):
        return "nameplates and ids do not pair up"
    if (HEAD in manifest.files) != bool(manifest.nameplates):
        return "there is a head without nameplates, or nameplates without a head"
    if manifest.schema < 1 or manifest.embedding < 1:
        return f"the schema is {manifest.schema}, the embedding's size {manifest.embedding}"
    for temperature in (manifest.temperature, *manifest.temperatures.values()):
        if not TEMPERATURES[0] <= temperature <= TEMPERATURES[1]:
            return f"the temperature is {temperature}, and none lies outside {TEMPERATURES[0]:g} to {TEMPERATURES[1]:g}"
    # Bundles of schema 1 have no makes.
    if len(manifest.makes) not in (0, len(manifest.nameplates)):
        return f"it has {len(manifest.nameplates)} nameplates and {len(manifest.makes)} makes"
    if len(manifest.fields) not in (0, len(manifest.makes)):
        return f"it has {len(manifest.makes)} makes and {len(manifest.fields)} models"
    thresholds = manifest.thresholds
    limits = [limit for limit in (thresholds.middle, thresholds.near, thresholds.far) if limit is not None]
    largest = max(map(abs, [*limits, thresholds.spread]))
    # Scores are divided by the spread, so a tiny one would overflow as a large number would.
    if not thresholds.usable or thresholds.spread * LARGEST < 1 or largest > LARGEST:
        return f"the thresholds are {thresholds}"
    if any(claims and not claims.usable for claims in (manifest.claims, manifest.make_claims)):
        return "the thresholds for claims are of another form"
    if not (0 < manifest.preprocess.height <= 4096 and 0 < manifest.preprocess.width <= 4096):
        return f"the model input is {manifest.preprocess.height}×{manifest.preprocess.width}"
    return None


def _read(folder: Path, name: str, manifest: Manifest) -> bytes:
    expected = manifest.files[name]
    data = _read_bytes(folder / name)
    if len(data) != expected.bytes:
        raise BundleError(
            f"'{folder / name}' has {len(data):,} bytes, {MANIFEST} says {expected.bytes:,}: "
            "it is incomplete or belongs to another bundle. Copy the bundle again."
        )
    if sha256(data) != expected.sha256:
        raise BundleError(f"'{folder / name}' is damaged: its SHA-256 is not the one in {MANIFEST}. Copy it again.")
    return data


def _read_bytes(path: Path) -> bytes:
    most = MAX_BYTES[path.name]
    try:
        with open_regular(path) as file:  # a named pipe or a device in the bundle would block
            if os.fstat(file.fileno()).st_size > most:
                raise BundleError(f"'{path}' is larger than {most:,} bytes; it is not read.")
            return file.read(most)
    except OSError as error:
        raise BundleError(f"Cannot read '{path}': {error.strerror or error}.") from None


def _read_head(folder: Path, manifest: Manifest) -> tuple[Floats, Floats]:
    path = folder / HEAD
    try:
        tensors = load_tensors(_read(folder, HEAD, manifest))
        weight, bias = (
            tensors[part].astype(np.float32) if tensors[part].dtype == np.float16 else tensors[part]
            for part in HEAD_PARTS
        )
    except (SafetensorError, KeyError, ValueError) as error:
        raise BundleError(f"'{path}' is damaged: {error}.") from None
    classes = len(manifest.nameplates)
    if weight.shape != (manifest.embedding, classes) or bias.shape != (classes,):
        raise BundleError(
            f"'{path}' holds {weight.shape} and {bias.shape}, {MANIFEST} says {manifest.embedding} and {classes}."
        )
    if weight.dtype != np.float32 or bias.dtype != np.float32:
        raise BundleError(f"'{path}' holds numbers that are neither float32 nor float16.")
    for part in (weight, bias):
        if not np.isfinite(part).all():
            raise BundleError(f"'{path}' holds numbers that are not finite.")
        if not all_finite(part):
            raise BundleError(f"'{path}' holds numbers beyond ±{LARGEST:g}, which no head that was trained has.")
    return weight, bias


def all_finite(found: Floats) -> bool:
    """Whether no number is NaN, infinite, or beyond ±`LARGEST`."""
    return bool(np.abs(found).max(initial=0) <= LARGEST)


def _read_detector(folder: Path, manifest: Manifest) -> MahalanobisDetector:
    path = folder / KNOWN
    try:
        return MahalanobisDetector.of(
            load_tensors(_read(folder, KNOWN, manifest)), manifest.embedding, len(manifest.nameplates)
        )
    except KeyError as error:
        raise BundleError(f"'{path}' is damaged: it holds no {error}.") from None
    except (SafetensorError, ValueError) as error:
        raise BundleError(f"'{path}' is damaged: {error}.") from None
