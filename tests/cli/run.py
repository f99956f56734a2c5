"""Runs the command line as a user does: a process of its own."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

from nameplate.demo import photos_folder

FORBIDDEN = ["torch", "timm", "torchvision", "accelerate", "sklearn", "matplotlib", "openvino", "ray"]


def nameplate(
    *arguments: str | Path, check: int | None = 0, cwd: Path | None = None, bound: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run `nameplate …`; `check` is the exit code that it must have, `bound` says that permissions bind even root."""
    done = subprocess.run(
        [sys.executable, "-m", "nameplate", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=cwd,
        env={**os.environ, "PYTHONUTF8": "1", "PYTHONWARNINGS": "error"},
        check=False,
        preexec_fn=bind_root if bound and os.geteuid() == 0 else None,
    )
    if check is not None:
        assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def bind_root() -> None:
    """Give up, in a process that is about to run a program, what lets root read files that nobody may.

    Source: capabilities(7): without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH in the bounding set, no program gets them.
    """
    process = ctypes.CDLL(None, use_errno=True)
    drop, override, read_search = 24, 1, 2
    for capability in (override, read_search):
        if process.prctl(drop, capability, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "cannot give up root's rights")


def few_photos(target: Path) -> Path:
    """Put 36 renders of 4 nameplates into a folder per nameplate, one of them broken; return the folder."""
    for folder in sorted(photos_folder("test").iterdir())[:4]:
        (target / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[:9]:
            shutil.copy(path, target / folder.name)
    broken = target / "Corvane Lark" / "000.jpg"
    broken.write_bytes(broken.read_bytes()[:2000])
    return target
