"""The network that is trained: a timm backbone with its classifier; it takes uint8 pixels and gives logits."""

from __future__ import annotations

from collections.abc import Sequence
from types import MethodType

import torch
from torch import nn

from nameplate.errors import UsageError


class Network(nn.Module):  # type: ignore[misc]  # torch is read as Any
    """uint8 (or float32 0–255) N×H×W×3 → logits float32 N×C. It normalises pixels, but never resizes photos."""

    def __init__(self, body: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("scale", 1 / (255 * torch.tensor(std)), persistent=False)
        self.register_buffer("shift", -torch.tensor(mean) / torch.tensor(std), persistent=False)

    def normalise(self, photos: torch.Tensor) -> torch.Tensor:
        """Pixels N×H×W×3 → float32 N×3×H×W, normalised with the mean and std of the backbone."""
        return (photos.to(torch.float32) * self.scale + self.shift).permute(0, 3, 1, 2)

    def embed(self, photos: torch.Tensor) -> torch.Tensor:
        """Pixels N×H×W×3 → embeddings N×D, the input of the classifier."""
        return self.body.forward_head(self.body.forward_features(self.normalise(photos)), pre_logits=True)

    def embed_places(self, photos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels N×H×W×3 → embeddings N×D, and the embedding at each location of the last feature map, N×h×w×D.

        The mean over the locations is the embedding, so that every linear classifier on it has class activation maps
        (B. Zhou et al., "Learning Deep Features for Discriminative Localization", 2016). This is exact if all layers
        after the pooling are linear. Otherwise each location passes through them alone, and the difference between
        their mean and the embedding is added evenly to all locations.
        """
        features = self.body.forward_features(self.normalise(photos))
        embedding = self.body.forward_head(features, pre_logits=True)
        _, channels, height, width = features.shape
        alone = features.permute(0, 2, 3, 1).reshape(-1, channels, 1, 1)
        places = self.body.forward_head(alone, pre_logits=True).unflatten(0, (-1, height, width))
        # For linear layers the difference is 0 but for rounding.
        return embedding, places + (embedding - places.mean((1, 2)))[:, None, None]

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """Pixels N×H×W×3 → logits N×C."""
        return self.body(self.normalise(photos))

    @property
    def classifier(self) -> nn.Module:
        """The last layer: a linear layer, or a 1×1 convolution.

        Raises:
            UsageError: it is another kind of layer, which a bundle cannot store.
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
    """The weight C×D and the bias C of the classifier, as views on its parameters."""
    layer = network.classifier
    return layer.weight.flatten(1), layer.bias


def has_places(network: Network, height: int, width: int) -> bool:
    """Whether `embed_places` works for a network: its head must pool the feature map N×K×h×w by the mean, and only so.

    This is tested by running it, because timm's networks pool in many ways, and transformers have no feature map.
    """
    noise = torch.randint(0, 256, (1, height, width, 3), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = network.body.forward_features(network.normalise(noise))
        if features.ndim != 4:
            return False
        whole = network.body.forward_head(features, pre_logits=True)
        try:
            of_mean = network.body.forward_head(features.mean((2, 3), keepdim=True), pre_logits=True)
        except (RuntimeError, ValueError):  # the head expects another shape, such as channels last or a fixed grid
            return False
    return of_mean.shape == whole.shape and bool(torch.allclose(of_mean, whole, rtol=1e-3, atol=1e-4))


def layer_numbers(network: Network) -> dict[str, int]:
    """Parameter name (below `body`) → number of its layer group, from 0 at the input; timm defines the groups.

    Raises:
        UsageError: timm does not define the groups of this network.
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
    """Set which parameters are trained: "all", "head", or a number N: the last N layer groups and the classifier.

    Raises:
        UsageError: `train` is none of these.
    """
    if train not in ("all", "head") and not train.isdigit():
        raise UsageError(f"A stage trains 'all', 'head' or a number of layer groups, not '{train}'.")
    numbers = layer_numbers(network)
    head = {id(parameter) for parameter in network.classifier.parameters()}
    body = sorted({numbers[name] for name, p in network.body.named_parameters() if id(p) not in head})
    count = {"all": len(body), "head": 0}.get(train) if not train.isdigit() else int(train)
    # `body[-0:]` would be all layers, so the start is counted from the front.
    free = set(body[len(body) - min(count or 0, len(body)) :])
    for name, parameter in network.body.named_parameters():
        parameter.requires_grad_(id(parameter) in head or numbers[name] in free)


def train_mode(network: nn.Module) -> None:
    """Set training mode, except for modules that are completely frozen: their batch norms keep their statistics."""
    network.train()
    for module in network.modules():
        # These include the parameters of its children, so a block counts as frozen only if all of it is.
        below = list(module.parameters())
        if below and not any(parameter.requires_grad for parameter in below):
            module.eval()


def parameter_groups(
    network: Network, weight_decay: float, layer_decay: float, head_factor: float
) -> list[dict[str, object]]:
    """Parameter groups for the optimiser; the `scale` of each group is a factor of the learning rate.

    The layer-wise decay of the learning rate follows K. Clark et al., "ELECTRA", 2020. Biases and norms, which have one
    dimension, get no weight decay.
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
    """Exclude grouped convolutions from bfloat16 autocast.

    On CPUs their backward pass in bfloat16 is so slow that it costs more than all other layers gain
    (docs/benchmarks.md).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            module.forward = MethodType(_outside_autocast, module)  # bound, so that a copy gets its own


def plain_forward(network: nn.Module) -> None:
    """Undo `depthwise_in_float32`."""
    for module in network.modules():
        module.__dict__.pop("forward", None)


def _outside_autocast(convolution: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", enabled=False):
        return type(convolution).forward(convolution, x.float()).to(x.dtype)
