"""A JPEG's segments: what its markers say, and the same picture written out anew without all that is no picture.

Every walk is linear in the file's bytes and stops after `MAX_SEGMENTS` (ISO/IEC 10918-1, annex B).
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
"""Segments and scans of one picture; a real one has dozens."""
MARKER = re.compile(rb"\xff+([^\xff\x00])", re.DOTALL)
"""What decoders take for the next marker outside a scan: other bytes before it are passed over."""
SCAN_END = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""Where a scan's data end: 0xFF, and then neither a stuffed zero, a restart marker nor a fill byte."""
FRAMES = frozenset(range(0xC0, 0xD0)) - {DHT, 0xC8, 0xCC}
PROGRESSIVE = frozenset({0xC2, 0xCA})
ARITHMETIC = frozenset({0xC9, 0xCA})
KEPT = FRAMES | {DHT, 0xCC, 0xDB, DRI, 0xE0, 0xEE}
"""Segments that pixels depend on; of APP segments JFIF's and Adobe's, which say what the colours are."""
STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
PLAIN = frozenset(range(0xC0, 0xFF)) - STANDALONE
"""Markers that need no search where they stand at once."""
WHOLE_SCAN = bytes((0, 63, 0))
"""A sequential scan's last three bytes, which mean nothing, and which some cameras leave at zero."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What the frame header says."""

    marker: int
    height: int
    width: int
    components: tuple[tuple[int, int, int], ...]
    """(identifier, horizontal, vertical sampling factor)."""

    @property
    def progressive(self) -> bool:
        """Whether coefficients come in several scans."""
        return self.marker in PROGRESSIVE

    @property
    def coefficient_bytes(self) -> int:
        """Of all its coefficients, two bytes each."""
        most = [max(1, *(part[axis] for part in self.components), 1) for axis in (1, 2)]
        samples = sum(across * down for _, across, down in self.components)
        return 2 * self.width * self.height * samples // (most[0] * most[1])


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of the body of each segment of the first picture, as decoders find them.

    Raises:
        PhotoError: more than `MAX_SEGMENTS`.
    """
    at, last = 2, len(data) - 2
    for _ in range(MAX_SEGMENTS):
        if at < last and data[at] == 0xFF and data[at + 1] in PLAIN:
            marker, at = data[at + 1], at + 2
        elif found := MARKER.search(data, at):
            marker, at = found[1][0], found.end()
        else:
            return
        if marker in STANDALONE:
            continue
        if marker in (SOI[1], EOI[1]) or at > last:
            return
        end = at + (data[at] << 8 | data[at + 1])
        if end < at + 2:
            return
        yield marker, at + 2, end
        at = scan_end(data, end) if marker == SOS else end
    raise PhotoError("too slow", f"JPEG: more than {MAX_SEGMENTS:,} segments and scans")


def scan_end(data: bytes, start: int) -> int:
    """Where the data of a scan that begin at `start` end."""
    found = SCAN_END.search(data, start)
    return found.start() if found else len(data)


def read_frame(data: bytes, start: int, marker: int) -> Frame | None:
    """The frame header whose body begins at `start`; None where it is cut short or of nothing."""
    count = data[start + 5] if start + 5 < len(data) else 0
    height, width = (int.from_bytes(data[start + at : start + at + 2], "big") for at in (1, 3))
    if not (height and width and count) or start + 6 + 3 * count > len(data):
        return None
    parts = ((data[at], data[at + 1] >> 4, data[at + 1] & 15) for at in range(start + 6, start + 6 + 3 * count, 3))
    return Frame(marker, height, width, tuple(parts))


def scan_parts(data: bytes, start: int) -> tuple[bytes, bytes]:
    """Of a scan header whose body begins at `start`: each component's identifier and tables, and the last three
    bytes: first and last coefficient, and bits.
    """
    count = data[start] if start < len(data) else 0
    return data[start + 1 : start + 1 + 2 * count], data[start + 1 + 2 * count : start + 4 + 2 * count]


class Missing:
    """Which coefficients still lack bits, as one scan after another is seen."""

    def __init__(self, frame: Frame) -> None:
        self._progressive = frame.progressive
        whole = range(64) if frame.progressive else range(1)
        self._left = {component: set(whole) for component, _, _ in frame.components}

    def saw(self, components: bytes, spectrum: bytes) -> None:
        """A scan; its parts as of `scan_parts`."""
        for component in components[::2]:
            if not self._progressive:
                self._left.pop(component, None)
            elif component in self._left and len(spectrum) == 3 and spectrum[2] & 15 == 0:
                self._left[component] -= set(range(spectrum[0], spectrum[1] + 1))

    @property
    def nothing(self) -> bool:
        """Whether the picture is complete."""
        return not any(self._left.values())


def survey(data: bytes) -> tuple[Frame | None, bool]:
    """The frame header, None where there is none, and whether the JPEG has all its scans: where one ends before,
    libjpeg shows it coarser or grey, and says nothing.
    """
    frame: Frame | None = None
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
    """The picture alone: no bytes between segments, no segments that pixels do not depend on, nothing behind its
    last scan but the end marker, and scan headers as the standard has them. As it is where a Huffman table lacks:
    then it is damage, not stray bytes, that lies between its segments.
    """
    parts, tables = [SOI], set[int]()
    frame: Frame | None = None
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
            head = data[start - 4 : start + 1] + components + (spectrum if frame.progressive else WHOLE_SCAN)
            parts += [head, data[end : scan_end(data, end)]]
            missing.saw(components, spectrum)
            if missing.nothing:
                break
    return b"".join([*parts, EOI])


def _tables(body: bytes) -> set[int]:
    """Classes and identifiers of the tables in a DHT segment."""
    found, at = set[int](), 0
    while at + 17 <= len(body):
        found.add(body[at])
        at += 17 + sum(body[at + 1 : at + 17])
    return found


def _needed(frame: Frame, components: bytes, spectrum: bytes) -> set[int]:
    """Those that a scan is coded with."""
    if frame.marker in ARITHMETIC:
        return set()
    dc = {selected >> 4 for selected in components[1::2]}
    ac = {0x10 | selected & 15 for selected in components[1::2]}
    if not frame.progressive:
        return dc | ac
    return ac if spectrum[:1] > b"\0" else dc if spectrum[2:] < b"\x10" else set()


# JOINED Bytes behind a JPEG's last scan: stray ones that somebody put there, or what was left over of a damaged picture?
#
# JOINED libjpeg says of both "extraneous bytes before marker 0xd9". Where bits were lost or changed, the decoder falls out of
# JOINED step, ends early or late, and takes some blocks for others: brightness for colour, runs beyond the block's end. So
# JOINED the scan's codes are read once more, without computing pixels, and more strictly than a decoder does.


RESTART = re.compile(rb"\xff+[\xd0-\xd7]")
SEQUENTIAL = (0xC0, 0xC1)
QUICK_DATA = 512 * 1024
"""Bytes of data that are read again at once: a megabyte takes a second or two."""
MAX_DATA = 24 * 1024 * 1024
"""Bytes of data that are read again at all: eight times that is needed for it."""
FILLER = 64
"""Bytes that are kept of those alike at the end."""
MAX_DC, MAX_AC = 11, 10
"""Bits of the greatest coefficients of 8-bit samples (ISO/IEC 10918-1, F.1.2)."""
MAX_BLOCK = 64 * (16 + MAX_DC)
"""Bits of a block at most."""
LONG_RUN = 0xF0
"""The symbol of sixteen zeros."""
HOLE = 8
"""So many zero bytes at the picture's end are a hole in the file."""
END, WRONG = 1 << 12, 1 << 8
"""Coefficients that a code skips which ends its block, or which is none: more than a block has."""
Codes = list[int]
"""By the next 16 bits: the bits that its code and the coefficient take × 2¹⁶ + how many coefficients on that is."""
Blocks = list[tuple[Codes, Codes]]
"""The tables of each block of an MCU."""


