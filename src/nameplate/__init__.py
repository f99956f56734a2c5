"""Nameplate recognises the make and model of a car in a photo.

>>> import nameplate
>>> model = nameplate.Model.load()
>>> [answer] = model.predict("no-such-photo.jpg")
>>> answer.error
"missing: cannot open 'no-such-photo.jpg': No such file or directory"
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nameplate.errors import BundleError, DataError, NameplateError, PhotoError, RuntimeUnavailableError, UsageError
from nameplate.types import Limits, Photo, Prediction, Preprocess

if TYPE_CHECKING:
    from nameplate.data import read_dataset
    from nameplate.images import decode, preprocess
    from nameplate.model.model import Model

__version__ = "0.1.0"
__all__ = [
    "BundleError",
    "DataError",
    "Limits",
    "Model",
    "NameplateError",
    "Photo",
    "PhotoError",
    "Prediction",
    "Preprocess",
    "RuntimeUnavailableError",
    "UsageError",
    "decode",
    "preprocess",
    "read_dataset",
]

_LAZY = {
    "Model": "nameplate.model.model",
    "decode": "nameplate.images",
    "preprocess": "nameplate.images",
    "read_dataset": "nameplate.data",
}

if not TYPE_CHECKING:  # A type checker needs no __getattr__, and would accept every name with it.

    def __getattr__(name: str) -> object:
        """Import modules that need numpy only when they are used, so that `import nameplate` is quick."""
        if name in _LAZY:
            from importlib import import_module

            return getattr(import_module(_LAZY[name]), name)
        raise AttributeError(f"module 'nameplate' has no attribute '{name}'")
