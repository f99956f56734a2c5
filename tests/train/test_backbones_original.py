"""The original's five backbones: each builds, trains a step, and is exported to a backbone that agrees with torch."""

from __future__ import annotations

import copy

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from nameplate.demo import photos_folder  # noqa: E402
from nameplate.images.decode import decode  # noqa: E402
from nameplate.images.transforms import preprocess  # noqa: E402
from nameplate.runtime.select import make_runtime  # noqa: E402
from nameplate.train.backbones import build, find_backbone  # noqa: E402
from nameplate.train.export import Embedder, export_onnx, round_weights  # noqa: E402
from nameplate.train.network import Network, classifier_matrix, train_mode  # noqa: E402
from nameplate.types import Preprocess  # noqa: E402

LARGE = ("EfficientNetB7", "EfficientNetV2L", "ResNet152V2")
SIZE = Preprocess(64, 96)


@pytest.mark.parametrize(
    "name",
    ["ResNet50", "MobileNetV3Large", *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)],
)
def test_it_builds_trains_a_step_and_is_exported(name: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    backbone = find_backbone(name)
    network = Network(
        build(backbone, 3, dropout=0.0, drop_path=0.0, size=(SIZE.height, SIZE.width)), backbone.mean, backbone.std
    )
    files = sorted(photos_folder("test").glob("*/*.jpg"))[:: 200 // 4][:4]
    pictures = np.stack([preprocess(decode(file), SIZE) for file in files])
    photos, classes = torch.from_numpy(pictures), torch.tensor([0, 1, 2, 0])
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # one batch's statistics: else a deep random network's numbers explode
    before = classifier_matrix(network)[0].detach().clone()
    train_mode(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    loss = torch.nn.functional.cross_entropy(network(photos), classes)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    with torch.no_grad():
        network(photos)  # statistics of the weights as they are after the step
    assert bool(torch.isfinite(loss))
    assert not torch.equal(before, classifier_matrix(network)[0])
    rounded = round_weights(network)
    runtime = make_runtime("onnxruntime", export_onnx(Embedder(rounded), SIZE.height, SIZE.width), 1)
    (embeddings,) = list(runtime.embed([pictures]))
    with torch.inference_mode():
        truth = rounded.embed(photos).numpy()
        exact = copy.deepcopy(rounded).double().embed(photos).numpy()
    assert truth.std() > 0
    # A deep network of random weights multiplies float32's rounding: torch's own distance from float64 is the measure.
    near = max(1e-4 * float(np.abs(exact).max()), 5 * float(np.abs(truth - exact).max()))
    np.testing.assert_allclose(embeddings, exact, rtol=0, atol=near)
    assert np.corrcoef(embeddings.ravel(), exact.ravel())[0, 1] > 0.999
