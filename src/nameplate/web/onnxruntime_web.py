"""ONNX Runtime Web for exported sites: downloaded by npm, checked by its SHA-256, and kept in the cache."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from nameplate.storage import cache_folder, whole_file
from nameplate.web.npm import NpmFiles

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
CACHE = "onnxruntime-web"
"""The folder in the cache."""
FILES = NpmFiles(
    PACKAGE,
    VERSION,
    {
        "dist/ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
        "dist/ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    },
    "A site needs",
    f"or give --onnxruntime-web the unpacked package (npm install {PACKAGE}@{VERSION}, then node_modules/{PACKAGE})",
)
"""The hashes are of 2026-11-28."""


def onnxruntime_web(folder: Path | None = None) -> dict[str, bytes]:
    """The files of ONNX Runtime Web: name → bytes.

    Args:
        folder: the unpacked npm package; None takes the files from the cache, or downloads the package by npm.

    Raises:
        NameplateError: a file is missing or another one than expected, or npm is missing or cannot download it.
    """
    kept = cache_folder() / CACHE / VERSION
    if folder is None and not all((kept / name).is_file() for name in FILES.hashes):
        for name, data in FILES.download().items():
            with whole_file(kept / name) as temporary:
                temporary.write_bytes(data)
    files = FILES.read(folder or kept)
    return {PurePosixPath(name).name: data for name, data in files.items()}
