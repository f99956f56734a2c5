"""Tests the verdict of `nameplate extra-data` on cases with a known answer, which are made of labelled photos.

    python benchmarks/extra_data.py FOLDER --case helps --draws 10

helps: BASE is small and EXTRA is the rest of the same photos. hurts: the labels of EXTRA are permuted among its
photos. twenty: EXTRA is twenty photos. `--per-class` photos of each nameplate train in BASE, `--judging` of each
judge, and at most `--extra` of each are EXTRA. `--nameplates` takes that many, drawn anew each time. No photo is
copied.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from nameplate.data import read_dataset
from nameplate.data.dataset import Dataset

TWENTY = 20
CASES = {"helps": 2, "hurts": 10, "twenty": 10}
"""Case → photos of each nameplate that train in BASE where none are given."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--case", choices=CASES, required=True)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--per-class", type=int)
    parser.add_argument("--judging", type=int, default=20)
    parser.add_argument("--extra", type=int, default=30)
    parser.add_argument("--nameplates", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    dataset, said = read_dataset(arguments.folder), Counter[str]()
    per_class = arguments.per_class or CASES[arguments.case]
    for number in range(arguments.draws):
        with tempfile.TemporaryDirectory() as name:
            work, random = Path(name), np.random.default_rng(number)
            chosen = list(dataset.nameplates)
            if arguments.nameplates:
                chosen = sorted(random.choice(chosen, arguments.nameplates, replace=False).tolist())
            parts = (per_class, arguments.judging, arguments.extra)
            make_case(arguments.case, dataset, chosen, parts, random, work)
            found = run(work, arguments.seeds)
        said[found["verdict"]] += 1
        low, high = (100 * end for end in found["interval"])
        without, with_ = (100 * np.mean(found[key]) for key in ("top1_without", "top1_with"))
        print(
            f"draw {number}: {found['verdict']:14}  {without:.1f} → {with_:.1f} %, {100 * found['difference']:+.1f} "
            f"({low:+.1f} … {high:+.1f}), p {found['p']:.2g}, log-loss {found['log_loss']['difference']:+.3f}, "
            f"{found['base']['trained']} + {found['added']} train, {found['photos']} judge, "
            f"to tell {found['photos_to_tell']}, taken out {found['taken_out']['counts']}",
            flush=True,
        )
    print(f"{arguments.case}: " + ", ".join(f"{word} {count} of {arguments.draws}" for word, count in said.items()))


def make_case(
    case: str,
    dataset: Dataset,
    nameplates: Iterable[str],
    parts: tuple[int, int, int],
    random: np.random.Generator,
    folder: Path,
) -> None:
    """Write base.csv and extra.csv; `parts` are numbers of photos a nameplate: training, evaluation, EXTRA."""
    base: list[tuple[str, str, str]] = []
    extra: list[tuple[str, str]] = []
    train, judging, further = parts
    for name in nameplates:
        paths = [photo.path for photo in dataset.photos if photo.label == name]
        paths = [str(Path(paths[i]).resolve()) for i in random.permutation(len(paths))]
        base += [(path, name, "validation") for path in paths[:judging]]
        base += [(path, name, "train") for path in paths[judging : judging + train]]
        extra += [(path, name) for path in paths[judging + train :][:further]]
    if case == "hurts":
        labels = random.permutation([label for _, label in extra])
        extra = [(path, str(label)) for (path, _), label in zip(extra, labels, strict=True)]
    if case == "twenty":
        extra = [extra[i] for i in random.choice(len(extra), TWENTY, replace=False)]
    _write(folder / "base.csv", ("path", "label", "split"), base)
    _write(folder / "extra.csv", ("path", "label"), extra)


def run(folder: Path, seeds: int) -> dict[str, Any]:
    """The command as a person runs it."""
    tables = (str(folder / "base.csv"), str(folder / "extra.csv"))
    command = [sys.executable, "-m", "nameplate", "extra-data", *tables, "-o", str(folder / "out")]
    done = subprocess.run([*command, "--seeds", str(seeds), "--json"], stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _write(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


if __name__ == "__main__":
    main()
