"""Photos: bytes to pixels (`decode`), pixels to the model's picture (`preprocess`)."""

from nameplate.images.decode import decode, read_bytes, read_header
from nameplate.images.header import Header
from nameplate.images.transforms import preprocess

__all__ = ["Header", "decode", "preprocess", "read_bytes", "read_header"]
