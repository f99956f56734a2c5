"""Photos that need much time or memory are read in separate processes, and refused within the limits."""

from __future__ import annotations

import io
import os
import signal
import struct
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nameplate.errors import PhotoError
from nameplate.images import decode, isolated, read_header
from nameplate.images.decode import MemoryBudget, peak_bytes
from nameplate.types import Limits
from tests.images import torture
from tests.images.torture import chunk, encode, picture, segment

SOUND = torture.sound()
SLOW = torture.many_scans(planes=8)
posix = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


def refusal(data: bytes, limits: Limits | None = None) -> PhotoError:
    with pytest.raises(PhotoError) as caught:
        decode(data, limits=limits or Limits())
    return caught.value


def run(code: str, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """A Python process of its own."""
    return subprocess.run(
        [sys.executable, *arguments, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120
    )


# --- time ---------------------------------------------------------------------------------------------


def test_a_dozen_slow_photos_leave_nothing_behind_and_good_large_ones_are_read() -> None:
    large = torture.many_scans(side=1024, planes=4)
    before = threading.active_count()
    for _ in range(12):
        assert refusal(SLOW, Limits(seconds=0.01)).reason == "too slow"
        assert threading.active_count() <= before + 1  # a timer that is ending
    assert decode(large, limits=Limits(seconds=60)).shape == (1024, 1024, 3)


def test_slow_photos_in_several_threads_are_each_read_whole() -> None:
    data = [torture.many_scans(side=side, planes=4) for side in (1016, 1024, 1032)]
    found: dict[int, tuple[int, ...]] = {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: decode(data[n], limits=Limits(seconds=60)).shape}))
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: (1016, 1016, 3), 1: (1024, 1024, 3), 2: (1032, 1032, 3)}


@pytest.mark.parametrize("name", ["plain.tiff", "lzw.tiff", "cmyk.tiff"])
def test_photos_decoded_in_another_process_are_the_same(name: str) -> None:
    header = read_header(SOUND[name])
    pixels = isolated.pixels_apart(SOUND[name], header, (header.height, header.width), Limits())
    assert np.array_equal(pixels, decode(SOUND[name]))
    for other in ("baseline.jpg", "orientation-6.jpg", "cmyk.jpg", "alpha.png", "animated.gif", "still.avif"):
        header = read_header(SOUND[other])
        pixels = isolated.pixels_apart(SOUND[other], header, (header.height, header.width), Limits())
        assert np.array_equal(pixels, decode(SOUND[other])), other


def test_a_reader_that_dies_costs_one_photo_and_no_more() -> None:
    assert decode(SOUND["plain.tiff"]).shape == (47, 61, 3)
    for reader in isolated.idle:
        reader.process.kill()
        reader.process.wait()
    assert decode(SOUND["plain.tiff"]).shape == (47, 61, 3)


