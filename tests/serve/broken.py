"""Photos as unlucky or hostile clients send them: real ones, and real ones truncated, changed, spliced and enlarged."""

from __future__ import annotations

import io
import random

from PIL import Image

from nameplate.demo import photos_folder
from tests.images.torture import huge_jpeg, oriented, png

FORMATS = ("JPEG", "PNG", "WEBP")


def photo_pool(draw: random.Random, number: int) -> list[bytes]:
    """So many different files, about half of them sound."""
    sound = _sound(draw)
    pool = [*sound, huge_jpeg(), _bomb(), b"<html>", bytes(4096)]
    while len(pool) < number:
        pool.append(draw.choice(MUTATIONS)(draw, draw.choice(sound), draw.choice(sound)))
    return list(dict.fromkeys(pool))


def _sound(draw: random.Random) -> list[bytes]:
    photos = draw.sample(sorted(photos_folder("test").glob("*/*.jpg")), 12)
    made = [photo.read_bytes() for photo in photos]
    for photo in photos:
        image = Image.open(photo)
        image.thumbnail((draw.randint(60, 320), draw.randint(60, 320)))
        for format_ in FORMATS:
            file = io.BytesIO()
            image.save(file, format_)
            made.append(file.getvalue())
        made.append(oriented("JPEG", draw.randint(1, 8), image))
    return made


def _bomb() -> bytes:
    """A few kilobytes that make 27 MB of pixels, which the limits allow."""
    return png(3000, 3000, 8, 2, bytes(3000 * 9001))


def _cut(draw: random.Random, one: bytes, _: bytes) -> bytes:
    return one[: draw.randrange(len(one))]


def _flipped(draw: random.Random, one: bytes, other: bytes) -> bytes:
    data = bytearray(one)
    for _ in range(draw.choice((1, 2, 20))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(data)


def _blanked(draw: random.Random, one: bytes, _: bytes) -> bytes:
    at, length = draw.randrange(len(one)), draw.randint(1, 2000)
    return one[:at] + bytes(min(length, len(one) - at)) + one[at + length :]


def _spliced(draw: random.Random, one: bytes, other: bytes) -> bytes:
    return one[: draw.randrange(len(one))] + other[draw.randrange(len(other)) :]


def _behind_more(draw: random.Random, one: bytes, _: bytes) -> bytes:
    return draw.randbytes(draw.randint(1, 40)) + one


def _with_a_tail(draw: random.Random, one: bytes, _: bytes) -> bytes:
    return one + draw.randbytes(draw.randint(1, 4000))


MUTATIONS = (_cut, _flipped, _blanked, _spliced, _behind_more, _with_a_tail)
