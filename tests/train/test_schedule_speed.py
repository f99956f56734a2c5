"""The memory allocator, and timings that do not change the training."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.torch
for needed in ("torch", "timm"):
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed}", allow_module_level=True)

import torch  # noqa: E402

from nameplate.train.backbones import build, find_backbone  # noqa: E402
from nameplate.train.network import Network, freeze, train_mode  # noqa: E402
from nameplate.train.schedule import faster_in_bfloat16, keep_memory  # noqa: E402

torch.set_num_threads(1)

FAULTS = """
import json, resource, torch
from nameplate.train.schedule import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(2):
        tensors = [torch.zeros(64 << 20, dtype=torch.uint8).add_(1) for _ in range(6)]
        del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
faults()
before, kept = faults(), keep_memory()
faults()
print(json.dumps([before, kept, faults()]))
"""


def on_glibc() -> bool:
    try:
        return hasattr(ctypes.CDLL(None), "gnu_get_libc_version")
    except (OSError, TypeError):
        return False


@pytest.mark.skipif(not on_glibc(), reason="needs glibc")
def test_memory_is_kept() -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    before, kept, after = json.loads(done.stdout)
    assert kept is True
    assert before >= 100  # 12 times 64 MB, in pages of 2 MB at most
    assert after < before / 10


def test_without_glibc_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert keep_memory() is False


def test_timing_changes_neither_the_network_nor_the_random_numbers() -> None:
    backbone = find_backbone("test_efficientnet")
    torch.manual_seed(0)
    network = Network(build(backbone, 3, dropout=0.2, drop_path=0.2), backbone.mean, backbone.std)
    freeze(network, "2")
    train_mode(network)
    network.body.conv_stem.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    learning = [parameter.requires_grad for parameter in network.parameters()]
    chance = torch.get_rng_state()
    answer = faster_in_bfloat16(network, torch.device("cpu"), 64, 64, 2)
    assert isinstance(answer, bool)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert modes == [module.training for module in network.modules()]
    assert learning == [parameter.requires_grad for parameter in network.parameters()]
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any("forward" in module.__dict__ for module in network.modules())
    assert torch.equal(torch.get_rng_state(), chance)
