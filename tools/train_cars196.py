"""Train the network of the bundle that ships further: on cars196 in right colours, and on cars of other sources.

    python tools/train_cars196.py OUT --data DATA --cars196 CARS196 [--seconds 4000] [--start BUNDLE]

It begins with the weights of BUNDLE, and leaves out every nameplate and photo that `benchmarks/held_out.py` lists.
Cars of two sources are one class where both name one car (`JOINED`). Beside the network's own classifier, which sees
the last layer, a second one sees a projection of the last layer and of the stages' statistics, and compares directions
alone (F. Wang et al., "NormFace", 2017). It makes photos of one nameplate similar from all sides.

The cosine of the learning rate and the change from small to large photos follow the time that was spent, so that the
training ends when it has to, however busy the machine. After an interruption the same command continues it.
`tools/ship_cars196_further.py` makes the bundle of OUT/average.safetensors.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from nameplate.defaults import DEFAULT_BUNDLE
from nameplate.images.augment import Augmentation
from nameplate.images.mixing import Mixing
from nameplate.model.bundle import load_bundle
from nameplate.storage import whole_file
from nameplate.train.backbones import build, find_backbone
from nameplate.train.data import PhotoBatch, epoch_batches, mix, training_batches
from nameplate.train.network import Network, depthwise_in_float32, parameter_groups
from nameplate.train.schedule import keep_memory
from nameplate.train.weights import load_weights
from nameplate.types import Preprocess

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import held_out  # type: ignore[import-not-found]

JOINED = {
    "bentley_flying-spur": "Bentley Continental Flying Spur Sedan 2007",
    "chrysler_300c": "Chrysler 300 SRT-8 2010",
    "hyundai_genesis": "Hyundai Genesis Sedan 2012",
    "daewoo_sens": "daewoo_lanos",
    "zaz_lanos": "daewoo_lanos",
    "toyota corolla": "toyota_corolla",
}
"""Name in one source → the class of another that is the same car; looked at by eye."""
AUGMENTATION = Augmentation(
    crop=(0.35, 1.0),
    aspect=1.3333,
    flip=0.5,
    zoom_out=0.25,
    zoom_out_to=0.5,
    fill="scene",
    brightness=0.35,
    contrast=0.35,
    saturation=0.4,
    hue=0.15,
    grey=0.15,
)
"""That of the recipe `fine-tune` with more hue and grey: few photos of a nameplate are often of one car's colour."""
MIXING = Mixing(cutmix=0.5)
SMALL, LARGE, SMALL_SHARE = (160, 240), (192, 288), 0.45
"""Photo sizes (height, width), and the share of the time with the small one."""
RATE, HEAD_FACTOR, LAYER_DECAY, WEIGHT_DECAY, SMOOTHING, CLIP = 4e-4, 4.0, 0.9, 0.05, 0.1, 5.0
AVERAGE, BATCH, SEED, WARMUP = 0.998, 32, 18, 100
PROJECTION, SCALE, SHARE = 512, 16.0, 0.5
"""Of the second classifier: size of the projection, factor of the cosines, and share in the loss."""
CROPS_TWICE = 2
"""How often the crops of ukraine63 are in an epoch."""
DROPOUT, DROP_PATH = 0.2, 0.1
FIRST_STAGE, EPSILON = 3, 1e-6
CHECKPOINT_SECONDS = 240.0


@dataclass(frozen=True, slots=True)
class Training:
    """The photos of an epoch and their classes."""

    paths: list[str]
    classes: torch.Tensor
    """int64 (N,)."""
    names: list[str]
    """The classes; those of the bundle that it begins with come first, in its order."""


