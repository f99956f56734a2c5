"""How commands end: full disks, closed streams, internal errors, interruptions; and output on a narrow terminal."""

from __future__ import annotations

import importlib.util
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nameplate.cli import app
from nameplate.cli.help import as_command
from nameplate.demo import photo

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="needs the train extra")
NAMEPLATE = [sys.executable, "-m", "nameplate"]


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of sh in which `nameplate` stands for the command."""
    line = f"""nameplate() {{ "{sys.executable}" -m nameplate "$@"; }}\n{line}"""
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, env=os.environ | environment, check=False)


def in_terminal(*arguments: str, columns: int) -> str:
    """What a terminal of so many columns is sent."""
    keyboard, screen = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "dumb"}
    with subprocess.Popen([*NAMEPLATE, *arguments], stdin=screen, stdout=screen, stderr=screen, env=environment):
        os.close(screen)
        said = b""
        try:
            while some := os.read(keyboard, 4096):
                said += some
        except OSError:  # Linux's word for the end
            pass
    os.close(keyboard)
    return said.decode()


def commands(parser: object = None, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The words of every command there is."""
    parser = parser or as_command(app)
    return [
        words,
        *(found for name, each in getattr(parser, "commands", {}).items() for found in commands(each, (*words, name))),
    ]


# --- what cannot be written ---------------------------------------------------------------------------


@needs_full
@pytest.mark.parametrize(
    "arguments",
    ["--help", "--version", "train --help", "recipes", "recipes --json", "identify PHOTO", "identify PHOTO --json"],
)
def test_a_full_disk_behind_stdout_is_one_line(arguments: str) -> None:
    done = shell(f"nameplate {arguments.replace('PHOTO', repr(str(photo())))} > {FULL}")
    assert done.stderr == "error Cannot write the output: No space left on device.\n"
    assert done.returncode == 1


@needs_full
def test_notes_that_cannot_be_written_end_nothing(tmp_path: Path) -> None:
    done = shell(f"nameplate identify '{tmp_path / 'none.jpg'}' 2> {FULL}")
    assert done.returncode == 1
    assert "missing" in done.stdout
    (tmp_path / "data").mkdir()
    done = shell(f"nameplate train '{tmp_path / 'data'}' -o '{tmp_path / 'b'}' 2> {FULL}")
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize("streams", [">&-", ">&- 2>&-"])
def test_closed_streams_are_no_fault(streams: str) -> None:
    done = shell(f"nameplate recipes --json {streams}; nameplate recipes {streams} && echo done")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.parametrize("arguments", ["recipes --json", "train --help"])
def test_a_reader_that_closes_the_pipe_is_no_failure(arguments: str) -> None:
    done = shell(f"(nameplate {arguments}; echo $? >&2) | true")
    assert done.stderr == "0\n"


def test_a_terminal_width_of_zero_counts_as_unknown() -> None:
    assert shell("nameplate recipes", COLUMNS="0").stdout == shell("nameplate recipes").stdout != ""


# --- faults -------------------------------------------------------------------------------------------

FAULTS = """
import sys, threading
from nameplate.cli.ending import run
from nameplate.errors import UsageError

def deep(): return deep()
def thread():
    started = threading.Thread(target=zero)
    started.start()
    started.join()
def zero(): 1 / 0
def memory(): bytearray(1 << 62)
def missing(): open("nowhere")
def usage(): raise UsageError("Wrong.")

sys.exit(run(globals()[sys.argv[1]]))
"""


def fault(kind: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", FAULTS, kind], capture_output=True, text=True, env=os.environ | environment, check=False
    )


@pytest.mark.parametrize(
    ("kind", "code", "said"),
    [
        (
            "zero",
            1,
            r"error This is a fault in Nameplate.*ZeroDivisionError \(division by zero\).*NAMEPLATE_DEBUG=1.*report",
        ),
        ("deep", 1, "error This is a fault in Nameplate.*RecursionError"),
        ("missing", 1, "error This is a fault in Nameplate.*FileNotFoundError.*'nowhere'"),
        ("memory", 1, "error There is not enough memory.*--threads"),
        ("thread", 0, "error This is a fault in Nameplate.*ZeroDivisionError"),
        ("usage", 2, "error Wrong."),
    ],
)
def test_whatever_fails_is_one_line(kind: str, code: int, said: str) -> None:
    done = fault(kind)
    assert re.fullmatch(said + ".*\n", done.stderr), done.stderr
    assert (done.returncode, done.stdout) == (code, "")


def test_the_traceback_is_shown_on_request() -> None:
    done = fault("zero", NAMEPLATE_DEBUG="1")
    assert done.stderr.startswith("Traceback (most recent call last)")
    assert "in zero" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error This is a fault in Nameplate")
    assert "Traceback" not in fault("usage", NAMEPLATE_DEBUG="1").stderr


def test_an_interrupted_command_says_that_what_was_done_is_kept() -> None:
    code = "import os, signal, sys\nfrom nameplate.cli import app\n"
    code += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "app.command('stop')(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
    code += "from nameplate.cli import main\nsys.argv = ['nameplate', 'stop']\nmain()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr == "Interrupted. What was done is kept: run the same command to go on.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["identify", "https://example.org/car.jpg"],
        ["train", "ftp://example.org/cars.zip", "-o", "b"],
        ["evaluate", "cars196", "s3://cars/all"],
        ["compare", "photos", "--exclude=http://example.org/list.csv", "-o", "c"],
    ],
)
def test_web_addresses_are_refused(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run([*NAMEPLATE, *arguments], capture_output=True, text=True, cwd=tmp_path, check=False)
    [address] = [word.removeprefix("--exclude=") for word in arguments if "://" in word]
    assert done.stderr.startswith(f"error '{address}' is an address, and '{arguments[0]}' reads files")
    assert "Download it first" in done.stderr
    assert (done.returncode, done.stdout) == (2, "")


# --- help and tables ----------------------------------------------------------------------------------


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_help_fits_80_columns_and_nothing_in_it_is_cut(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        as_command(app)([*words, "--help"], prog_name="nameplate")
    shown = capsys.readouterr().out
    assert not ended.value.code
    assert max(map(len, shown.splitlines())) <= 80
    assert "list[" not in shown
    assert "......" not in shown
    listed = shown.partition("Commands:")[2]
    assert "..." not in listed
    assert len(re.findall(r"^  [a-z]", listed, re.MULTILINE)) == len(re.findall(r"\.$", listed, re.MULTILINE))


@needs_timm
def test_backbones_keep_a_row_in_a_pipe() -> None:
    piped = shell("nameplate backbones", COLUMNS="80").stdout
    assert len(piped.splitlines()) == 1 + 8
    assert re.search(r"^MobileNetV3Large +tf_mobilenetv3_large_100\.in1k +5\.5 ", piped, re.MULTILINE)


@needs_timm
@pytest.mark.parametrize("columns", [80, 300])
def test_backbones_are_listed_by_their_whole_names(columns: int) -> None:
    shown = in_terminal("backbones", columns=columns)
    assert "tf_mobilenetv3_large_100.in1k" in shown
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= columns


def test_recipes_keep_a_row_in_a_pipe_and_their_names_in_a_terminal() -> None:
    piped = shell("nameplate recipes", COLUMNS="80").stdout.splitlines()
    assert piped[0].split()[:2] == ["recipe", "backbone"]
    assert all(line.rstrip().endswith((".", "0", "5", "for")) for line in piped)
    assert "tf_efficientnet_lite0" in in_terminal("recipes", columns=80)
