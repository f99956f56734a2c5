"""Photos: `decode` turns bytes into pixels, `preprocess` turns pixels into the model input."""

from nameplate.images.decode import decode, read_bytes, read_header
from nameplate.images.header import Header
from nameplate.images.transforms import preprocess

__all__ = ["Header", "decode", "preprocess", "read_bytes", "read_header"]
