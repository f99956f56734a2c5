"""One thread of BLAS while photos are answered, and all of them again afterwards."""

from __future__ import annotations

import threading

import numpy as np
from threadpoolctl import ThreadpoolController

from nameplate.model.model import Model
from nameplate.runtime.blas import one_blas_thread
from nameplate.types import Floats


def threads() -> set[int]:
    np.ones((2, 2)) @ np.ones((2, 2))  # numpy's BLAS is loaded
    return {library.num_threads for library in ThreadpoolController().select(user_api="blas").lib_controllers}


def test_one_thread_within_the_block_and_as_before_after_it() -> None:
    before = threads()
    with one_blas_thread(), one_blas_thread():
        assert threads() == {1}
    assert threads() == before


def test_other_threads_than_the_main_one_change_nothing() -> None:
    seen = []

    def other() -> None:
        with one_blas_thread():
            seen.append(threads())

    before = threads()
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [before]


def test_the_answer_for_a_photo_is_computed_with_one_thread() -> None:
    seen = []

    class Watched(Model):
        def logits(self, embeddings: Floats) -> Floats:
            seen.append(threads())
            return super().logits(embeddings)

    model = Watched.load(runtime="onnxruntime")
    before = threads()
    assert model.predict(np.zeros((60, 90, 3), np.uint8))[0].nameplate
    assert seen == [{1}]
    assert threads() == before
