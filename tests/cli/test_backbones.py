"""`backbones` and `convert-weights`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_train import call, needs_extra, needs_torch, tensors


@needs_torch
@needs_extra
def test_backbones_lists_the_common_ones_and_those_of_a_pattern(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(monkeypatch, capsys, "backbones", "--json")
    assert code == 0
    assert {row["name"] for row in json.loads(out)} >= {"ResNet50", "EfficientNetB7", "Lite0"}
    assert "test_vit" in call(monkeypatch, capsys, "backbones", "test_vi*")[1]


@needs_torch
@needs_extra
def test_convert_weights_writes_safetensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    torch.save({"weight": torch.arange(6.0).reshape(2, 3)}, tmp_path / "in.pth")
    target = tmp_path / "out.safetensors"
    code, out, err = call(monkeypatch, capsys, "convert-weights", tmp_path / "in.pth", target, "--json")
    assert code == 0, err
    assert json.loads(out)["tensors"] == 1
    assert tensors(target)["weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
