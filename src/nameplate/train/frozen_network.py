"""timm's backbones, frozen: loaded, run as they are, and what they cost."""

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
"""Batches before the clock runs, and how many, or how long, it runs at least."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a network costs."""

    parameters: int
    gmacs: float
    """10⁹ multiplications with addition for one photo."""
    photos_per_second: float
    megabytes: float
    """10⁶ bytes of all weights, those of batch norms' statistics among them."""


class TorchRuntime:
    """Runs a network as `runtime.base.Runtime` says."""

    name = f"torch {torch.__version__}"

    def __init__(self, network: Network) -> None:
        self._network = network
        self._device = next(network.parameters()).device

    def embed(self, batches: Iterable[Batch]) -> Iterator[Embedding]:
        """One batch after another, in float32."""
        for batch in batches:
            with torch.inference_mode():
                embeddings = self._network.embed(torch.from_numpy(batch).to(self._device)).float().cpu().numpy()
            yield embeddings


def load_network(
    backbone: Backbone, classes: int, size: tuple[int, int], threads: int, weights: str
) -> tuple[Network, str]:
    """A backbone with its weights, ready to embed, and what the weights are.

    Raises:
        UsageError, NameplateError: see `training.weights.load_weights`.
    """
    keep_memory()
    torch.set_num_threads(threads)
    torch.manual_seed(0)  # of weights that begin at random
    body = build(backbone, classes, dropout=0.0, drop_path=0.0, size=size)
    told = load_weights(body, backbone, weights)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    network = Network(body, backbone.mean, backbone.std).eval()
    return network.to(device, memory_format=torch.channels_last), told


def cost_of(backbone: Backbone, classes: int, size: tuple[int, int], threads: int) -> Cost:
    """`measure` of a backbone with random weights: what it costs does not depend on them.

    The state of torch's random numbers is left as it was, so that a training run beside it draws the same.
    """
    with torch.random.fork_rng():
        network, _ = load_network(backbone, classes, size, threads, weights="none")
    return measure(network, *size)


def measure(network: Network, height: int, width: int) -> Cost:
    """Count a network's weights and operations, and time it in batches of `BATCH`.

    Operations are those of convolutions and matrix products, as `torch.utils.flop_counter` counts them (two for a
    multiplication with addition).
    """
    device = next(network.parameters()).device
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
    """Photos a second, of the quickest batch: what else the machine does only makes batches slower."""
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
    """The resampling that a backbone's weights were trained with, as near as Nameplate has it."""
    known: dict[str, Interpolation] = {name: name for name in get_args(Interpolation)}
    return known.get(backbone.interpolation, "bicubic")


def stand_in_bundle(backbone: Backbone, weights: str, network: Network, size: tuple[int, int]) -> Bundle:
    """A bundle that says how photos are prepared and names the embedding cache; it is never run.

    Args:
        backbone: the settings that the weights were trained with.
        weights: what the weights are, as `load_network` says.
        network: loaded.
        size: (height, width) of the model's input.
    """
    device = next(network.parameters()).device
    photo = torch.zeros(1, *size, 3, dtype=torch.uint8, device=device)
    with torch.inference_mode():
        embedding = network.embed(photo).shape[1]
    identity = f"{backbone.timm} {weights} mean {backbone.mean} std {backbone.std} {device.type}"
    manifest = Manifest(
        schema=SCHEMA,
        name=backbone.name,
        nameplates=(),
        ids=(),
        preprocess=Preprocess(*size, "squash", interpolation_of(backbone)),
        embedding=embedding,
        temperature=1.0,
        files={BACKBONE: File(sha256(identity.encode()), 0)},
    )
    return Bundle(manifest, b"")
