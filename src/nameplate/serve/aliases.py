"""Aliases: names that stand for one or several served models, each with a weight, and the file that keeps them.

So two versions of a model answer side by side: `cars=stable:95,next:5` sends five of a hundred clients to the new one.
Which client meets which model follows from the client's id alone, by weighted rendezvous hashing (D. Thaler and
C. Ravishankar, "Using name-based mappings to increase hit rates", 1998; C. Schindelhauer and G. Schomaker, "Weighted
distributed hash tables", 2005). Nothing is remembered, every instance of a service chooses alike, and when a weight
grows, clients move to its model alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from hashlib import blake2b
from pathlib import Path

import msgspec

from nameplate.errors import DataError, UsageError, did_you_mean
from nameplate.storage import open_regular, whole_file

DEFAULT = "default"
"""The alias of requests that name no model, where there is one of this name."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What an alias, or a model that the operator names, may be called: it stands in addresses."""
UNIT = 2.0**64

Weights = Mapping[str, float]
"""Model → its share of the requests, in proportion to the others' weights."""
Aliases = Mapping[str, Weights]
"""Alias → its models' weights."""


class _Kept(msgspec.Struct, forbid_unknown_fields=True):
    """The file's contents."""

    aliases: dict[str, dict[str, float]]


def choose(weights: Weights, key: str) -> str:
    """Return the model for a key: always the same for the same key and weights, and over many keys by weight.

    Args:
        weights: at least one is above 0.
        key: any text, such as a client's id.
    """
    return max(weights, key=lambda model: _score(model, weights[model], key))


def _score(model: str, weight: float, key: str) -> float:
    """Of independent exponential times with these rates, the least belongs to a model with probability its share."""
    if weight == 0:
        return -math.inf
    digest = blake2b(f"{model}\0{key}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return math.log((int.from_bytes(digest, "big") + 0.5) / UNIT) / weight


def parse_alias(text: str) -> tuple[str, dict[str, float]]:
    """Parse an alias such as `cars=stable:95,next:5`; a weight that is left out is 1.

    Raises:
        UsageError: the text has another form.
    """
    name, equals, models = text.partition("=")
    weights: dict[str, float] = {}
    for each in models.split(","):
        model, _, weight = each.strip().partition(":")
        try:
            weights[model] = float(weight or 1)
        except ValueError:
            equals = ""
    if not equals or "" in weights or len(weights) <= models.count(","):
        raise UsageError(
            f"'{text}' is no alias. Write NAME=MODEL:WEIGHT,MODEL:WEIGHT, such as 'cars=stable:95,next:5'."
        )
    return name.strip(), weights


def check_alias(name: str, weights: Weights, models: Collection[str]) -> None:
    """Check an alias against the models that are served.

    Raises:
        UsageError: its name is none or a model's, a model is not served, or the weights are no shares.
    """
    if NAME.fullmatch(name) is None:
        raise UsageError(
            f"'{name[:80]}' cannot name an alias: take up to 64 of A–Z, a–z, 0–9 and ._-, a letter or digit first."
        )
    if name in models:
        raise UsageError(f"A model is called '{name}', so no alias can be. Serve the model as NAME=BUNDLE.")
    for model in weights:
        if model not in models:
            raise UsageError(
                f"Alias '{name}' names '{model[:80]}', which is not served.{did_you_mean(model, models)} "
                f"There is {', '.join(models)}."
            )
    wrong = next((weight for weight in weights.values() if not 0 <= weight < math.inf), None)
    if wrong is not None or not any(weights.values()) or not math.isfinite(sum(weights.values())):
        found = "none is above 0" if wrong is None else f"one is {wrong:g}"
        raise UsageError(f"The weights of alias '{name}' must be numbers from 0, one at least above: {found}.")


def read_aliases(path: Path) -> dict[str, dict[str, float]]:
    """Read the aliases of a file.

    Raises:
        DataError: the file cannot be read, or holds something else.
    """
    try:
        with open_regular(path) as file:
            return msgspec.json.decode(file.read(), type=_Kept).aliases
    except OSError as error:
        raise DataError(f"Cannot read the aliases in '{path}': {error.strerror or error}.") from None
    except msgspec.MsgspecError as error:
        raise DataError(f"'{path}' holds no aliases of a service: {error}. Move it away to begin a new one.") from None


def write_aliases(path: Path, aliases: Aliases) -> None:
    """Write the file atomically.

    Raises:
        WriteError: the file cannot be written.
    """
    with whole_file(path) as temporary:
        temporary.write_bytes(msgspec.json.encode({"aliases": aliases}) + b"\n")
