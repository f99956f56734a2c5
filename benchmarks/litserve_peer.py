"""The same service on LitServe: the same ONNX file, the same functions to prepare photos, LitServe's own batching.

Run by `benchmarks/serving.py --peer-python`, with a Python that has LitServe and what Nameplate needs to identify:

    python3 -m venv PEER && PEER/bin/pip install litserve python-multipart nameplate

Nameplate itself is taken from this checkout.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import litserve
import msgspec
import numpy as np

from nameplate.model.model import Model
from nameplate.model.pipeline import PreparedPhoto, Settings, UnreadablePhoto, embedded, prepare_photo
from nameplate.model.verification import prediction_json
from nameplate.runtime.base import BATCH


class Cars(litserve.LitAPI):  # type: ignore[misc]
    """Decode, prepare, embed and classify, each in LitServe's place for it."""

    def __init__(self, runtime: str, threads: int, **batching: Any) -> None:
        super().__init__(**batching)
        self.runtime, self.threads = runtime, threads

    def setup(self, device: str) -> None:  # noqa: ARG002
        """Load the bundle once a worker."""
        self.model = Model.load(runtime=self.runtime, threads=self.threads)

    def decode_request(self, request) -> PreparedPhoto:  # type: ignore[no-untyped-def]  # an annotation tells LitServe otherwise
        """A form's file → a photo that waits for the backbone."""
        size = self.model.bundle.manifest.preprocess
        photo = prepare_photo(request["photos"].file.read(), size, Settings(self.runtime, self.threads))
        assert not isinstance(photo, UnreadablePhoto)  # this benchmark sends photos that can be read
        return photo

    def batch(self, inputs: Sequence[PreparedPhoto]) -> Sequence[PreparedPhoto]:
        """Photos are stacked where they are embedded."""
        return inputs

    def predict(self, photos: Sequence[PreparedPhoto]) -> list[dict[str, object]]:
        """Model inputs → answers."""
        [embeddings] = list(self.model.runtime.embed([np.stack([photo.inputs[0] for photo in photos])]))
        outcomes = [
            embedded(photo, embedding[None], self.model.runtime.name)
            for photo, embedding in zip(photos, embeddings, strict=True)
        ]
        return [msgspec.to_builtins(prediction_json(self.model.answer("", outcome)[0])) for outcome in outcomes]

    def unbatch(self, output: list[dict[str, object]]) -> list[dict[str, object]]:
        """An answer a request."""
        return output

    def encode_response(self, output: dict[str, object]) -> dict[str, object]:
        """As Nameplate answers."""
        return {"results": [output]}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--wait", type=float, default=0.004, help="seconds that a batch waits to be filled")
    arguments = parser.parse_args()
    api = Cars(arguments.runtime, arguments.threads, max_batch_size=BATCH, batch_timeout=arguments.wait)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=arguments.workers, timeout=60)
    server.run(host="127.0.0.1", port=arguments.port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
