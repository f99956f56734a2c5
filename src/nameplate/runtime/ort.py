"""ONNX Runtime: on the CPU the runtime that every installation has, and the reference for all others; and on CUDA."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from typing import Any

from nameplate.errors import BundleError, RuntimeUnavailableError
from nameplate.runtime.base import BATCH, OUTPUTS, Batch, Embedding, Watch, checked_output, no_watch, side_by_side
from nameplate.runtime.onnx_file import first_output_alone
from nameplate.types import Floats

CUDA = "CUDAExecutionProvider"
CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
"""TensorFloat-32 has the mantissa of float16, and batches of each size would be tried out for seconds (EXHAUSTIVE)."""
INSTALL_CUDA = "pip uninstall onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]'"


class OnnxRuntime:
    """ONNX Runtime, float32, with one or several batches at once."""

    def __init__(
        self,
        backbone: bytes,
        threads: int,
        *,
        cuda: bool = False,
        maps: bool = False,
        batch: int = BATCH,
        streams: int = 1,
    ) -> None:
        """Load a backbone.

        Args:
            backbone: the ONNX file.
            threads: processors to use.
            cuda: whether it runs on an NVIDIA GPU, the first that CUDA_VISIBLE_DEVICES names.
            maps: whether the method `maps` will be called. If not, the nodes that only lead to the map are removed,
                so that they cost nothing.
            batch: most model inputs in one call. The embeddings are the same to the last bit for any value.
            streams: batches that `embed` computes side by side, each on its share of the processors.

        Raises:
            BundleError: the backbone cannot be loaded.
            RuntimeUnavailableError: CUDA cannot be used here.
        """
        self.name = "onnxruntime-cuda" if cuda else "onnxruntime"
        network = backbone if maps else first_output_alone(backbone)
        self._session = open_session(network, max(1, threads // streams), "backbone", cuda=cuda)
        self.batch, self.streams = batch, streams
        self.watch: Watch = no_watch
        self._input = self._session.get_inputs()[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]

    @property
    def has_maps(self) -> bool:
        """Whether the loaded backbone gives a map."""
        return OUTPUTS[1] in self._outputs[1:]

    def embed(self, batches: Iterable[Batch]) -> Iterator[Embedding]:
        """Embed batches side by side, one in each stream; the results come in order."""
        return side_by_side(self.run, batches, self.batch, self.streams)

    def run(self, batch: Batch) -> Embedding:
        """Embed one batch; safe to call from several threads at once."""
        return checked_output(self._run(self._outputs[:1], batch)[0], len(batch))

    def maps(self, batches: Iterable[Batch]) -> Iterator[tuple[Embedding, Floats]]:
        """Embeddings, float32 N×D, and maps, float32 N×h×w×D, of batches, in order; only where `has_maps`."""
        for batch in batches:
            embedding, places = self._run([self._outputs[0], OUTPUTS[1]], batch)
            yield checked_output(embedding, len(batch)), checked_output(places, len(batch), dimensions=4)

    def _run(self, outputs: list[str], batch: Batch) -> list[Any]:
        try:
            with self.watch("infer"):
                found: list[Any] = self._session.run(outputs, {self._input: batch})
        except Exception as error:  # as above
            raise BundleError(f"The backbone does not accept model inputs of shape {batch.shape}: {error}") from None
        return found


def open_session(network: bytes, threads: int, what: str, *, cuda: bool = False) -> Any:
    """Open an inference session.

    Args:
        network: the ONNX file.
        threads: processors to use in one call.
        what: what the network is, for the error message.
        cuda: whether it runs on an NVIDIA GPU.

    Raises:
        BundleError: it cannot be loaded.
        RuntimeUnavailableError: CUDA cannot be used here.
    """
    onnxruntime = import_onnxruntime()
    if cuda:
        _require_cuda(onnxruntime)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # failures come as exceptions, so the log stays silent
    # ONNX Runtime would also load its own format, which `onnx_file.check_backbone` cannot read.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # Without VNNI, sums of 8-bit products overflow in 16 bits; this has them computed exactly. Float32 is not affected.
    options.add_session_config_entry("session.x64quantprecision", "1")
    providers = [*([(CUDA, CUDA_OPTIONS)] if cuda else []), "CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(network, options, providers=providers)
    except Exception as error:  # onnxruntime's errors have no common base but Exception
        raise BundleError(f"ONNX Runtime cannot load the {what}: {error}") from None
    if cuda and CUDA not in session.get_providers():  # it would go on without a word, on the CPU
        raise RuntimeUnavailableError(
            "ONNX Runtime finds no GPU, no driver, or not the CUDA and cuDNN that it was built for. See what "
            f"nvidia-smi says, and install them beside it: {INSTALL_CUDA}"
        )
    return session


def _require_cuda(onnxruntime: Any) -> None:
    """Check that this ONNX Runtime was built with CUDA, and load the CUDA libraries that pip has installed.

    Raises:
        RuntimeUnavailableError: it was not.
    """
    if CUDA not in onnxruntime.get_available_providers():
        raise RuntimeUnavailableError(
            f"This ONNX Runtime ({onnxruntime.__version__}) was built without CUDA. Install the one that has it, on a "
            f"machine with an NVIDIA GPU: {INSTALL_CUDA}"
        )
    with redirect_stdout(io.StringIO()):  # it prints what it does not find, and stdout is for answers
        onnxruntime.preload_dlls()


def import_onnxruntime() -> Any:
    """Import ONNX Runtime with its telemetry off: since 1.32 its Linux wheel reports to Microsoft by default."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when the library is loaded; child processes inherit it
    import onnxruntime

    return onnxruntime
