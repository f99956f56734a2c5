"""What a bundle says of its own making: data, metrics, versions."""

from __future__ import annotations

import platform
from importlib.metadata import version

from nameplate import __version__
from nameplate.fit.parts import Parts
from nameplate.types import EXCLUDED, Evaluation, Exported

JUDGED_BY = "onnxruntime"
"""The runtime that a network's figures are of: the same on every machine, so that two runs compare."""


def metrics_record(judged: Evaluation | None) -> dict[str, object] | None:
    """The figures on held-out photos, None where none were held out."""
    if judged is None:
        return None
    return {
        "photos": judged.photos,
        "top1": judged.top1.value,
        "top1_interval": judged.top1.interval,
        "top5": judged.top5.value,
        "macro_f1": judged.macro_f1.value,
        "log_loss": judged.log_loss,
    }


def exported_record(exported: Exported) -> dict[str, object]:
    """Which epoch's weights a bundle holds, its photo size, and what it was worth when it was trained."""
    epoch = exported.epoch
    return {
        "epoch": epoch.epoch,
        "of": exported.epochs,
        "stage": epoch.stage,
        "height": epoch.height,
        "width": epoch.width,
        "validation_top1": epoch.validation_top1,
        "validation_loss": epoch.validation_loss,
        "chosen_by_held_out": exported.chosen,
    }


def data_record(parts: Parts) -> dict[str, object]:
    """How many photos, their digest, where they came from; digests of those that the user had left out, where any."""
    excluded = {EXCLUDED: list(parts.excluded)} if parts.excluded else {}
    return excluded | {
        "photos": len(parts.photos),
        "sha256": parts.digest,
        "unreadable": len(parts.unreadable),
        "sources": list(parts.sources),
    }


def versions(*packages: str) -> dict[str, str]:
    """Of Nameplate, Python and some packages."""
    return {
        "nameplate": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }
