"""Batch size and number of streams: measured once, in a separate process, and cached."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nameplate.model.bundle import Bundle, load_bundle
from nameplate.model.runtime_choice import best_batching
from nameplate.runtime.base import BATCH, Batch
from nameplate.runtime.benchmark import candidates


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle("cars196")


def test_the_fastest_is_measured_once_and_then_known(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAMEPLATE_CACHE", str(tmp_path))
    asked = 0

    def pictures() -> Batch:
        nonlocal asked
        asked += 1
        size = bundle.manifest.preprocess
        return np.zeros((8, size.height, size.width, 3), np.uint8)

    found = best_batching(bundle, "onnxruntime", 2, pictures)
    assert found in list(candidates(2))
    assert best_batching(bundle, "onnxruntime", 2, pictures) == found
    assert asked == 1
    [report] = tmp_path.rglob("*.json")
    report.write_bytes(b'{"batch": 4, "streams"')  # cut short: measured again
    assert best_batching(bundle, "onnxruntime", 2, pictures) in list(candidates(2))
    assert asked == 2


def test_if_nothing_can_be_measured_the_default_is_taken(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAMEPLATE_CACHE", str(tmp_path))
    assert best_batching(bundle, "onnxruntime", 2, lambda: None) is None
    assert best_batching(bundle, "onnxruntime", 2, lambda: np.zeros((2, 9, 9, 3), np.uint8)) is None
    assert not list(tmp_path.rglob("*.json"))


def test_no_candidate_is_larger_than_the_pipelines_batches() -> None:
    for threads in (1, 2, 16):
        assert all(1 <= each.batch <= BATCH and 1 <= each.streams <= threads for each in candidates(threads))
