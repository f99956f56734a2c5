"""Compares the rankings of `nameplate compare` with frozen and with fine-tuned backbones, and their times.

    python benchmarks/compare.py DATA -o OUT --backbones Lite0,Lite1,Lite2

Each protocol has its own cache, so that neither uses embeddings of the other. Both comparisons can be resumed after an
interruption; their times are then the sums over the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

PROTOCOLS = ("frozen", "fine-tune")


def compared(protocol: str, arguments: argparse.Namespace, more: list[str]) -> dict[str, Any]:
    """One comparison in a process of its own; what compare.json says."""
    folder = arguments.output / protocol
    options = ["-o", folder, "--protocol", protocol, "--backbones", arguments.backbones, "--size", arguments.size]
    subprocess.run(
        [sys.executable, "-m", "nameplate", "compare", *arguments.data, *options, *more],
        env={**os.environ, "NAMEPLATE_CACHE": str(arguments.output.resolve() / f"cache-{protocol}")},
        check=True,
    )
    said: dict[str, Any] = json.loads((folder / "compare.json").read_text("utf-8"))
    return said


def told(frozen: dict[str, Any], tuned: dict[str, Any]) -> str:
    """How many of the pairs lie the same way round in both rankings, and what of those that fine-tuning can tell."""
    places, others = (
        {row["name"]: place for place, row in enumerate(said["rows"]) if not row["error"]} for said in (frozen, tuned)
    )
    pairs = list(combinations(sorted(places.keys() & others.keys()), 2))
    sure = {frozenset((pair["first"], pair["second"])) for pair in tuned["pairs"] if pair["told"]}

    def same(first: str, second: str) -> bool:
        return (places[first] < places[second]) == (others[first] < others[second])

    alike, certain = [same(*pair) for pair in pairs], [same(*pair) for pair in pairs if frozenset(pair) in sure]
    return (
        f"{sum(alike)} of {len(alike)} pairs lie the same way round; "
        f"{sum(certain)} of {len(certain)} of those that fine-tuning tells from noise"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--backbones", default="Lite0,Lite1,Lite2")
    parser.add_argument("--size", default="180x240")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    threads = [] if arguments.threads is None else ["--threads", str(arguments.threads)]
    made = {protocol: compared(protocol, arguments, threads) for protocol in PROTOCOLS}
    seconds = {}
    for protocol, said in made.items():
        seconds[protocol] = said["seconds_to_read"] + sum(row["seconds"] or 0 for row in said["rows"])
        print(f"\n{protocol}, {seconds[protocol]:.0f} s: {said['judged']}")
        for row in said["rows"]:
            figures = row["error"] or "{value:.3f} ({low:.3f}–{high:.3f})".format(**row["top1"]) + f"  {row['verdict']}"
            print(f"  {row['name']:10} {figures}")
    print(f"\n{told(made['frozen'], made['fine-tune'])}.")
    print(f"frozen took {seconds['frozen'] / seconds['fine-tune']:.3f} of fine-tune's time.")


if __name__ == "__main__":
    main()
