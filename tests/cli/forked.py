"""Runs commands in forks of a process that has imported what they need: to import torch anew costs each six seconds.

A fork is a process of its own, with its own working folder, streams, signals and exit code. It differs from a process
that was started anew only in that modules are there already. A test that is about imports starts its own process.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

PRELOADED = (
    "nameplate.cli",
    "nameplate.batch.job",
    "nameplate.evaluate.evaluator",
    "nameplate.fit.linear_probe",
    "nameplate.report.evaluation",
    "nameplate.train.finetune",
    "onnx",
    "torch._dynamo",
    "torch.onnx._internal.exporter._compat",
    "torch.utils.tensorboard",
)
"""Modules that many commands import; those that are not installed are left out. ONNX Runtime is not among them: it
starts a thread when it is imported, and a fork has none of its parent's threads."""
AT_IMPORT = dict(os.environ)
"""The environment before any test has changed it."""
READ_AT_IMPORT = (
    *("COLUMNS", "HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN", "HOME"),
    *("LD_", "OMP_", "PYTHON", "TMPDIR", "XDG_"),
)
"""Beginnings of the names of variables that the interpreter or a module reads once, and not when it is used."""
_one_at_a_time = threading.Lock()


def forked(
    program: str,
    arguments: Sequence[str],
    streams: tuple[Path, Path],
    *,
    more: Mapping[str, str],
    cwd: Path | None = None,
    meanwhile: Callable[[int], None] = lambda _: None,
) -> int | None:
    """Run a program as a fork, and return its exit code, negative the signal.

    Args:
        program: a module, as for `python -m`, or a file.
        arguments: its arguments.
        streams: files that stdout and stderr are appended to.
        more: variables besides those of this process, the same at each call.
        cwd: the working folder; None is this process's.
        meanwhile: is given the id of the process while it runs.

    Returns:
        None where nothing was run: this is not Linux, a fork is running already, or a test has changed the environment
        so that a module might be hidden or behave differently if it were imported now.
    """
    same = _read_at_import(os.environ) == _read_at_import(AT_IMPORT)
    if not same or sys.platform != "linux" or not _one_at_a_time.acquire(blocking=False):
        return None
    try:
        parent = _parent(tuple(more.items()))
        assert parent.stdin is not None
        assert parent.stdout is not None
        order = [program, arguments, [str(path) for path in streams], str(cwd or Path.cwd()), {**os.environ, **more}]
        parent.stdin.write(json.dumps(order) + "\n")
        parent.stdin.flush()
        process = int(parent.stdout.readline())
        try:
            meanwhile(process)
        finally:
            code = int(parent.stdout.readline())
        return code
    finally:
        _one_at_a_time.release()


def _read_at_import(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(READ_AT_IMPORT)}


@cache
def _parent(more: tuple[tuple[str, str], ...]) -> subprocess.Popen[str]:
    """The process that forks; it ends with this one."""
    parent = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, **dict(more), "OMP_NUM_THREADS": "1"},  # else numpy starts threads when it is imported
    )
    atexit.register(parent.communicate)
    return parent


# What that process does.


def main() -> None:
    """Import the modules; fork for each order, print the fork's id and its exit code. In a fork, run the program."""
    for name in PRELOADED:
        with suppress(ModuleNotFoundError):
            importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "a module has started a thread"
    gc.freeze()  # else the collector would write to all of the memory that forks share
    while order := sys.stdin.readline():
        process = os.fork()
        if process == 0:
            _run(*json.loads(order))
            return
        print(process, flush=True)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(program: str, arguments: list[str], streams: list[str], cwd: str, environment: dict[str, str]) -> None:
    """Run a program as the interpreter does, to its end."""
    # The stream objects stay: the interpreter has made them by the same environment.
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for number, opened in enumerate([os.open(os.devnull, os.O_RDONLY), *(os.open(path, flags) for path in streams)]):
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = cwd
    sys.argv = [program, *arguments]
    try:
        if program.endswith(".py"):
            runpy.run_path(program, run_name="__main__")
        else:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        # What the interpreter does at its end, but for taking all modules apart: that would copy their memory first.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended.code if isinstance(ended.code, int) else int(ended.code is not None))


if __name__ == "__main__":
    main()
