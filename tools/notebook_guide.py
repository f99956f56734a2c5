"""Runs the commands of docs/notebook.md on an archive made of the embedded renders, and makes the page's pictures.

    python -m tools.notebook_guide docs/images

The archive has the layout of the competition's. The commands are those of the page, with the reductions in `SMALLER`,
because the notebook's networks are large, and their weights are on a hub. The pictures need Chromium.
"""

from __future__ import annotations

import argparse
import io
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from tests.competition import lay_out, zip_up

from nameplate.demo import photos_folder

PAGE = Path(__file__).parents[1] / "docs" / "notebook.md"
ARCHIVE = "sf-dl-car-classification.zip"
SMALLER = (
    (r"--backbones \S+", "--backbones Lite0,ResNet152V2,cars196 --size 96x128 --limit 8 --threads 1"),
    (r"--recipe few --set dropout", "--limit 5 --threads 1 --recipe tiny.toml --set dropout"),
    (r"--recipe few", "--threads 1 --recipe tiny.toml"),
    (
        r"--recipe original -o",
        "--recipe original --backbone Lite0 --threads 1 --set stages.1.height=64 --set stages.1.width=96 "
        "--set stages.1.epochs=3 "
        "--set stages.2.height=96 --set stages.2.width=144 --set stages.2.epochs=2 --set stages.2.batch=4 -o",
    ),
)
"""(Pattern in a command of the page, what takes its place)."""
TINY = """name = "tiny"
summary = "Small photos, few epochs."
backbone = "tf_efficientnet_lite0"
locate = "none"

[augmentation]
flip = 0.5

[[stages]]
height = 64
width = 96
epochs = 2
batch = 8
learning_rate = 1e-3
"""
"""What takes the place of recipe `few`."""
SHOTS = {
    "notebook-look.jpg": ("look.html", 1000, 1270),
    "notebook-backbones.jpg": ("backbones/index.html", 1000, 1200),
    "notebook-extra.jpg": ("extra/index.html", 1000, 800),
    "notebook-run.jpg": ("notebook/index.html", 1000, 1050),
    "notebook-board.jpg": ("board/index.html", 1000, 960),
}
"""Picture → page, and the width and height of the window, in pixels."""


def blocks(language: str) -> list[str]:
    """The code blocks of the page in this language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


def commands() -> list[str]:
    """The commands of the page, in its order."""
    return [line for block in blocks("sh") for line in block.splitlines() if line.strip()]


def make_archive(folder: Path, *, each: int, further: int) -> None:
    """Make the archive, names.txt and add_train/ of the renders.

    Args:
        folder: where they go.
        each: photos of each nameplate; a quarter of them are test photos.
        further: photos of each nameplate in add_train.
    """
    classes = sorted(photos_folder("train").iterdir())
    root = lay_out(classes, folder / "unpacked", each=each, test_each=each // 4)
    zip_up(root, folder / ARCHIVE)
    shutil.rmtree(root)
    (folder / "names.txt").write_text("".join(f"{each.name}\n" for each in classes), "utf-8")
    for number, each_class in enumerate(sorted(photos_folder("test").iterdir())):
        (folder / "add_train" / str(number)).mkdir(parents=True)
        for photo in sorted(each_class.iterdir())[:further]:
            shutil.copy(photo, folder / "add_train" / str(number))


def reduced(command: str, smaller: Sequence[tuple[str, str]]) -> list[str]:
    """The words of a command after `nameplate`, with the first fitting replacement."""
    for pattern, replacement in smaller:
        command, changed = re.subn(pattern, replacement, command)
        if changed:
            break
    words = shlex.split(command)
    if words[0] != "nameplate":
        raise ValueError(f"'{command}' is no command of nameplate")
    return words[1:]


def screenshot(page: Path, picture: Path, width: int, height: int, chromium: str) -> None:
    """Take a picture of a page's upper part, as JPEG."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "page.png"
        window = f"--window-size={width},{height}"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", window, f"--screenshot={target}"]
        subprocess.run([chromium, *options, page.resolve().as_uri()], check=True, capture_output=True, timeout=300)
        buffer = io.BytesIO()
        with Image.open(target) as image:
            image.convert("RGB").save(buffer, "JPEG", quality=82, optimize=True)
    picture.write_bytes(buffer.getvalue())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", type=Path, help="the folder of the pictures")
    parser.add_argument("--work", type=Path, help="where the commands run; what is there is not made again")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    arguments = parser.parse_args()
    folder = arguments.work or Path(tempfile.mkdtemp(prefix="notebook-"))
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / ARCHIVE).exists():
        make_archive(folder, each=12, further=4)
    (folder / "tiny.toml").write_text(TINY, "utf-8")
    for command in commands():
        words = reduced(command, SMALLER)
        if not (folder / words[words.index("-o") + 1]).exists():
            print("nameplate", shlex.join(words), flush=True)
            subprocess.run([sys.executable, "-m", "nameplate", *words], cwd=folder, check=True)
    with Image.open(folder / "augmented.jpg") as sheet:
        sheet.thumbnail((1000, 1000))
        sheet.save(arguments.images / "notebook-augmented.jpg", quality=82, optimize=True)
    for picture, (page, width, height) in SHOTS.items():
        screenshot(folder / page, arguments.images / picture, width, height, arguments.chromium)


if __name__ == "__main__":
    main()
