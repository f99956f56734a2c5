"""`nameplate doctor`: what it says of this installation, and that it finds what is wrong."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from nameplate.cli import doctor
from nameplate.cli.doctor import EXTRAS, Health
from tests.cli.run import nameplate


def test_it_is_well_and_says_so_in_one_screen() -> None:
    lines = nameplate("doctor").stdout.splitlines()
    assert len(lines) <= 24
    assert max(len(line) for line in lines if not line.startswith("Cache")) <= 80  # its folder may be long
    assert any("onnxruntime works" in line and version("onnxruntime") in line for line in lines)
    assert any("as when it was made" in line for line in lines)
    found = json.loads(nameplate("doctor", "--json").stdout)
    assert found["problem"] is None
    assert found["runtimes"]["onnxruntime"] is None
    assert found["packages"]["onnxruntime"] == version("onnxruntime")


def test_it_knows_every_extra() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    assert set(EXTRAS) == set(project["project"]["optional-dependencies"])


def test_what_is_wrong_is_said_and_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import typer

    well = Health({"onnxruntime": None}, None, "Lada 2101, 0.990", {"fast": True, "heic": False})
    ill = replace(well, runtimes={"onnxruntime": None, "openvino": "crashed"}, problem="it answers 'Lada 2102'")
    monkeypatch.setattr(doctor, "examine", lambda: ill)
    with pytest.raises(typer.Exit) as ended:
        doctor.doctor()
    assert ended.value.exit_code == 1
    shown = capsys.readouterr().out
    assert "openvino: crashed" in shown
    assert "WRONG: it answers 'Lada 2102'" in shown
    assert "pip install 'nameplate[heic]'" in shown
    monkeypatch.setattr(doctor, "examine", lambda: well)
    doctor.doctor()
