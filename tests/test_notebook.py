"""docs/notebooks/notebook.ipynb: it runs from top to bottom, and what it shows is there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tools.links import links, target

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebooks" / "notebook.ipynb"


def cells(kind: str) -> list[dict[str, Any]]:
    """The cells of a kind, in their order."""
    return [cell for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if cell["cell_type"] == kind]


def shown(outputs: list[dict[str, Any]]) -> set[str]:
    """The media types of a cell's results."""
    return {kind for output in outputs for kind in output.get("data", {})}


def test_it_was_run_from_top_to_bottom_and_keeps_pictures_and_tables() -> None:
    code = cells("code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(output["output_type"] != "error" for cell in code for output in cell["outputs"])
    kinds = [shown(cell["outputs"]) for cell in code[1:-1]]  # the first one makes the data, the last one clears up
    assert all(kind & {"image/jpeg", "text/html"} for kind in kinds)
    assert NOTEBOOK.stat().st_size < 1_500_000


def test_its_links_lead_to_files() -> None:
    found = [path for cell in cells("markdown") for path, _ in links("".join(cell["source"]))]
    assert found
    meant = [NOTEBOOK.parents[2] / target(path, "docs/notebooks/notebook.ipynb") for path in found]
    assert [path for path in meant if not path.is_file()] == []


@pytest.mark.slow
@pytest.mark.torch
def test_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    from tools.run_notebook import run

    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("PYTHONPATH", os.fspath(NOTEBOOK.parents[2] / "src"))
    made = run(nbformat.read(NOTEBOOK, as_version=4))
    before = [shown(cell["outputs"]) for cell in cells("code")]
    after = [shown(cell.outputs) for cell in made.cells if cell.cell_type == "code"]
    assert len(after) == len(before)
    assert all(then for then, now in zip(after, before, strict=True) if now)
