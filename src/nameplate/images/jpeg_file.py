"""The segments of a JPEG file: its headers, a copy without anything but the image, and the check for stray bytes.

Every pass over a file is linear in its bytes and stops after `MAX_SEGMENTS` (ISO/IEC 10918-1, annex B).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nameplate.errors import PhotoError

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
SOS, DHT, DRI, APP1, APP2 = 0xDA, 0xC4, 0xDD, 0xE1, 0xE2
MAX_SEGMENTS = 10_000
"""Limit on the segments and scans of one image; a real one has dozens."""
MARKER = re.compile(rb"\xff+([^\xff\x00])", re.DOTALL)
"""What decoders take for the next marker outside a scan. They skip other bytes before it."""
SCAN_END = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""End of the data of a scan: 0xFF that is followed by neither a stuffed zero, a restart marker nor a fill byte."""
FRAMES = frozenset(range(0xC0, 0xD0)) - {DHT, 0xC8, 0xCC}
PROGRESSIVE = frozenset({0xC2, 0xCA})
ARITHMETIC = frozenset({0xC9, 0xCA})
KEPT = FRAMES | {DHT, 0xCC, 0xDB, DRI, 0xE0, 0xEE}
"""Segments that pixels depend on. Of the APP segments these are JFIF's and Adobe's, which define the colours."""
STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
PLAIN = frozenset(range(0xC0, 0xFF)) - STANDALONE
"""Markers that need no search where they follow at once, as they do in almost every file."""
WHOLE_SCAN = bytes((0, 63, 0))
"""The last three bytes of a sequential scan header. They have no meaning there, and some cameras write zeros."""


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """The frame header."""

    marker: int
    height: int
    width: int
    components: tuple[tuple[int, int, int], ...]
    """(identifier, horizontal, vertical sampling factor)."""

    @property
    def progressive(self) -> bool:
        """Whether the coefficients are spread over several scans."""
        return self.marker in PROGRESSIVE

    @property
    def coefficient_bytes(self) -> int:
        """Size of all coefficients in bytes, at two bytes each."""
        most = [max(1, *(part[axis] for part in self.components), 1) for axis in (1, 2)]
        samples = sum(across * down for _, across, down in self.components)
        return 2 * self.width * self.height * samples // (most[0] * most[1])


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, end) of the body of each segment of the first image, as decoders find them.

    Raises:
        PhotoError: there are more than `MAX_SEGMENTS`.
    """
    at, last = 2, len(data) - 2
    for _ in range(MAX_SEGMENTS):
        # The usual case, which needs no search: the next marker follows at once.
        if at < last and data[at] == 0xFF and data[at + 1] in PLAIN:
            marker, at = data[at + 1], at + 2
        elif found := MARKER.search(data, at):
            marker, at = found[1][0], found.end()
        else:
            return
        if marker in STANDALONE:
            continue
        # A second SOI begins another image, such as the preview in an MPO.
        if marker in (SOI[1], EOI[1]) or at > last:
            return
        end = at + (data[at] << 8 | data[at + 1])
        # The length counts its own two bytes. A smaller one would move backwards, and this loop would not end.
        if end < at + 2:
            return
        yield marker, at + 2, end
        at = scan_end(data, end) if marker == SOS else end
    raise PhotoError("too slow", f"JPEG: more than {MAX_SEGMENTS:,} segments and scans")


def scan_end(data: bytes, start: int) -> int:
    """The offset at which the data of the scan that begins at `start` end."""
    found = SCAN_END.search(data, start)
    return found.start() if found else len(data)


def read_frame(data: bytes, start: int, marker: int) -> FrameHeader | None:
    """Read the frame header whose body begins at `start`; None where it is cut short or states no pixels."""
    count = data[start + 5] if start + 5 < len(data) else 0
    height, width = (int.from_bytes(data[start + at : start + at + 2], "big") for at in (1, 3))
    if not (height and width and count) or start + 6 + 3 * count > len(data):
        return None
    parts = ((data[at], data[at + 1] >> 4, data[at + 1] & 15) for at in range(start + 6, start + 6 + 3 * count, 3))
    return FrameHeader(marker, height, width, tuple(parts))


def scan_parts(data: bytes, start: int) -> tuple[bytes, bytes]:
    """Split the scan header whose body begins at `start`.

    Returns:
        The identifier and the tables of each component, two bytes each; and the last three bytes, which are the first
        and last coefficient and the bit positions.
    """
    count = data[start] if start < len(data) else 0
    return data[start + 1 : start + 1 + 2 * count], data[start + 1 + 2 * count : start + 4 + 2 * count]


class Missing:
    """The coefficients that still lack bits while one scan after another is read."""

    def __init__(self, frame: FrameHeader) -> None:
        self._progressive = frame.progressive
        whole = range(64) if frame.progressive else range(1)
        self._left = {component: set(whole) for component, _, _ in frame.components}

    def saw(self, components: bytes, spectrum: bytes) -> None:
        """Take a scan into account; the arguments are those that `scan_parts` returns."""
        for component in components[::2]:
            if not self._progressive:
                self._left.pop(component, None)
            # The low bit position 0 means that the scan gives the last bit of its coefficients.
            elif component in self._left and len(spectrum) == 3 and spectrum[2] & 15 == 0:
                self._left[component] -= set(range(spectrum[0], spectrum[1] + 1))

    @property
    def nothing(self) -> bool:
        """Whether the image is complete."""
        return not any(self._left.values())


def survey(data: bytes) -> tuple[FrameHeader | None, bool]:
    """Return the frame header (None where there is none), and whether the JPEG has all its scans.

    Where scans are missing at the end, libjpeg returns a coarser or grey image without a warning.
    """
    frame: FrameHeader | None = None
    missing: Missing | None = None
    for marker, start, _ in segments(data):
        if marker in FRAMES and (frame := read_frame(data, start, marker)):
            missing = Missing(frame)
        elif marker == SOS and missing is not None:
            missing.saw(*scan_parts(data, start))
            if missing.nothing:
                return frame, True
    return frame, False


def rewritten(data: bytes) -> bytes:
    """Copy a JPEG without anything that its pixels do not depend on.

    The copy has no bytes between segments, only the segments in `KEPT`, scan headers as the standard defines them, and
    after the last scan only the end marker. Where a Huffman table is missing the file is returned unchanged: then the
    bytes between its segments are damage and not stray bytes.
    """
    parts, tables = [SOI], set[int]()
    frame: FrameHeader | None = None
    missing: Missing | None = None
    for marker, start, end in segments(data):
        if marker in FRAMES and (frame := read_frame(data, start, marker)):
            missing = Missing(frame)
        if marker == DHT:
            tables |= _tables(data[start:end])
        if marker in KEPT:
            parts.append(data[start - 4 : end])
        elif marker == SOS and frame is not None and missing is not None:
            components, spectrum = scan_parts(data, start)
            if not _needed(frame, components, spectrum) <= tables:
                return data
            # In a sequential scan the last three bytes have fixed values, which some cameras leave at 0. libjpeg warns
            # about that.
            head = data[start - 4 : start + 1] + components + (spectrum if frame.progressive else WHOLE_SCAN)
            parts += [head, data[end : scan_end(data, end)]]
            missing.saw(components, spectrum)
            if missing.nothing:
                break
    return b"".join([*parts, EOI])


def _tables(body: bytes) -> set[int]:
    """Class and identifier, in one byte, of each table in a DHT segment."""
    found, at = set[int](), 0
    while at + 17 <= len(body):
        found.add(body[at])
        at += 17 + sum(body[at + 1 : at + 17])
    return found


def _needed(frame: FrameHeader, components: bytes, spectrum: bytes) -> set[int]:
    """The tables that a scan is coded with, in the form of `_tables`."""
    if frame.marker in ARITHMETIC:
        return set()
    dc = {selected >> 4 for selected in components[1::2]}
    ac = {0x10 | selected & 15 for selected in components[1::2]}
    if not frame.progressive:
        return dc | ac
    return ac if spectrum[:1] > b"\0" else dc if spectrum[2:] < b"\x10" else set()


# Bytes after the last scan. They may be stray bytes that a camera or editor wrote, or the unused rest of a damaged
# image. libjpeg reports both as "extraneous bytes before marker 0xd9". Where bits were lost or changed, the decoder
# loses its place, ends early or late, and takes blocks for others: luma for chroma, or runs beyond the end of a block.
# So the codes of the scan are read again, without computing pixels, and more strictly than a decoder does.

RESTART = re.compile(rb"\xff+[\xd0-\xd7]")
SEQUENTIAL = (0xC0, 0xC1)
QUICK_DATA = 512 * 1024
"""Bytes of scan data that are checked in this process at most: a megabyte takes a second or two."""
MAX_DATA = 24 * 1024 * 1024
"""Bytes of scan data that are checked at all; the check needs eight times as much memory."""
FILLER = 64
"""Of a run of equal bytes at the end, so many are kept."""
MAX_DC, MAX_AC = 11, 10
"""Greatest number of bits of a coefficient of 8-bit samples (ISO/IEC 10918-1, F.1.2)."""
MAX_BLOCK = 64 * (16 + MAX_DC)
"""Greatest number of bits of a block."""
LONG_RUN = 0xF0
"""The symbol for a run of sixteen zeros (ZRL)."""
HOLE = 8
"""Number of zero bytes at the end of the image data that are taken for a hole in the file."""
END, WRONG = 1 << 12, 1 << 8
"""Numbers of coefficients, greater than a block has, that stand for an end of block and for an invalid code."""
Codes = list[int]
"""A table with one entry for each value of the next 16 bits. An entry is 2¹⁶ times the number of bits that the code and
its coefficient take, plus the number of coefficients that they cover."""
Blocks = list[tuple[Codes, Codes]]
"""The DC and AC table of each block of an MCU (minimum coded unit)."""


class SlowTailError(Exception):
    """The check for stray bytes would take long, so that it belongs in a process that can be killed."""


@dataclass(frozen=True, slots=True)
class _Scan:
    """The last restart interval of the last scan of an image."""

    blocks: Blocks
    mcus: int
    """Number of MCUs in it."""
    data: bytes
    """Its data without the stuffed zeros, and whatever follows them."""


def is_stray(image_only: bytes, *, patient: bool = True) -> bool:
    """Whether the bytes after the last scan are stray, that is, no part of the image.

    In a progressive JPEG they are stray where the last scan only refines coefficients: everything else has been decoded
    without an error. Many zeros at the end are a hole in the file.

    Args:
        image_only: the file as `rewritten` returns it.
        patient: whether the check may take more than a second.

    Raises:
        SlowTailError: `patient` is false, and the check would take more than a second.
    """
    tables: dict[int, Codes] = {}
    frame, interval, last = None, 0, (0, 0)
    for marker, start, end in segments(image_only):
        if marker in FRAMES:
            frame = read_frame(image_only, start, marker)
        elif marker == DHT:
            tables |= _huffman_tables(image_only[start:end])
        elif marker == DRI:
            interval = int.from_bytes(image_only[start : start + 2], "big")
        elif marker == SOS:
            last = (start, end)
    components, spectrum = scan_parts(image_only, last[0])
    data = image_only[last[1] : -len(EOI)]
    if frame is None or not last[0] or len(spectrum) < 3:
        return False
    if frame.progressive:
        return spectrum[2] >> 4 > 0 and not data.endswith(bytes(HOLE))
    data = data[: len(data.rstrip(data[-1:])) + FILLER]
    if frame.marker not in SEQUENTIAL or len(data) > MAX_DATA:
        return False
    if len(data) > QUICK_DATA and not patient:
        raise SlowTailError
    scan = _scan(frame, components, tables, interval, data)
    return scan is not None and _ends_well(scan)


def _huffman_tables(body: bytes) -> dict[int, Codes]:
    """Class and identifier → codes of each table in a DHT segment (ISO/IEC 10918-1, C.2)."""
    found, at = {}, 0
    while at + 17 <= len(body):
        counts = body[at + 1 : at + 17]
        symbols = body[at + 17 : at + 17 + sum(counts)]
        codes, filled, used = np.full(1 << 16, WRONG), 0, 0
        for length, count in enumerate(counts, 1):
            for symbol in symbols[used : used + count]:
                # A code of n bits begins 2^(16 - n) of the values of the next 16 bits.
                codes[filled : filled + (1 << 16 - length)] = _step(length, symbol, dc=body[at] < 0x10)
                filled += 1 << 16 - length
            used += count
        found[body[at]] = codes.tolist()
        at += 17 + sum(counts)
    return found


def _step(length: int, symbol: int, *, dc: bool) -> int:
    bits = symbol if dc else symbol & 15
    if bits > (MAX_DC if dc else MAX_AC):
        return WRONG
    ends = not dc and not bits and symbol != LONG_RUN
    return length + bits << 16 | (END if ends else 1 if dc else (symbol >> 4) + 1)


def _scan(frame: FrameHeader, components: bytes, tables: dict[int, Codes], interval: int, data: bytes) -> _Scan | None:
    factors = {component: (across, down) for component, across, down in frame.components}
    most = [max(1, *(each[axis] for each in factors.values())) for axis in (0, 1)]
    across, down = (-(-side // (8 * factor)) for side, factor in zip((frame.width, frame.height), most, strict=True))
    blocks: Blocks = []
    for component, selected in zip(components[::2], components[1::2], strict=True):
        if component not in factors or selected >> 4 not in tables or 0x10 | selected & 15 not in tables:
            return None
        # One MCU holds as many blocks of each component as its sampling factors multiply to.
        one = (tables[selected >> 4], tables[0x10 | selected & 15])
        wide, high = factors[component]
        blocks += [one] * (wide * high if len(components) > 2 else 1)
        if len(components) == 2:  # A scan of one component has only the blocks of that component.
            across, down = -(-frame.width * wide // (8 * most[0])), -(-frame.height * high // (8 * most[1]))
    parts = RESTART.split(data)
    # Only the last restart interval is read: each one begins anew, so errors before it cannot reach it.
    left = across * down - (len(parts) - 1) * interval
    return _Scan(blocks, left, parts[-1].replace(b"\xff\0", b"\xff")) if left > 0 else None


def _ends_well(scan: _Scan) -> bool:
    """Whether the MCUs can be read, end as an encoder ends them, and what follows cannot be read as an MCU."""
    # With zeros after the data `_walked` needs no check of the length at each code.
    spare = bytes(len(scan.blocks) * MAX_BLOCK // 8 + 4)
    data = np.frombuffer(scan.data + spare, np.uint8).astype(np.uint32)
    # Three bytes from each offset, so that the next 16 bits at any bit are one lookup and one shift.
    words = (data[:-2] << 16 | data[1:-1] << 8 | data[2:]).data
    end = 8 * len(scan.data)
    at = _walked(words, scan.blocks, scan.mcus, 0)
    if at is None or at > end:
        return False
    # Zeros just before the end are a hole in the file: many of them decode as valid codes.
    if not _padded(scan.data, at) or not any(scan.data[max(0, at // 8 - HOLE) : -(-at // 8)]):
        return False
    if len(set(scan.data[-(-at // 8) :])) <= 1:
        return True  # Filler bytes are all equal.
    # Where further MCUs can be read up to the end, the decoder has lost MCUs before, and the image is damaged.
    more = at
    while more < end and (after := _walked(words, scan.blocks, 1, more)) is not None and after <= end:
        more = after
    return more == at or end - more >= 8 or not _padded(scan.data, more)


def _padded(data: bytes, at: int) -> bool:
    """Whether the rest of the byte that holds bit `at` consists of ones, as encoders fill it."""
    rest = -at % 8
    return rest == 0 or data[at // 8] & (1 << rest) - 1 == (1 << rest) - 1


def _walked(words: memoryview, blocks: Blocks, mcus: int, at: int) -> int | None:
    """The offset, in bits, of the end of `mcus` MCUs that begin at bit `at`; None where no encoder wrote them."""
    bits = 8 * len(words)
    for _ in range(mcus):
        if at + len(blocks) * MAX_BLOCK > bits:
            return None
        for dc, ac in blocks:
            step = dc[words[at >> 3] >> 8 - (at & 7) & 0xFFFF]
            at += step >> 16
            coefficient = step & 0xFFFF
            while coefficient < 64:
                step = ac[words[at >> 3] >> 8 - (at & 7) & 0xFFFF]
                at += step >> 16
                coefficient += step & 0xFFFF
            if 64 < coefficient < END:
                return None
    return at
