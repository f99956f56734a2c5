"""What users may write: nameplates and comments, normalised and held to a length."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from nameplate.errors import UsageError

NAMEPLATE_CHARACTERS = 200
COMMENT_CHARACTERS = 2_000
DECOMPOSED = 4
"""How much longer text may arrive than it is kept: composing letters and their marks shortens it."""
UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
"""Unicode's general categories (Unicode Standard, section 4.5) of what a name has none of: control and format
characters, which make two names that look alike, and what is assigned to nothing."""


def clean_nameplate(text: str, field: str = "nameplate") -> str:
    """A name on one line: NFC, each run of white space one blank.

    Raises:
        UsageError: empty, longer than 200 characters, or with characters that cannot be seen.
    """
    cleaned = " ".join(_composed(text, field, NAMEPLATE_CHARACTERS).split())
    if not cleaned:
        raise UsageError(f"'{field}' is empty: say which car it is.")
    _check(cleaned, field, NAMEPLATE_CHARACTERS, UNSEEN)
    return cleaned


def clean_comment(text: str, field: str = "comment") -> str:
    """Some lines of text: NFC, white space collapsed within each; may be empty.

    Raises:
        UsageError: longer than 2,000 characters, or with control characters.
    """
    lines = _composed(text, field, COMMENT_CHARACTERS).splitlines()
    cleaned = "\n".join(" ".join(line.split()) for line in lines).strip()
    _check(cleaned.replace("\n", " "), field, COMMENT_CHARACTERS, UNSEEN - {"Cf"})  # emoji are joined by these
    return cleaned


def known_spelling(text: str, nameplates: Iterable[str]) -> str:
    """The nameplate that equals the text up to case, else the text."""
    folded = text.casefold()
    return next((name for name in nameplates if name.casefold() == folded), text)


def _composed(text: str, field: str, characters: int) -> str:
    if len(text) > DECOMPOSED * characters:
        raise _too_long(field, len(text), characters)
    return unicodedata.normalize("NFC", text)


def _check(text: str, field: str, characters: int, refused: frozenset[str]) -> None:
    if len(text) > characters:
        raise _too_long(field, len(text), characters)
    unseen = next((letter for letter in text if unicodedata.category(letter) in refused), None)
    if unseen is not None:
        raise UsageError(f"'{field}' holds the character U+{ord(unseen):04X}, which cannot be seen: leave it out.")


def _too_long(field: str, length: int, characters: int) -> UsageError:
    return UsageError(f"'{field}' has {length:,} characters; {characters:,} are the most.")
