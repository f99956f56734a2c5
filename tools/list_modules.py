"""Write the README's list of modules: each with the first sentence of its docstring, so that the two cannot differ.

python tools/list_modules.py
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "nameplate"
ROOMS = (
    "images",
    "data",
    "runtime",
    "model",
    "evaluate",
    "audit",
    "fit",
    "report",
    "web",
    "train",
    "experiments",
    "batch",
    "serve",
    "demo",
    "cli",
)
"""The packages in the order in which they import each other, lowest first."""
BEGIN, END = "```\nsrc/nameplate/\n", "```\n"


def sentence(module: Path) -> str:
    """The first sentence of a module's docstring, without its full stop."""
    paragraph = (ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    return re.split(r"(?<=[.!?])\s", " ".join(paragraph.split()))[0].rstrip(".")


def module_list() -> str:
    """The list: the modules beside the packages, then each package with its modules; migrations are left out."""
    lines = [_line(2, path.name, path) for path in sorted(PACKAGE.glob("*.py")) if path.name != "__main__.py"]
    for room in ROOMS:
        folder = PACKAGE / room
        lines.append(_line(2, f"{room}/", folder / "__init__.py"))
        modules = sorted(path for path in folder.rglob("*.py") if path.name != "__init__.py")
        lines += [
            _line(4, path.relative_to(folder).as_posix(), path) for path in modules if "migrations" not in path.parts
        ]
    return "".join(lines)


def with_list(readme: str) -> str:
    """A README's text with the list as it is now."""
    before, rest = readme.split(BEGIN, maxsplit=1)
    return f"{before}{BEGIN}{module_list()}{END}{rest.split(END, maxsplit=1)[1]}"


def _line(indent: int, name: str, module: Path) -> str:
    return f"{' ' * indent}{name:{26 - indent}}{sentence(module)}\n"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(with_list(readme.read_text(encoding="utf-8")), encoding="utf-8")
