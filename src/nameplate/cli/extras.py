"""What a command needs that only an extra of the package installs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nameplate.errors import NameplateError


@contextmanager
def needs_extra(extra: str, needing: str) -> Iterator[None]:
    """Imports inside it may be of packages that only an extra installs.

    Args:
        extra: its name.
        needing: what needs it, and the verb: "Training a network needs".

    Raises:
        NameplateError: one is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise NameplateError(
            f"{needing} more packages ('{error.name}' is missing): pip install 'nameplate[{extra}]'."
        ) from None
