"""Measures the service at once, three and ten times its capacity: answers a second, waits of the accepted, memory.

    python benchmarks/overload.py FOLDER                  # a table

Capacity is what a closed loop of 32 clients gets; then requests arrive by a Poisson process at each multiple of it
(`load.py`, which runs on the same machine and takes processor time of its own: its share is printed).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from serving import (  # type: ignore[import-not-found]  # beside this file
    accepted,
    bench,
    memory_watch,
    percentile,
    photos_of,
    summary,
)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="a folder of JPEG photos, at any depth")
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=20, help="of each load")
    parser.add_argument("--clients", type=int, default=32, help="of the closed loop")
    parser.add_argument("--times", type=float, nargs="+", default=[1.0, 3.0, 10.0], help="multiples of the capacity")
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    arguments.group = 1
    with bench(photos_of(arguments.folder, arguments.photos), arguments) as server:
        for times in arguments.times:
            with memory_watch(server.pid) as seen:
                done = server.load("--rate", times * server.capacity)
            waits = sorted(accepted(done))
            found = summary(done, 1)
            half, most = (percentile(waits, share) for share in (0.5, 0.99))
            highest = max((count for _, count in seen), default=0) / 2**20
            print(
                f"{times:5g} times {found['photos_per_second']:.1f} photos/s "
                f"({found['photos_per_second'] / server.capacity:.0%} of capacity), accepted: median {half:.2f} s, "
                f"p99 {most:.2f} s; {highest:.0f} MiB at most; statuses {found['statuses']}; "
                f"load generator {found['load_generator_cpu']:.0%} of a processor"
            )


if __name__ == "__main__":
    main()
