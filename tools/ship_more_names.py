"""Give the bundle that ships the names of further cars, as columns of its head beside the ones that it has.

    python tools/ship_more_names.py BUNDLE TARGET --data DATA --cars196 CARS196 [--cross-validate]

The names are those of russian10 (`NAMES`), which trained no network: their accuracy can be measured, on the quarter of
their photos that this tool keeps out, and with `--cross-validate` on all, out of fold. Photos of ukraine63 add sides to
some of them. Why no others ship: docs/experiments.md, 2026-11-28. The columns that the head has stay as they are: the
new ones are fitted beside them, as multinomial regression in which the known nameplates are one class with a fixed
logit. `SHIFT` is subtracted from the new columns, so that no photo of cars196 that chooses gets a new name: those
photos are less certain than the ones that trained the network, of which the new columns were fitted.

Backbone and gate stay. The OOD detector, the temperatures, all thresholds and the check of bfloat16 are made anew,
as `tools/calibrate_cars196.py` does it, on the half of cars196's held-out photos that chooses.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

from calibrate_cars196 import bfloat16_cost, judged_by, recalibrated  # type: ignore[import-not-found]  # beside this file
from nameplate.data.dataset import Dataset
from nameplate.data.labels import fields_of, makes_of
from nameplate.evaluate.calibration import fit_temperatures
from nameplate.evaluate.evaluator import evaluate_model, same_picture
from nameplate.fit.run import metrics_record
from nameplate.images.decode import read_header
from nameplate.model.bundle import Bundle, load_bundle, save_bundle
from nameplate.model.classifier import class_means, whitening
from nameplate.model.embeddings import embed_photos
from nameplate.model.model import Model
from nameplate.model.ood import fit_detector
from nameplate.types import Floats, Limits, Photo

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import held_out  # type: ignore[import-not-found]

NAMES = {
    "russian10/honda_civic": "Honda Civic",
    "russian10/hyundai_accent": "Hyundai Accent",
    "russian10/hyundai_solaris": "Hyundai Solaris",
    "russian10/kia_ceed": "Kia Ceed",
    "russian10/kia_rio": "Kia Rio",
    "russian10/lada_kalina": "Lada Kalina",
    "russian10/mazda_3": "Mazda 3",
    "russian10/nissan_qashqai": "Nissan Qashqai",
    "russian10/opel_astra": "Opel Astra",
    "russian10/toyota_camry": "Toyota Camry",
    "ukraine63/hyundai_accent": "Hyundai Accent",
    "ukraine63/mazda_3": "Mazda 3",
    "ukraine63/opel_astra": "Opel Astra",
    "ukraine63/toyota_camry": "Toyota Camry",
    "ukraine63/vaz-lada_1118-kalina": "Lada Kalina",
}
"""Folder (of ukraine63: nameplate in labels.csv) → the name that ships."""
PENALTY, STEPS, SHIFT = 1e-4, 60, 1.0
FOLDS, KEPT_OUT = 5, 4
"""Number of folds with `--cross-validate`; every so manieth group of photos trains nothing."""


def main() -> None:
    """Command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--cross-validate", action="store_true", help="print the accuracy of each name out of fold")
    arguments = parser.parse_args()
    bundle = load_bundle(arguments.bundle)
    known, names = known_photos(bundle, arguments.cars196), list(dict.fromkeys(NAMES.values()))
    model = Model.load(arguments.bundle, runtime="onnxruntime")
    old = embed_photos(known["train"], model, also_mirrored=True)
    mirrored = embed_photos(old.photos, model, mirror=True)
    new = embed_photos(new_photos(arguments.data), model, also_mirrored=True)
    new_mirrored = embed_photos(new.photos, model, mirror=True)
    classes = np.array([1 + names.index(str(photo.label)) for photo in new.photos])
    groups = same_picture(new)
    fold = folds(classes, groups)
    trains = fold % KEPT_OUT > 0
    base = (np.concatenate([old.embeddings, mirrored.embeddings]), np.zeros(2 * len(old.photos), np.int64))

    def fitted(rows: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        x = np.concatenate([base[0], new.embeddings[rows], new_mirrored.embeddings[rows]])
        weight, bias = fit_columns(bundle, x, np.concatenate([base[1], np.tile(classes[rows], 2)]), len(names))
        return weight, bias - np.float32(SHIFT)

    if arguments.cross_validate:
        cross_validate(bundle, new.photos, new.embeddings, classes, fold % FOLDS, fitted, names)
    weight, bias = fitted(trains)
    nameplates = (*bundle.manifest.nameplates, *names)
    assert bundle.weight is not None
    assert bundle.bias is not None
    draft = replace(
        bundle,
        manifest=replace(
            bundle.manifest, nameplates=nameplates, ids=nameplates, makes=makes_of(nameplates), temperatures={}
        ),
        weight=np.concatenate([bundle.weight, weight], 1),
        bias=np.concatenate([bundle.bias, bias]),
        photos=table(bundle, arguments.data, new.photos, groups, trains),
    )
    rows = np.concatenate([old.embeddings, new.embeddings[trains]])
    columns = [nameplates.index(str(photo.label)) for photo in (*old.photos, *np.array(new.photos, object)[trains])]
    detector = fit_detector(rows, np.array(columns))
    assert bundle.ood_detector is not None
    draft = replace(draft, ood_detector=replace(detector, gate=bundle.ood_detector.gate))
    save_bundle(arguments.target, draft)
    calibrate(arguments.target, known["choose"])
    judged = [photo for photo, train in zip(new.photos, trains, strict=True) if not train]
    record(arguments.target, Dataset((*known["report"], *judged), nameplates))


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """The command line of a tool that makes one bundle of another by photos of cars196 and of the other sources."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0] if doc else "")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cars196", type=Path, required=True)
    return parser


def known_photos(bundle: Bundle, root: Path) -> dict[str, list[Photo]]:
    """The photos of cars196 that train, that choose and that report."""
    at = held_out.photos_at(root)
    found: dict[str, list[Photo]] = {"train": [], "choose": [], "report": []}
    for row in csv.DictReader((bundle.photos or b"").decode().splitlines()):
        if row["path"] in at:
            kept = "report" if held_out.reports(row["path"]) else "choose"
            part = "train" if row["split"] == "train" else kept
            found[part].append(Photo(str(at[row["path"]]), label=row["label"]))
    return found


def new_photos(data: Path) -> list[Photo]:
    """The photos of `NAMES`; those of one advert are one group."""
    with (data / "ukraine63" / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "crop"]
    found = []
    for place, name in NAMES.items():
        if place.startswith("ukraine63/"):
            mine = [row for row in rows if f"ukraine63/{row['nameplate']}" == place]
            files = [(str(data / "ukraine63" / row["file"]), f"advert {row['advert']}") for row in mine]
            found += [Photo(path, label=name, source="ukraine63", group=group) for path, group in files]
        else:
            source = place.split("/")[0]
            found += [Photo(str(path), label=name, source=source) for path in sorted((data / place).iterdir())]
    return found


def folds(classes: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number for each photo: the groups of each class are counted in an order that is drawn once."""
    found = np.empty(len(classes), np.int64)
    for c in np.unique(classes):
        mine = np.random.default_rng([18, c]).permutation(np.unique(groups[classes == c]))
        number = dict(zip(mine.tolist(), range(len(mine)), strict=True))
        places = np.flatnonzero(classes == c)
        found[places] = [number[group] for group in groups[places].tolist()]
    return found


def fit_columns(bundle: Bundle, rows: Floats, classes: NDArray[np.int64], count: int) -> tuple[Floats, Floats]:
    """Columns D×count for classes 1 … count beside the bundle's own, which together are class 0 with a fixed logit."""
    assert bundle.weight is not None
    assert bundle.bias is not None
    mean, spread = rows.mean(0), rows.std(0) + 1e-6
    scaled = (rows - mean) / spread
    matrix = whitening(scaled - class_means(scaled, classes)[classes]) / spread[:, None]
    white = ((rows - mean) @ matrix).astype(np.float32)
    fixed = logsumexp(rows @ bundle.weight + bundle.bias, axis=1).astype(np.float32)[:, None]
    truth = np.eye(count + 1, dtype=np.float32)[classes]

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        at = flat.reshape(-1, count).astype(np.float32)
        logits = np.concatenate([fixed, white @ at[:-1] + at[-1]], 1)
        whole = logsumexp(logits, axis=1)
        slope = ((np.exp(logits - whole[:, None]) - truth) / len(rows))[:, 1:]
        value = float((whole - (logits * truth).sum(1)).mean()) + PENALTY / 2 * float((at[:-1] ** 2).sum())
        gradient = np.concatenate([white.T @ slope + PENALTY * at[:-1], slope.sum(0, keepdims=True)])
        return value, gradient.ravel().astype(np.float64)

    start = np.zeros((rows.shape[1] + 1, count))
    start[-1] = fixed.mean() - 3  # as rare as they are
    found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": STEPS}).x.reshape(-1, count)
    plain = (matrix @ found[:-1]).astype(np.float32)
    return plain, (found[-1] - mean @ plain).astype(np.float32)


def cross_validate(bundle, photos, rows, classes, fold, fitted, names) -> None:  # type: ignore[no-untyped-def]
    """Print the top-1 of each name and source, among all names, out of fold; and by make and model alone."""
    right, model = np.zeros((2, len(classes)), bool)
    nameplates = (*bundle.manifest.nameplates, *names)
    fields = [
        (make, (each.model or "").casefold())
        for make, each in zip(makes_of(nameplates), map(fields_of, nameplates), strict=True)
    ]
    for each in np.unique(fold):
        weight, bias = fitted(fold != each)
        mine = fold == each
        logits = np.concatenate([rows[mine] @ bundle.weight + bundle.bias, rows[mine] @ weight + bias], 1)
        named, truth = logits.argmax(1), classes[mine] - 1 + len(bundle.manifest.nameplates)
        right[mine] = named == truth
        model[mine] = [fields[a] == fields[b] for a, b in zip(named, truth, strict=True)]
    source = np.array([photo.source for photo in photos])
    for c, s in sorted({*zip(classes.tolist(), source.tolist(), strict=True)}):
        mine = (classes == c) & (source == s)
        print(f"{names[c - 1]} ({s}): {right[mine].mean():.3f} of {mine.sum()}, model {model[mine].mean():.3f}")
    for s in np.unique(source):
        print(f"{s}: {right[source == s].mean():.3f} of {(source == s).sum()}", flush=True)


def table(
    bundle: Bundle, data: Path, photos: tuple[Photo, ...], groups: NDArray[np.int64], trains: NDArray[np.bool_]
) -> bytes:
    """The bundle's table of photos, with the new ones."""
    rows = list(csv.DictReader((bundle.photos or b"").decode().splitlines()))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    for photo, group, train in zip(photos, groups.tolist(), trains.tolist(), strict=True):
        header = read_header(Path(photo.path).read_bytes(), Limits())
        writer.writerow(
            {
                "path": Path(photo.path).relative_to(data),
                "label": photo.label,
                "split": "train" if train else "validation",
                "group": len(rows) + group,
                "source": photo.source,
                "sha256": photo.sha256,
                "width": header.width,
                "height": header.height,
            }
        )
    return text.getvalue().encode()


def calibrate(folder: Path, photos: list[Photo]) -> None:
    """Temperatures, thresholds and the check of bfloat16, chosen on these photos."""
    model = Model.load(folder, runtime="onnxruntime")
    judged = judged_by(folder, Dataset(tuple(photos), model.nameplates))
    bundle = model.bundle
    assert bundle.ood_detector is not None
    temperatures = fit_temperatures(
        {runtime: (model.logits(found.embeddings), found.y_true) for runtime, found in judged.items()}
    )
    gates = bundle.manifest.thresholds.far, bundle.manifest.thresholds.no_car
    manifest = recalibrated(model, temperatures, judged["onnxruntime"], bundle.ood_detector, gates)
    manifest = replace(manifest, bfloat16=bfloat16_cost(judged) or manifest.bfloat16)
    print(temperatures, manifest.bfloat16, manifest.thresholds, sep="\n", flush=True)
    save_bundle(folder, replace(bundle, manifest=manifest), overwrite=True)


def record(folder: Path, dataset: Dataset) -> None:
    """Write the results on photos that neither trained nor chose anything into the provenance."""
    found = evaluate_model(Model.load(folder, runtime="onnxruntime"), dataset)
    metrics = metrics_record(found.evaluation)
    print(metrics)
    bundle = load_bundle(folder)
    head = {"tool": "tools/ship_more_names.py", "names": len(set(NAMES.values())), "shift": SHIFT}
    provenance = bundle.manifest.provenance | {"metrics": metrics, "further names": head}
    save_bundle(folder, replace(bundle, manifest=replace(bundle.manifest, provenance=provenance)), overwrite=True)


if __name__ == "__main__":
    main()