class SlowTailError(Exception):
    """So much data are to be read again that it is better done in a process that can be killed."""


@dataclass(frozen=True, slots=True)
class _Scan:
    """The last scan of a picture."""

    blocks: Blocks
    mcus: int
    """In its last restart interval."""
    data: bytes
    """Of its last restart interval, unstuffed, with whatever follows them."""


def is_stray(picture: bytes, *, patient: bool = True) -> bool:
    """Whether the bytes behind the last scan of `segments.rewritten`'s JPEG are no part of the picture.

    Of a progressive JPEG it is so where that scan only adds a last bit to coefficients: all else has been decoded
    without complaint; many zeros behind it are a hole in the file.

    Raises:
        SlowTailError: not patient, and it would take more than a second.
    """
    tables: dict[int, Codes] = {}
    frame, interval, last = None, 0, (0, 0)
    for marker, start, end in segments(picture):
        if marker in FRAMES:
            frame = read_frame(picture, start, marker)
        elif marker == DHT:
            tables |= _huffman_tables(picture[start:end])
        elif marker == DRI:
            interval = int.from_bytes(picture[start : start + 2], "big")
        elif marker == SOS:
            last = (start, end)
    components, spectrum = scan_parts(picture, last[0])
    data = picture[last[1] : -len(EOI)]
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
    """Class and identifier → codes (ISO/IEC 10918-1, C.2) of one DHT segment."""
    found, at = {}, 0
    while at + 17 <= len(body):
        counts = body[at + 1 : at + 17]
        symbols = body[at + 17 : at + 17 + sum(counts)]
        codes, filled, used = np.full(1 << 16, WRONG), 0, 0
        for length, count in enumerate(counts, 1):
            for symbol in symbols[used : used + count]:
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


