"""Makes the pages of the documentation's gallery: reports that Nameplate's commands write of the embedded photos.

    python -m tools.gallery build/gallery

With `--pictures docs/images` it also makes the pictures of them that docs/gallery.md shows, which needs Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.notebook_guide import screenshot

from nameplate.demo import photos_folder

PAGES = (
    "tour.html",
    "look.html",
    "audit.html",
    "evaluation.html",
    "explain.html",
    "leaderboard.html",
)
PICTURES = {"gallery-audit.jpg": ("audit.html", 1000, 1100), "gallery-evaluation.jpg": ("evaluation.html", 1000, 1250)}
"""Picture → page, and the width and height of the window, in pixels. The other pages have pictures elsewhere."""
PHOTO = "Halden Pine Estate/003.jpg"


def few(part: str, each: int, folder: Path) -> None:
    """Put the first photos of each nameplate of a part, `train` or `test`, into a folder per nameplate."""
    for nameplate in sorted(photos_folder(part).iterdir()):
        (folder / nameplate.name).mkdir(parents=True)
        for photo in sorted(nameplate.iterdir())[:each]:
            shutil.copy(photo, folder / nameplate.name)


def make_pages(folder: Path, work: Path) -> None:
    """Write every page of `PAGES` below `folder`; the models that they are of are made in `work`."""
    photos = work / "photos"
    shutil.copytree(photos_folder("train").parent, photos)
    few("train", 5, work / "five-photos")
    few("train", 20, work / "twenty-photos")
    run(work, "demo", "-o", "tour")
    run(work, "look", "photos/train", "-o", "look.html")
    run(work, "audit", "photos/train", "-o", "audit.html")
    run(work, "evaluate", "tour/model", "photos/test", "-o", "evaluation.html")
    for name in ("five-photos", "twenty-photos"):
        run(work, "train", name, "--holdout", "0", "--index", "-o", f"model-of-{name}")
    photo = f"photos/test/{PHOTO}"
    run(work, "explain", photo, "--model", "model-of-twenty-photos", "--claimed", "Halden Pine", "-o", "explain.html")
    models = ("model-of-five-photos", "model-of-twenty-photos", "tour/model")
    run(work, "leaderboard", *models, "--data", "photos/test", "-o", "leaderboard")
    folder.mkdir(parents=True, exist_ok=True)
    for page in PAGES:
        made = next(each for each in (work / page, work / Path(page).stem / "index.html") if each.is_file())
        shutil.copy(made, folder / page)


def run(work: Path, *words: str) -> None:
    """Run a command of Nameplate."""
    print("nameplate", *words, flush=True)
    subprocess.run([sys.executable, "-m", "nameplate", *words, "-q"], cwd=work, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the pages go; those that are there are not made again")
    parser.add_argument("--pictures", type=Path, help="the folder of the pictures")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    arguments = parser.parse_args()
    if not all((arguments.folder / page).is_file() for page in PAGES):
        with tempfile.TemporaryDirectory(prefix="gallery-") as work:
            make_pages(arguments.folder, Path(work))
    if arguments.pictures:
        for picture, (page, width, height) in PICTURES.items():
            screenshot(arguments.folder / page, arguments.pictures / picture, width, height, arguments.chromium)


if __name__ == "__main__":
    main()
