"""Batches that run in parallel: the same embeddings, in order, for any size and number of batches."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from nameplate.demo import photos_folder
from nameplate.errors import RuntimeUnavailableError
from nameplate.images.decode import decode
from nameplate.images.transforms import preprocess
from nameplate.model.bundle import load_bundle
from nameplate.runtime.base import BATCH, Batch, Embedding, side_by_side
from nameplate.runtime.openvino import import_openvino
from nameplate.runtime.select import make_runtime


def _sums(batch: Batch) -> Embedding:
    return np.asarray(batch.reshape(len(batch), -1).sum(1, keepdims=True), np.float32)


@pytest.mark.parametrize(("batch", "streams"), [(1, 1), (1, 3), (3, 2), (8, 4)])
def test_results_come_in_order_and_no_batch_is_larger_than_asked_for(batch: int, streams: int) -> None:
    pictures = np.arange(21, dtype=np.uint8).reshape(21, 1, 1, 1)
    found = list(side_by_side(_sums, [pictures[:8], pictures[8:16], pictures[16:]], batch, streams))
    assert max(map(len, found)) <= batch
    assert np.concatenate(found)[:, 0].tolist() == list(range(21))


def test_an_error_in_a_thread_is_raised_and_no_thread_remains() -> None:
    def broken(batch: Batch) -> Embedding:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        list(side_by_side(broken, [np.zeros((4, 1, 1, 3), np.uint8)] * 5, 1, 2))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nameplate-infer")]


def _runtimes() -> list[str]:
    try:
        import_openvino()
    except RuntimeUnavailableError:
        return ["onnxruntime"]
    return ["onnxruntime", "openvino"]


@pytest.mark.parametrize("name", _runtimes())
def test_embeddings_do_not_depend_on_batch_and_stream_count(name: str) -> None:
    paths = sorted(photos_folder("test").glob("*/*.jpg"))[::20]
    bundle = load_bundle("cars196")
    pictures = np.stack([preprocess(decode(path), bundle.manifest.preprocess) for path in paths])
    ways = [(BATCH, 1), (BATCH, 2), (1, 2), (3, 1)]
    first, *others = (
        np.concatenate(list(make_runtime(name, bundle.backbone, 2, batch, streams).embed([pictures])))
        for batch, streams in ways
    )
    for way, other in zip(ways[1:], others, strict=True):
        if name == "openvino" and way[0] != BATCH:  # its kernels depend on the size of a batch
            assert np.abs(first - other).max() < 1e-4 * first.std(), way
        else:
            assert np.array_equal(first, other), way
