"""Exports a bundle as a static site (`export_site`): the page, the model, and an engine that answers in the browser.

The page is that of `serve`, from the same files; only the module that asks the service is another one. The engine
repeats the pipeline in JavaScript. Its constants are written into `site.json` from the modules that define them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path, PurePosixPath

import msgspec

from nameplate import __version__
from nameplate.defaults import TOP
from nameplate.errors import BundleError
from nameplate.fit.parity import FileParity
from nameplate.fit.web_graph import graph_and_weights, optimised_graph
from nameplate.images import quality
from nameplate.model import detector, verdict
from nameplate.model.bundle import BACKBONE, HEAD, KNOWN, Bundle
from nameplate.model.embeddings import Progress
from nameplate.model.pipeline import Settings
from nameplate.runtime.onnx_file import first_output_alone
from nameplate.storage import sha256, whole_folder
from nameplate.types import Preprocess
from nameplate.web.onnxruntime_web import onnxruntime_web
from nameplate.web.parity import compare_site, write_files

RUNTIME = "onnxruntime"
"""The runtime whose temperature the engine takes: ONNX Runtime Web has the same arithmetic."""
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; worker-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'"
)
"""The content security policy, in a `meta` element, since a file server sends no header of ours."""
HEADS = (HEAD, KNOWN)
"""The files of a bundle that a site has unchanged."""
WEIGHTS = "backbone.safetensors"
INDEX, OFFLINE, SITE = "index.html", "offline.js", "site.json"
THEME, PAPER = "#1b657f", "#fbfcfd"
"""Colours of the installed page: the accent and the paper of style.css."""
DETECTOR_RULES = (
    "LEAST_SCORE", "OVERLAP", "INSIDE", "LEAST_SIDE", "CLEAR", "NEARLY_ALL", "PORTRAIT", "WINDOW_OVERLAP",
    "MOST_WINDOWS", "EDGE", "MOST_CARS", "CANDIDATES",
)  # fmt: skip
QUALITY_RULES = ("ROWS", "COLUMNS", "SMALL", "DARK", "BLURRED", "FLAT", "BRIGHT_RANK")
VERDICT_RULES = ("ALWAYS_A_CAR", "PART", "COVERAGE")


@dataclass(frozen=True, slots=True)
class Site:
    """What `export_site` wrote."""

    folder: Path
    files: int
    bytes: int
    parity: FileParity
    unreadable: tuple[tuple[str, str], ...]
    """Path and reason of each photo that could not be read."""


def export_site(
    bundle: Bundle,
    target: Path,
    photos: Sequence[str],
    *,
    onnxruntime: Path | None = None,
    overwrite: bool = False,
    settings: Settings,
    progress: Progress = lambda *_: None,
) -> Site:
    """Make a bundle a static site, which any file server serves, compare it with the bundle, and write it.

    Args:
        bundle: a bundle with a classifier, read from a folder.
        target: the folder to write.
        photos: paths of the photos to compare on.
        onnxruntime: the unpacked npm package onnxruntime-web; None: from the cache, or downloaded by npm.
        overwrite: whether to replace a folder that exists.
        settings: threads and limits of the comparison; the runtime must be `onnxruntime`.
        progress: see `Progress`.

    Raises:
        BundleError: the bundle has no classifier, or its backbone is made of operators of another domain.
        DataError: none of the photos can be read.
        NameplateError: the folder exists and `overwrite` is false, ONNX Runtime Web or Node.js cannot be had, or the
            site does not answer as the bundle does.
    """
    with whole_folder(target, overwrite=overwrite) as folder:
        files = site_files(bundle, onnxruntime_web(onnxruntime))
        parity, unreadable = compare_site(bundle, files, photos, settings, progress)
        parity.refuse("The site", bundle.manifest.name)
        write_files(folder, files)
    return Site(target, len(files), sum(map(len, files.values())), parity, unreadable)


def site_files(bundle: Bundle, runtime: dict[str, bytes]) -> dict[str, bytes]:
    """All files of a site: path → bytes.

    Args:
        bundle: see `export_site`.
        runtime: the files of ONNX Runtime Web, see `onnxruntime_web`.
    """
    files = {f"page/{name}": data for name, data in _package_files("page") if name != INDEX}
    for name, data in _package_files("engine"):
        # The page asks the engine where it would ask the service.
        files[f"page/{name}" if name == "service.js" else f"engine/{name}"] = data
    offline = files.pop(f"engine/{OFFLINE}").decode()
    files |= {f"onnxruntime-web/{name}": data for name, data in runtime.items()}
    files["onnxruntime-web/LICENSE.txt"] = (_here() / "onnxruntime-web.LICENSE.txt").read_bytes()
    files |= {f"model/{name}": data for name, data in _model(bundle).items()}
    files[INDEX] = _index((_here() / "page" / INDEX).read_text("utf-8")).encode()
    files["manifest.webmanifest"] = _json(_manifest(bundle))
    listed = [{"path": path, "bytes": len(data), "sha256": sha256(data)} for path, data in sorted(files.items())]
    described = {"version": __version__, "model": _described(bundle), "rules": rules(), "files": listed}
    digest = sha256(_json(described))
    files[SITE] = _json({"digest": digest, **described})
    files[OFFLINE] = _replaced(offline, 'const VERSION = "0";', f'const VERSION = "{digest}";').encode()
    files[".nojekyll"] = b""  # GitHub Pages then serves the files as they are
    return files


def rules() -> dict[str, object]:
    """The constants of the pipeline that the engine repeats."""
    found: dict[str, object] = {"TOP": TOP, "size": detector.input_size(), "VIEW": _size(quality.VIEW)}
    for module, names in ((detector, DETECTOR_RULES), (quality, QUALITY_RULES), (verdict, VERDICT_RULES)):
        found |= {name: getattr(module, name) for name in names}
    return found


def _here() -> resources.abc.Traversable:
    return resources.files("nameplate.web")


def _package_files(folder: str) -> Iterable[tuple[str, bytes]]:
    for each in sorted((_here() / folder).iterdir(), key=lambda each: each.name):
        if PurePosixPath(each.name).suffix in {".js", ".css", ".svg", ".html", ".jpg"}:
            yield each.name, each.read_bytes()


def _model(bundle: Bundle) -> dict[str, bytes]:
    """What an answer needs: the backbone, prepared for browsers, the classifier, and the car detector."""
    if bundle.weight is None or bundle.folder is None:
        raise BundleError(
            f"'{bundle.manifest.name}' has no head, so it knows no nameplates. Fit one with 'nameplate train'."
        )
    graph, weights = graph_and_weights(first_output_alone(bundle.backbone))
    found = {BACKBONE: graph, WEIGHTS: weights}
    found |= {name: (bundle.folder / name).read_bytes() for name in HEADS if (bundle.folder / name).is_file()}
    # Always, because the page asks for all cars of a photo where the bundle locates them.
    locates = bundle.manifest.preprocess.locate != "none"
    return found | ({detector.FILE: optimised_graph(detector.detector_network())} if locates else {})


def _described(bundle: Bundle) -> dict[str, object]:
    """The parts of bundle.json that the engine needs."""
    manifest = bundle.manifest
    return {
        "name": manifest.name,
        "digest": bundle.full_digest,
        "nameplates": manifest.nameplates,
        "makes": manifest.makes or manifest.nameplates,
        "preprocess": asdict(manifest.preprocess),
        "temperature": manifest.temperature_of(RUNTIME),
        "thresholds": asdict(manifest.thresholds),
        "licence": manifest.provenance.get("licence"),
    }


def _size(size: Preprocess) -> dict[str, object]:
    return {name: value for name, value in asdict(size).items() if name != "locate"}


def _manifest(bundle: Bundle) -> dict[str, object]:
    """What a phone needs to install the page as an application."""
    icon = {"src": "page/logo.svg", "sizes": "any", "type": "image/svg+xml"}
    return {
        "name": f"Nameplate: {bundle.manifest.name}",
        "short_name": "Nameplate",
        "start_url": "./",
        "display": "standalone",
        "background_color": PAPER,
        "theme_color": THEME,
        "icons": [icon],
    }


def _index(page: str) -> str:
    """The page's HTML for a site of its own."""
    page = _replaced(page, '<html lang="en">', '<html lang="en" data-site="local">')
    head = (
        '<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        # Before all else of the page, because the engine takes longest to load.
        '<script type="module" async src="page/service.js"></script>\n'
        '<meta name="referrer" content="no-referrer">\n'
        '<link rel="manifest" href="manifest.webmanifest">'
    )
    return _replaced(page, '<meta charset="utf-8">', head)


def _replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)
