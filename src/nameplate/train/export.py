"""From a trained network to a backbone that needs no torch, and the gate that it has to pass."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxscript.optimizer import fold_constants, remove_unused_nodes

from nameplate.errors import NameplateError
from nameplate.fit.half import SMALL, store_as_half
from nameplate.model.bundle import Bundle
from nameplate.model.classifier import class_means, probabilities, whitening
from nameplate.runtime.base import BATCH, OUTPUTS
from nameplate.runtime.select import make_runtime
from nameplate.train.network import Network, classifier_matrix, plain_forward
from nameplate.types import Floats

OPSET = 18
MIN_AGREEMENT = 0.999
"""Share of photos on which every runtime must name the same nameplate as torch."""

WHITENING_SHRINKAGE = 0.1
"""Weight of the identity in the covariance that whitens."""


@dataclass(frozen=True, slots=True)
class Parity:
    """How a runtime's answers compare with torch's, all in float32, on real photos."""

    runtime: str
    photos: int
    same: int
    """Photos with the same most probable nameplate."""
    gap: float
    """The largest difference between two probabilities."""

    @property
    def holds(self) -> bool:
        """Whether it is near enough; a network that computes NaN is not."""
        return self.same >= MIN_AGREEMENT * self.photos and not math.isnan(self.gap)


class Embedder(torch.nn.Module):  # type: ignore[misc]  # torch is read as Any
    """The network without its classifier, whitened or not: uint8 N×H×W×3 → float32 N×D, or that and its map.

    The map, float32 N×h×w×D, is the embedding of each place of the last feature map; its mean is the embedding.
    """

    def __init__(self, network: torch.nn.Module, white: Whitening | None = None, *, places: bool = False) -> None:
        super().__init__()
        self.network, self.whitened, self.places = network, white is not None, places
        if white is None:
            return
        self.register_buffer("mean", torch.from_numpy(white.mean))
        self.register_buffer("matrix", torch.from_numpy(white.matrix))

    def forward(self, photos: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Normalise, run, pool, whiten."""
        if self.places:
            return tuple(self._whiten(each) for each in self.network.embed_places(photos))
        return self._whiten(self.network.embed(photos))

    def _whiten(self, embeddings: torch.Tensor) -> torch.Tensor:
        return (embeddings - self.mean) @ self.matrix if self.whitened else embeddings


@dataclass(frozen=True, slots=True)
class Whitening:
    """A linear map under which the photos of one nameplate vary alike in all directions.

    What varies within a nameplate (colour, light, side) is much the same for every car. With that taken out, a head
    for nameplates that the network never saw needs fewer photos (docs/experiments.md); the network's own head is
    turned back by `head_of`, so its answers do not change.
    """

    mean: Floats
    """D."""
    matrix: Floats
    """D×D, rounded to float16's numbers, as it is stored."""

    def __call__(self, embeddings: Floats) -> Floats:
        """float32 N×D → float32 N×D."""
        return ((embeddings - self.mean) @ self.matrix).astype(np.float32, copy=False)


def whiten(embeddings: Floats, classes: NDArray[np.int64]) -> Whitening:
    """The whitening of embeddings N×D of photos of classes int64 (N,)."""
    mean = embeddings.mean(0)
    matrix = whitening(embeddings - class_means(embeddings, classes)[classes], WHITENING_SHRINKAGE)
    return Whitening(mean, (matrix / np.abs(matrix).max()).astype(np.float16).astype(np.float32))


def round_weights(network: Network) -> Network:
    """A copy whose filters and matrices are float16's nearest: what is exported is then exactly what is judged."""
    rounded: Network = copy.deepcopy(network).cpu().float().to(memory_format=torch.contiguous_format).eval()
    plain_forward(rounded)
    with torch.no_grad():
        for parameter in rounded.parameters():
            if parameter.ndim > 1 and parameter.numel() >= SMALL:
                parameter.copy_(parameter.half().float())
    return rounded


def export_onnx(embedder: torch.nn.Module, height: int, width: int) -> bytes:
    """The ONNX file of a module that takes uint8 N×height×width×3, its weights kept as float16.

    Its outputs are called `embedding` and, where the module gives two, `map`.
    """
    example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    with torch.inference_mode():
        outputs = OUTPUTS if isinstance(embedder.eval()(example), tuple) else OUTPUTS[:1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's notes about itself
        program = torch.onnx.export(
            embedder,
            (example,),
            input_names=["photos"],
            output_names=list(outputs),
            dynamic_shapes={"photos": {0: torch.export.Dim("photos_in_batch", min=1)}},
            opset_version=OPSET,
            dynamo=True,
            optimize=False,  # it would also fold batch norms into filters, which float16 then rounds otherwise
            verbose=False,
        )
        fold_constants(program.model)
        remove_unused_nodes(program.model)
    model = program.model_proto
    store_as_half(model)
    del model.metadata_props[:]
    for part in (*model.graph.node, *model.graph.input, *model.graph.output):
        part.ClearField("doc_string")
        del part.metadata_props[:]
    del model.graph.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def head_of(network: Network, white: Whitening | None = None) -> tuple[Floats, Floats]:
    """The classifier as a bundle's head, for embeddings whitened or not: weight D×C, bias C."""
    if white is None:
        weight, bias = classifier_matrix(network)
        return np.ascontiguousarray(weight.detach().numpy().T), bias.detach().numpy().copy()
    weight, bias = (each.detach().numpy().astype(np.float64) for each in classifier_matrix(network))
    turned = np.linalg.solve(white.matrix.astype(np.float64), weight.T)
    return turned.astype(np.float32), (bias + white.mean @ weight.T).astype(np.float32)


def check_parity(
    network: torch.nn.Module,
    bundle: Bundle,
    pictures: NDArray[np.uint8],
    runtimes: Sequence[str],
    threads: int,
) -> tuple[Parity, ...]:
    """Hold the runtimes against torch.

    Args:
        network: uint8 N×H×W×3 → logits, on the CPU, in evaluation mode; the truth.
        bundle: its exported backbone and head.
        pictures: real photos, prepared: uint8 N×H×W×3.
        runtimes: names of those that compute in float32.
        threads: processors to use.

    Raises:
        NameplateError: a runtime names other nameplates on more than 0.1 % of the photos.
    """
    with torch.inference_mode():
        logits = np.concatenate([network(torch.from_numpy(batch)).numpy() for batch in _batches(pictures)])
    truth = probabilities(logits, 1.0)
    results = []
    assert bundle.weight is not None
    assert bundle.bias is not None
    for name in runtimes:
        runtime = make_runtime(name, bundle.backbone, threads)
        embeddings = np.concatenate(list(runtime.embed(_batches(pictures))))
        probs = probabilities(embeddings @ bundle.weight + bundle.bias, 1.0)
        same = int((probs.argmax(1) == truth.argmax(1)).sum())
        results.append(Parity(name, len(pictures), same, float(np.abs(probs - truth).max())))
    for parity in results:
        if not parity.holds:
            raise NameplateError(
                f"The exported network is not the trained one: {parity.runtime} agrees with torch on "
                f"{parity.same:,} of {parity.photos:,} photos (largest gap between probabilities {parity.gap:.2g}). "
                "No bundle is written; "
                "the weights are kept in the run's folder."
            )
    return tuple(results)


def _batches(pictures: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(pictures), BATCH):
        yield pictures[start : start + BATCH]
