"""The options of commands that can run on Ray."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from nameplate.cluster import LOCAL, is_address
from nameplate.errors import UsageError

RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="[ADDRESS]",
        help="Work on Ray: one that is started on this machine, or a cluster: auto, HOST:PORT or ray://HOST:PORT.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="With --ray: processes, of --threads processors each.", show_default="as many as fit"),
]


def with_address(arguments: Sequence[str]) -> list[str]:
    """A command line in which every `--ray` has its address: the parser knows no option whose value may be absent.

    >>> with_address(["predict", "--ray", "photos", "--ray", "auto"])
    ['predict', '--ray', 'local', 'photos', '--ray', 'auto']
    """
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    found: list[str] = []
    for place, word in enumerate(arguments):
        found.append(word)
        following = arguments[place + 1] if place + 1 < end else ""
        if word == "--ray" and place < end and not is_address(following):
            found.append(LOCAL)
    return found


def check_ray(ray: str | None, workers: int | None) -> None:
    """Refuse what does not go together.

    Raises:
        UsageError: workers without Ray, or no address.
    """
    if workers is not None and ray is None:
        raise UsageError("--workers are Ray's: add --ray.")
    if ray is not None and not is_address(ray):
        raise UsageError(f"'{ray}' is no address of a Ray cluster: give auto, HOST:PORT or ray://HOST:PORT.")
