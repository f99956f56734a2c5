"""Links and headings of the Markdown pages: what the site's hook and the tests both need."""

from __future__ import annotations

import posixpath
import re

LINK = re.compile(r"(?<=\]\()(?![a-z]+:|/)([^)#\s]*)((?:#[^)\s]*)?)(?=\))")
"""The target of a link or picture inside the repository: the path, which may be empty, and the anchor with its `#`."""
_CODE = re.compile(r"^(```+).*?^\1|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} (.+?) *$", re.MULTILINE)


def links(markdown: str) -> list[tuple[str, str]]:
    """Path and anchor of every link inside the repository; what only looks like one, in code, is left out."""
    return [(found[1], found[2].removeprefix("#")) for found in LINK.finditer(_CODE.sub("", markdown))]


def anchors(markdown: str) -> set[str]:
    """The anchors of a page's headings, as the repository's host and the site make them."""
    text = re.sub(r"^(```+).*?^\1", "", markdown, flags=re.MULTILINE | re.DOTALL)
    found: dict[str, int] = {}
    for heading in _HEADING.findall(text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
    return {slug if number == 0 else f"{slug}-{number}" for slug, most in found.items() for number in range(most + 1)}


def target(link: str, page: str) -> str:
    """The path below the repository's root that a link leads to, from a page's own path."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link)) if link else page
