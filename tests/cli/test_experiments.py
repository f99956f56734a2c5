"""`nameplate compare` as a user runs it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nameplate.demo import photos_folder
from nameplate.types import percent
from tests.cli.run import nameplate

pytestmark = pytest.mark.torch
for needed in ("torch", "timm", "accelerate", "onnx", "onnxscript", "tensorboard"):
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed}", allow_module_level=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("data")
    for folder in sorted(photos_folder("test").iterdir())[:2]:
        (target / folder.name).mkdir()
        for path in sorted(folder.iterdir())[:8]:
            shutil.copy(path, target / folder.name)
    return target


def test_json_is_data_alone_and_a_second_call_shows_the_table(data: Path, tmp_path: Path) -> None:
    backbones = "test_efficientnet=none,ResNet152V2,test_resnet=none"
    arguments = ("compare", data, "-o", tmp_path / "out", "--backbones", backbones, "--size", "32x48", "--threads", "1")
    said = json.loads(nameplate(*arguments, "--json").stdout)
    rows = said["comparison"]["rows"]
    assert [row["error"] is None for row in rows] == [True, True, False]
    shown = nameplate(*arguments)
    assert "evaluated before" in shown.stderr
    assert "The best is test_" in shown.stdout
    assert percent(rows[0]["top1"]["value"]) in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--backbones", "Lite0"], "two or more"),
        (["--backbones", "Lite0,Lite9"], "Unknown backbone 'Lite9'"),
        (["--protocol", "fine-tune", "--no-mirror"], "--mirror is for"),
        (["--recipes", "fast,fine-tune", "--size", "64x64"], "--size is not for recipes of networks"),
    ],
)
def test_too_few_candidates_are_wrong_usage(data: Path, tmp_path: Path, arguments: list[str], why: str) -> None:
    done = nameplate("compare", data, "-o", tmp_path / "out", *arguments, check=2)
    assert why in done.stderr
    assert not (tmp_path / "out").exists()


def test_wrong_usage_is_said_before_torch_is_imported(data: Path, tmp_path: Path) -> None:
    program = (
        "import json, sys; from nameplate.cli import app; from nameplate.errors import UsageError\n"
        "for arguments in json.loads(sys.argv[1]):\n"
        "    try: app(arguments)\n"
        "    except UsageError: continue\n"
        "    sys.exit(f'{arguments} was accepted')\n"
        "sys.exit(' '.join(name for name in ('torch', 'timm') if name in sys.modules) or 0)"
    )
    cases = [
        ["--backbones", "Lite0"],
        ["--protocol", "fine-tune", "--no-mirror"],
        ["--recipes", "fast,fine-tune", "--size", "64x64"],
        ["--recipes", "fast"],
        ["--backbones", "cars196,cars196"],
    ]
    commands = json.dumps([["compare", str(data), "-o", str(tmp_path / "out"), *words] for words in cases])
    done = subprocess.run([sys.executable, "-c", program, commands], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_if_no_candidate_can_be_evaluated_it_fails(data: Path, tmp_path: Path) -> None:
    weights = "Lite0=none.safetensors,Lite1=none.safetensors"
    done = nameplate("compare", data, "-o", tmp_path / "out", "--backbones", weights, "--threads", "1", check=1)
    assert "No candidate could be evaluated" in done.stderr
    assert "There are no weights 'none.safetensors'" in done.stderr
