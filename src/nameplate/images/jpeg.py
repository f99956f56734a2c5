"""JPEG, decoded by libjpeg-turbo (simplejpeg): header, reduced scale, and the detection of missing or damaged data."""

from __future__ import annotations

import re

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from nameplate.errors import PhotoError, Reason
from nameplate.images.header import Header, new_upright, read_orientation, stripes
from nameplate.images.jpeg_file import (
    APP1,
    APP2,
    EOI,
    FRAMES,
    SOS,
    FrameHeader,
    is_stray,
    read_frame,
    rewritten,
    scan_parts,
    segments,
    survey,
)

EXIF_HEADER, ICC_HEADER, XMP_HEADER = b"Exif\0\0", b"ICC_PROFILE\0", b"http://ns.adobe.com/xap/1.0/\0"
MAX_PADDING = 64
"""Number of filler bytes that are accepted before the end marker. More of them may be a hole in the image data."""
NO_MEMORY = re.compile(r"[Ii]nsufficient memory|[Mm]emory allocation")


def read_jpeg_header(data: bytes) -> Header:
    """Read the header of a JPEG or MPO. Of two EXIF segments the first one counts.

    Raises:
        PhotoError: there is no frame header or no scan.
    """
    frame: FrameHeader | None = None
    exif, xmp, icc = None, None, False
    for marker, start, end in segments(data):
        if marker == APP1 and exif is None and data.startswith(EXIF_HEADER, start):
            exif = data[start:end]
        elif marker == APP1 and xmp is None and data.startswith(XMP_HEADER, start):
            xmp = data[start:end]
        elif marker == APP2 and data.startswith(ICC_HEADER, start):
            icc = True
        elif marker in FRAMES:
            frame = read_frame(data, start, marker)
        elif marker == SOS and frame is not None:
            return Header("JPEG", frame.width, frame.height, read_orientation(exif, xmp), icc)
    raise _jpeg_error(data, "Premature end: it has no scan" if frame else "Premature end: it has no frame header")


def jpeg_bytes(data: bytes, height: int, width: int, orientation: int) -> int:
    """Estimate the peak memory of decoding at `height`×`width`, in bytes.

    It is the pixels, a second copy where they are converted or turned, and all coefficients of a JPEG of several scans,
    which libjpeg keeps at full size whatever the scale is.
    """
    frame: FrameHeader | None = None
    for marker, start, _ in segments(data):
        if marker in FRAMES:
            frame = read_frame(data, start, marker)
        elif marker == SOS and frame is not None:
            copies = 7 if len(frame.components) == 4 else 3 if orientation == 1 else 6
            at_once = len(scan_parts(data, start)[0]) == 2 * len(frame.components)
            return copies * height * width + (0 if at_once and not frame.progressive else frame.coefficient_bytes)
    return 0


def decode_jpeg(
    data: bytes, height: int, width: int, orientation: int = 1, *, patient: bool = True
) -> NDArray[np.uint8]:
    """Decode to RGB pixels, uint8 H×W×3, upright.

    Args:
        data: the file.
        height: before the orientation is applied: the stored height divided by 1, 2, 4 or 8, rounded up.
        width: the same of the stored width.
        orientation: EXIF orientation 1–8.
        patient: whether the check for stray bytes may take more than a second.

    Raises:
        PhotoError: a part of the scan data is missing or damaged. Errors outside the scan data are ignored.
        SlowTailError: `patient` is false, and to tell stray bytes from damage would take long.
    """
    frame, complete = survey(data)
    inks = frame is not None and len(frame.components) == 4
    try:
        pixels = _decode_turbo(data, height, width, inks, strict=True)
    except ValueError as error:
        pixels = _decode_again(data, (height, width), inks, str(error), patient)
    if not complete:
        raise PhotoError("truncated", "JPEG: it ends before all of its scans")
    return _finished(pixels, orientation)


def _decode_again(data: bytes, size: tuple[int, int], inks: bool, message: str, patient: bool) -> NDArray[np.uint8]:
    """Decode again after a libjpeg error. The cause may lie outside the scan data, so only the image itself is
    decoded.
    """
    if NO_MEMORY.search(message):
        raise PhotoError("too large", "JPEG: there is not enough memory to decode it")
    image_only = rewritten(data)
    try:
        return _decode_turbo(image_only, *size, inks, strict=True)
    except ValueError as error:
        if not _only_stray(data, image_only, str(error), patient):
            raise _jpeg_error(data, message) from None
    return _decode_turbo(image_only, *size, inks, strict=False)


def _decode_turbo(data: bytes, height: int, width: int, inks: bool, *, strict: bool) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
        data,
        colorspace="CMYK" if inks else "RGB",
        fastdct=False,
        fastupsample=False,
        min_height=height,
        min_width=width,
        strict=strict,
    )
    return pixels


def _finished(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Convert to RGB and apply the orientation."""
    if pixels.shape[2] == 3 and orientation == 1:
        return pixels
    upright, stored = new_upright(pixels.shape[0], pixels.shape[1], orientation)
    for rows in stripes(pixels.shape[0], pixels.shape[1]):
        part = pixels[rows]
        if part.shape[2] == 4:
            # Adobe stores CMYK inverted, and so does every CMYK JPEG met in practice; Pillow reads them in the same
            # way.
            part = np.asarray(Image.fromarray(255 - part, "CMYK").convert("RGB"))
        stored[rows] = part
    return upright


def _only_stray(data: bytes, image_only: bytes, message: str, patient: bool) -> bool:
    """Whether the only error left is stray bytes before the end marker, as some cameras and editors write them."""
    found = re.search(r"(\d+) extraneous bytes before marker 0xd9", message)
    if found is None:
        return False
    if int(found[1]) <= MAX_PADDING and EOI in data:
        behind = set(image_only[-2 - int(found[1]) : -2])
        if behind <= {0x00} or behind <= {0xFF}:
            return True
    return is_stray(image_only, patient=patient)


def _jpeg_error(data: bytes, message: str) -> PhotoError:
    # libjpeg's message does not tell a cut file from a damaged one; an end marker in the file does.
    early = re.search(r"premature end|could not determine subsampling", message, re.IGNORECASE)
    ended = data.rstrip(b"\0").endswith(EOI) if early else EOI in data
    reason: Reason = "damaged" if ended else "truncated"
    return PhotoError(reason, f"JPEG: {message}")
