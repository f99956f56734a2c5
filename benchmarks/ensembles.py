"""What the ensemble of a run in folds gains, and whether its logits or its probabilities should be averaged.

    python benchmarks/ensembles.py table PHOTOS/russian10 TABLE.csv
    python benchmarks/ensembles.py table PHOTOS/ukraine63 TABLE.csv
    nameplate train TABLE.csv --folds 5 -o RUN
    python benchmarks/ensembles.py judge RUN…

`table` writes a table of a set of photos in which about a third (ukraine63, by advert) or two fifths (russian10) are a
test part, which is apart from all folds. `judge` compares, on that part, the mean of the folds' calibrated logits with
the mean of their probabilities, and the ensemble with the folds.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from held_out import UKRAINE  # type: ignore[import-not-found]  # beside this file
from nameplate.evaluate.calibration import calibrate
from nameplate.evaluate.metrics import evaluate
from nameplate.evaluate.significance import Paired, paired
from nameplate.fit.folds import fold_folder, load_plan
from nameplate.fit.held_out import predict_held_out
from nameplate.model.classifier import log_losses, probabilities
from nameplate.model.model import Model
from nameplate.types import Floats

SHARES = {"russian10": 0.4, "ukraine63": 0.33}
"""Share of the test part, by the name of the set's folder."""


def write_table(photos: Path, target: Path) -> None:
    """Write the table of a set of photos."""
    rows = list(_ukraine63(photos) if photos.name == "ukraine63" else _classes(photos))
    with target.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "group", "split"])
        for path, label, group in rows:
            number = int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) / 2**32
            table.writerow([path, label, group, "test" if number < SHARES[photos.name] else "train"])


def _ukraine63(photos: Path) -> list[tuple[str, str, str]]:
    with (photos / "labels.csv").open(encoding="utf-8") as file:
        # The network that ships was trained on the other nameplates' photos.
        rows = [row for row in csv.DictReader(file) if row["kind"] != "scene" and row["nameplate"] in UKRAINE]
    return [(str(photos / row["file"]), row["nameplate"], row["advert"]) for row in rows]


def _classes(photos: Path) -> list[tuple[str, str, str]]:
    return [(str(path), path.parent.name, path.name) for path in sorted(photos.glob("*/*.jpg"))]


def judge(run: Path) -> None:
    """Print the comparison for one run in folds."""
    plan = load_plan(run)
    split = plan.split
    rows = np.flatnonzero(split.holdout)
    photos = [split.photos[i] for i in rows]

    def predicted(folder: Path) -> tuple[Floats, Floats, NDArray[np.int64], NDArray[np.int64]]:
        model = Model.load(folder, runtime="onnxruntime")
        found = predict_held_out(model, photos, split.classes[rows], split.groups[rows])
        return found.calibrated.logits, found.probabilities, found.classes, found.groups

    members = [predicted(fold_folder(run, fold)) for fold in range(1, plan.count + 1)]
    y_true, groups = members[0][2:]
    ways: dict[str, Floats] = {
        "mean of logits": probabilities(np.mean([each[0] for each in members], axis=0, dtype=np.float32), 1.0),
        "mean of probabilities": np.mean([each[1] for each in members], axis=0, dtype=np.float32),
        "the ensemble": predicted(run)[1],
        **{f"fold {number}": each[1] for number, each in enumerate(members, 1)},
    }
    print(f"\n{run}: {len(y_true)} photos that are apart from all folds")
    for name, probs in ways.items():
        result = evaluate(probs, y_true, plan.nameplates, groups)
        error = calibrate(probs.max(1), probs.argmax(1) == y_true, groups)
        print(
            f"{name:22} top-1 {result.top1.percent}, log-loss {result.log_loss:.4f}, "
            f"ECE {100 * error.ece.value:.1f} % (by chance {100 * error.by_chance.value:.1f})"
        )
    for one, two in (("mean of logits", "mean of probabilities"), ("fold 1", "the ensemble")):
        first, second = ways[one], ways[two]
        rights = paired(first.argmax(1) == y_true, second.argmax(1) == y_true, groups)
        losses = paired(log_losses(first, y_true), log_losses(second, y_true), groups)
        print(f"{two} against {one}: top-1 {_shown(rights)}; log-loss {_shown(losses)}")
    threshold = Model.load(run).bundle.manifest.thresholds.nameplate
    if threshold is not None:
        sets = np.greater_equal(ways["the ensemble"], threshold)
        held = sets[np.arange(len(y_true)), y_true].mean()
        print(
            f"sets that should hold the truth of 95 % hold that of {100 * held:.1f} %, {sets.sum(1).mean():.2f} names"
        )


def _shown(found: Paired) -> str:
    each = found.difference
    return f"{each.value:+.4f} ({each.low:+.4f} to {each.high:+.4f}), p {found.p:.3f}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["table"]:
        write_table(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        for folder in sys.argv[2:]:
            judge(Path(folder))
