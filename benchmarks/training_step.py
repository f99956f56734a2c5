"""Measures the time of a training step on a CPU in several settings, each in its own process.

    python benchmarks/training_step.py --rounds 3

EfficientNet-Lite0, random pixels, batch 32; the settings take turns, and the median of the rounds is printed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

SETTINGS = {
    "torch as it comes, float32, channels_last": "",
    "memory kept (mallopt)": "keep",
    "… and bfloat16 autocast": "keep bfloat16",
    "… with depthwise convolutions in float32": "keep bfloat16 depthwise",
    "… and compiled": "keep bfloat16 depthwise compile",
}
SECONDS = 8.0
"""That a setting is timed for, after the first steps."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--backbone", default="Lite0")
    parser.add_argument("--height", type=int, default=160)
    parser.add_argument("--width", type=int, default=240)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(photos_per_second(arguments, arguments.one.split()))
        return
    found: dict[str, list[float]] = {name: [] for name in SETTINGS}
    for _ in range(arguments.rounds):
        for name, words in SETTINGS.items():
            done = subprocess.run([sys.executable, *sys.argv, "--one", words], capture_output=True, check=True)
            found[name].append(float(done.stdout))
    first = statistics.median(next(iter(found.values())))
    for name, speeds in found.items():
        median = statistics.median(speeds)
        print(f"{name:45} {median:6.1f} photos/s  {median / first:4.2f}×  ({', '.join(f'{s:.1f}' for s in speeds)})")


def photos_per_second(arguments: argparse.Namespace, words: list[str]) -> float:
    """Time one setting in this process."""
    import torch

    from nameplate.runtime.select import available_cpus
    from nameplate.train.backbones import build, find_backbone
    from nameplate.train.network import Network, depthwise_in_float32
    from nameplate.train.schedule import keep_memory

    if "keep" in words:
        keep_memory()
    torch.set_num_threads(available_cpus())
    backbone = find_backbone(arguments.backbone)
    network = Network(build(backbone, 196, dropout=0.2, drop_path=0.1), backbone.mean, backbone.std)
    network.to(memory_format=torch.channels_last).train()
    if "depthwise" in words:
        depthwise_in_float32(network)
    stepped = torch.compile(network, dynamic=False) if "compile" in words else network
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)
    shape = (arguments.batch, arguments.height, arguments.width, 3)
    photos = torch.randint(0, 255, shape, dtype=torch.uint8)
    classes = torch.randint(0, 196, (arguments.batch,))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled="bfloat16" in words):
            logits = stepped(photos)
        torch.nn.functional.cross_entropy(logits.float(), classes).backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(2):
        step()
    begun, steps = time.perf_counter(), 0
    while time.perf_counter() - begun < SECONDS:
        step()
        steps += 1
    return float(steps * arguments.batch / (time.perf_counter() - begun))


if __name__ == "__main__":
    main()
