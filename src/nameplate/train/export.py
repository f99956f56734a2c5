"""Exports a trained network to ONNX, and checks that the runtimes give the same answers as torch."""

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
"""Version of the ONNX operators."""
MIN_AGREEMENT = 0.999
"""Smallest share of photos on which each runtime must have the same top-1 answer as torch."""

WHITENING_SHRINKAGE = 0.1
"""Weight of the identity matrix in the shrunk covariance of the whitening, 0–1."""


@dataclass(frozen=True, slots=True)
class Parity:
    """How closely a runtime agrees with torch on real photos, both in float32."""

    runtime: str
    photos: int
    same: int
    """Number of photos with the same most probable nameplate."""
    gap: float
    """The largest difference between two probabilities."""

    @property
    def holds(self) -> bool:
        """Whether the agreement is sufficient; it never is where the network computes NaN."""
        return self.same >= MIN_AGREEMENT * self.photos and not math.isnan(self.gap)


class Embedder(torch.nn.Module):  # type: ignore[misc]  # torch is read as Any
    """The network without its classifier: uint8 N×H×W×3 → embeddings float32 N×D, whitened if `white` is given.

    With `places` it also returns the map: float32 N×h×w×D, the embedding at each location of the last feature map. The
    mean of the map is the embedding.
    """

    def __init__(self, network: torch.nn.Module, white: Whitening | None = None, *, places: bool = False) -> None:
        super().__init__()
        self.network, self.whitened, self.places = network, white is not None, places
        if white is None:
            return
        self.register_buffer("mean", torch.from_numpy(white.mean))
        self.register_buffer("matrix", torch.from_numpy(white.matrix))

    def forward(self, photos: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Compute the embeddings, and the map where it is asked for."""
        if self.places:
            return tuple(self._whiten(each) for each in self.network.embed_places(photos))
        return self._whiten(self.network.embed(photos))

    def _whiten(self, embeddings: torch.Tensor) -> torch.Tensor:
        return (embeddings - self.mean) @ self.matrix if self.whitened else embeddings


@dataclass(frozen=True, slots=True)
class Whitening:
    """An affine map after which the embeddings of one nameplate have the same variance in all directions.

    The variation within a nameplate (colour, light, viewing angle) is similar for all cars. When it is normalised, a
    classifier for nameplates that the network never saw needs fewer photos (docs/experiments.md). `head_of` applies the
    inverse map to the network's own classifier, so that its answers do not change.
    """

    mean: Floats
    """float32 (D,)."""
    matrix: Floats
    """float32 D×D; its values are exact in float16, in which the file stores them."""

    def __call__(self, embeddings: Floats) -> Floats:
        """Whiten embeddings: float32 N×D → float32 N×D."""
        return ((embeddings - self.mean) @ self.matrix).astype(np.float32, copy=False)


def whiten(embeddings: Floats, classes: NDArray[np.int64]) -> Whitening:
    """Fit a whitening.

    Args:
        embeddings: float32 N×D.
        classes: int64 (N,); the variation around the mean of each class is whitened.
    """
    mean = embeddings.mean(0)
    matrix = whitening(embeddings - class_means(embeddings, classes)[classes], WHITENING_SHRINKAGE)
    # Scaling by the largest entry keeps the values within the range of float16; the scale does not matter.
    return Whitening(mean, (matrix / np.abs(matrix).max()).astype(np.float16).astype(np.float32))


def round_weights(network: Network) -> Network:
    """A copy on the CPU with weights rounded to float16: the file stores exactly the network that is evaluated."""
    rounded: Network = copy.deepcopy(network).cpu().float().to(memory_format=torch.contiguous_format).eval()
    plain_forward(rounded)
    with torch.no_grad():
        for parameter in rounded.parameters():
            if parameter.ndim > 1 and parameter.numel() >= SMALL:
                parameter.copy_(parameter.half().float())
    return rounded


def export_onnx(embedder: torch.nn.Module, height: int, width: int) -> bytes:
    """Export a module that takes uint8 N×height×width×3 to ONNX, with weights stored as float16.

    The outputs are named `embedding` and, where the module returns two, `map`.
    """
    # Two photos: the exporter would take a batch of one for a constant size.
    example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    with torch.inference_mode():
        outputs = OUTPUTS if isinstance(embedder.eval()(example), tuple) else OUTPUTS[:1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation warnings inside the exporter
        program = torch.onnx.export(
            embedder,
            (example,),
            input_names=["photos"],
            output_names=list(outputs),
            dynamic_shapes={"photos": {0: torch.export.Dim("photos_in_batch", min=1)}},
            opset_version=OPSET,
            dynamo=True,
            optimize=False,  # would fold batch norms into the weights, and float16 would round the products
            verbose=False,
        )
        fold_constants(program.model)
        remove_unused_nodes(program.model)
    model = program.model_proto
    store_as_half(model)
    del model.metadata_props[:]
    # Metadata holds paths of this machine and makes equal networks differ.
    for part in (*model.graph.node, *model.graph.input, *model.graph.output):
        part.ClearField("doc_string")
        del part.metadata_props[:]
    del model.graph.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def head_of(network: Network, white: Whitening | None = None) -> tuple[Floats, Floats]:
    """The classifier of a network as weight D×C and bias C, for embeddings that `white` has whitened, if given."""
    if white is None:
        weight, bias = classifier_matrix(network)
        return np.ascontiguousarray(weight.detach().numpy().T), bias.detach().numpy().copy()
    weight, bias = (each.detach().numpy().astype(np.float64) for each in classifier_matrix(network))
    # The inverse of the whitening; in float64, so that its rounding does not change the answers.
    turned = np.linalg.solve(white.matrix.astype(np.float64), weight.T)
    return turned.astype(np.float32), (bias + white.mean @ weight.T).astype(np.float32)


def check_parity(
    network: torch.nn.Module,
    bundle: Bundle,
    inputs: NDArray[np.uint8],
    runtimes: Sequence[str],
    threads: int,
) -> tuple[Parity, ...]:
    """Compare the answers of the runtimes with those of torch.

    Args:
        network: uint8 N×H×W×3 → logits, on the CPU, in evaluation mode; the reference.
        bundle: holds its exported backbone and classifier.
        inputs: model inputs of real photos, uint8 N×H×W×3.
        runtimes: names of runtimes that compute in float32.
        threads: number of processors to use.

    Raises:
        NameplateError: a runtime agrees with torch on fewer than `MIN_AGREEMENT` of the photos.
    """
    with torch.inference_mode():
        logits = np.concatenate([network(torch.from_numpy(batch)).numpy() for batch in _batches(inputs)])
    expected = probabilities(logits, 1.0)
    results = []
    assert bundle.weight is not None
    assert bundle.bias is not None
    for name in runtimes:
        runtime = make_runtime(name, bundle.backbone, threads)
        embeddings = np.concatenate(list(runtime.embed(_batches(inputs))))
        probs = probabilities(embeddings @ bundle.weight + bundle.bias, 1.0)
        same = int((probs.argmax(1) == expected.argmax(1)).sum())
        results.append(Parity(name, len(inputs), same, float(np.abs(probs - expected).max())))
    for parity in results:
        if not parity.holds:
            raise NameplateError(
                f"The exported network is not the trained one: {parity.runtime} agrees with torch on "
                f"{parity.same:,} of {parity.photos:,} photos (largest gap between probabilities {parity.gap:.2g}). "
                "No bundle is written; the weights are in the folder of the run."
            )
    return tuple(results)


def _batches(inputs: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(inputs), BATCH):
        yield inputs[start : start + BATCH]
