"""`nameplate.fit` works where torch is not installed."""

from __future__ import annotations

import importlib.util
import pkgutil
import subprocess
import sys

import pytest

import nameplate.fit

NEEDS_ONNX = {"half", "int8", "quantize"}
NAMES = sorted(module.name for module in pkgutil.iter_modules(nameplate.fit.__path__))


@pytest.mark.parametrize("name", NAMES)
def test_no_module_of_it_imports_torch(name: str) -> None:
    if name in NEEDS_ONNX and importlib.util.find_spec("onnx") is None:
        pytest.skip("needs onnx")
    code = f"import sys, nameplate.fit.{name}; print(*{{'torch', 'timm', 'accelerate'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