def photos(data: Path, cars196: Path, start: str) -> Training:
    """All photos that train, without what is held out."""
    bundle = load_bundle(start)
    rows = csv.DictReader((bundle.photos or b"").decode().splitlines())
    at = held_out.photos_at(cars196)
    found = [(at[row["path"]], row["label"], 1) for row in rows if row["split"] == "train" and row["path"] in at]
    with (data / "ukraine63" / "labels.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["nameplate"] not in (*held_out.UKRAINE, *held_out.UKRAINE_UNUSED):
                times = CROPS_TWICE if row["kind"] == "crop" else 1
                found.append((data / "ukraine63" / row["file"], row["nameplate"], times))
    for folder in sorted(path for path in (data / "europe20").iterdir() if path.is_dir()):
        if folder.name not in held_out.EUROPE:
            found += [(path, folder.name, 1) for path in sorted(folder.iterdir())]
    names = list(bundle.manifest.nameplates)
    for _, label, _ in found:
        name = JOINED.get(label, label)
        if name not in names:
            names.append(name)
    every = [(str(path), names.index(JOINED.get(label, label))) for path, label, times in found for _ in range(times)]
    return Training([path for path, _ in every], torch.tensor([c for _, c in every]), names)


def moments(network: Network, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The last layer's mean N×1280, and mean and standard deviation of the stages from `FIRST_STAGE` on, N×1408."""
    body = network.body
    x = body.bn1(body.conv_stem(network.normalise(inputs)))
    means, spreads = [], []
    for number, stage in enumerate(body.blocks):
        x = stage(x)
        if number >= FIRST_STAGE:
            mean = x.mean((2, 3), keepdim=True)
            means.append(mean.flatten(1))
            spreads.append(((x - mean) ** 2).mean((2, 3)).add(EPSILON).sqrt())
    return body.bn2(body.conv_head(x)).mean((2, 3)), torch.cat(means + spreads, 1)


class TwoClassifiers(nn.Module):  # type: ignore[misc]  # torch is read as Any
    """uint8 N×H×W×3 → logits of the network's own classifier, and scaled cosines of the second one, both N×C."""

    def __init__(self, network: Network, classes: int, features: int) -> None:
        super().__init__()
        self.net, self.bn = network, nn.BatchNorm1d(features)
        self.proj = nn.Linear(features, PROJECTION, bias=False)
        self.proxy = nn.Parameter(torch.randn(classes, PROJECTION) * 0.05)
        nn.init.normal_(self.proj.weight, std=features**-0.5)

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both classifiers' answers, in float32."""
        last, stages = moments(self.net, inputs)
        with torch.autocast("cpu", enabled=False):
            last, stages = last.float(), stages.float()
            logits = self.net.body.classifier(functional.dropout(last, DROPOUT, self.training))
            rows = functional.dropout(self.bn(torch.cat([last, stages], 1)), DROPOUT, self.training)
            cosines = functional.normalize(self.proj(rows)) @ functional.normalize(self.proxy).T
        return logits, SCALE * cosines


def begin(start: str, classes: int) -> TwoClassifiers:
    """The network of a bundle, with a new classifier that begins at zero."""
    torch.manual_seed(SEED)
    backbone = find_backbone("Lite0")
    network = Network(build(backbone, classes, dropout=DROPOUT, drop_path=DROP_PATH), backbone.mean, backbone.std)
    load_weights(network.body, backbone, start)
    for parameter in network.classifier.parameters():
        nn.init.zeros_(parameter)
    with torch.inference_mode():
        last, stages = moments(network.eval(), torch.zeros(1, *SMALL, 3, dtype=torch.uint8))
    return TwoClassifiers(network, classes, last.shape[1] + stages.shape[1])


@dataclass(slots=True)
class Progress:
    """How far the training is."""

    epoch: int = 0
    step: int = 0
    steps: int = 0
    seconds: float = 0.0


class Trainer:
    """The network, its moving average and its optimiser, with checkpoints in a folder."""

    def __init__(self, out: Path, network: TwoClassifiers) -> None:
        self.out, self.network = out, network.to(memory_format=torch.channels_last)
        depthwise_in_float32(self.network.net)
        self.average, self.progress = copy.deepcopy(self.network), Progress()
        new = [self.network.proj.weight, self.network.proxy]
        groups = [
            *parameter_groups(self.network.net, WEIGHT_DECAY, LAYER_DECAY, HEAD_FACTOR),
            {"params": new, "scale": HEAD_FACTOR, "weight_decay": WEIGHT_DECAY},
            {"params": list(self.network.bn.parameters()), "scale": HEAD_FACTOR, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, fused=True)
        if (out / "checkpoint.pt").exists():
            saved = torch.load(out / "checkpoint.pt", weights_only=True)
            self.network.load_state_dict(saved["network"])
            self.average.load_state_dict(saved["average"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.progress = Progress(**saved["progress"])

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        with whole_file(self.out / "checkpoint.pt") as temporary:
            progress = {name: getattr(self.progress, name) for name in Progress.__slots__}
            parts = {"network": self.network, "average": self.average, "optimizer": self.optimizer}
            torch.save({name: each.state_dict() for name, each in parts.items()} | {"progress": progress}, temporary)

    def step(self, batch: PhotoBatch, classes: torch.Tensor, rate: float) -> float:
        """One step of the optimiser; returns the loss."""
        draw = np.random.default_rng([SEED, self.progress.steps])
        torch.manual_seed(int(draw.integers(2**62)))
        first = classes[batch.indices]
        inputs, second, share = mix(torch.from_numpy(batch.photos), first, MIXING, draw)
        with torch.autocast("cpu", torch.bfloat16):
            answers = self.network(inputs)
        loss = torch.zeros(())
        for weight, logits in zip((1.0, SHARE), answers, strict=True):
            for part, truth in ((share, first), (1 - share, second)):
                loss = loss + weight * part * functional.cross_entropy(logits, truth, label_smoothing=SMOOTHING)
        if not math.isfinite(float(loss.detach())):
            raise SystemExit(f"The loss is {float(loss.detach())}; the checkpoint is intact.")
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        self.optimizer.step()
        self._average(min(AVERAGE, (1 + self.progress.steps) / (10 + self.progress.steps)))
        return float(loss.detach())

    def _average(self, keep: float) -> None:
        mine, theirs = self.average.state_dict(), self.network.state_dict()
        names = [name for name, value in mine.items() if value.is_floating_point()]
        with torch.no_grad():
            torch._foreach_lerp_([mine[name] for name in names], [theirs[name] for name in names], 1 - keep)


def train(trainer: Trainer, training: Training, seconds: float, threads: int) -> None:
    """Train until the time is spent."""
    progress, saved = trainer.progress, time.monotonic()
    while progress.seconds < seconds:
        whole = epoch_batches(len(training.paths), BATCH, SEED, progress.epoch)
        size = SMALL if progress.seconds < SMALL_SHARE * seconds else LARGE
        left = whole[progress.step :]
        stream: Iterator[PhotoBatch] = training_batches(
            training.paths, left, Preprocess(*size), AUGMENTATION, SEED, progress.epoch, threads
        )
        trainer.network.train()
        losses, before = [], time.monotonic()
        for batch in stream:
            part = min(1.0, progress.seconds / seconds)
            rate = RATE * 0.5 * (1 + math.cos(math.pi * part)) * min(1.0, (progress.steps + 1) / WARMUP)
            losses.append(trainer.step(batch, training.classes, rate))
            now = time.monotonic()
            progress.seconds, before = progress.seconds + now - before, now
            progress.step, progress.steps = progress.step + 1, progress.steps + 1
            if now - saved > CHECKPOINT_SECONDS:
                trainer.save()
                saved = now
            if progress.seconds >= seconds:
                break
        stream.close()  # type: ignore[attr-defined]  # a generator: its threads end
        if progress.step >= len(whole):
            progress.epoch, progress.step = progress.epoch + 1, 0
        trainer.save()
        print(f"epoch {progress.epoch}: loss {np.mean(losses):.3f}, {progress.seconds:.0f} s", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cars196", type=Path, required=True)
    parser.add_argument("--start", default=DEFAULT_BUNDLE)
    parser.add_argument("--seconds", type=float, default=4000)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    keep_memory()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    training = photos(arguments.data, arguments.cars196, arguments.start)
    print(f"{len(training.paths):,} photos an epoch, {len(training.names)} classes", flush=True)
    trainer = Trainer(arguments.out, begin(arguments.start, len(training.names)))
    train(trainer, training, arguments.seconds, arguments.threads)
    save(trainer.average, training.names, arguments.out / "average.safetensors")


def save(average: TwoClassifiers, names: list[str], target: Path) -> None:
    """Write the averaged weights with the names of the classes."""
    with whole_file(target) as temporary:
        tensors = {name: value.contiguous() for name, value in average.state_dict().items()}
        save_file(tensors, temporary, {"nameplates": json.dumps(names)})


def load(file: Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The weights of `save` and the names of the classes."""
    with safe_open(file, "pt") as opened:
        names: list[str] = json.loads((opened.metadata() or {})["nameplates"])
    return load_file(file), names


if __name__ == "__main__":
    main()
