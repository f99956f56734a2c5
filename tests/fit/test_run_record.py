"""What a bundle records about its training."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import pytest

from nameplate import __version__
from nameplate.fit.run import data_record, metrics_record, versions
from nameplate.fit.split import Split
from nameplate.types import Evaluation, Metric, Photo


def test_metrics_are_those_of_the_evaluation() -> None:
    judged = Evaluation(40, Metric(0.9, 0.8, 0.95), Metric(1.0, 0.9, 1.0), Metric(0.85, 0.7, 0.9), 0.31)
    said = metrics_record(judged)
    assert said == {
        "photos": 40, "top1": 0.9, "top1_interval": (0.8, 0.95), "top5": 1.0, "macro_f1": 0.85, "log_loss": 0.31,
    }  # fmt: skip
    json.dumps(said)


def test_without_held_out_photos_there_are_none() -> None:
    assert metrics_record(None) is None


def test_data_are_counted_and_have_a_digest() -> None:
    photos = tuple(Photo(f"{i}.jpg", "Alto", "train", "s", "0", f"{i:064x}", 4, 3) for i in range(3))
    here = np.ones(3, bool)
    parts = Split(
        photos, np.arange(3), ("Alto",), ("1",), np.zeros(3, int), here, ~here, (("x.jpg", "empty"),), ("s", "t")
    )
    said = data_record(parts)
    assert said == {"photos": 3, "sha256": parts.digest, "unreadable": 1, "sources": ["s", "t"]}
    assert len(str(said["sha256"])) == 64


def test_versions_are_those_of_the_installed_packages() -> None:
    assert versions("numpy", "pillow") == {
        "nameplate": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pillow": version("pillow"),
    }
    with pytest.raises(PackageNotFoundError):
        versions("no-such-package-anywhere")
