"""Runs the command line as a user does: in a process of its own."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from nameplate.demo import photos_folder
from tests.cli.forked import forked

FORBIDDEN = ["torch", "timm", "torchvision", "accelerate", "sklearn", "matplotlib", "openvino", "ray"]
MORE = {"PYTHONUTF8": "1", "PYTHONWARNINGS": "error"}
"""Variables that the processes have besides those of the tests."""


def nameplate(
    *arguments: str | Path, check: int | None = 0, cwd: Path | None = None, bound: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run `nameplate …`; `check` is the exit code that it must have, `bound` says that permissions bind even root."""
    words = [str(each) for each in arguments]
    done = None if bound else _forked(words, cwd)
    if done is None:
        done = subprocess.run(
            [sys.executable, "-m", "nameplate", *words],
            capture_output=True,
            text=True,
            encoding="utf-8",
            cwd=cwd,
            env={**os.environ, **MORE},
            check=False,
            preexec_fn=bind_root if bound and os.geteuid() == 0 else None,
        )
    if check is not None:
        assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def _forked(arguments: list[str], cwd: Path | None) -> subprocess.CompletedProcess[str] | None:
    with tempfile.TemporaryDirectory() as folder:
        streams = Path(folder, "out"), Path(folder, "err")
        code = forked("nameplate", arguments, streams, more=MORE, cwd=cwd)
        if code is None:
            return None
        out, err = (path.read_text("utf-8") for path in streams)
        return subprocess.CompletedProcess(["nameplate", *arguments], code, out, err)


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
