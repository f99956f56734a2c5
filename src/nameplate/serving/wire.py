"""What the service and its workers tell each other: frames over a socket pair.

A frame is two lengths (big-endian uint32), a head in MessagePack, and a body of bytes as they are.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

import msgspec

from nameplate.models.answer_json import HeatMap
from nameplate.types import TOP, Limits, Prediction

LENGTHS = struct.Struct(">II")


class Setup(msgspec.Struct, tag=True, frozen=True):
    """The first frame that a worker gets: what it serves, and how."""

    bundle: str
    """The bundle's folder."""
    runtime: str
    threads: int
    limits: Limits
    tta: str
    batch_wait: float
    """Seconds that a picture may wait for others."""


class Job(msgspec.Struct, tag=True, frozen=True):
    """One photo to name; its file is the frame's body."""

    id: int
    name: str
    """What the answer calls the photo."""
    seconds: float
    """Time left; what is late is dropped before it is decoded or embedded."""
    form: Literal["file", "picture"] = "file"
    """A photo's file, or the model's picture, uint8 H×W×3, prepared already."""
    top: int = TOP
    heatmap: bool = False
    embedding: bool = False
    """Whether the answer holds the embedding too."""


class Cancel(msgspec.Struct, tag=True, frozen=True):
    """Nobody waits for these jobs any more."""

    ids: tuple[int, ...]


class Ready(msgspec.Struct, tag=True, frozen=True):
    """The worker is warm."""

    runtime: str
    """What runs the backbone."""
    golden: Prediction
    """What it says of the golden photo."""


class Failed(msgspec.Struct, tag=True, frozen=True):
    """The worker cannot serve this bundle, and ends."""

    reason: str


class Done(msgspec.Struct, tag=True, frozen=True):
    """What became of a job; the frame's body holds the probabilities and then the embedding, float32."""

    id: int
    prediction: Prediction | None = None
    """None where it was dropped, cancelled or late."""
    chances: int = 0
    """Bytes of the probabilities."""
    heatmap: HeatMap | None = None
    stale: bool = False
    """Whether a decoder that took too long is still at work: the worker should be replaced."""
    seconds: dict[str, float] = msgspec.field(default_factory=dict)
    """Time to `decode`, to `wait` for the runtime, and to `embed` the batch."""
    batch: int = 0
    """Photos in its batch."""


ToWorker = Setup | Job | Cancel
ToService = Ready | Failed | Done


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame as it goes over the wire."""

    head: bytes
    body: bytes = b""

    @property
    def parts(self) -> tuple[bytes, bytes, bytes]:
        """What to write, one after the other."""
        return LENGTHS.pack(len(self.head), len(self.body)), self.head, self.body


def frame(message: ToWorker | ToService, body: bytes = b"") -> Frame:
    """A message ready to send."""
    return Frame(msgspec.msgpack.encode(message), body)


_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_to_service: msgspec.msgpack.Decoder[ToService] = msgspec.msgpack.Decoder(ToService)


def for_worker(head: bytes) -> ToWorker:
    """A frame's head, as a worker reads it."""
    return _to_worker.decode(head)


def for_service(head: bytes) -> ToService:
    """A frame's head, as the service reads it."""
    return _to_service.decode(head)
