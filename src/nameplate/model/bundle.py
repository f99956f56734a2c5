"""A bundle: the model on disk. A folder of

bundle.json        what it knows, how photos are prepared, where it comes from; written last
backbone.onnx      uint8 N×H×W×3 in, float32 N×D embedding out; normalisation inside, resizing never. Many have
                   a second output, `map`, float32 N×h×w×D, whose mean over the places is the embedding (maps.py)
head.safetensors   weight D×C, bias C, float32; absent from a bundle that only embeds
known.safetensors  where the cars lie that it knows, for its verdicts (optional)
photos.csv         the photos that it was made from and the part of each (optional)
index.safetensors  embeddings and small pictures of the photos that trained it (optional, index.py)

No pickle anywhere. Every byte is checked before it is used: bundle.json holds the SHA-256 of each other file
and of all that it says itself.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from nameplate.errors import BundleError, NameplateError
from nameplate.model.ood import MahalanobisDetector
from nameplate.model.reference import ReferenceAnswer
from nameplate.model.verdict import Thresholds
from nameplate.model.verification import ClaimThresholds
from nameplate.runtime.onnx_file import check_backbone
from nameplate.storage import open_regular, sha256, whole_folder
from nameplate.types import Floats, Preprocess

SCHEMA = 2
"""Version of bundle.json that this Nameplate writes; it reads this one and all before it."""
MANIFEST, BACKBONE, HEAD, PHOTOS = "bundle.json", "backbone.onnx", "head.safetensors", "photos.csv"
KNOWN, INDEX = "known.safetensors", "index.safetensors"
IN_RUN = "bundle"
"""The folder inside a training run's that holds its bundle."""
HEAD_PARTS, SEAL = ("weight", "bias"), "sha256"
"""The tensors of the head's file, and the field of bundle.json that seals the others."""
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
"""No number of a head or an embedding lies further from 0: beyond it sums and squares of float32 overflow."""
TEMPERATURES = (1e-3, 1e3)
"""A temperature outside is none that was ever fitted."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of the bundle, as bundle.json knows it."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Bfloat16Check:
    """What running the backbone in bfloat16 costs, measured on labelled photos."""

    photos: int
    top1_float32: float
    top1_bfloat16: float

    @property
    def cost(self) -> float:
        """Share of photos lost (0.003 is 0.3 points)."""
        return self.top1_float32 - self.top1_bfloat16


@dataclass(frozen=True, slots=True)
class Manifest:
    """bundle.json."""

    schema: int
    """Version of this form."""
    name: str
    """What the model is called."""
    nameplates: tuple[str, ...]
    """The classes, in the order of the head's columns; none where there is no head."""
    ids: tuple[str, ...]
    """The classes as the data calls them, in the same order (a competition's Category)."""
    preprocess: Preprocess
    """How a decoded photo becomes the backbone's picture."""
    embedding: int
    """D, the embedding's size."""
    temperature: float
    """Logits are divided by it before the softmax (calibration), where `temperatures` has none of the runtime."""
    files: dict[str, File]
    """The other files."""
    bfloat16: Bfloat16Check | None = None
    """Whether bfloat16 may be used; None where it was not measured: then it may not."""
    provenance: dict[str, object] = field(default_factory=dict)
    """Recipe, seed, versions, data digest, metrics, licence."""
    temperatures: dict[str, float] = field(default_factory=dict)
    """Runtime → the temperature fitted on what it computes; the runtime's name says the precision too."""
    makes: tuple[str, ...] = ()
    """The make of each nameplate, in their order; empty in bundles of before there were verdicts."""
    thresholds: Thresholds = field(default_factory=Thresholds)
    """Of the verdicts."""
    claims: ClaimThresholds | None = None
    """For `verify`; None where nothing was held out to choose them on."""
    make_claims: ClaimThresholds | None = None
    """The same for claims of a make."""
    golden: ReferenceAnswer | None = None
    """What it said of the golden photo when it was made; None in bundles of before that was kept."""

    def temperature_of(self, runtime: str) -> float:
        """The temperature for embeddings that a runtime computed."""
        return self.temperatures.get(runtime, self.temperature)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle in memory, every file checked."""

    manifest: Manifest
    backbone: bytes
    """The ONNX file."""
    weight: Floats | None = None
    """D×C."""
    bias: Floats | None = None
    """C."""
    photos: bytes | None = None
    """photos.csv."""
    ood_detector: MahalanobisDetector | None = None
    """Where its cars lie; None where that was not asked for."""
    folder: Path | None = None
    """Where it was read from or written to; None where it is in memory alone."""

    @property
    def digest(self) -> str:
        """SHA-256 of the backbone: two bundles of one digest give the same embeddings."""
        return self.manifest.files[BACKBONE].sha256

    @property
    def int8(self) -> bool:
        """Whether its backbone computes in int8: then it names the operator that turns int8 back into numbers."""
        return b"DequantizeLinear" in self.backbone

    @property
    def full_digest(self) -> str:
        """SHA-256 of all that bundle.json says, the files' digests too: two bundles of one seal answer alike."""
        return _seal(msgspec.json.decode(msgspec.json.encode(self.manifest)))

    def index_bytes(self) -> bytes | None:
        """index.safetensors, read now and checked; None where there is none.

        Raises:
            BundleError: it is damaged or gone.
        """
        if self.folder is None or INDEX not in self.manifest.files:
            return None
        return _read(self.folder, INDEX, self.manifest)


