"""What `import nameplate` gives, and that it stays quick."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import nameplate


def test_every_name_can_be_had_and_is_offered_for_completion() -> None:
    assert all(getattr(nameplate, name).__name__ == name for name in nameplate.__all__)
    assert set(nameplate.__all__) <= set(dir(nameplate))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(nameplate, "nothing")  # noqa: B009 - mypy knows that it is not there


def test_the_import_alone_imports_nothing_slow() -> None:
    code = "import sys, nameplate; print([name for name in ('numpy', 'dataclasses', 'msgspec') if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"
    code = "import nameplate; print(nameplate.errors.PhotoError.__name__, nameplate.types.Photo.__name__)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["PhotoError", "Photo"]


def test_the_version_is_the_same_everywhere() -> None:
    root = Path(__file__).parents[1]
    assert f"\nversion: {nameplate.__version__}\n" in (root / "CITATION.cff").read_text("utf-8")
    assert f"\n## {nameplate.__version__} — " in (root / "CHANGELOG.md").read_text("utf-8")
