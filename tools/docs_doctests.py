"""Shows the examples of docstrings as code: an extension of griffe that mkdocs.yml names."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
"""An example and what it prints, up to the next empty line."""


class Doctests(griffe.Extension):  # type: ignore[misc]  # griffe is not there when types are checked
    """Fences the examples, which Markdown would take for quotations."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring before it is rendered."""
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
