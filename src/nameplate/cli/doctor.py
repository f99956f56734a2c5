"""`nameplate doctor`: whether this installation works, and what it lacks, in one screen."""

from __future__ import annotations

import importlib.util
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import typer

from nameplate import __version__
from nameplate.cli import screen
from nameplate.cli.app import app
from nameplate.cli.cache import kept, megabytes
from nameplate.cli.options import Json
from nameplate.defaults import DEFAULT_BUNDLE
from nameplate.storage import cache_folder

if TYPE_CHECKING:
    from nameplate.model.bundle import Bundle

EXTRAS = {
    "fast": (("openvino",), "OpenVINO, the faster runtime on Intel and AMD"),
    "heic": (("pillow_heif",), "photos of iPhones (HEIC)"),
    "parquet": (("pyarrow",), "Parquet tables"),
    "export": (("onnx",), "models in one ONNX file, and sites"),
    "quantize": (("onnx",), "bundles in int8"),
    "serve": (("fastapi", "uvicorn", "sqlalchemy"), "the HTTP service and its page"),
    "postgres": (("psycopg",), "users' corrections in PostgreSQL"),
    "track": (("wandb", "mlflow"), "trainings followed by W&B or MLflow"),
    "otel": (("opentelemetry.sdk", "opentelemetry.exporter"), "OpenTelemetry traces of the service"),
    "train": (("torch", "timm", "accelerate"), "training whole networks"),
    "hub": (("huggingface_hub",), "bundles on the Hugging Face hub"),
    "cloud": (("fsspec", "s3fs", "gcsfs"), "photos at s3:// and gs://"),
    "ray": (("ray",), "bulk jobs on a cluster"),
}
"""Extra → modules by which it is recognised, and what it adds."""


@dataclass(frozen=True, slots=True)
class Health:
    """What the doctor found."""

    runtimes: dict[str, str | None]
    """Runtime → why it does not work here; None where it works."""
    problem: str | None
    """What is wrong with the answer to the reference image; None where it is as when the model was made."""
    answer: str
    """That answer."""
    extras: dict[str, bool]
    """Extra → whether all its modules are installed."""


def examine() -> Health:
    """Try the runtimes and the model that ships.

    Raises:
        BundleError: the model that ships is damaged.
    """
    from nameplate.model.model import Model
    from nameplate.model.reference import reference_photo, reference_problem

    model = Model.load(runtime="onnxruntime")
    golden = model.bundle.manifest.golden
    [found] = model.predict(reference_photo())
    problem = None if golden is None else reference_problem(golden, found, "onnxruntime")
    extras = {name: all(map(_installed, modules)) for name, (modules, _) in EXTRAS.items()}
    return Health(_runtimes(model.bundle), problem, f"{found.nameplate}, {found.confidence or 0:.3f}", extras)


def _runtimes(bundle: Bundle) -> dict[str, str | None]:
    from nameplate.model.runtime_choice import MIN_COSINE, agrees, probe
    from nameplate.runtime.select import available_cpus

    found: dict[str, str | None] = {"onnxruntime": None}
    for result in probe(bundle, available_cpus()):
        far = f"its answers differ (cosine {result.cosine:.4f}, {MIN_COSINE.get(result.runtime, -1)} is needed)"
        found[result.runtime] = None if agrees(result, bundle) else result.error or far
    return found


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


@app.command()
def doctor(json: Json = False) -> None:
    """Check this installation: versions, runtimes, extras, cache, and a test answer. Exit code 1 if it is ill."""
    found = examine()
    if json:
        screen.print_json(as_json(found))
    else:
        _print(found)
    if found.problem or found.runtimes["onnxruntime"]:
        raise typer.Exit(1)


def as_json(found: Health) -> dict[str, Any]:
    """Return the result as plain data."""
    packages = ("onnxruntime", "openvino", "numpy", "pillow", "simplejpeg", "torch", "timm")
    return {
        "nameplate": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version_of(name) or None for name in packages},
        "runtimes": found.runtimes,
        "extras": found.extras,
        "cache": {"folder": str(cache_folder()), "bytes": sum(each.bytes for each in kept())},
        "answer": found.answer,
        "problem": found.problem,
    }


def _print(found: Health) -> None:
    from nameplate.runtime.select import available_cpus

    here = f"{platform.system()} {platform.machine()}"
    screen.step(
        "Nameplate", f"{__version__}, Python {platform.python_version()}, {here}, {available_cpus()} processors"
    )
    for name, error in found.runtimes.items():
        package = f"{name.split('-')[0]} {_version_of(name.split('-')[0])}"
        screen.step("Runtime", f"{name}: {error}" if error else f"{name} works  ({package})")
    screen.step("Model", f"{DEFAULT_BUNDLE}: {found.answer}")
    screen.step("", f"WRONG: {found.problem}" if found.problem else "for the reference image, as when it was made")
    total = kept()
    files = sum(each.files for each in total)
    screen.step("Cache", f"{megabytes(sum(each.bytes for each in total))} in {files:,} files, {cache_folder()}")
    for place, installed in enumerate((True, False)):
        named = [name for name, there in found.extras.items() if there is installed]
        for number, name in enumerate(named):
            word = ("Extras", "To add")[place] if number == 0 else ""
            screen.step(word, f"{name:10} {EXTRAS[name][1]}")
    if missing := [name for name, there in found.extras.items() if not there]:
        screen.step("Next", f"pip install 'nameplate[{','.join(missing)}]'")
