"""OpenVINO on the CPU, in float32 or bfloat16, and on Intel's GPUs: installed with the extra `fast`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np

from nameplate.errors import BundleError, RuntimeUnavailableError
from nameplate.runtime.base import BATCH, Batch, Embedding, Watch, checked_output, no_watch, side_by_side
from nameplate.runtime.onnx_file import first_output_alone


class OpenVino:
    """OpenVINO, float32 or bfloat16, with several batches at once."""

    def __init__(
        self,
        backbone: bytes,
        threads: int,
        precision: Literal["f32", "bf16"],
        batch: int = BATCH,
        streams: int | None = None,
        *,
        gpu: bool = False,
    ) -> None:
        """Load a backbone.

        Args:
            backbone: the ONNX file.
            threads: processors to use.
            precision: to compute in.
            batch: model inputs in one call; a smaller batch is filled up with zeros. OpenVINO chooses its kernels by
                this number, so that embeddings of different batch sizes can differ in the last bits: by 4e-6 on a
                processor with AVX2 alone, and not at all on one with AVX-512.
            streams: batches that `embed` computes side by side; None: one for each thread.
            gpu: whether it runs on an Intel GPU.

        Raises:
            BundleError: the backbone cannot be loaded.
            RuntimeUnavailableError: OpenVINO cannot be loaded, or finds no GPU.
        """
        self.batch, self.streams = batch, streams or max(1, threads)
        self.watch: Watch = no_watch
        self._openvino = import_openvino()
        self.name = "openvino-gpu" if gpu else "openvino" if precision == "f32" else "openvino-bf16"
        self._thread_local = threading.local()
        settings: dict[str, str | int] = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": precision}
        core = self._openvino.Core()
        if gpu:
            _require_gpu(core)
        else:
            settings |= {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": self.streams}
        try:
            model = core.read_model(first_output_alone(backbone))
            shape = model.inputs[0].partial_shape
            shape[0] = batch  # a fixed shape runs faster; a short last batch is filled up
            model.reshape(shape)
            self._compiled = core.compile_model(model, "GPU" if gpu else "CPU", settings)
        except Exception as error:  # openvino's errors have no common base but Exception
            raise BundleError(f"OpenVINO cannot load the backbone: {error}") from None

    def embed(self, batches: Iterable[Batch]) -> Iterator[Embedding]:
        """Embed batches side by side, one in each stream; the results come in order."""
        return side_by_side(self.run, batches, self.batch, self.streams)

    def run(self, batch: Batch) -> Embedding:
        """Embed one batch; safe to call from several threads at once."""
        if not hasattr(self._thread_local, "request"):  # an inference request serves one thread at a time
            self._thread_local.request = self._compiled.create_infer_request()
        request, full = self._thread_local.request, self._filled(batch)
        try:
            with self.watch("infer"):
                request.infer({0: self._openvino.Tensor(full, shared_memory=True)})
        except Exception as error:  # as above
            raise BundleError(f"The backbone does not accept model inputs of shape {batch.shape}: {error}") from None
        found = request.get_output_tensor().data
        # The request's next call overwrites its output, so the rows are copied.
        return checked_output(found[: len(batch)].copy() if found.shape else found, len(batch))

    def _filled(self, batch: Batch) -> Batch:
        missing = self.batch - len(batch)
        return np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), np.uint8)]) if missing else batch


def _require_gpu(core: Any) -> None:
    """Check that OpenVINO has a GPU.

    Raises:
        RuntimeUnavailableError: it has none.
    """
    devices = core.available_devices
    if not any(device.startswith("GPU") for device in devices):
        raise RuntimeUnavailableError(
            f"OpenVINO finds no GPU, only {', '.join(devices)}. It runs on Intel's, with Intel's OpenCL driver (the "
            "package intel-opencl-icd of Debian and Ubuntu); for NVIDIA's take --runtime onnxruntime-cuda."
        )


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which would write an id below the home folder.

    Raises:
        RuntimeUnavailableError: it is not installed or cannot be loaded.
    """
    telemetry, loaded = "openvino_telemetry", "openvino" in sys.modules
    before = sys.modules.get(telemetry)
    try:
        if not loaded:
            # None makes `import openvino_telemetry` fail, and OpenVINO then uses a stub in its place.
            sys.modules[telemetry] = None  # type: ignore[assignment]
        import openvino
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"OpenVINO cannot be loaded ({error}). Install it with pip install 'nameplate[fast]', "
            "or use --runtime onnxruntime."
        ) from None
    finally:
        if not loaded:
            sys.modules.pop(telemetry)
            if before is not None:
                sys.modules[telemetry] = before
    return openvino
