"""`nameplate cache`: what Nameplate keeps on disk between runs, and how it is cleared."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Annotated

import typer

from nameplate.cli import screen
from nameplate.cli.app import app
from nameplate.cli.options import Json
from nameplate.errors import WriteError
from nameplate.storage import cache_folder, counted

KINDS = {
    "embeddings": "embeddings of photos",
    "looks": "measurements of photos, for audits",
    "archives": "unpacked archives",
    "pictures": "pictures out of tables",
    "hub": "bundles from the hub",
    "proofs": "which backbones work",
    "runtimes": "which runtimes work here",
    "onnxruntime-web": "ONNX Runtime Web, for sites",
    "tuning": "the fastest batches of each runtime",
}
"""Folder in the cache → what is in it. Only these are ever cleared, since the cache folder may hold other things."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One folder of the cache."""

    kind: str
    files: int
    bytes: int


def kept() -> list[Kept]:
    """What is in the cache, the largest first; nothing of what is not ours."""
    found = []
    for kind in KINDS:
        folder = cache_folder() / kind
        if folder.is_symlink():  # what it leads to is not ours
            continue
        sizes = [path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
        if sizes:
            found.append(Kept(kind, len(sizes), sum(sizes)))
    return sorted(found, key=lambda each: -each.bytes)


def clear() -> None:
    """Delete what is in the cache; nothing of what is not ours.

    Raises:
        WriteError: something cannot be deleted.
    """
    for kind in KINDS:
        folder = cache_folder() / kind
        try:
            if folder.is_symlink():
                folder.unlink()  # and not what it leads to
            elif folder.is_dir():
                shutil.rmtree(folder)
        except OSError as error:
            raise WriteError(f"Cannot delete '{folder}': {error.strerror or error}.") from None


def megabytes(size: int) -> str:
    """A size in words.

    >>> megabytes(3_456_789), megabytes(12)
    ('3.5 MB', '0.0 MB')
    """
    return f"{size / 1e6:,.1f} MB"


@app.command()
def cache(
    clear_: Annotated[bool, typer.Option("--clear", help="Delete all of it; it is made again when needed.")] = False,
    json: Json = False,
) -> None:
    """Show what Nameplate keeps on disk between runs, and how large it is; with --clear, delete it."""
    found, folder = kept(), cache_folder()
    files, size = sum(each.files for each in found), sum(each.bytes for each in found)
    if clear_:
        clear()
    if json:
        rows = [{"kind": each.kind, "files": each.files, "bytes": each.bytes} for each in found]
        screen.print_json({"folder": str(folder), "files": files, "bytes": size, "kinds": rows, "cleared": clear_})
        return
    screen.step("Cache", str(folder))
    for each in found:
        amount = f"{megabytes(each.bytes):>12}  {counted(each.files, 'file'):14}"
        screen.step("", f"{amount} {KINDS[each.kind]}")
    screen.step("Cleared" if clear_ else "In all", f"{megabytes(size):>12}  {counted(files, 'file')}")
    if found and not clear_:
        screen.step("Next", "nameplate cache --clear deletes it; it is made again when needed")
