"""`ArrayCache`: arrays on disk by photo digest.

Shards of safetensors, each written whole and named by its own SHA-256, so that an interrupted run goes on where
it was. What cannot be read of it is computed again; where it cannot be written there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from nameplate.errors import NameplateError
from nameplate.storage import cache_folder, sha256, whole_file

Array = NDArray[Any]
FLUSH = 1024
"""Rows that are written together."""


class ArrayCache:
    """For each photo, known by its SHA-256, the same few arrays."""

    def __init__(self, kind: str, key: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Read what is there.

        Args:
            kind: the folder's name below the cache.
            key: all that the arrays depend on beside the photo.
            shapes: name → shape of each array; "digest" is taken.
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
            if shard.stem != sha256(data)[:32]:
                raise ValueError("damaged")
            part = load_tensors(data)
            digests = [bytes(digest).hex() for digest in part["digest"]]
            if any(part[name].shape != (len(digests), *shape) for name, shape in self._shapes.items()):
                raise ValueError("of another shape")
            for place, digest in enumerate(digests):
                self._rows[digest] = {name: part[name][place] for name in self._shapes}
        except (SafetensorError, OSError, KeyError, ValueError):
            shard.unlink(missing_ok=True)

    def __contains__(self, digest: str) -> bool:
        return digest in self._rows

    def __getitem__(self, digest: str) -> dict[str, Array]:
        """The arrays of a photo that is there."""
        return self._rows[digest]

    def add(self, digest: str, row: dict[str, Array]) -> None:
        """Keep a photo's arrays; every `FLUSH` rows go to disk."""
        if digest in self._rows:
            return
        self._rows[digest] = row
        self._new.append(digest)
        if len(self._new) >= FLUSH:
            self.flush()

    def flush(self) -> None:
        """Write what is new as one shard."""
        if not self._new:
            return
        rows = [self._rows[digest] for digest in self._new]
        tensors: dict[str, Array] = {name: np.stack([row[name] for row in rows]) for name in self._shapes}
        tensors["digest"] = np.frombuffer(bytes.fromhex("".join(self._new)), np.uint8).reshape(-1, 32)
        data = save_tensors(tensors)
        with (
            suppress(NameplateError, OSError),
            whole_file(self.folder / f"{sha256(data)[:32]}.safetensors") as temporary,
        ):
            temporary.write_bytes(data)
        self._new.clear()
