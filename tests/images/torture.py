"""A folder of unusual, broken and hostile photos, with the expected result for each."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nameplate.errors import Reason

ORIENTATION = 0x0112


def picture(height: int = 47, width: int = 61, seed: int = 0) -> Image.Image:
    """A picture with slopes, edges and a little noise."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    noise = np.random.default_rng(seed).normal(0, 4, (height, width, 3))
    disc = ((x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.06)[..., None] * np.array([90, -40, 20])
    slopes = np.stack([200 * x, 60 + 120 * y, 200 - 150 * x * y - 40 * seed % 90], axis=-1)
    return Image.fromarray((slopes + disc + noise).clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, format_: str, **options: Any) -> bytes:
    """A picture's bytes in one of Pillow's formats."""
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def oriented(format_: str, orientation: int, image: Image.Image | None = None) -> bytes:
    """A picture whose EXIF says how it is to be turned."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encode(image or picture(), format_, exif=exif)


def cmyk_jpeg(transform: int = 0) -> bytes:
    """A JPEG of four inks; Adobe's transform 2 makes it YCCK."""
    data = encode(picture().convert("CMYK"), "JPEG")
    at = data.index(b"\xff\xee") + 4 + 11
    return data[:at] + bytes([transform]) + data[at + 1 :]


def chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG chunk with its check sum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG of raw rows, for what Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def rgb16_png(samples: NDArray[np.uint16]) -> bytes:
    """A PNG of 16-bit H×W×3 samples."""
    height, width, _ = samples.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    return png(width, height, 16, 2, rows)


def huge_jpeg(width: int = 62994, height: int = 65284) -> bytes:
    """A JPEG of a few bytes that claims four gigapixels."""
    frame = struct.pack(">HBHHB", 17, 8, height, width, 3) + bytes.fromhex("012200 021101 031101")
    scan = bytes.fromhex("000c 03 0100 0211 0311 003f00")
    return b"\xff\xd8\xff\xc0" + frame + b"\xff\xda" + scan + b"\0" * 81 + b"\xff\xd9"


def many_scans(side: int = 2048, planes: int = 4) -> bytes:
    """A sound grey progressive JPEG of 63 × (planes + 1) scans, all but empty: small and slow."""
    blocks = (side // 8) ** 2
    table = bytes([1] + [0] * 15)  # one symbol, whose code is the bit 0
    zero_difference, long_run = table + b"\x00", table + b"\xe0"  # a run: 2**14 blocks and 14 bits more

    def scan(first: int, last: int, bits: int, data_bits: int) -> bytes:
        header = bytes([1, 1, 0, first, last, bits])
        return segment(0xDA, header) + bytes(-(-data_bits // 8))

    parts = [b"\xff\xd8", segment(0xDB, b"\0" + b"\1" * 64)]
    parts.append(segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + bytes([1, 0x11, 0])))
    parts.append(segment(0xC4, b"\x00" + zero_difference + b"\x10" + long_run))
    parts.append(scan(0, 0, 0x00, blocks))
    for coefficient in range(1, 64):
        for low in range(planes, -1, -1):
            high = 0 if low == planes else low + 1
            parts.append(scan(coefficient, coefficient, high << 4 | low, -(-blocks // 2**14) * 15))
    return b"".join(parts) + b"\xff\xd9"


def raw_tiff(*, dng_version: bool) -> bytes:
    """A TIFF as cameras write raw files: its first picture is a thumbnail, the others are in directories below."""
    tags: dict[int, Any] = {254: 1, 330: 8}
    if dng_version:
        tags[50706] = b"\1\4\0\0"
    return encode(picture(), "TIFF", tiffinfo=tags)


def segment(marker: int, body: bytes) -> bytes:
    """A JPEG segment."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def rle_bmp() -> bytes:
    """An 8-bit BMP, run-length encoded: 20×10, two colours."""
    palette = bytes([0, 0, 255, 0]) + bytes([255, 0, 0, 0]) + bytes(4 * 254)
    rows = (b"\x0c\x00\x08\x01" + b"\x00\x00") * 10 + b"\x00\x01"
    at = 14 + 40 + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, 20, 10, 1, 8, 1, len(rows), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", at + len(rows), 0, 0, at) + info + palette + rows


def scan_starts(data: bytes) -> list[int]:
    """Where each scan of a JPEG begins."""
    return [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]


def sound() -> dict[str, bytes]:
    """Photos that are to be read, by file name."""
    photo, turned = picture(), picture(seed=1)
    palette = photo.quantize(64)
    alpha = photo.convert("RGBA")
    alpha.putalpha(photo.convert("L"))
    ramp = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30) * 109
    animated: dict[str, Any] = {"save_all": True, "append_images": [turned]}
    files = {
        "baseline.jpg": encode(photo, "JPEG"),
        "progressive.jpg": encode(photo, "JPEG", progressive=True),
        "grey.jpg": encode(photo.convert("L"), "JPEG"),
        "444.jpg": encode(photo, "JPEG", subsampling="4:4:4"),
        "422.jpg": encode(photo, "JPEG", subsampling="4:2:2"),
        "420.jpg": encode(photo, "JPEG", subsampling="4:2:0"),
        "restart.jpg": encode(photo, "JPEG", restart_marker_rows=1),
        "rgb.jpg": encode(photo, "JPEG", keep_rgb=True),
        "cmyk.jpg": cmyk_jpeg(),
        "ycck.jpg": cmyk_jpeg(transform=2),
        "profile.jpg": encode(photo, "JPEG", icc_profile=b"a profile"),
        "more behind it.jpg": encode(photo, "JPEG") + b"more",
        "padding.jpg": encode(photo, "JPEG")[:-2] + b"\0" * 40 + b"\xff\xd9",
        "one pixel.jpg": encode(picture(1, 1), "JPEG"),
        "one row.jpg": encode(picture(1, 900), "JPEG"),
        "png by another name.jpg": encode(photo, "PNG"),
        "НИВА – ёлка.JPG": encode(photo, "JPEG"),
        "stereo.mpo": encode(photo, "MPO", **animated),
        "rgb.png": encode(photo, "PNG"),
        "palette.png": encode(palette, "PNG"),
        "palette-transparent.png": encode(palette, "PNG", transparency=3),
        "grey.png": encode(photo.convert("L"), "PNG"),
        "bits.png": encode(photo.convert("1"), "PNG"),
        "grey-alpha.png": encode(alpha.convert("LA"), "PNG"),
        "alpha.png": encode(alpha, "PNG"),
        "grey16.png": encode(Image.fromarray(ramp), "PNG"),
        "rgb16.png": rgb16_png(np.stack([ramp, ramp[::-1], ramp // 2], axis=-1)),
        "animated.png": encode(photo, "PNG", **animated),
        "lossy.webp": encode(photo, "WEBP"),
        "lossless.webp": encode(photo, "WEBP", lossless=True),
        "alpha.webp": encode(alpha, "WEBP"),
        "animated.webp": encode(photo, "WEBP", **animated),
        "still.avif": encode(photo, "AVIF", speed=10),
        "alpha.avif": encode(alpha, "AVIF", speed=10),
        "animated.avif": encode(photo, "AVIF", speed=10, **animated),
        "rgb.bmp": encode(photo, "BMP"),
        "palette.bmp": encode(palette, "BMP"),
        "bits.bmp": encode(photo.convert("1"), "BMP"),
        "rle.bmp": rle_bmp(),
        "plain.tiff": encode(photo, "TIFF"),
        "lzw.tiff": encode(photo, "TIFF", compression="tiff_lzw"),
        "deflated.tiff": encode(photo, "TIFF", compression="tiff_adobe_deflate"),
        "jpeg.tiff": encode(photo, "TIFF", compression="jpeg", quality=95),
        "grey16.tiff": encode(Image.fromarray(ramp), "TIFF"),
        "cmyk.tiff": encode(photo.convert("CMYK"), "TIFF"),
        "pages.tiff": encode(picture(), "TIFF", save_all=True, append_images=[picture(seed=1)]),
        "still.gif": encode(palette, "GIF"),
        "interlaced.gif": encode(palette, "GIF", interlace=1),
        "animated.gif": encode(palette, "GIF", save_all=True, append_images=[turned.quantize(64)]),
    }
    files |= {f"orientation-{number}.jpg": oriented("JPEG", number) for number in range(1, 9)}
    return files


def broken() -> dict[str, tuple[bytes, Reason]]:
    """Photos that are to be refused, by file name, each with the reason."""
    good = sound()
    jpeg, progressive, png_ = good["baseline.jpg"], good["progressive.jpg"], good["rgb.png"]
    files: dict[str, tuple[bytes, Reason]] = {
        "empty.jpg": (b"", "empty"),
        "text.jpg": (b"This is a text file.\n", "not a photo"),
        "blank.jpg": (b" \n", "not a photo"),
        "zeros.jpg": (bytes(4000), "not a photo"),
        "xl.jpg": (b"\xff\x0a" + bytes(60), "not a photo"),
        "xl in boxes.jpg": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(60), "not a photo"),
        "jpeg 2000.jpg": (encode(picture(), "JPEG2000"), "not a photo"),
        "layers.jpg": (b"8BPS\0\1" + bytes(60), "not a photo"),
        "raw.cr2": (b"II*\0\x10\0\0\0CR\2\0" + bytes(60), "not a photo"),
        "raw.dng": (raw_tiff(dng_version=True), "not a photo"),
        "raw.nef": (raw_tiff(dng_version=False), "not a photo"),
        "pdf.jpg": (b"%PDF-1.7\n", "not a photo"),
        "svg.jpg": (b"\xef\xbb\xbf<svg xmlns='http://www.w3.org/2000/svg'/>", "not a photo"),
        "zip.jpg": (b"PK\x03\x04" + bytes(40), "not a photo"),
        "start only.jpg": (jpeg[:3], "truncated"),
        "cut and closed.jpg": (jpeg[: len(jpeg) // 2] + b"\xff\xd9", "damaged"),
        "scans missing.jpg": (progressive[: scan_starts(progressive)[3]] + b"\xff\xd9", "truncated"),
        "colours missing.jpg": (progressive[: scan_starts(progressive)[1]] + b"\xff\xd9", "truncated"),
        "zeros inside.jpg": (jpeg[:300] + bytes(200) + jpeg[500:], "damaged"),
        "check sum.png": (png_[:-17] + bytes([png_[-17] ^ 1]) + png_[-16:], "damaged"),
        "last pixels.png": (png_[:-29] + bytes([png_[-29] ^ 8]) + png_[-28:], "damaged"),
        "huge.jpg": (huge_jpeg(), "too large"),
        "huge.png": (png(50000, 50000, 8, 2, b""), "too large"),
        "huge.gif": (b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\0\0\0\0\xff\xff\xff\xff\0\x08\0;", "too large"),
        "huge.bmp": (_patched(good["rgb.bmp"], 18, struct.pack("<ii", 50000, 50000)), "too large"),
        "huge.webp": (_huge_webp(), "too large"),
        "bomb.png": (png(50000, 1700, 8, 2, bytes(1000)), "truncated"),
    }
    for name in (
        *("baseline.jpg", "progressive.jpg", "grey.jpg", "restart.jpg", "cmyk.jpg", "stereo.mpo"),
        *("rgb.png", "palette.png", "grey16.png", "rgb16.png", "lossy.webp", "lossless.webp", "still.avif"),
        *("rgb.bmp", "palette.bmp", "rle.bmp", "still.gif", "interlaced.gif"),
        *("plain.tiff", "lzw.tiff", "deflated.tiff"),
    ):
        share = 4 if name == "stereo.mpo" else 2  # within the first picture
        files[f"cut {name}"] = (good[name][: len(good[name]) // share], "truncated")
    return files


def make_torture(folder: Path) -> dict[str, str | None]:
    """Write every photo of `sound` and `broken` into a folder, and some that are no plain files.

    Returns:
        file name → the reason to refuse it, None where it is to be read.
    """
    expected: dict[str, str | None] = {}
    for name, data in sound().items():
        (folder / name).write_bytes(data)
        expected[name] = None
    for name, (data, reason) in broken().items():
        (folder / name).write_bytes(data)
        expected[name] = reason
    with (folder / "too many bytes.jpg").open("wb") as file:
        file.write(sound()["baseline.jpg"])
        file.truncate(65 * 1024 * 1024)  # takes no room on most file systems
    expected["too many bytes.jpg"] = "too large"
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.jpg")
        expected["pipe.jpg"] = "not a photo"
        (folder / "link to nothing.jpg").symlink_to("no such photo.jpg")
        expected["link to nothing.jpg"] = "missing"
    return expected


def _patched(data: bytes, at: int, replacement: bytes) -> bytes:
    return data[:at] + replacement + data[at + len(replacement) :]


def _huge_webp() -> bytes:
    """An animated WebP with the size of its canvas overwritten: 16384×16384."""
    data = encode(picture(), "WEBP", save_all=True, append_images=[picture(seed=1)])
    return _patched(data, data.index(b"VP8X") + 12, b"\xff\x3f\0\xff\x3f\0")
