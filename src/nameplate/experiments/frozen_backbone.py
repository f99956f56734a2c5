"""timm's backbones, frozen: photos embedded by one, a head cross-validated on them, its cost measured. With torch."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from nameplate.errors import DataError
from nameplate.evaluation.metrics import wilson
from nameplate.experiments.contenders import Frozen
from nameplate.experiments.judged import Answers, answers, photo_keys
from nameplate.fit.linear_probe import fit_recipe
from nameplate.fit.parts import Parts
from nameplate.models.bundle import BACKBONE, SCHEMA, Bundle, File, Manifest
from nameplate.models.collection import Embedded, Progress, embed_with, still_there
from nameplate.models.head import log_loss, probabilities
from nameplate.models.pipeline import Settings
from nameplate.models.runtime import BATCH, Batch, Embedding
from nameplate.reports.compare import Row
from nameplate.storage import sha256
from nameplate.training.backbones import Backbone, build, find_backbone
from nameplate.training.network import Network
from nameplate.training.speed import keep_memory
from nameplate.training.weights import load_weights
from nameplate.types import Interpolation, Photo, Preprocess

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
    """Runs a network as `models.runtime.Runtime` says."""

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


def judge_frozen(contender: Frozen, parts: Parts, threads: int, progress: Progress) -> tuple[Row, Answers]:
    """Embed photos by a frozen backbone, fit a head on them, judge it on the folds that it did not see.

    Args:
        contender: what is judged.
        parts: the photos; all of them are judged.
        threads: processors.
        progress: see `Progress`.

    Raises:
        UsageError: the backbone cannot take pictures of that size, or there are no such weights.
        NameplateError: the weights cannot be had, or the photos not be read.
    """
    begun = time.monotonic()
    backbone = find_backbone(contender.backbone)
    size = contender.height, contender.width
    network, weights = load_network(backbone, len(parts.nameplates), size, threads, contender.weights)
    cost = measure(network, *size)
    bundle, runtime = _bundle(backbone, weights, network, contender), TorchRuntime(network)

    def embed(photos: Sequence[Photo], *, mirror: bool) -> Embedded:
        return embed_with(runtime, photos, bundle, Settings(threads=threads, mirror=mirror), progress)

    plain = embed(parts.photos, mirror=False)
    there = still_there(parts.photos, plain)
    classes, groups = parts.classes[there], parts.groups[there]
    mirrored = embed(plain.photos, mirror=True) if contender.head.mirror else None
    head = fit_recipe(plain.photos, plain.embeddings, mirrored, classes, groups, contender.head, progress)
    if head.out_of_fold is None:
        raise DataError("Most nameplates have photos in one fold alone, so nothing can be cross-validated.")
    chances = probabilities(head.out_of_fold[: len(classes)], head.temperature)
    row = Row(
        name=contender.name,
        backbone=backbone.timm,
        photos=len(classes),
        top1=wilson(int((chances.argmax(1) == classes).sum()), len(classes)),
        log_loss=log_loss(chances, classes),
        licence=backbone.licence,
        seconds=time.monotonic() - begun,
    )
    return with_cost(row, cost), answers(photo_keys(plain.photos), chances, classes, parts.nameplates)


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


def with_cost(row: Row, cost: Cost) -> Row:
    """A row with what its network costs."""
    return replace(
        row,
        parameters=cost.parameters,
        gmacs=cost.gmacs,
        photos_per_second=cost.photos_per_second,
        megabytes=cost.megabytes,
    )


def interpolation_of(backbone: Backbone) -> Interpolation:
    """The resampling that a backbone's weights were trained with, as near as Nameplate has it."""
    known: dict[str, Interpolation] = {name: name for name in get_args(Interpolation)}
    return known.get(backbone.interpolation, "bicubic")


def _bundle(backbone: Backbone, weights: str, network: Network, contender: Frozen) -> Bundle:
    """What says how photos are prepared and names the cache; it is never run."""
    device = next(network.parameters()).device
    photo = torch.zeros(1, contender.height, contender.width, 3, dtype=torch.uint8, device=device)
    with torch.inference_mode():
        size = network.embed(photo).shape[1]
    identity = f"{backbone.timm} {weights} mean {backbone.mean} std {backbone.std} {device.type}"
    manifest = Manifest(
        schema=SCHEMA,
        name=backbone.name,
        nameplates=(),
        ids=(),
        preprocess=Preprocess(contender.height, contender.width, "squash", interpolation_of(backbone)),
        embedding=size,
        temperature=1.0,
        files={BACKBONE: File(sha256(identity.encode()), 0)},
    )
    return Bundle(manifest, b"")
