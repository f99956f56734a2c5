"""Which modules of the package pytest imports for doctests: those that have one, so that torch stays out."""

from __future__ import annotations

from pathlib import Path


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Pass over modules of the package without a doctest."""
    if collection_path.suffix == ".py" and Path(__file__).parent / "src" in collection_path.parents:
        return True if ">>> " not in collection_path.read_text("utf-8") else None
    return None
