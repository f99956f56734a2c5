"""Caches on disk of what was computed of photos, by the SHA-256 of each photo's file.

`ArrayCache` holds any arrays, `EmbeddingCache` holds embeddings with what the pipeline measured beside them. The files
are shards in safetensors. Each is written whole and named by its own SHA-256, so that an interrupted run continues
where it was. A damaged shard is computed again, and where the cache folder cannot be written there is no cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from nameplate.errors import NameplateError
from nameplate.images.phash import WORDS
from nameplate.images.quality import Quality
from nameplate.model.pipeline import CachedPhoto, EmbeddedCar, EmbeddedPhoto, Outcome, PhotoFile
from nameplate.storage import cache_folder, sha256, whole_file

Array = NDArray[Any]
FLUSH = 1024
"""Number of rows in a shard."""


class ArrayCache:
    """The same named arrays for each photo, by the SHA-256 of its file."""

    def __init__(self, kind: str, key: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Read the shards that exist.

        Args:
            kind: name of the folder in the cache.
            key: everything that the arrays depend on besides the photo.
            shapes: name → shape of each array; the name "digest" is reserved.
        """
        self.folder = cache_folder() / kind / sha256(key.encode())[:32]
        self._shapes = dict(shapes)
        self._rows: dict[str, dict[str, Array]] = {}
        self._new: list[str] = []
        for shard in sorted(self.folder.glob("*.safetensors")):
            self._read(shard)

    def _read(self, shard: Path) -> None:
        try:
            data = shard.read_bytes()
            if shard.stem != sha256(data)[:32]:  # damaged on disk
                raise ValueError("damaged")
            part = load_tensors(data)
            digests = [bytes(digest).hex() for digest in part["digest"]]
            if any(part[name].shape != (len(digests), *shape) for name, shape in self._shapes.items()):
                raise ValueError("of another shape")
            for row, digest in enumerate(digests):
                self._rows[digest] = {name: part[name][row] for name in self._shapes}
        except (SafetensorError, OSError, KeyError, ValueError):  # damaged: its rows are computed again
            shard.unlink(missing_ok=True)

    def __contains__(self, digest: str) -> bool:
        return digest in self._rows

    def __getitem__(self, digest: str) -> dict[str, Array]:
        """The arrays of a photo that is in the cache."""
        return self._rows[digest]

    def add(self, digest: str, row: dict[str, Array]) -> None:
        """Add a photo's arrays; every `FLUSH` new rows are written to disk."""
        if digest in self._rows:
            return
        self._rows[digest] = row
        self._new.append(digest)
        if len(self._new) >= FLUSH:
            self.flush()

    def flush(self) -> None:
        """Write the new rows as one shard."""
        if not self._new:
            return
        rows = [self._rows[digest] for digest in self._new]
        tensors: dict[str, Array] = {name: np.stack([row[name] for row in rows]) for name in self._shapes}
        tensors["digest"] = np.frombuffer(bytes.fromhex("".join(self._new)), np.uint8).reshape(-1, 32)
        data = save_tensors(tensors)
        # A cache that cannot be written costs time and nothing else, so the job goes on without it.
        with (
            suppress(NameplateError, OSError),
            whole_file(self.folder / f"{sha256(data)[:32]}.safetensors") as temporary,
        ):
            temporary.write_bytes(data)
        self._new.clear()


class EmbeddingCache:
    """Embeddings of one backbone, preprocessing and runtime, by the SHA-256 of the photo."""

    def __init__(self, key: str, size: int, runtime: str) -> None:
        """Read the shards that exist.

        Args:
            key: everything that an embedding depends on besides the photo.
            size: D, the size of an embedding.
            runtime: name of the runtime that computes the embeddings.
        """
        shapes = {"embedding": (size,), "hash": (WORDS,), "size": (2,), "quality": (3,)}
        self._cache, self._runtime = ArrayCache("embeddings", key, shapes), runtime
        self.folder, self.flush = self._cache.folder, self._cache.flush

    def __contains__(self, digest: str) -> bool:
        return digest in self._cache

    def store_or_load(self, photo: Outcome | CachedPhoto) -> Outcome:
        """Store a new embedding, or load that of a photo that the pipeline skipped as cached; returns the photo."""
        if isinstance(photo, CachedPhoto):
            return self._load(photo.digest)
        if isinstance(photo, EmbeddedPhoto):
            self._add(photo)
        return photo

    def _load(self, digest: str) -> EmbeddedPhoto:
        row = self._cache[digest]
        width, height = row["size"].tolist()
        short_side, light, sharpness = row["quality"].tolist()
        quality = Quality(int(short_side), light, sharpness)
        car = EmbeddedCar(row["embedding"][None], quality)
        return EmbeddedPhoto(PhotoFile(digest, width, height), car, self._runtime, hash=row["hash"])

    def _add(self, photo: EmbeddedPhoto) -> None:
        assert photo.digest is not None
        assert photo.hash is not None
        assert photo.car.quality is not None
        row: dict[str, NDArray[Any]] = {
            "embedding": photo.embedding,
            "hash": photo.hash,
            "size": np.array((photo.file.width, photo.file.height), np.int32),
            "quality": np.array(astuple(photo.car.quality), np.float64),
        }
        self._cache.add(photo.digest, row)