def shipped() -> dict[str, Path]:
    """Name → folder of the bundles inside the package."""
    root = Path(str(resources.files("nameplate.model"))) / "shipped"
    return {folder.name: folder for folder in sorted(root.iterdir()) if (folder / MANIFEST).is_file()}


@cache
def shipped_backbones() -> frozenset[str]:
    """Digests of the backbones inside the package."""
    return frozenset(_read_manifest(folder).files[BACKBONE].sha256 for folder in shipped().values())


def load_bundle(name: str | Path) -> Bundle:
    """Read a bundle: a folder, that of a training run that made one, or the name of one that ships.

    Raises:
        BundleError: no such bundle, damaged, unsafe, or made by a newer Nameplate.
    """
    folder = Path(name)
    if not _is_bundle(folder) and _is_bundle(folder / IN_RUN):
        folder = folder / IN_RUN
    if not _is_bundle(folder):  # a folder of photos may bear the name of a bundle that ships
        folder = shipped().get(str(name), folder)
    if not _is_bundle(folder):
        raise BundleError(
            f"'{name}' is no bundle: there is no {MANIFEST} in it. "
            f"Give a folder made by 'nameplate train', or one that ships: {', '.join(shipped())}."
        )
    manifest = _read_manifest(folder)
    backbone = _read(folder, BACKBONE, manifest)
    check_backbone(backbone, str(folder / BACKBONE))
    weight, bias = _read_head(folder, manifest) if HEAD in manifest.files else (None, None)
    photos = _read(folder, PHOTOS, manifest) if PHOTOS in manifest.files else None
    known = _read_detector(folder, manifest) if KNOWN in manifest.files else None
    return Bundle(manifest, backbone, weight, bias, photos, known, folder)


def refuse_other_folder(target: Path) -> None:
    """Keep `overwrite` from replacing a folder that is no bundle.

    Raises:
        NameplateError: `target` holds something else.
    """
    if target.is_dir() and not _is_bundle(target) and any(target.iterdir()):
        raise NameplateError(f"'{target}' is there and is no bundle, so it is not replaced. Choose another name.")


def _is_bundle(folder: Path) -> bool:
    return os.path.isfile(folder / MANIFEST)  # noqa: PTH113 - false, too, for names that no file can have


def save_bundle(target: Path, bundle: Bundle, *, index: bytes | None = None, overwrite: bool = False) -> Bundle:
    """Write a bundle, whole or not at all.

    Args:
        target: the bundle's folder.
        bundle: in memory; what its manifest says of `files` and where it lies now make no difference.
        index: index.safetensors, where it shall have one.
        overwrite: replace a bundle that is there.

    Returns:
        The bundle as it lies on disk, with its `files` and its `folder`.

    Raises:
        NameplateError: `target` is there already, or cannot be written.
    """
    refuse_other_folder(target)
    contents = _contents(bundle) | ({} if index is None else {INDEX: index})
    files = {name: File(sha256(data), len(data)) for name, data in contents.items()}
    complete = replace(bundle.manifest, files=files)
    with whole_folder(target, overwrite=overwrite) as temporary:
        for name, data in contents.items():
            (temporary / name).write_bytes(data)
        said = msgspec.json.decode(msgspec.json.encode(complete))
        text = msgspec.json.format(msgspec.json.encode(said | {SEAL: _seal(said)}), indent=2)
        (temporary / MANIFEST).write_bytes(text + b"\n")
    return replace(bundle, manifest=complete, folder=target)


