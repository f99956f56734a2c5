"""ONNX Runtime Web for exported sites: downloaded by npm, checked by its SHA-256, and kept in the cache."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from nameplate.errors import NameplateError
from nameplate.storage import cache_folder, sha256, whole_file

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
FILES = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
"""The files of the package's folder `dist` → their SHA-256, which `npm pack` of this version gave on 2026-11-28."""
CACHE = "onnxruntime-web"
"""The folder in the cache."""
PATIENCE = 300
"""Seconds that npm may take to download the package, 33 MB."""
OWN = f"or give --onnxruntime-web the unpacked package (npm install {PACKAGE}@{VERSION}, then node_modules/{PACKAGE})"


def onnxruntime_web(folder: Path | None = None) -> dict[str, bytes]:
    """The files of ONNX Runtime Web: name → bytes.

    Args:
        folder: the unpacked npm package; None takes the files from the cache, or downloads the package by npm.

    Raises:
        NameplateError: a file is missing or another one than expected, or npm is missing or cannot download it.
    """
    if folder is not None:
        return _checked({name: _read(folder / "dist" / name) for name in FILES}, str(folder))
    kept = cache_folder() / CACHE / VERSION
    if not all((kept / name).is_file() for name in FILES):
        for name, data in _downloaded().items():
            with whole_file(kept / name) as temporary:
                temporary.write_bytes(data)
    return _checked({name: _read(kept / name) for name in FILES}, str(kept))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NameplateError(
            f"Cannot read '{path}': {error.strerror}. It is a file of {PACKAGE} {VERSION} from npm."
        ) from None


def _checked(files: dict[str, bytes], source: str) -> dict[str, bytes]:
    """The files.

    Raises:
        NameplateError: one of them has another SHA-256.
    """
    for name, data in files.items():
        if sha256(data) != FILES[name]:
            raise NameplateError(
                f"'{name}' in {source} is not that of {PACKAGE} {VERSION}: its SHA-256 is {sha256(data)}, and "
                f"{FILES[name]} is expected. Delete it, {OWN}."
            )
    return files


def _downloaded() -> dict[str, bytes]:
    npm = shutil.which("npm")
    if npm is None:
        raise NameplateError(
            f"A site needs {PACKAGE} {VERSION}, and npm, which downloads it, is missing. Install it, {OWN}."
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent", "--pack-destination", folder]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False)
            failed = done.stderr.strip().splitlines()[:1] if done.returncode else []
        except (OSError, subprocess.TimeoutExpired) as error:
            done, failed = None, [str(error)]
        archive = next(Path(folder).glob("*.tgz"), None)
        if done is None or done.returncode or archive is None:
            why = f" ({failed[0]})" if failed else ""
            raise NameplateError(f"npm cannot download {PACKAGE} {VERSION}{why}. Try again with a network, {OWN}.")
        with tarfile.open(archive) as packed:
            members = {name: packed.extractfile(f"package/dist/{name}") for name in FILES}
            return _checked({name: each.read() for name, each in members.items() if each is not None}, "the download")
