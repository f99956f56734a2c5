"""Bytes behind a JPEG's last scan: stray ones that somebody put there, or what was left over of a damaged picture?

libjpeg says of both "extraneous bytes before marker 0xd9". Where bits were lost or changed, the decoder falls out of
step, ends early or late, and takes some blocks for others: brightness for colour, runs beyond the block's end. So
the scan's codes are read once more, without computing pixels, and more strictly than a decoder does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from nameplate.photos.segments import DHT, DRI, EOI, FRAMES, SOS, Frame, read_frame, scan_parts, segments

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
            tables |= _tables(picture[start:end])
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


def _tables(body: bytes) -> dict[int, Codes]:
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
