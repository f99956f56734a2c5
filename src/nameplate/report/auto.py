"""The page of a training within a time limit: what was tried, what each took, what was chosen and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nameplate.report.page import fill, write_html
from nameplate.types import Evaluation, Metric


@dataclass(frozen=True, slots=True)
class AutoPage:
    """What the page shows."""

    preset: str
    limit: str
    """The time limit in words."""
    used: str
    """The time used in words."""
    share: float
    """The time used as a share of the limit."""
    tried: Sequence[tuple[str, str, str]]
    """What it was, how long it took, and what came out."""
    candidates: Sequence[tuple[str, Metric, float, int]]
    """Name, top-1, log-loss, and number of photos that trained none of its members."""
    chosen: str
    """The name of the candidate that was chosen."""
    notes: Sequence[str]
    """Reasons, as sentences."""
    held_out: Evaluation | None
    """The chosen bundle on photos that chose nothing; None without such."""
    made: str
    """When the run began, ISO 8601 in UTC."""


def auto_page(page: AutoPage) -> str:
    """The page as HTML."""
    return fill("auto.html", page=page)


def write_auto_page(target: Path, page: AutoPage) -> None:
    """Write the page as one file.

    Raises:
        WriteError: it cannot be written.
    """
    write_html(target, auto_page(page))
