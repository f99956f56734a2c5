"""Photos: bytes to pixels (`decode`), pixels to the model's picture (`preprocess`)."""

from nameplate.photos.decode import decode, read_bytes, read_header
from nameplate.photos.header import Header
from nameplate.photos.preprocess import preprocess

__all__ = ["Header", "decode", "preprocess", "read_bytes", "read_header"]
