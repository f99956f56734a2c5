"""The runtimes by name, how one is opened, and the processors that it may use."""

from __future__ import annotations

import os
from pathlib import Path

from nameplate.errors import UsageError
from nameplate.runtime.base import BATCH
from nameplate.runtime.openvino import OpenVino
from nameplate.runtime.ort import OnnxRuntime

ON_CPU = ("onnxruntime", "openvino", "openvino-bf16")
"""Of these `auto` chooses, ONNX Runtime being the reference for the others."""
ON_DEVICE = {"cuda": "onnxruntime-cuda", "gpu": "openvino-gpu"}
"""Device → its runtime: NVIDIA's GPUs, and Intel's. They compute in float32; they run only when they are asked for."""
RUNTIMES = ("auto", *ON_CPU, *ON_DEVICE.values())
DEVICES = ("cpu", *ON_DEVICE)
PREFERRED = ("openvino-bf16", "openvino", "onnxruntime")
"""The fastest first, on every CPU that was measured (docs/benchmarks.md)."""


def check_runtime(choice: str) -> None:
    """Refuse an unknown name.

    Raises:
        UsageError: it is none of `RUNTIMES`.
    """
    if choice not in RUNTIMES:
        raise UsageError(f"Unknown runtime '{choice}'. There are {', '.join(RUNTIMES)}.")


def on_device(runtime: str, device: str) -> str:
    """Return the runtime that runs on a device.

    Args:
        runtime: what was asked for, one of `RUNTIMES`.
        device: one of `DEVICES`.

    Raises:
        UsageError: there is no such device, or this runtime does not run on it.
    """
    if device not in DEVICES:
        raise UsageError(f"Unknown device '{device}'. There are {', '.join(DEVICES)}.")
    found = ON_DEVICE.get(device, runtime)
    if runtime not in ("auto", found, found.partition("-")[0]):
        raise UsageError(f"'{runtime}' does not run on '{device}', and '{found}' does: leave out --runtime.")
    return found


def make_runtime(
    name: str, backbone: bytes, threads: int, batch: int = BATCH, streams: int | None = None
) -> OnnxRuntime | OpenVino:
    """Open the runtime of a name (not `auto`).

    Args:
        name: one of `RUNTIMES`.
        backbone: the ONNX file.
        threads: processors to use.
        batch: most model inputs in one call.
        streams: batches computed side by side; None: the runtime's default, which is one for ONNX Runtime and one for
            each thread for OpenVINO.

    Raises:
        BundleError: the backbone cannot be loaded.
        RuntimeUnavailableError: OpenVINO cannot be loaded, or there is no GPU that the runtime can use.
    """
    if name in ("onnxruntime", "onnxruntime-cuda"):
        return OnnxRuntime(backbone, threads, cuda=name.endswith("cuda"), batch=batch, streams=streams or 1)
    if name == "openvino-gpu":
        return OpenVino(backbone, threads, "f32", batch, streams, gpu=True)
    return OpenVino(backbone, threads, "bf16" if name.endswith("bf16") else "f32", batch, streams)


def available_cpus() -> int:
    """Processors that this process may use, by its affinity and by its cgroup's quota (v2 and v1)."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text().strip()
            period = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return count
    if quota in ("max", "-1"):
        return count
    return max(1, min(count, -(-int(quota) // int(period))))  # rounded up


def cpu_name() -> str:
    """The kind of this processor with its abilities; what was measured on one kind does not hold for another."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        import platform

        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))