ENDLESS = {
    "fill bytes": lambda j: j[:2] + b"\xff" * 20_000_000 + j[2:],
    "fill before the end": lambda j: j[:-2] + bytes(20_000_000) + j[-2:],
    "profiles": lambda j: j[:2] + segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\x15\0" + b"\x01\0\0\7" * 16000) * 500 + j[2:],
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_jpeg_of_many_bytes_that_say_nothing_is_read(name: str) -> None:
    data = SOUND["baseline.jpg"]
    assert np.array_equal(decode(ENDLESS[name](data)), decode(data))


def test_segments_without_end_are_refused_before_they_are_read() -> None:
    data = SOUND["baseline.jpg"]
    error = refusal(data[:2] + b"\xff\xfe\0\2" * 5_000_000 + data[2:])
    assert str(error) == "too slow: JPEG: more than 10,000 segments and scans"


def test_scans_without_end_are_given_up() -> None:
    starts = torture.scan_starts(SLOW)
    error = refusal(SLOW[:-2] + SLOW[starts[-1] : -2] * 100_000 + SLOW[-2:], Limits(seconds=1))
    assert str(error) == "too slow: not decoded within 1 s"


def test_formats_that_are_read_in_python_are_given_up_too() -> None:
    rows = b"\x01\x01" * 3_000_000
    info = struct.pack("<IiiHHIIiiII", 40, 5000, 5000, 1, 8, 1, len(rows), 0, 0, 256, 0)
    bitmap = b"BM" + struct.pack("<IHHI", 1078 + len(rows), 0, 0, 1078) + info + bytes(1024) + rows
    assert refusal(bitmap, Limits(seconds=0.05)).reason == "too slow"
    gif = SOUND["still.gif"]
    at = 13 + 3 * (2 << (gif[10] & 7))
    comment = b"!\xfe" + (b"\xff" + b"c" * 255) * 8000 + b"\0"
    assert refusal(gif[:at] + comment + gif[at:], Limits(seconds=0.0001)).reason == "too slow"
    assert np.array_equal(decode(gif[:at] + comment + gif[at:]), decode(gif))


# --- memory -------------------------------------------------------------------------------------------


def tiny_webp(width: int, height: int) -> bytes:
    """Forty bytes that claim a large canvas."""
    body = b"VP8L" + struct.pack("<I", 18) + b"\x2f" + struct.pack("<I", width - 1 | (height - 1) << 14) + bytes(13)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def test_a_few_bytes_that_claim_gigabytes_are_refused_from_the_header() -> None:
    error = refusal(tiny_webp(9450, 9397))
    assert error.reason == "too large"
    assert "take about 1,776,033,076 bytes, the limit is 805,306,368" in error.detail


@pytest.mark.parametrize("name", ["baseline.jpg", "progressive.jpg", "rgb.png", "alpha.webp", "still.avif", "lzw.tiff"])
def test_the_memory_limit_holds_for_every_format(name: str) -> None:
    data = SOUND[name]
    header = read_header(data)
    needed = peak_bytes(data, header, (header.height, header.width))
    assert needed >= 3 * 47 * 61
    assert decode(data, limits=Limits(memory=needed)).shape == (47, 61, 3)
    error = refusal(data, Limits(memory=needed - 1))
    assert (error.reason, "the limit is" in error.detail) == ("too large", True)


def test_a_phones_photo_of_108_megapixels_is_read() -> None:
    data = encode(Image.new("L", (12000, 9000), 90), "JPEG")
    assert decode(data, at_least=(224, 224)).shape == (1125, 1500, 3)
    assert peak_bytes(data, read_header(data), (9000, 12000)) < Limits().memory


def test_a_progressive_jpeg_counts_its_coefficients_at_every_scale() -> None:
    image = Image.new("RGB", (4000, 3000))
    for sampling, bytes_per_pixel in (("4:4:4", 6), ("4:2:0", 3)):
        data = encode(image, "JPEG", progressive=True, subsampling=sampling)
        assert peak_bytes(data, read_header(data), (375, 500)) == 12_000_000 * bytes_per_pixel + 3 * 375 * 500
    data = encode(image, "JPEG")
    assert peak_bytes(data, read_header(data), (375, 500)) == 3 * 375 * 500


@posix
@pytest.mark.parametrize("format_", ["PNG", "WEBP", "AVIF", "BMP", "GIF"])
def test_decoding_takes_no_more_memory_than_was_estimated(format_: str, tmp_path: Path) -> None:
    image = picture(1000, 1500)
    path = tmp_path / "photo"
    path.write_bytes(
        encode(image.quantize(16) if format_ == "GIF" else image.convert("RGBA"), format_, **FAST[format_])
    )
    out = run(f"""
        from nameplate.images import decode, read_header
        from nameplate.images.decode import peak_bytes
        from nameplate.images.decode import decode_with_header
        def most():
            with open("/proc/self/status") as file:
                return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
        data = open({str(path)!r}, "rb").read()
        header = read_header(data)
        decode({SMALL[format_]!r})  # so that all is loaded
        before = most()
        decode_with_header(data, header)
        print(most() - before, peak_bytes(data, header, (header.height, header.width)))
    """)
    taken, estimated = map(int, out.stdout.split())
    assert taken < 1.2 * estimated


FAST: dict[str, dict[str, int]] = {"AVIF": {"speed": 10}, "WEBP": {"method": 0}, "PNG": {}, "BMP": {}, "GIF": {}}
SMALL = {
    format_: encode(picture(8, 8).quantize(16) if format_ == "GIF" else picture(8, 8), format_) for format_ in FAST
}


@posix
def test_running_out_of_memory_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(encode(Image.new("RGB", (6000, 5000)), "PNG"))
    out = run(f"""
        import resource
        from nameplate.images import decode
        from nameplate.errors import PhotoError
        decode({SMALL["PNG"]!r})
        pages = int(open("/proc/self/statm").read().split()[5])
        limit = pages * resource.getpagesize() + 60_000_000
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        try:
            decode({str(path)!r})
        except PhotoError as error:
            print(error)
    """)
    assert out.stdout.startswith("too large: ")
    assert "not enough memory" in out.stdout


def test_large_photos_wait_until_there_is_room() -> None:
    room, first_in, may_leave, order = MemoryBudget(), threading.Event(), threading.Event(), []
    total, large = 100 << 20, 60 << 20

    def first() -> None:
        with room.taken(large, total):
            first_in.set()
            may_leave.wait(30)
            order.append("first leaves")

    def second() -> None:
        first_in.wait(30)
        with room.taken(1 << 20, total):
            order.append("a small one does not wait")
        may_leave.set()
        with room.taken(large, total):
            order.append("second enters")

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order == ["a small one does not wait", "first leaves", "second enters"]
    with room.taken(2 * total, total):  # alone, and its own limit was asked before
        pass


# --- processes ----------------------------------------------------------------------------------------


def gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@posix
@pytest.mark.parametrize("end", ["pass", "os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_readers_end_with_their_process(end: str) -> None:
    out = run(f"""
        import os, signal
        from nameplate.images import decode, isolated
        decode({encode(picture(8, 8), "TIFF")!r})
        print(isolated.idle[0].process.pid, flush=True)
        {end}
    """)
    assert out.stderr == ""
    process = int(out.stdout)
    for _ in range(600):
        if gone(process):
            return
        threading.Event().wait(0.05)
    pytest.fail("it is still there")


@posix
def test_a_forked_process_has_readers_of_its_own() -> None:
    out = run(
        f"""
        import os
        from nameplate.images import decode, isolated
        data = {encode(picture(8, 8), "TIFF")!r}
        decode(data)
        child = os.fork()
        if child == 0:
            assert not isolated.idle
            decode(data)
            isolated.end_all()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        decode(data)
        print(len(isolated.idle))
    """,
        "-W", "error",
    )  # fmt: skip
    assert (out.stdout, out.stderr) == ("1\n", "")


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_the_first_interrupt_ends_a_job_that_waits_for_a_slow_photo(tmp_path: Path) -> None:
    path = tmp_path / "slow.jpg"
    starts = torture.scan_starts(SLOW)
    path.write_bytes(SLOW[:-2] + SLOW[starts[-1] : -2] * 100_000 + SLOW[-2:])
    code = f"""
        import os, signal
        signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started the tests may ignore it
        from nameplate.model.pipeline import Settings, prepare_photo
        from nameplate.images.parallel import ordered_map
        from nameplate.types import Limits, Preprocess
        settings = Settings(limits=Limits(seconds=3000))
        def source():
            os.write(1, b"reading\\n")  # whole, though two threads write
            return open({str(path)!r}, "rb").read()
        for photo in ordered_map(lambda s: prepare_photo(s, Preprocess(), settings), [source] * 40, 2):
            print(photo)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert out.count("reading") <= 1
    assert "KeyboardInterrupt" in err


def test_photos_are_decoded_in_another_process_where_warnings_are_errors(tmp_path: Path) -> None:
    """As CI and careful people have it: PYTHONWARNINGS=error reaches every process that is started."""
    Image.new("RGB", (40, 30)).save(tmp_path / "a.tiff")
    code = "import sys; from nameplate.images.decode import decode; print(decode(sys.argv[1]).shape)"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.tiff"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "error"},
        check=False,
    )
    assert (done.stdout, done.returncode) == ("(30, 40, 3)\n", 0), done.stderr


def test_nothing_is_written_to_stderr(tmp_path: Path) -> None:
    tags = b"MM\0*\0\0\0\x08\x27\x10" + b"\x01\x00\x00\x07\x03\xff\xff\0\0\0\0\x08" * 10_000
    broken = SOUND["jpeg.tiff"][:1400] + bytes(400)
    photos = [
        torture.png(1, 1, 8, 2, bytes(4), chunk(b"acTL", bytes(8)) * 1000 + chunk(b"eXIf", tags)),
        encode(picture(), "WEBP", exif=b"Exif\0\0" + tags),
        _with_exif(encode(picture(), "AVIF", speed=10, exif=tags[:8] + bytes(len(tags))), tags),
        torture.png(10000, 9000, 8, 0, b""),
        torture.broken()["huge.gif"][0],
        broken,
        SOUND["lzw.tiff"][:9000] + b"\xff" * 900,
        b"II*\0\x08\0\0\0\xff\xff" + b"\x07" * 9000,
    ]
    for number, photo in enumerate(photos):
        (tmp_path / str(number)).write_bytes(photo)
    out = run(f"""
        from nameplate.images import decode
        from nameplate.errors import PhotoError
        for number in range({len(photos)}):
            try:
                decode({str(tmp_path)!r} + f"/{{number}}")
                print("read")
            except PhotoError as error:
                print(error.reason)
    """)
    assert out.stderr == ""
    assert out.stdout.split("\n")[:5] == ["read", "read", "read", "too large", "too large"]


def _with_exif(data: bytes, tags: bytes) -> bytes:
    """Tags where zeros were."""
    at = data.index(bytes(len(tags)))
    return data[:at] + tags + data[at + len(tags) :]


# --- HEIC, and what is not read -----------------------------------------------------------------------

WITHOUT = """
    import sys
    sys.modules["pillow_heif"] = None
    from nameplate.images import decode
    from nameplate.errors import PhotoError
    try:
        decode(b"\\0\\0\\0\\x18ftypheic\\0\\0\\0\\0mif1heic")
    except PhotoError as error:
        print(error)
"""


def test_heic_without_its_extra_is_refused_by_name() -> None:
    out = run(WITHOUT)
    assert out.stdout.startswith(
        "not a photo: this is a HEIC photo: pip install 'nameplate[heic]' to have it read; JPEG, MPO, PNG"
    )


def test_heic_is_read_where_its_extra_is_installed() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    for options in ({"quality": 90}, {"quality": -1, "chroma": 444}):
        data = encode(picture(), "HEIF", **options)
        assert abs(decode(data).astype(int) - np.asarray(picture())).mean() < 8
        assert read_header(data).format == "HEIC"
        for end in range(40, len(data), 97):
            assert refusal(data[:end]).reason == "truncated"
        for at in range(12, len(data), 61):
            try:
                decode(data[:at] + bytes([data[at] ^ 85]) + data[at + 1 :])
            except PhotoError as error:
                assert error.detail


@pytest.mark.parametrize(
    ("name", "said"), [("raw.dng", "a DNG picture"), ("raw.nef", "a camera raw picture"), ("raw.cr2", "a camera raw")]
)
def test_a_cameras_raw_file_is_no_thumbnail(name: str, said: str) -> None:
    error = refusal(torture.broken()[name][0])
    assert error.reason == "not a photo"
    assert f"this is {said}" in error.detail
    assert "save it as JPEG or PNG" in error.detail


def test_samples_that_are_no_colours_are_refused() -> None:
    for mode in ("F", "I"):
        assert refusal(encode(Image.new(mode, (4, 4), 7), "TIFF")).reason == "not a photo"


def test_large_photos_have_the_pixels_of_small_ones() -> None:
    """They are converted some rows at a time."""
    image = picture(400, 1000)
    alpha = image.convert("RGBA")
    alpha.putalpha(image.convert("L"))
    ramp = (np.arange(1000 * 400).reshape(400, 1000) * 7).astype(np.uint16)
    over = np.asarray(Image.alpha_composite(Image.new("RGBA", alpha.size, "white"), alpha).convert("RGB"))
    assert np.array_equal(decode(encode(alpha, "PNG", compress_level=1)), over)
    assert np.array_equal(decode(encode(image.quantize(64), "BMP")), np.asarray(image.quantize(64).convert("RGB")))
    grey = np.repeat((ramp >> 8).astype(np.uint8)[..., None], 3, axis=2)
    assert np.array_equal(decode(encode(Image.fromarray(ramp), "PNG", compress_level=1)), grey)
    exif = Image.Exif()
    exif[torture.ORIENTATION] = 6
    turned = decode(encode(image, "PNG", compress_level=1, exif=exif))
    assert np.array_equal(turned, np.rot90(np.asarray(image), -1))
    inks = encode(image.convert("CMYK"), "JPEG")
    assert np.array_equal(decode(inks), np.asarray(Image.open(io.BytesIO(inks)).convert("RGB")))
