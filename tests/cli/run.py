"""Runs the command line as a user does: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FORBIDDEN = ["torch", "timm", "torchvision", "accelerate", "sklearn", "matplotlib", "openvino", "ray"]


def nameplate(
    *arguments: str | Path, check: int | None = 0, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `nameplate …`; `check` is the exit code that it must have."""
    done = subprocess.run(
        [sys.executable, "-m", "nameplate", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=cwd,
        env={**os.environ, "PYTHONUTF8": "1", "PYTHONWARNINGS": "error"},
        check=False,
    )
    if check is not None:
        assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done
