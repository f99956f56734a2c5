"""`python -m nameplate.model.probe FOLDER RUNTIME THREADS`: try one runtime, print a `Trial` as JSON.

Run by `runtime.probe` in a process of its own, which may die without harm.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import numpy as np

from nameplate.model.runtime import BATCH, Batch, Embedding, Runtime, Trial, import_openvino, make_runtime

REFERENCE = "reference.npy"


def main() -> None:
    """Embed FOLDER/photos.npy, hold it against ONNX Runtime's embeddings."""
    folder, name, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    backbone, photos = (folder / "backbone.onnx").read_bytes(), np.load(folder / "photos.npy")
    if name.endswith("bf16"):
        able = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if "BF16" not in able:
            _print(Trial(name, error="this CPU does not compute in bfloat16"))
            return
    runtime = make_runtime(name, backbone, threads)
    embedding = _embed(runtime, photos)
    if name == "onnxruntime":
        np.save(folder / REFERENCE, embedding)
    reference = np.load(folder / REFERENCE)
    _print(Trial(name, _least_cosine(embedding, reference)))


def _embed(runtime: Runtime, photos: Batch) -> Embedding:
    return np.concatenate(list(runtime.embed(photos[i : i + BATCH] for i in range(0, len(photos), BATCH))))


def _least_cosine(a: Embedding, b: Embedding) -> float:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(1) / np.maximum(norms, 1e-12)
    return float(cosine.min()) if np.isfinite(a).all() else -1.0


def _print(trial: Trial) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(trial))


if __name__ == "__main__":
    main()