def _contents(bundle: Bundle) -> dict[str, bytes]:
    """File name → bytes of all that a bundle in memory holds beside its manifest."""
    contents = {BACKBONE: bundle.backbone}
    if bundle.weight is not None and bundle.bias is not None:
        parts = (bundle.weight, bundle.bias)
        # safetensors writes an array's buffer as it lies in memory, so it has to be in row-major order
        contents[HEAD] = save_tensors(
            {name: np.ascontiguousarray(part) for name, part in zip(HEAD_PARTS, parts, strict=True)}
        )
    if bundle.photos is not None:
        contents[PHOTOS] = bundle.photos
    if bundle.ood_detector is not None:
        contents[KNOWN] = save_tensors(bundle.ood_detector.tensors)
    return contents


class _Version(msgspec.Struct):
    schema: int


def _seal(said: dict[str, object]) -> str:
    """SHA-256 of all that bundle.json says, however it is laid out."""
    return sha256(msgspec.json.encode(said, order="deterministic"))


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        text = _read_bytes(path)
        version = msgspec.json.decode(text, type=_Version).schema
        if version > SCHEMA:
            raise BundleError(
                f"'{folder}' was made by a newer Nameplate (schema {version}, this one reads up to "
                f"{SCHEMA}). Update it: pip install -U nameplate."
            )
        manifest = msgspec.json.decode(text, type=Manifest)
        said = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"'{path}' is damaged: {error}.") from None
    if said.pop(SEAL, None) != _seal(said):
        raise BundleError(f"'{path}' is damaged: its own SHA-256 is not that of what it says. Copy it again.")
    problem = _problem(manifest)
    if problem:
        raise BundleError(f"'{path}' is damaged: {problem}.")
    return manifest


def _problem(manifest: Manifest) -> str | None:
    """What cannot be right in a manifest that has the right form."""
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
    if len(manifest.makes) not in (0, len(manifest.nameplates)):
        return f"it has {len(manifest.nameplates)} nameplates and {len(manifest.makes)} makes"
    cuts = manifest.thresholds
    lengths = [cut for cut in (cuts.middle, cuts.near, cuts.far) if cut is not None]
    if not cuts.usable or cuts.spread * LARGEST < 1 or max(map(abs, [*lengths, cuts.spread])) > LARGEST:
        return f"the thresholds are {cuts}"
    if any(claims and not claims.usable for claims in (manifest.claims, manifest.make_claims)):
        return "the thresholds for claims are of another form"
    if not (0 < manifest.preprocess.height <= 4096 and 0 < manifest.preprocess.width <= 4096):
        return f"the picture is {manifest.preprocess.height}×{manifest.preprocess.width}"
    return None


def _read(folder: Path, name: str, manifest: Manifest) -> bytes:
    expected = manifest.files[name]
    data = _read_bytes(folder / name)
    if len(data) != expected.bytes:
        raise BundleError(
            f"'{folder / name}' has {len(data):,} bytes, {MANIFEST} says {expected.bytes:,}: "
            "it is cut short or not its own. Copy the bundle again."
        )
    if sha256(data) != expected.sha256:
        raise BundleError(f"'{folder / name}' is damaged: its SHA-256 is not the one in {MANIFEST}. Copy it again.")
    return data


def _read_bytes(path: Path) -> bytes:
    most = MAX_BYTES[path.name]
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > most:
                raise BundleError(f"'{path}' is larger than {most:,} bytes; it is not read.")
            return file.read(most)
    except OSError as error:
        raise BundleError(f"Cannot read '{path}': {error.strerror or error}.") from None


def _read_head(folder: Path, manifest: Manifest) -> tuple[Floats, Floats]:
    path = folder / HEAD
    try:
        tensors = load_tensors(_read(folder, HEAD, manifest))
        weight, bias = (tensors[part] for part in HEAD_PARTS)
    except (SafetensorError, KeyError, ValueError) as error:
        raise BundleError(f"'{path}' is damaged: {error}.") from None
    classes = len(manifest.nameplates)
    if weight.shape != (manifest.embedding, classes) or bias.shape != (classes,):
        raise BundleError(
            f"'{path}' holds {weight.shape} and {bias.shape}, {MANIFEST} says {manifest.embedding} and {classes}."
        )
    if weight.dtype != np.float32 or bias.dtype != np.float32:
        raise BundleError(f"'{path}' holds numbers that are not finite float32.")
    for part in (weight, bias):
        if not np.isfinite(part).all():
            raise BundleError(f"'{path}' holds numbers that are not finite float32.")
        if not all_finite(part):
            raise BundleError(f"'{path}' holds numbers beyond ±{LARGEST:g}, which no head that was trained has.")
    return weight, bias


def all_finite(found: Floats) -> bool:
    """Whether all are numbers that can be computed with: none NaN or infinite, none beyond `LARGEST`."""
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
