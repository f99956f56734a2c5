"""`NpmFiles`: files of an npm package, of one version, downloaded by npm and checked by their SHA-256."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nameplate.errors import NameplateError
from nameplate.storage import sha256

PATIENCE = 300
"""Seconds that npm may take to download a package."""


@dataclass(frozen=True, slots=True)
class NpmFiles:
    """Which files of which package."""

    package: str
    version: str
    hashes: Mapping[str, str]
    """Path within the package → the SHA-256 that `npm pack` of this version gave."""
    needing: str
    """The beginning of an error: "A site needs"."""
    advice: str
    """The end of an error, after "Try again with a network, ": what else can be done."""

    def read(self, folder: Path) -> dict[str, bytes]:
        """The files of the unpacked package in a folder.

        Raises:
            NameplateError: a file is missing, or another one than expected.
        """
        files = {}
        for name in self.hashes:
            try:
                files[name] = (folder / name).read_bytes()
            except OSError as error:
                raise NameplateError(
                    f"Cannot read '{folder / name}': {error.strerror}. It is a file of {self.package} {self.version} "
                    "from npm."
                ) from None
        return self.checked(files, str(folder))

    def checked(self, files: dict[str, bytes], source: str) -> dict[str, bytes]:
        """The files.

        Raises:
            NameplateError: one of them has another SHA-256.
        """
        for name, data in files.items():
            if sha256(data) != self.hashes[name]:
                raise NameplateError(
                    f"'{name}' in {source} is not that of {self.package} {self.version}: its SHA-256 is "
                    f"{sha256(data)}, and {self.hashes[name]} is expected. Delete it, {self.advice}."
                )
        return files

    def download(self) -> dict[str, bytes]:
        """Download the package by npm.

        Raises:
            NameplateError: npm is missing or cannot download it, or a file is another one than expected.
        """
        named = f"{self.package} {self.version}"
        npm = shutil.which("npm")
        if npm is None:
            raise NameplateError(
                f"{self.needing} {named}, and npm, which downloads it, is missing. Install it, {self.advice}."
            )
        with tempfile.TemporaryDirectory() as folder:
            command = [npm, "pack", f"{self.package}@{self.version}", "--silent", "--pack-destination", folder]
            try:
                done = subprocess.run(
                    command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
                )
                failed = done.stderr.strip().splitlines()[:1] if done.returncode else []
            except (OSError, subprocess.TimeoutExpired) as error:
                done, failed = None, [str(error)]
            archive = next(Path(folder).glob("*.tgz"), None)
            if done is None or done.returncode or archive is None:
                why = f" ({failed[0]})" if failed else ""
                raise NameplateError(f"npm cannot download {named}{why}. Try again with a network, {self.advice}.")
            with tarfile.open(archive) as packed:
                members = {name: packed.extractfile(f"package/{name}") for name in self.hashes}
                files = {name: each.read() for name, each in members.items() if each is not None}
        return self.checked(files, "the download")
