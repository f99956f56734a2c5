"""Bundles on the Hugging Face hub: `hf:USER/NAME@REVISION` is a bundle's name wherever one is given.

Only a bundle's own files are fetched, after their sizes were checked, into the cache; afterwards they are read and
checked like those of any other bundle. Where the hub cannot be reached, what is in the cache is used. The package
huggingface_hub does the transfers, and takes the token from `HF_TOKEN` or from its own login.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from nameplate.errors import BundleError, NameplateError, RuntimeUnavailableError, UsageError
from nameplate.storage import cache_folder

PREFIX = "hf:"
"""How the name of a bundle on the hub begins."""
_NAME = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
CARD = "README.md"
"""The model card, as the hub names it."""
HF_ENDPOINT = "HF_ENDPOINT"
"""The environment variable that names another hub than huggingface.co."""
TIMEOUT = 20.0
"""Seconds to wait for the hub's first answer."""


@dataclass(frozen=True, slots=True)
class HubName:
    """A repository on the hub."""

    repo: str
    """USER/NAME."""
    revision: str | None = None
    """A branch, a tag or a commit; None: the main branch."""

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo}{f'@{self.revision}' if self.revision else ''}"


def hub_name(text: str) -> HubName | None:
    """The repository that a name stands for; None where it does not begin with `hf:`.

    Raises:
        UsageError: it begins so and is no name.

    >>> hub_name("hf:maria/cars@v2")
    HubName(repo='maria/cars', revision='v2')
    >>> hub_name("cars196") is None
    True
    """
    if not text.startswith(PREFIX):
        return None
    found = _NAME.fullmatch(text)
    if found is None or ".." in text:
        raise UsageError(f"'{text}' is no name on the hub: write hf:USER/NAME or hf:USER/NAME@REVISION.")
    return HubName(found["repo"], found["revision"])


def fetch(name: HubName, limits: Mapping[str, int]) -> Path:
    """Fetch a bundle into the cache; without a connection, use what is there.

    Args:
        name: the repository.
        limits: the names of a bundle's files, and how many bytes each may have.

    Returns:
        The bundle's folder.

    Raises:
        BundleError: there is no such repository, it may not be read, a file is too large, or the hub cannot be reached
            and the cache does not have it.
        RuntimeUnavailableError: huggingface_hub is not installed.
    """
    hub, errors = _package()
    where = {"cache_dir": cache_folder() / "hub", "endpoint": os.environ.get(HF_ENDPOINT)}
    revision = name.revision
    try:
        api = hub.HfApi(endpoint=where["endpoint"], library_name="nameplate")
        found = api.model_info(name.repo, revision=revision, files_metadata=True, timeout=TIMEOUT)
        for file in found.siblings or ():
            if file.rfilename in limits and (file.size or 0) > limits[file.rfilename]:
                most = limits[file.rfilename]
                raise BundleError(f"'{name}': {file.rfilename} has {file.size:,} bytes, at most {most:,} are fetched.")
        # It finds the commit once, so that all files are of one state, and remembers it for later without a connection.
        return Path(hub.snapshot_download(name.repo, revision=revision, allow_patterns=list(limits), **where))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise BundleError(
            f"The hub has no '{name}', or you may not read it. If it is private, set HF_TOKEN or run 'hf auth login'. "
            f"({_first_line(error)})"
        ) from None
    except Exception as error:  # the errors of the network are those of whichever library huggingface_hub uses
        if isinstance(error, NameplateError):
            raise
        kept = _from_cache(hub, name, list(limits), where)
        if kept is None:
            raise BundleError(
                f"The hub cannot be reached, and '{name}' is not in the cache ({_first_line(error)}). Try again with a "
                "connection, or give a bundle's folder."
            ) from None
        return kept


def _from_cache(hub: Any, name: HubName, files: list[str], where: Mapping[str, Any]) -> Path | None:
    """The folder of an earlier download of the same revision; None where there is none."""
    try:
        found = hub.snapshot_download(
            name.repo, revision=name.revision, allow_patterns=files, local_files_only=True, **where
        )
    except Exception:  # it is not in the cache
        return None
    return Path(found)


def push(folder: Path, name: HubName, card: str, limits: Mapping[str, int], *, private: bool) -> str:
    """Upload a bundle and its card as one commit; the repository is made where it does not exist.

    Args:
        folder: the bundle's folder.
        name: the repository; a revision is a branch that exists.
        card: the text of README.md.
        limits: the names of a bundle's files.
        private: whether a repository that is made is private.

    Returns:
        The address of the commit.

    Raises:
        NameplateError: the hub refuses, or cannot be reached.
        RuntimeUnavailableError: huggingface_hub is not installed.
    """
    hub, errors = _package()
    api = hub.HfApi(endpoint=os.environ.get(HF_ENDPOINT), library_name="nameplate")
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary)
        for file in limits:
            if (folder / file).is_file():
                shutil.copyfile(folder / file, staged / file)
        (staged / CARD).write_text(card, "utf-8")
        try:
            api.create_repo(name.repo, private=private, exist_ok=True)
            made = api.upload_folder(
                repo_id=name.repo,
                folder_path=staged,
                revision=name.revision,
                commit_message="Upload a bundle of Nameplate",
            )
        except errors.HfHubHTTPError as error:
            raise NameplateError(
                f"The hub refuses '{name}': {_first_line(error)} Set HF_TOKEN to a token that may write, or run "
                "'hf auth login'."
            ) from None
        except Exception as error:  # as above
            raise NameplateError(f"Cannot upload to '{name}': {_first_line(error)}") from None
    return str(made.commit_url)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _package() -> tuple[Any, Any]:
    """huggingface_hub and its errors.

    Raises:
        RuntimeUnavailableError: it is not installed.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        return import_module("huggingface_hub"), import_module("huggingface_hub.errors")
    except ModuleNotFoundError as error:
        raise RuntimeUnavailableError(
            f"Bundles on the hub need more packages ('{error.name}' is missing): pip install 'nameplate[hub]'."
        ) from None
