"""Exports a pretrained timm network as a bundle without a head.

`nameplate train --backbone BUNDLE` then fits a linear classifier on it, in seconds and without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nameplate.errors import NameplateError, UsageError
from nameplate.fit.run import versions
from nameplate.model.bundle import BACKBONE, SCHEMA, Bundle, File, Manifest, refuse_other_folder, save_bundle
from nameplate.model.reference import reference_inputs
from nameplate.model.runtime_choice import probe
from nameplate.runtime.select import available_cpus, make_runtime
from nameplate.storage import sha256, writing
from nameplate.train.backbones import Backbone, find_backbone
from nameplate.train.export import Embedder, export_onnx, round_weights
from nameplate.train.frozen_network import interpolation_of, load_network
from nameplate.train.network import Network, has_places
from nameplate.types import Floats, Preprocess

TIMM = "timm:"
"""A prefix that a name may have."""
MAX_GAP = 0.01
"""Largest distance of a runtime's embedding to torch's, as a share of the mean distance between embeddings of different
pictures and their mean."""


@dataclass(frozen=True, slots=True)
class EmbeddingParity:
    """How closely a runtime agrees with torch on the pictures of the reference image, both in float32."""

    runtime: str
    pictures: int
    gap: float
    """See `MAX_GAP`; NaN where the network computes NaN or the same embedding for all pictures."""


@dataclass(frozen=True, slots=True)
class HeadlessExport:
    """The result of `export_backbone`."""

    bundle: Bundle
    backbone: Backbone
    weights: str
    """The origin of the weights."""
    parity: tuple[EmbeddingParity, ...]


def export_backbone(
    name: str,
    target: Path,
    *,
    weights: str = "auto",
    size: tuple[int, int] | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> HeadlessExport:
    """Export a network without its classifier, compare it with torch in each runtime, and write the bundle.

    The bundle prepares photos with the normalisation and the resampling filter that the weights were trained with.

    Args:
        name: a name that `find_backbone` finds, with or without the prefix "timm:".
        target: the bundle's folder.
        weights: as in a recipe: `auto`, `none`, a .safetensors file or a run's folder.
        size: (height, width) of the model's input in pixels; None takes the one that the weights were trained with.
        threads: number of processors to use; None takes all that this process may use.
        overwrite: whether to replace a bundle that is at `target`.
        say: called with a short text at each step.

    Raises:
        UsageError: there is no such network, it takes no input of that size, or there are no such weights.
        NameplateError: `target` exists, the hub cannot be reached, the weights do not fit, the network cannot be
            exported, or a runtime disagrees with torch.
    """
    backbone, threads = find_backbone(name.removeprefix(TIMM)), threads or available_cpus()
    size = size or (backbone.height, backbone.width)
    refuse_other_folder(target)
    with writing(target):
        if target.exists() and not overwrite:
            raise UsageError(f"'{target}' is there already. Choose another name, or pass --overwrite.")
        say("load the weights")
        try:
            network, origin = load_network(backbone, 0, size, threads, weights)
        except NameplateError as error:  # its advice names the option of `train`
            raise type(error)(str(error).replace("--set weights=", "--weights ")) from None
        network = round_weights(network)
        say("export")
        draft = _draft(target.name, backbone, network, size)
        say("compare the exported network with torch")
        able = {trial.runtime for trial in probe(draft, threads) if trial.error is None}
        runtimes = ["onnxruntime", *sorted(able & {"openvino"})]
        parity = check_embeddings(network, draft, reference_inputs(draft.manifest.preprocess), runtimes, threads)
        draft.manifest.provenance.update(_provenance(backbone, origin, parity))
        return HeadlessExport(save_bundle(target, draft, overwrite=overwrite), backbone, origin, parity)


def _draft(name: str, backbone: Backbone, network: Network, size: tuple[int, int]) -> Bundle:
    """The bundle with the exported network, before it is compared with torch."""
    onnx = _exported(backbone, Embedder(network, places=has_places(network, *size)), size)
    with torch.inference_mode():
        width = network.embed(torch.zeros(1, *size, 3, dtype=torch.uint8)).shape[1]
    return Bundle(_manifest(name, backbone, size, onnx, width), onnx)


def check_embeddings(
    network: torch.nn.Module, bundle: Bundle, inputs: NDArray[np.uint8], runtimes: Sequence[str], threads: int
) -> tuple[EmbeddingParity, ...]:
    """Compare the embeddings of the runtimes with those of torch.

    Args:
        network: has `embed`, uint8 N×H×W×3 → embeddings N×D, on the CPU, in evaluation mode; the reference.
        bundle: holds the exported backbone.
        inputs: model inputs, uint8 N×H×W×3, of at least two different pictures.
        runtimes: names of runtimes that compute in float32.
        threads: number of processors to use.

    Raises:
        NameplateError: the gap of a runtime is above `MAX_GAP`, or not a number.
    """
    with torch.inference_mode():
        expected = network.embed(torch.from_numpy(inputs)).numpy()
    spread = float(np.linalg.norm(expected - expected.mean(0), axis=1).mean())
    if not spread > 0:
        raise NameplateError("The network gives the same embedding for every picture. Are these its weights?")
    found = []
    for name in runtimes:
        embeddings: Floats = np.concatenate(list(make_runtime(name, bundle.backbone, threads).embed([inputs])))
        gap = float(np.linalg.norm(embeddings - expected, axis=1).max()) / spread
        found.append(EmbeddingParity(name, len(inputs), gap))
    for parity in found:
        if not parity.gap <= MAX_GAP:  # also where it is NaN
            raise NameplateError(
                f"The exported network is not the one that was loaded: embeddings by {parity.runtime} differ from "
                f"torch's by {parity.gap:.2g} of their spread, and {MAX_GAP:g} is allowed. No bundle is written."
            )
    return tuple(found)


def _exported(backbone: Backbone, embedder: torch.nn.Module, size: tuple[int, int]) -> bytes:
    """The ONNX file; torch's exporter raises errors of many types for what it does not support."""
    try:
        return export_onnx(embedder, *size)
    except Exception as error:
        why = (str(error).strip().split("\n") or [""])[0] or type(error).__name__
        raise NameplateError(f"torch cannot export '{backbone.timm}' to ONNX: {why}") from error


def _manifest(name: str, backbone: Backbone, size: tuple[int, int], onnx: bytes, embedding: int) -> Manifest:
    return Manifest(
        schema=SCHEMA,
        name=name,
        nameplates=(),
        ids=(),
        preprocess=Preprocess(*size, "squash", interpolation_of(backbone)),
        embedding=embedding,
        temperature=1.0,
        files={BACKBONE: File(sha256(onnx), len(onnx))},
    )


def _provenance(backbone: Backbone, origin: str, parity: Sequence[EmbeddingParity]) -> dict[str, object]:
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "backbone": f"{backbone.timm}, {origin}",
        "licence": {"weights": backbone.licence},
        "parity": [asdict(each) for each in parity],
        "versions": versions("timm", "torch", "onnx", "onnxruntime"),
    }
