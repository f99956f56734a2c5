"""`ordered_map`: the order, the bound on memory, exceptions, and that no thread remains."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nameplate.images.parallel import ordered_map
from tests.images import torture


def running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("nameplate-decode")]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 60), st.integers(0, 5), st.integers(1, 20), st.integers(0, 999))
def test_results_come_in_the_order_of_the_items(count: int, threads: int, ahead: int, seed: int) -> None:
    pauses = [random.Random(seed + item).random() / 2000 for item in range(count)]

    def work(item: int) -> int:
        time.sleep(pauses[item])
        return 3 * item

    assert list(ordered_map(work, range(count), threads, ahead)) == [3 * item for item in range(count)]
    assert not running()


@pytest.mark.parametrize(("threads", "ahead"), [(1, 1), (3, 1), (2, 7), (4, 20)])
def test_no_more_items_are_read_than_may_wait_and_no_more_threads_work_than_asked(threads: int, ahead: int) -> None:
    lock, at_work, most_at_work, read = threading.Lock(), 0, 0, 0

    def items() -> Iterator[int]:
        nonlocal read
        for item in range(200):
            read += 1
            yield item

    def work(item: int) -> int:
        nonlocal at_work, most_at_work
        with lock:
            at_work += 1
            most_at_work = max(most_at_work, at_work)
        time.sleep(0.0005)
        with lock:
            at_work -= 1
        return item

    beyond = [read - (result + 1) for result in ordered_map(work, items(), threads, ahead)]
    assert max(beyond) == ahead
    assert most_at_work == min(threads, ahead + 1)


def test_an_exception_takes_the_place_of_its_item_and_nothing_is_begun_after_it() -> None:
    begun = []

    def work(item: int) -> int:
        begun.append(item)
        time.sleep(0.002)
        if item == 5:
            raise ValueError("the sixth")
        return item

    found: list[int] = []
    with pytest.raises(ValueError, match="the sixth"):
        found.extend(ordered_map(work, range(1000), 2, 100))
    assert found == [0, 1, 2, 3, 4]
    assert len(begun) < 15
    assert not running()


def test_an_exception_of_the_items_reaches_the_caller() -> None:
    def items() -> Iterator[int]:
        yield from range(20)
        raise KeyError("of the items")

    with pytest.raises(KeyError, match="of the items"):
        list(ordered_map(str, items(), 2, 8))
    assert not running()


def test_a_closed_map_waits_for_items_under_way_and_begins_no_more() -> None:
    begun, ended = [], []

    def work(item: int) -> int:
        begun.append(item)
        time.sleep(0.05)
        ended.append(item)
        return item

    results = ordered_map(work, range(500), 3, 100)
    next(results)
    assert 0 < len(running()) <= 3
    results.close()
    assert not running()
    assert sorted(begun) == sorted(ended)
    assert len(begun) <= 7


def test_a_map_over_a_map_ends_completely() -> None:
    inner = ordered_map(lambda item: item + 1, range(10_000), 2, 5)
    outer = ordered_map(lambda item: item * 2, inner, 2, 5)
    assert [next(outer), next(outer)] == [2, 4]
    del inner, outer
    assert not running()


def test_a_map_that_is_not_begun_starts_no_thread() -> None:
    results = ordered_map(str, range(3), 2, 5)
    assert not running()
    assert list(results) == ["0", "1", "2"]


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("where", ["waits", "works"])
def test_the_first_interrupt_ends_it_though_photos_take_minutes(where: str, tmp_path: Path) -> None:
    """Whether it comes while a result is waited for, or while the caller works on an earlier one."""
    slow = torture.many_scans(planes=8)
    starts = torture.scan_starts(slow)
    (tmp_path / "slow.jpg").write_bytes(slow[:-2] + slow[starts[-1] : -2] * 100_000 + slow[-2:])
    code = f"""
        import os, signal, threading, time
        signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started the tests may ignore it
        from nameplate.images.decode import decode
        from nameplate.images.parallel import ordered_map
        from nameplate.types import Limits
        begun = threading.Event()
        def work(item):
            if item == 0:
                return
            begun.set()
            os.write(1, b"reading\\n")  # whole, though two threads write
            decode({str(tmp_path / "slow.jpg")!r}, limits=Limits(seconds=3000))
        results = ordered_map(work, range(100), 2, 50)
        try:
            next(results)
            if {where == "works"}:
                begun.wait()
                time.sleep(60)
            next(results)
        except KeyboardInterrupt:
            results.close()
            print([thread.name for thread in threading.enumerate() if thread.name.startswith("nameplate")])
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "reading\n"
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (out.replace("reading\n", ""), err) == ("[]\n", "")
    assert out.count("reading") <= 1
