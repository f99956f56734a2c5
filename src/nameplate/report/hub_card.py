"""The model card of a bundle on the Hugging Face hub: front matter, what the bundle is, and how to use it."""

from __future__ import annotations

from typing import Any

import msgspec

from nameplate.model.model import Model
from nameplate.report.card import describe

LICENCE = "other"
"""The hub's word where it is not one of the licences that it knows; the card then says which."""


def hub_card(model: Model, repo: str, licence: str = LICENCE, text: str | None = None) -> str:
    """README.md of a repository on the hub.

    Args:
        model: the bundle's model.
        repo: USER/NAME.
        licence: the hub's identifier of a licence.
        text: a model card that `nameplate evaluate --card` wrote; None: the table of what the bundle says of itself.
    """
    name = model.bundle.manifest.name
    body = text or f"# {name}\n\n{describe(model)}\n"
    # JSON is YAML, and quotes every name as it must be.
    lines = [f"{key}: {msgspec.json.encode(value).decode()}" for key, value in front_matter(model, licence).items()]
    return "\n".join(["---", *lines, "---", "", body.strip(), "", _usage(repo), ""])


def front_matter(model: Model, licence: str) -> dict[str, Any]:
    """What the hub shows and searches: licence, task, tags, base model, and the accuracy on held-out photos."""
    manifest = model.bundle.manifest
    found: dict[str, Any] = {
        "license": licence,
        "library_name": "nameplate",
        "pipeline_tag": "image-classification",
        "tags": ["nameplate", "cars", "vehicle-make-and-model", "onnx"],
    }
    backbone = str(manifest.provenance.get("backbone", "")).partition(",")[0]
    if backbone.count(".") == 1 and " " not in backbone:  # a name of timm, which the hub has under this address
        found["base_model"] = f"timm/{backbone}"
    metrics = manifest.provenance.get("metrics")
    if isinstance(metrics, dict) and "top1" in metrics:
        values = [("accuracy", "top-1", "top1"), ("accuracy", "top-5", "top5"), ("f1", "macro-F1", "macro_f1")]
        rows = [
            {"type": kind, "name": shown, "value": round(float(metrics[key]), 4)}
            for kind, shown, key in values
            if key in metrics
        ]
        photos = {"type": "image-folder", "name": f"{metrics.get('photos', '?')} held-out photos"}
        result = {"task": {"type": "image-classification"}, "dataset": photos, "metrics": rows}
        found["model-index"] = [{"name": manifest.name, "results": [result]}]
    return found


def _usage(repo: str) -> str:
    return (
        "## Use\n\n```\npip install 'nameplate[hub]'\n"
        f"nameplate identify --model hf:{repo} photo.jpg\n```\n\n"
        "```python\nfrom nameplate import Model\n\n"
        f'[answer] = Model.load("hf:{repo}").predict("photo.jpg")\n```'
    )
