"""Runtimes on a GPU: how they are chosen, and what is said where there is none."""

from __future__ import annotations

import importlib.util

import pytest

from nameplate.errors import RuntimeUnavailableError, UsageError
from nameplate.model.bundle import load_bundle
from nameplate.runtime.ort import CUDA, import_onnxruntime
from nameplate.runtime.select import make_runtime, on_device
from tests.cli.run import nameplate

WITHOUT_CUDA = CUDA not in import_onnxruntime().get_available_providers()


@pytest.mark.parametrize(
    ("runtime", "device", "found"),
    [
        ("auto", "cpu", "auto"),
        ("openvino-bf16", "cpu", "openvino-bf16"),
        ("onnxruntime-cuda", "cpu", "onnxruntime-cuda"),
        ("auto", "cuda", "onnxruntime-cuda"),
        ("onnxruntime", "cuda", "onnxruntime-cuda"),
        ("onnxruntime-cuda", "cuda", "onnxruntime-cuda"),
        ("openvino", "gpu", "openvino-gpu"),
    ],
)
def test_a_device_has_one_runtime(runtime: str, device: str, found: str) -> None:
    assert on_device(runtime, device) == found


@pytest.mark.parametrize(
    ("runtime", "device", "says"),
    [
        ("auto", "tpu", "Unknown device 'tpu'. There are cpu, cuda, gpu"),
        ("openvino", "cuda", "'openvino' does not run on 'cuda', and 'onnxruntime-cuda' does"),
        ("openvino-bf16", "gpu", "'openvino-bf16' does not run on 'gpu'"),
    ],
)
def test_a_runtime_that_does_not_run_there_is_refused(runtime: str, device: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        on_device(runtime, device)


@pytest.mark.skipif(not WITHOUT_CUDA, reason="this ONNX Runtime has CUDA")
def test_without_cuda_the_service_ends_and_says_what_to_install() -> None:
    said = nameplate("serve", "--port", "0", "--device", "cuda", check=1).stderr
    assert "was built without CUDA" in said
    assert "pip uninstall onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]'" in said


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs the fast extra")
def test_openvino_without_a_gpu_says_so() -> None:
    from nameplate.runtime.openvino import import_openvino

    if any(device.startswith("GPU") for device in import_openvino().Core().available_devices):
        assert make_runtime("openvino-gpu", load_bundle("cars196").backbone, 1).name == "openvino-gpu"
        return
    with pytest.raises(RuntimeUnavailableError, match=r"finds no GPU, only CPU.*--runtime onnxruntime-cuda"):
        make_runtime("openvino-gpu", load_bundle("cars196").backbone, 1)
