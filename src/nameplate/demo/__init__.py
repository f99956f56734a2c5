"""The embedded photos, of ten car designs that do not exist, and the guided tour over them."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def photos_folder(part: str = "train") -> Path:
    """The folder of the embedded photos, a folder per nameplate; `part` is train or test."""
    return Path(str(resources.files("nameplate.demo"))) / "photos" / part


def photo() -> Path:
    """One embedded photo, for first steps."""
    return sorted(photos_folder("test").glob("*/*.jpg"))[0]
