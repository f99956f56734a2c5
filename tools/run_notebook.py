"""Runs docs/notebooks/notebook.ipynb from top to bottom, and keeps what it showed, so that a reader sees it anywhere.

    python -m tools.run_notebook

A page that a result shows is kept as a picture of its upper part (which needs Chromium): hosts show no frames.
"""

from __future__ import annotations

import base64
import html
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from tools.notebook_guide import screenshot

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebooks" / "notebook.ipynb"
FRAME = re.compile(r'<iframe srcdoc="(.*?)" sandbox', re.DOTALL)
WIDTH, HEIGHT = 1000, 900
"""Size of the pictures in pixels."""


def run(notebook: Any, timeout: float = 600) -> Any:
    """Run all cells in a kernel of this Python, and return the notebook with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell has failed.
    """
    return NotebookClient(notebook, timeout=timeout, kernel_name="python3").execute()


def with_pictures(notebook: Any, chromium: str) -> Any:
    """Replace frames by pictures; drop times, and what the programs say on the way."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
            for output in cell.outputs:
                data = output.get("data", {})
                if frame := FRAME.search(data.get("text/html", "")):
                    output.data = {"image/jpeg": _picture(html.unescape(frame[1]), chromium)}
                elif len(data) > 1:
                    data.pop("text/plain", None)
    return notebook


def _picture(page: str, chromium: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        file, picture = Path(folder) / "page.html", Path(folder) / "page.jpg"
        file.write_text(page, "utf-8")
        screenshot(file, picture, WIDTH, HEIGHT, chromium)
        return base64.b64encode(picture.read_bytes()).decode()


def main() -> None:
    """Command line."""
    found = with_pictures(run(nbformat.read(NOTEBOOK, as_version=4)), shutil.which("chromium") or "chromium")
    nbformat.write(found, NOTEBOOK)


if __name__ == "__main__":
    main()
