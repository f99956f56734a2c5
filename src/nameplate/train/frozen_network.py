"""Loads and runs pretrained backbones without training, and measures their cost."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import get_args

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from nameplate.model.bundle import BACKBONE, SCHEMA, Bundle, File, Manifest
from nameplate.runtime.base import BATCH, Batch, Embedding
from nameplate.storage import sha256
from nameplate.train.backbones import Backbone, build
from nameplate.train.network import Network
from nameplate.train.schedule import keep_memory
from nameplate.train.weights import load_weights
from nameplate.types import Interpolation, Preprocess

WARM_UP, LEAST_BATCHES, SPEED_SECONDS = 3, 10, 2.0
"""Number of warm-up batches, and the least number of timed batches and seconds."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The size and the speed of a network."""

    parameters: int
    """Number of trainable weights."""
    gmacs: float
    """10⁹ multiply-accumulate operations for one photo."""
    photos_per_second: float
    """Throughput in batches of `BATCH`, in float32."""
    megabytes: float
    """10⁶ bytes of all weights, including batch norm statistics."""


class TorchRuntime:
    """Runs a network as `runtime.base.Runtime` says."""

    name = f"torch {torch.__version__}"

    def __init__(self, network: Network) -> None:
        self._network = network
        self._device = next(network.parameters()).device

    def embed(self, batches: Iterable[Batch]) -> Iterator[Embedding]:
        """The embeddings of each batch: uint8 N×H×W×3 → float32 N×D."""
        for batch in batches:
            with torch.inference_mode():
                embeddings = self._network.embed(torch.from_numpy(batch).to(self._device)).float().cpu().numpy()
            yield embeddings


def load_network(
    backbone: Backbone, classes: int, size: tuple[int, int], threads: int, weights: str
) -> tuple[Network, str]:
    """A backbone with its weights, on the fastest device, and a line on the origin of the weights.

    Raises:
        UsageError: see `weights.load_weights`.
        NameplateError: see `weights.load_weights`.
    """
    keep_memory()
    torch.set_num_threads(threads)
    torch.manual_seed(0)  # random weights are the same in each run
    body = build(backbone, classes, dropout=0.0, drop_path=0.0, size=size)
    origin = load_weights(body, backbone, weights)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    network = Network(body, backbone.mean, backbone.std).eval()
    return network.to(device, memory_format=torch.channels_last), origin


def cost_of(backbone: Backbone, classes: int, size: tuple[int, int], threads: int) -> Cost:
    """`measure` a backbone with random weights, because its cost does not depend on them.

    The state of torch's random generator does not change, so that a training in the same process is not affected.
    """
    with torch.random.fork_rng():
        network, _ = load_network(backbone, classes, size, threads, weights="none")
    return measure(network, *size)


def measure(network: Network, height: int, width: int) -> Cost:
    """Count the weights and operations of a network, and measure its throughput.

    The operations are those of convolutions and matrix products, counted by `torch.utils.flop_counter`, which counts a
    multiply-accumulate as two.
    """
    device = next(network.parameters()).device
    # Attention runs as plain matrix products, which are counted on every device.
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        network(torch.zeros(1, height, width, 3, dtype=torch.uint8, device=device))
    return Cost(
        parameters=sum(parameter.numel() for parameter in network.body.parameters()),
        gmacs=counter.get_total_flops() / 2e9,
        photos_per_second=_speed(network, height, width),
        megabytes=sum(t.numel() * t.element_size() for t in network.body.state_dict().values()) / 1e6,
    )


def _speed(network: Network, height: int, width: int) -> float:
    """Photos per second in the fastest batch; other load on the machine can only make a batch slower."""
    device = next(network.parameters()).device
    photos = torch.zeros(BATCH, height, width, 3, dtype=torch.uint8, device=device)
    seconds: list[float] = []
    with torch.inference_mode():
        for _ in range(WARM_UP):
            network(photos).cpu()
        while len(seconds) < LEAST_BATCHES or sum(seconds) < SPEED_SECONDS:
            begun = time.perf_counter()
            network(photos).cpu()
            seconds.append(time.perf_counter() - begun)
    return BATCH / min(seconds)


def interpolation_of(backbone: Backbone) -> Interpolation:
    """The resampling filter that the weights were trained with; bicubic where Nameplate does not have it."""
    known: dict[str, Interpolation] = {name: name for name in get_args(Interpolation)}
    return known.get(backbone.interpolation, "bicubic")


def stand_in_bundle(backbone: Backbone, weights: str, network: Network, size: Preprocess) -> Bundle:
    """A bundle without a backbone: it holds the preprocessing and the digest for the embedding cache, and is never run.

    Args:
        backbone: the settings that the weights were trained with.
        weights: the origin of the weights, from `load_network`.
        network: the loaded network.
        size: how a photo becomes the model's input.
    """
    device = next(network.parameters()).device
    photo = torch.zeros(1, size.height, size.width, 3, dtype=torch.uint8, device=device)
    with torch.inference_mode():
        embedding = network.embed(photo).shape[1]
    identity = f"{backbone.timm} {weights} mean {backbone.mean} std {backbone.std} {device.type}"
    manifest = Manifest(
        schema=SCHEMA,
        name=backbone.name,
        nameplates=(),
        ids=(),
        preprocess=size,
        embedding=embedding,
        temperature=1.0,
        files={BACKBONE: File(sha256(identity.encode()), 0)},
    )
    return Bundle(manifest, b"")
