"""ONNX Runtime Web: only the very files are taken, and what is missing is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from nameplate.errors import NameplateError
from nameplate.web.onnxruntime_web import FILES, onnxruntime_web


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package whose files have the right names and other bytes."""
    (tmp_path / "dist").mkdir()
    for name in FILES.hashes:
        (tmp_path / name).write_bytes(b"another version")
    return tmp_path


def test_files_of_another_version_are_refused(package: Path) -> None:
    with pytest.raises(NameplateError, match=r"is not that of onnxruntime-web 1\.30\.0: its SHA-256 is [0-9a-f]{64}"):
        onnxruntime_web(package)


def test_a_missing_file_is_named(package: Path) -> None:
    (package / "dist" / "ort-wasm-simd-threaded.wasm").unlink()
    with pytest.raises(NameplateError, match=r"Cannot read '.*ort-wasm-simd-threaded\.wasm': No such file"):
        onnxruntime_web(package)


def test_without_npm_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAMEPLATE_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NameplateError, match=r"npm, which downloads it, is missing. Install it, or give --onnxruntime"):
        onnxruntime_web()


def test_a_download_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that fails as npm does stands in npm's place."""
    monkeypatch.setenv("NAMEPLATE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "npm").write_text("#!/bin/sh\necho 'npm error code EAI_AGAIN' >&2\nexit 1\n", "utf-8")
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(
        NameplateError, match=r"cannot download .* \(npm error code EAI_AGAIN\). Try again with a network"
    ):
        onnxruntime_web()
    assert not (tmp_path / "cache" / "onnxruntime-web").exists()
