"""What is wrong with a command line before it is taken apart."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nameplate.errors import UsageError

TAKE_ADDRESSES = ("predict", "serve", "feedback")
"""Commands that read addresses, and say themselves which."""
ADDRESS = re.compile(r"(--[a-z-]+=)?(?P<address>[A-Za-z][A-Za-z0-9+.-]*://.*)", re.DOTALL)


def refuse_addresses(words: Sequence[str]) -> list[str]:
    """A command line as it is, if it names no address where only files are read: a path would lose its second `/`.

    Raises:
        UsageError: it does.

    >>> refuse_addresses(["identify", "a.jpg"])
    ['identify', 'a.jpg']
    """
    command = next((word for word in words if not word.startswith("-")), "")
    for before, word in zip(["", *words], words, strict=False):
        found = ADDRESS.fullmatch(word)
        if found and command not in TAKE_ADDRESSES and before != "--ray" and not word.startswith("--ray="):
            raise UsageError(
                f"'{found['address']}' is an address, and '{command}' reads files: nothing is fetched. "
                "Download it first, and give the file."
            )
    return list(words)
