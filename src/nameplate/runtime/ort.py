"""ONNX Runtime on the CPU: the runtime that every installation has, and the reference for all others."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from nameplate.errors import BundleError
from nameplate.runtime.base import BATCH, OUTPUTS, Batch, Embedding, Watch, checked_output, no_watch, side_by_side
from nameplate.runtime.onnx_file import first_output_alone
from nameplate.types import Floats


class OnnxRuntime:
    """ONNX Runtime on the CPU, float32, with one or several batches at once."""

    name = "onnxruntime"

    def __init__(
        self, backbone: bytes, threads: int, *, maps: bool = False, batch: int = BATCH, streams: int = 1
    ) -> None:
        """Load a backbone.

        Args:
            backbone: the ONNX file.
            threads: processors to use.
            maps: whether the method `maps` will be called. If not, the nodes that only lead to the map are removed,
                so that they cost nothing.
            batch: most model inputs in one call. The embeddings are the same to the last bit for any value.
            streams: batches that `embed` computes side by side, each on its share of the processors.

        Raises:
            BundleError: the backbone cannot be loaded.
        """
        network = backbone if maps else first_output_alone(backbone)
        self._session = open_session(network, max(1, threads // streams), "backbone")
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


def open_session(network: bytes, threads: int, what: str) -> Any:
    """Open an inference session on the CPU.

    Args:
        network: the ONNX file.
        threads: processors to use in one call.
        what: what the network is, for the error message.

    Raises:
        BundleError: it cannot be loaded.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # failures come as exceptions, so the log stays silent
    # ONNX Runtime would also load its own format, which `onnx_file.check_backbone` cannot read.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # Without VNNI, sums of 8-bit products overflow in 16 bits; this has them computed exactly. Float32 is not affected.
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        return onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base but Exception
        raise BundleError(f"ONNX Runtime cannot load the {what}: {error}") from None


def import_onnxruntime() -> Any:
    """Import ONNX Runtime with its telemetry off: since 1.32 its Linux wheel reports to Microsoft by default."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when the library is loaded; child processes inherit it
    import onnxruntime

    return onnxruntime
