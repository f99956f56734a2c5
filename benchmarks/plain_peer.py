"""The model behind plain uvicorn and FastAPI, or behind LitServe, in the way that such servers are usually written.

Run by `abuse.py --peer-python`, with a Python that has what this imports and none of Nameplate:

    python3 -m venv PEER
    PEER/bin/pip install fastapi litserve numpy onnxruntime pillow python-multipart safetensors uvicorn

The photo is decoded by Pillow and squashed to the network's size; its car is not located first.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Annotated, Any

import litserve
import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI, File, UploadFile
from PIL import Image
from safetensors.numpy import load_file


class Classifier:
    """Network and linear head of a bundle."""

    def __init__(self, bundle: Path) -> None:
        self.session = onnxruntime.InferenceSession(bundle / "backbone.onnx", providers=["CPUExecutionProvider"])
        head = load_file(bundle / "head.safetensors")
        self.W, self.b = head["weight"], head["bias"]
        manifest = json.loads((bundle / "bundle.json").read_text("utf-8"))
        self.names, size = manifest["nameplates"], manifest["preprocess"]
        self.size = (size["width"], size["height"])
        self.input, self.output = self.session.get_inputs()[0].name, self.session.get_outputs()[0].name

    def __call__(self, photo: bytes) -> list[dict[str, Any]]:
        """The five most probable nameplates of a photo's file."""
        image = Image.open(io.BytesIO(photo)).convert("RGB").resize(self.size)
        [embedding] = self.session.run([self.output], {self.input: np.asarray(image)[None]})
        logits = embedding[0] @ self.W + self.b
        probs = np.exp(logits - logits.max())
        probs /= probs.sum()
        return [{"nameplate": self.names[place], "confidence": float(probs[place])} for place in np.argsort(-probs)[:5]]


def with_uvicorn(bundle: Path, port: int) -> None:
    """FastAPI, and uvicorn with its defaults; the endpoint is no coroutine, so that it runs in FastAPI's threads."""
    classify, app = Classifier(bundle), FastAPI()

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/predict")
    def predict(photos: Annotated[UploadFile, File()]) -> dict[str, Any]:
        return {"results": classify(photos.file.read())}

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


class Cars(litserve.LitAPI):  # type: ignore[misc]
    """The same in LitServe's three steps."""

    def __init__(self, bundle: Path) -> None:
        super().__init__()
        self.bundle = bundle

    def setup(self, device: str) -> None:  # noqa: ARG002
        """Load the model once a worker."""
        self.classify = Classifier(self.bundle)

    def decode_request(self, request) -> bytes:  # type: ignore[no-untyped-def]  # an annotation tells LitServe otherwise
        """The file of the form."""
        photo: bytes = request["photos"].file.read()
        return photo

    def predict(self, photo: bytes) -> list[dict[str, Any]]:
        """The answer."""
        return self.classify(photo)

    def encode_response(self, output: list[dict[str, Any]]) -> dict[str, Any]:
        """As JSON."""
        return {"results": output}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("server", choices=["uvicorn", "litserve"])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    if arguments.server == "uvicorn":
        with_uvicorn(arguments.bundle, arguments.port)
    else:
        server = litserve.LitServer(Cars(arguments.bundle), accelerator="cpu")
        server.run(host="127.0.0.1", port=arguments.port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
