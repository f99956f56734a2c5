"""A JPEG's segments: what its markers say, and the same picture written out anew without all that is no picture.

Every walk is linear in the file's bytes and stops after `MAX_SEGMENTS` (ISO/IEC 10918-1, annex B).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

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
