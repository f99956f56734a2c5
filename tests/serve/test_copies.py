"""Copies of bundles: those of services that were killed are deleted, those of others stay."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from nameplate.serve.copies import PREFIX, BundleCopy, remove_orphans

KILLED = """
import os, signal
from nameplate.serve.copies import BundleCopy
copy = BundleCopy.make()
(copy.folder / "backbone.onnx").write_bytes(b"x")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_only_copies_without_an_owner_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    subprocess.run([sys.executable, "-c", KILLED], check=False)
    [orphan] = tmp_path.iterdir()
    (tmp_path / f"{PREFIX}strange").mkdir()
    mine = BundleCopy.make()
    assert remove_orphans() == 1
    assert not orphan.exists()
    assert len(list(tmp_path.iterdir())) == 2
    mine.remove()
    assert [path.name for path in tmp_path.iterdir()] == [f"{PREFIX}strange"]
