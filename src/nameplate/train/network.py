"""The network that is trained: a timm backbone with its classifier, uint8 pictures in, logits out."""

from __future__ import annotations

from collections.abc import Sequence
from types import MethodType

import torch
from torch import nn

from nameplate.errors import UsageError


class Network(nn.Module):  # type: ignore[misc]  # torch is read as Any
    """uint8 (or float32 0–255) N×H×W×3 → float32 N×C; normalisation is inside, resizing never is."""

    def __init__(self, body: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("scale", 1 / (255 * torch.tensor(std)), persistent=False)
        self.register_buffer("shift", -torch.tensor(mean) / torch.tensor(std), persistent=False)

    def normalise(self, photos: torch.Tensor) -> torch.Tensor:
        """N×H×W×3 → N×3×H×W in the form that the backbone was trained with."""
        return (photos.to(torch.float32) * self.scale + self.shift).permute(0, 3, 1, 2)

    def embed(self, photos: torch.Tensor) -> torch.Tensor:
        """N×H×W×3 → what the classifier takes, N×D."""
        return self.body.forward_head(self.body.forward_features(self.normalise(photos)), pre_logits=True)

    def embed_places(self, photos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """N×H×W×3 → the embedding N×D, and the embedding of each place of the last feature map, N×h×w×D.

        The mean over the places is the embedding, so that any linear head on it has its class activation maps
        (B. Zhou et al., "Learning Deep Features for Discriminative Localization", 2016). Exact where all after the
        pool is linear; else each place passes through it alone, and the gap is shared out evenly.
        """
        features = self.body.forward_features(self.normalise(photos))
        embedding = self.body.forward_head(features, pre_logits=True)
        _, channels, height, width = features.shape
        alone = features.permute(0, 2, 3, 1).reshape(-1, channels, 1, 1)
        places = self.body.forward_head(alone, pre_logits=True).unflatten(0, (-1, height, width))
        return embedding, places + (embedding - places.mean((1, 2)))[:, None, None]

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """N×H×W×3 → logits N×C."""
        return self.body(self.normalise(photos))

    @property
    def classifier(self) -> nn.Module:
        """The last layer: linear, or a 1×1 convolution.

        Raises:
            UsageError: it is something else, which a bundle's head cannot hold.
        """
        layer = self.body.get_classifier()
        plain = isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1))
        if not plain or layer.bias is None:
            raise UsageError(
                f"This backbone's classifier is a {type(layer).__name__}, not one linear layer with a bias; "
                "a bundle cannot hold it. Choose another: nameplate backbones."
            )
        return layer


def classifier_matrix(network: Network) -> tuple[torch.Tensor, torch.Tensor]:
    """The classifier as weight C×D and bias C."""
    layer = network.classifier
    return layer.weight.flatten(1), layer.bias


def has_places(network: Network, height: int, width: int) -> bool:
    """Whether `embed_places` is meant for it: its head takes the mean over a feature map N×K×h×w, and no more.

    Tried rather than looked up: timm's networks pool in many ways, and transformers have no such map at all.
    """
    noise = torch.randint(0, 256, (1, height, width, 3), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = network.body.forward_features(network.normalise(noise))
        if features.ndim != 4:
            return False
        whole = network.body.forward_head(features, pre_logits=True)
        try:
            of_mean = network.body.forward_head(features.mean((2, 3), keepdim=True), pre_logits=True)
        except (RuntimeError, ValueError):  # a head for other shapes: channels last, a grid of a fixed size
            return False
    return of_mean.shape == whole.shape and bool(torch.allclose(of_mean, whole, rtol=1e-3, atol=1e-4))


def layer_numbers(network: Network) -> dict[str, int]:
    """Parameter name (below `body`) → its layer group, from 0 at the photo's end; timm knows each network's.

    Raises:
        UsageError: timm does not know this one's.
    """
    from timm.models import group_parameters

    if not hasattr(network.body, "group_matcher"):
        raise UsageError(
            f"timm does not say how the layers of {type(network.body).__name__} follow each other, so it cannot be "
            "trained in stages. Choose another: nameplate backbones."
        )
    matcher = network.body.group_matcher(coarse=False)
    numbers: dict[str, int] = group_parameters(network.body, matcher, return_values=False, reverse=True)
    return numbers


def freeze(network: Network, train: str) -> None:
    """Let only a part learn: "all", "head", or the last so many layer groups and the classifier.

    Raises:
        UsageError: `train` is none of these.
    """
    if train not in ("all", "head") and not train.isdigit():
        raise UsageError(f"A stage trains 'all', 'head' or a number of layer groups, not '{train}'.")
    numbers = layer_numbers(network)
    head = {id(parameter) for parameter in network.classifier.parameters()}
    body = sorted({numbers[name] for name, p in network.body.named_parameters() if id(p) not in head})
    count = {"all": len(body), "head": 0}.get(train) if not train.isdigit() else int(train)
    free = set(body[len(body) - min(count or 0, len(body)) :])
    for name, parameter in network.body.named_parameters():
        parameter.requires_grad_(id(parameter) in head or numbers[name] in free)


def train_mode(network: nn.Module) -> None:
    """Training mode, but a part that is frozen as a whole stays as it is: its batch norms keep their statistics."""
    network.train()
    for module in network.modules():
        below = list(module.parameters())
        if below and not any(parameter.requires_grad for parameter in below):
            module.eval()


def parameter_groups(
    network: Network, weight_decay: float, layer_decay: float, head_factor: float
) -> list[dict[str, object]]:
    """Parameters grouped for the optimiser; each group's `scale` multiplies the learning rate.

    Layer-wise decay: K. Clark et al., "ELECTRA", 2020. Biases and norms (one dimension) have no weight decay.
    """
    numbers = layer_numbers(network)
    head = {id(parameter) for parameter in network.classifier.parameters()}
    last = max(number for name, number in numbers.items() if id(network.body.get_parameter(name)) not in head)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.body.named_parameters():
        scale = head_factor if id(parameter) in head else layer_decay ** (last - numbers[name])
        groups.setdefault((scale, weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    return [
        {"params": parameters, "scale": scale, "weight_decay": decay} for (scale, decay), parameters in groups.items()
    ]


def depthwise_in_float32(network: nn.Module) -> None:
    """On CPUs, keep grouped convolutions out of bfloat16 autocast: their backward pass there is slower than
    all the rest gains (docs/benchmarks.md).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            module.forward = MethodType(_outside_autocast, module)  # a bound method, so that a copy has its own


def plain_forward(network: nn.Module) -> None:
    """Undo `depthwise_in_float32`."""
    for module in network.modules():
        module.__dict__.pop("forward", None)


def _outside_autocast(convolution: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", enabled=False):
        return type(convolution).forward(convolution, x.float()).to(x.dtype)
