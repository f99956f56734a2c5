"""Proof that a backbone works, made in a process of its own before the backbone is loaded in this one.

`python -m nameplate.model.proof REQUEST` (JSON) reads an ONNX file from stdin, runs two model inputs and prints what is
wrong. A file from elsewhere may use up all memory, run for hours or crash its process, so the process has limits, and
may die without harm. The outcome is cached by the file's SHA-256. Shipped backbones need no proof.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np

from nameplate.errors import BundleError, NameplateError
from nameplate.model.bundle import LARGEST, Bundle, all_finite, load_bundle, shipped_backbones
from nameplate.model.reference import reference_inputs
from nameplate.runtime.ort import OnnxRuntime
from nameplate.storage import cache_folder, sha256, whole_file
from nameplate.types import Floats, Preprocess

PROOF_SECONDS = 120
"""Longest time to load a backbone and embed two model inputs on one processor."""
MEMORY = 4 << 30
"""Most bytes of address space, besides `MEMORY_TIMES` the backbone's own size."""
MEMORY_TIMES = 8


@dataclass(frozen=True, slots=True)
class Request:
    """What a backbone must do, and within which limits."""

    preprocess: Preprocess
    embedding: int
    """D, the size of an embedding."""
    memory: int
    """Most bytes of address space."""


@dataclass(frozen=True, slots=True)
class Proof:
    """The outcome for one backbone."""

    problem: str | None = None
    """What is wrong, as a sentence; None where the backbone works."""
    timed_out: bool = False


def load_proven(name: str | Path) -> Bundle:
    """`load_bundle`, then `prove`. Everything that runs a bundle begins with this.

    Raises:
        BundleError: as in both.
    """
    bundle = load_bundle(name)
    prove(bundle)
    return bundle


def prove(bundle: Bundle) -> None:
    """Refuse a bundle whose backbone does not work; an outcome in the cache is not computed again.

    Raises:
        BundleError: the backbone cannot be loaded, takes too much time or memory, or gives no embeddings.
    """
    if bundle.digest in shipped_backbones():
        return
    manifest = bundle.manifest
    request = Request(manifest.preprocess, manifest.embedding, MEMORY + MEMORY_TIMES * len(bundle.backbone))
    key = sha256(repr((bundle.digest, request, version("onnxruntime"))).encode())[:32]
    proof = _cached(cache_folder() / "proofs" / f"{key}.json", bundle.backbone, request)
    if proof.problem is not None:
        raise BundleError(f"'{manifest.name}' is refused. {proof.problem}")


def _cached(report: Path, backbone: bytes, request: Request) -> Proof:
    """The proof from the cache, or a new one that is then kept there."""
    with suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(report.read_bytes(), type=Proof)
    proof = _run(backbone, request)
    if not proof.timed_out:  # the next run may find a less busy machine
        with suppress(NameplateError, OSError), whole_file(report) as temporary:
            temporary.write_bytes(msgspec.json.encode(proof))
    return proof


def _run(backbone: bytes, request: Request) -> Proof:
    """Run the process, and make a proof of its end where it printed none."""
    command = [sys.executable, "-P", "-m", "nameplate.model.proof", msgspec.json.encode(request).decode()]
    try:
        done = subprocess.run(command, input=backbone, capture_output=True, timeout=PROOF_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Proof(f"The backbone needs more than {PROOF_SECONDS} s for two model inputs.", timed_out=True)
    try:
        return msgspec.json.decode(done.stdout, type=Proof)
    except msgspec.DecodeError:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        end = f"ended with {done.returncode}" + "".join(f" ({line[:200]})" for line in last)
        return Proof(f"The backbone crashed the process that tried it, which {end}.")


def main() -> None:
    """Print the `Proof` of the ONNX file on stdin as JSON."""
    request = msgspec.json.decode(sys.argv[1], type=Request)
    _limit(request.memory)
    try:
        problem = _problem(sys.stdin.buffer.read(), request)
    except MemoryError:
        problem = f"The backbone needs more than {request.memory / (1 << 30):.1f} GB of memory for two model inputs."
    sys.stdout.buffer.write(msgspec.json.encode(Proof(problem)))


def _limit(memory: int) -> None:
    """Limit this process to so many bytes of address space, on systems that can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    memory = memory if most == resource.RLIM_INFINITY else min(memory, most)
    resource.setrlimit(resource.RLIMIT_AS, (memory, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash of a hostile file leaves no core dump


def _problem(backbone: bytes, request: Request) -> str | None:
    """What is wrong with a backbone; None where it works.

    Raises:
        MemoryError: it needs more memory than this process may use.
    """
    inputs = reference_inputs(request.preprocess)[:2]
    try:
        plain = OnnxRuntime(backbone, 1).run(inputs)
        mapping = OnnxRuntime(backbone, 1, maps=True)
        [(_, places)] = mapping.maps([inputs]) if mapping.has_maps else [(plain, plain)]
    except BundleError as error:
        text = str(error)
        # ONNX Runtime reports a failed allocation as an error of its own.
        if "bad_alloc" in text or "Failed to allocate memory" in text:
            raise MemoryError from None
        return text
    if plain.shape[1] != request.embedding:
        return f"The backbone gives {plain.shape[1]} numbers for a photo, and bundle.json says {request.embedding}."
    return (
        None
        if all_finite(plain) and all_finite(places)
        else f"The backbone gives {_kinds(plain, places)} for the reference image."
    )


def _kinds(*found: Floats) -> str:
    """The kind of unusable numbers in arrays that contain some."""
    whole = np.concatenate([each.ravel() for each in found])
    return "NaN" if np.isnan(whole).any() else "infinity" if np.isinf(whole).any() else f"numbers beyond ±{LARGEST:g}"


if __name__ == "__main__":
    main()
