"""The Hugging Face hub: `hf:USER/NAME@REVISION` is a bundle wherever one is given, `hf:datasets/USER/NAME` a data set.

Only files that can belong to either are fetched, after their sizes were checked, into the cache; afterwards they are
read and checked like those of any other bundle or folder of photos. Where the hub cannot be reached, what is in the
cache is used. The package huggingface_hub does the transfers, and takes the token from `HF_TOKEN` or its own login.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from nameplate.errors import BundleError, DataError, NameplateError, RuntimeUnavailableError, UsageError
from nameplate.storage import cache_folder

PREFIX = "hf:"
"""How a name on the hub begins."""
DATASETS = "datasets/"
"""What follows the prefix in the name of a data set."""
_NAME = re.compile(r"hf:(?P<kind>datasets/)?(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
CARD = "README.md"
"""The model card, as the hub names it."""
HF_ENDPOINT = "HF_ENDPOINT"
"""The environment variable that names another hub than huggingface.co."""
TIMEOUT = 20.0
"""Seconds to wait for the hub's first answer."""


Kind = Literal["model", "dataset"]
"""Kinds of repositories, as the hub names them."""


@dataclass(frozen=True, slots=True)
class HubName:
    """A repository on the hub."""

    repo: str
    """USER/NAME."""
    revision: str | None = None
    """A branch, a tag or a commit; None: the main branch."""
    kind: Kind = "model"

    def __str__(self) -> str:
        kind, revision = DATASETS if self.kind == "dataset" else "", f"@{self.revision}" if self.revision else ""
        return f"{PREFIX}{kind}{self.repo}{revision}"


def hub_name(text: str, kind: Kind = "model") -> HubName | None:
    """The repository that a name stands for; None where it does not begin with `hf:`.

    Raises:
        UsageError: it begins so and is no name, or one of the other kind.

    >>> hub_name("hf:maria/cars@v2")
    HubName(repo='maria/cars', revision='v2', kind='model')
    >>> str(hub_name("hf:datasets/maria/photos", "dataset"))
    'hf:datasets/maria/photos'
    >>> hub_name("cars196") is None
    True
    """
    if not text.startswith(PREFIX):
        return None
    found = _NAME.fullmatch(text)
    form = f"{PREFIX}{DATASETS if kind == 'dataset' else ''}USER/NAME"
    if found is None or ".." in text:
        raise UsageError(f"'{text}' is no name on the hub: write {form} or {form}@REVISION.")
    if (found["kind"] is not None) != (kind == "dataset"):
        what = "a data set" if kind == "dataset" else "a bundle"
        raise UsageError(f"'{text}' does not name {what} on the hub, which is {form}.")
    return HubName(found["repo"], found["revision"], kind)


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

    def check(sizes: Mapping[str, int]) -> None:
        for file, most in limits.items():
            if sizes.get(file, 0) > most:
                raise BundleError(f"'{name}': {file} has {sizes[file]:,} bytes, at most {most:,} are fetched.")

    return _fetched(name, list(limits), check, BundleError)


def fetch_dataset(name: HubName, suffixes: Sequence[str], most: int) -> Path:
    """Fetch a data set's photos, tables and archives into the cache; without a connection, use what is there.

    Args:
        name: the repository.
        suffixes: of the files to fetch, in lower case.
        most: bytes that they may have together.

    Returns:
        The folder of the data set.

    Raises:
        DataError: there is no such repository, it may not be read, has no such files or too large ones, or the hub
            cannot be reached and the cache does not have it.
        RuntimeUnavailableError: huggingface_hub is not installed.
    """

    def check(sizes: Mapping[str, int]) -> None:
        wanted = [size for file, size in sizes.items() if file.lower().endswith(tuple(suffixes))]
        if not wanted:
            raise DataError(f"'{name}' has neither photos nor tables: {', '.join(list(sizes)[:5]) or 'it is empty'}.")
        if sum(wanted) > most:
            raise DataError(f"'{name}' has {sum(wanted):,} bytes, at most {most:,} are fetched.")

    patterns = [f"*{form}" for suffix in suffixes for form in (suffix, suffix.upper())]
    return _fetched(name, patterns, check, DataError)


def _fetched(
    name: HubName, patterns: list[str], check: Callable[[Mapping[str, int]], None], failure: type[NameplateError]
) -> Path:
    """Fetch the files of a repository that match, after `check` accepted the sizes of all its files."""
    hub, errors = _package()
    where = {"cache_dir": cache_folder() / "hub", "endpoint": os.environ.get(HF_ENDPOINT), "repo_type": name.kind}
    try:
        api = hub.HfApi(endpoint=where["endpoint"], library_name="nameplate")
        found = api.repo_info(
            name.repo, repo_type=name.kind, revision=name.revision, files_metadata=True, timeout=TIMEOUT
        )
        check({file.rfilename: file.size or 0 for file in found.siblings or ()})
        # It finds the commit once, so that all files are of one state, and remembers it for later without a connection.
        return Path(hub.snapshot_download(name.repo, revision=name.revision, allow_patterns=patterns, **where))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise failure(
            f"The hub has no '{name}', or you may not read it. If it is private, set HF_TOKEN or run 'hf auth login'. "
            f"({_first_line(error)})"
        ) from None
    except Exception as error:  # the errors of the network are those of whichever library huggingface_hub uses
        if isinstance(error, NameplateError):
            raise
        kept = _from_cache(hub, name, patterns, where)
        if kept is None:
            raise failure(
                f"The hub cannot be reached, and '{name}' is not in the cache ({_first_line(error)}). Try again with a "
                "connection, or give a folder."
            ) from None
        return kept


def _from_cache(hub: Any, name: HubName, patterns: list[str], where: Mapping[str, Any]) -> Path | None:
    """The folder of an earlier download of the same revision; None where there is none."""
    try:
        found = hub.snapshot_download(
            name.repo, revision=name.revision, allow_patterns=patterns, local_files_only=True, **where
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
            f"The hub needs more packages ('{error.name}' is missing): pip install 'nameplate[hub]'."
        ) from None
