"""How many workers fit on a cluster, addresses, and a cluster that cannot be reached."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from nameplate.batch.cluster import LOCAL, Cluster, Pool, connected, is_address, pool
from nameplate.errors import NameplateError, UsageError
from tests.leash import needs_ray


@pytest.mark.parametrize(
    ("nodes", "workers", "threads", "most", "found"),
    [
        ((2,), None, None, 9, Pool(1, 2)),
        ((2,), 2, None, 9, Pool(2, 1)),
        ((16,), None, None, 99, Pool(4, 4)),
        ((15,), None, None, 99, Pool(5, 3)),
        ((15, 16), None, None, 99, Pool(7, 4)),
        ((15, 16), None, 8, 99, Pool(3, 8)),
        ((16,), None, None, 3, Pool(3, 4)),
        ((16,), 5, None, 99, Pool(5, 3)),
        ((1, 1), None, None, 9, Pool(2, 1)),
    ],
)
def test_workers_fill_the_nodes_and_never_more(
    nodes: tuple[int, ...], workers: int | None, threads: int | None, most: int, found: Pool
) -> None:
    assert pool(Cluster("auto", nodes, Path()), workers, threads, most) == found


@pytest.mark.parametrize(("workers", "threads"), [(3, None), (1, 3), (2, 2)])
def test_workers_that_would_wait_for_ever_are_refused(workers: int, threads: int | None) -> None:
    with pytest.raises(UsageError, match=r"do not fit: the nodes have 2\b.*--workers"):
        pool(Cluster(LOCAL, (2,), Path()), workers, threads, 9)


@pytest.mark.parametrize("address", ["local", "auto", "ray://head:10001", "10.0.0.1:6379", "[::1]:6379"])
def test_addresses(address: str) -> None:
    assert is_address(address)


@pytest.mark.parametrize("other", ["", "photos", "photos/", "photos.csv", "s3://bucket/key", "a:b", "ray://head"])
def test_what_is_no_address(other: str) -> None:
    assert not is_address(other)


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(UsageError, match="'photos' is no address"), connected("photos", 1):
        pass


class TestUnreachable:
    pytestmark = needs_ray

    def test_a_missing_cluster_is_reported_at_once_with_the_logs(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
            expected = pytest.raises(NameplateError, match=rf"Ray at '{address}' failed: .*Its logs are in '(.+)'")
            with expected as said, connected(address, 1):
                pass
        folder = Path(str(said.value).split("Its logs are in '")[1].split("'")[0])
        assert "ConnectionRefusedError" in (folder / "failure.txt").read_text("utf-8")