def _scan(frame: Frame, components: bytes, tables: dict[int, Codes], interval: int, data: bytes) -> _Scan | None:
    factors = {component: (across, down) for component, across, down in frame.components}
    most = [max(1, *(each[axis] for each in factors.values())) for axis in (0, 1)]
    across, down = (-(-side // (8 * factor)) for side, factor in zip((frame.width, frame.height), most, strict=True))
    blocks: Blocks = []
    for component, selected in zip(components[::2], components[1::2], strict=True):
        if component not in factors or selected >> 4 not in tables or 0x10 | selected & 15 not in tables:
            return None
        one = (tables[selected >> 4], tables[0x10 | selected & 15])
        wide, high = factors[component]
        blocks += [one] * (wide * high if len(components) > 2 else 1)
        if len(components) == 2:  # a scan of one component: its own blocks alone
            across, down = -(-frame.width * wide // (8 * most[0])), -(-frame.height * high // (8 * most[1]))
    parts = RESTART.split(data)
    left = across * down - (len(parts) - 1) * interval
    return _Scan(blocks, left, parts[-1].replace(b"\xff\0", b"\xff")) if left > 0 else None


def _ends_well(scan: _Scan) -> bool:
    """Whether the MCUs can be read, end as an encoder ends them, and what follows cannot be read so."""
    spare = bytes(len(scan.blocks) * MAX_BLOCK // 8 + 4)
    data = np.frombuffer(scan.data + spare, np.uint8).astype(np.uint32)
    words = (data[:-2] << 16 | data[1:-1] << 8 | data[2:]).data
    end = 8 * len(scan.data)
    at = _walked(words, scan.blocks, scan.mcus, 0)
    if at is None or at > end:
        return False
    if not _padded(scan.data, at) or not any(scan.data[max(0, at // 8 - HOLE) : -(-at // 8)]):
        return False
    if len(set(scan.data[-(-at // 8) :])) <= 1:
        return True  # filler
    more = at
    while more < end and (after := _walked(words, scan.blocks, 1, more)) is not None and after <= end:
        more = after
    return more == at or end - more >= 8 or not _padded(scan.data, more)


def _padded(data: bytes, at: int) -> bool:
    """Whether the rest of the byte that holds bit `at` is ones, as encoders fill it."""
    rest = -at % 8
    return rest == 0 or data[at // 8] & (1 << rest) - 1 == (1 << rest) - 1


def _walked(words: memoryview, blocks: Blocks, mcus: int, at: int) -> int | None:
    """The bit behind so many MCUs that begin at bit `at`; None where no encoder wrote them."""
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
