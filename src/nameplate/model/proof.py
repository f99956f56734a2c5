"""Whether a backbone works at all, told in a process of its own before it is loaded in this one.

`python -m nameplate.model.proof REQUEST` (JSON) reads an ONNX file from stdin, runs two pictures and prints what is
wrong. It may take no more memory and time than is set here, and may die without harm: a file from elsewhere can do
either. The outcome is cached by the file's digest; backbones that ship need no proof.
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
from nameplate.model.bundle import Bundle, all_finite, load_bundle, shipped_backbones
from nameplate.model.reference import reference_inputs
from nameplate.runtime.ort import OnnxRuntime
from nameplate.storage import cache_folder, sha256, whole_file
from nameplate.types import Floats, Preprocess

PROOF_SECONDS = 120
"""A backbone that needs longer to be loaded and to embed two pictures, on one processor, is refused."""
MEMORY = 4 << 30
"""Bytes of address space that it may take, and `MEMORY_TIMES` its own size."""
MEMORY_TIMES = 8


@dataclass(frozen=True, slots=True)
class Request:
    """What a backbone is to be held to."""

    preprocess: Preprocess
    embedding: int
    """D."""
    memory: int
    """Bytes of address space."""


@dataclass(frozen=True, slots=True)
class Proof:
    """How it fared."""

    problem: str | None = None
    """What is wrong, in a sentence; None where it works."""
    timed_out: bool = False


def load_proven(name: str | Path) -> Bundle:
    """`load_bundle`, and `prove`: what everything that runs a bundle begins with.

    Raises:
        BundleError: see both.
    """
    bundle = load_bundle(name)
    prove(bundle)
    return bundle


def prove(bundle: Bundle) -> None:
    """Refuse a bundle whose backbone does not work; nothing is run where that is known already.

    Raises:
        BundleError: it cannot be loaded, takes too long or too much memory, or gives no embeddings.
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
    """What the process says."""
    command = [sys.executable, "-P", "-m", "nameplate.model.proof", msgspec.json.encode(request).decode()]
    try:
        done = subprocess.run(command, input=backbone, capture_output=True, timeout=PROOF_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Proof(f"The backbone needs more than {PROOF_SECONDS} s for two pictures.", timed_out=True)
    try:
        return msgspec.json.decode(done.stdout, type=Proof)
    except msgspec.DecodeError:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        end = f"ended with {done.returncode}" + "".join(f" ({line[:200]})" for line in last)
        return Proof(f"The backbone brought down the process that tried it, which {end}.")


def main() -> None:
    """Print the `Proof` of the ONNX file on stdin as JSON."""
    request = msgspec.json.decode(sys.argv[1], type=Request)
    _limit(request.memory)
    try:
        problem = _problem(sys.stdin.buffer.read(), request)
    except MemoryError:
        problem = f"The backbone needs more than {request.memory / (1 << 30):.1f} GB of memory for two pictures."
    sys.stdout.buffer.write(msgspec.json.encode(Proof(problem)))


def _limit(memory: int) -> None:
    """Hold this process to so many bytes of address space, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    memory = memory if most == resource.RLIM_INFINITY else min(memory, most)
    resource.setrlimit(resource.RLIMIT_AS, (memory, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _problem(backbone: bytes, request: Request) -> str | None:
    pictures = reference_inputs(request.preprocess)[:2]
    try:
        plain = OnnxRuntime(backbone, 1).run(pictures)
        mapping = OnnxRuntime(backbone, 1, maps=True)
        [(_, places)] = mapping.maps([pictures]) if mapping.has_maps else [(plain, plain)]
    except BundleError as error:
        text = str(error)
        if "bad_alloc" in text or "Failed to allocate memory" in text:
            raise MemoryError from None
        return text
    if plain.shape[1] != request.embedding:
        return f"The backbone gives {plain.shape[1]} numbers for a photo, and bundle.json says {request.embedding}."
    return (
        None
        if all_finite(plain) and all_finite(places)
        else f"The backbone gives {_kinds(plain, places)} for the golden photo."
    )


def _kinds(*found: Floats) -> str:
    """What is among numbers that is none."""
    whole = np.concatenate([each.ravel() for each in found])
    return "NaN" if np.isnan(whole).any() else "infinity" if np.isinf(whole).any() else "numbers beyond all measure"


if __name__ == "__main__":
    main()
