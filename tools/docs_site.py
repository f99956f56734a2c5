"""What the documentation's site has beside `docs/`: a hook that mkdocs.yml names.

The reference of the commands is made from the commands, the gallery's pages from the embedded photos (see gallery.py).
Changelog, contributing guide and the files of the repository that pages link to come from where they lie, so that links
lead somewhere both in the repository and on the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from tools.cli_reference import cli_reference
from tools.gallery import PAGES
from tools.links import LINK, links, target

ROOT = Path(__file__).parents[1]
GALLERY = ROOT / "build" / "gallery"
ELSEWHERE = {
    "CHANGELOG.md": "reference/changelog.md",
    "CONTRIBUTING.md": "reference/contributing.md",
    "README.md": "index.md",
    "README.ru.md": "ru/getting-started.md",
}
"""File in the repository → the page that stands for it on the site."""
PAGE_OF = re.compile(r"<!-- page: (\S+) -->")
"""In the gallery: which page of PAGES the picture above shows."""
LOADED = re.compile(
    r"""<(?:script|img|iframe|link|source|video)\b[^>]*?\b(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)"""
)
"""Something that a browser would fetch from elsewhere when it shows a page."""


def on_config(config: Any) -> Any:
    """Replace the patterns in the navigation by the pages that they fit."""
    config["nav"] = [_expanded(each, Path(config["docs_dir"])) for each in config["nav"]]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made, and the files of the repository that pages link to."""
    made = {"reference/cli.md": cli_reference()}
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        made[ELSEWHERE[name]] = (ROOT / name).read_text("utf-8")
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    for file in list(files.documentation_pages()):
        for path in _outside(file):
            if path not in ELSEWHERE and f"repository/{path}" not in files.src_uris:
                _copy(files, config, f"repository/{path}", ROOT / path)
    for page in PAGES:
        if not (GALLERY / page).is_file():
            raise PluginError(f"'{GALLERY / page}' is not there: run python -m tools.gallery build/gallery")
        _copy(files, config, f"gallery/{page}", GALLERY / page)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links out of docs/ to the copies, and comments of the gallery that name a page to links."""
    if page.file.src_uri == "gallery.md":
        markdown = PAGE_OF.sub(r"[Open this page](gallery/\1){ .md-button }", markdown)
    place = _place(page.file)
    # A comment right above a table would make both one block of HTML.
    markdown = re.sub(r"^(<!-- .* -->)$", r"\n\1\n", markdown, flags=re.MULTILINE)
    return LINK.sub(lambda found: _moved(found[1], place, page.file.src_uri) + found[2], markdown)


def on_post_build(config: Any) -> None:
    """Refuse a site of which a page fetches anything from elsewhere."""
    site = Path(config["site_dir"])
    found = {
        f"{path.relative_to(site)}: {url}"
        for path in sorted(site.rglob("*.html"))
        for url in LOADED.findall(path.read_text("utf-8"))
        if not (config["site_url"] and url.startswith(config["site_url"]))
    }
    if found:
        raise PluginError("pages load from elsewhere:\n  " + "\n  ".join(sorted(found)[:20]))


def _expanded(entry: Any, docs: Path) -> Any:
    if not isinstance(entry, dict):
        return entry
    [(title, below)] = entry.items()
    if not isinstance(below, list):
        return entry
    pages: list[Any] = []
    for each in below:
        if isinstance(each, str) and "*" in each:
            pages += sorted(path.relative_to(docs).as_posix() for path in docs.glob(each))
        else:
            pages.append(_expanded(each, docs))
    return {title: pages}


def _place(file: File) -> str:
    """Where the text of a page lies in the repository, as a path below its root."""
    origin = {page: name for name, page in ELSEWHERE.items() if name not in ("README.md", "README.ru.md")}
    return origin.get(file.src_uri, f"docs/{file.src_uri}")


def _outside(file: File) -> set[str]:
    """The files of the repository outside docs/ that a page links to."""
    place = _place(file)
    targets = {target(path, place) for path, _ in links(file.content_string)}
    return {each for each in targets if not each.startswith(("docs/", "..")) and (ROOT / each).is_file()}


def _moved(link: str, place: str, uri: str) -> str:
    """A link as it is from the place of the page on the site."""
    meant = target(link, place)
    if not link or (place == f"docs/{uri}" and meant.startswith("docs/")):
        return link
    here = posixpath.dirname(uri) or "."
    if meant.startswith("docs/"):
        return posixpath.relpath(meant.removeprefix("docs/"), here)
    if not (ROOT / meant).is_file():
        return link  # mkdocs says that it leads nowhere
    return posixpath.relpath(ELSEWHERE.get(meant, f"repository/{meant}"), here)


def _copy(files: Files, config: Any, uri: str, path: Path) -> None:
    files.append(File.generated(config, uri, abs_src_path=str(path)))
