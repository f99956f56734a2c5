"""Nameplate recognises the make and model of a car in a photo.

>>> import nameplate
>>> model = nameplate.Model.load()
>>> [answer] = model.predict("no-such-photo.jpg")
>>> answer.error
"missing: cannot open 'no-such-photo.jpg': No such file or directory"
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nameplate.data import read_dataset
    from nameplate.errors import BundleError, DataError, NameplateError, PhotoError, RuntimeUnavailableError, UsageError
    from nameplate.images import decode, preprocess
    from nameplate.model.model import Model
    from nameplate.types import Limits, Photo, Prediction, Preprocess

__version__ = "0.2.0"
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

_HOMES = {
    "nameplate.data": ("read_dataset",),
    "nameplate.errors": tuple(name for name in __all__ if name.endswith("Error")),
    "nameplate.images": ("decode", "preprocess"),
    "nameplate.model.model": ("Model",),
    "nameplate.types": ("Limits", "Photo", "Prediction", "Preprocess"),
}
_LAZY = {name: module for module, names in _HOMES.items() for name in names}

if not TYPE_CHECKING:  # A type checker needs no __getattr__, and would accept every name with it.

    def __getattr__(name: str) -> object:
        """Import what stands here only when it is used, so that `import nameplate` is quick."""
        from importlib import import_module

        if name in _LAZY:
            return getattr(import_module(_LAZY[name]), name)
        if f"nameplate.{name}" in _HOMES:
            return import_module(f"nameplate.{name}")
        raise AttributeError(f"module 'nameplate' has no attribute '{name}'")

    def __dir__() -> list[str]:
        """List what stands here, imported or not, for those who complete names."""
        return sorted({*globals(), *__all__})
