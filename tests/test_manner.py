"""Rules of style that no linter here checks."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import nameplate
from tests.conftest import BY_PLACE, LONGEST_FIRST

MOST_PARAMETERS = 7
"""More are hard to call rightly: those that belong together become a dataclass."""

SOURCE = Path(str(nameplate.__file__)).parent


def crowded(source: str, most: int = MOST_PARAMETERS) -> list[tuple[str, int]]:
    """Functions, with their line, that take more parameters than `most`; `self` and `cls` are not counted."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            taken = node.args
            every = [*taken.posonlyargs, *taken.args, *taken.kwonlyargs, taken.vararg, taken.kwarg]
            names = [one.arg for one in every if one is not None]
            if len(names) - (names[:1] in (["self"], ["cls"])) > most:
                found.append((getattr(node, "name", "lambda"), node.lineno))
    return found


def test_no_function_outside_the_command_line_takes_more_than_seven_parameters() -> None:
    files = [path for path in sorted(SOURCE.rglob("*.py")) if SOURCE / "cli" not in path.parents]
    assert len(files) > 50
    offenders = [
        f"{path.relative_to(SOURCE)}:{line} {name}" for path in files for name, line in crowded(path.read_text("utf-8"))
    ]
    assert offenders == []


@pytest.mark.parametrize(
    ("parameters", "counted"),
    [("a, b", False), ("a, b, c", True), ("a, *, b, c", True), ("a, *b, **c", True), ("a, /, b, c", True)],
)
def test_every_kind_of_parameter_is_counted(parameters: str, counted: bool) -> None:
    assert crowded(f"async def f({parameters}): ...", most=2) == ([("f", 1)] if counted else [])


def test_what_a_method_is_bound_to_is_not_counted() -> None:
    source = "class A:\n    def one(self, a, b): ...\n    def two(cls, a, b, c): ..."
    assert crowded(source, most=2) == [("two", 3)]


def test_the_folders_that_conftest_names_exist() -> None:
    """A module that moves would lose its markers silently, and `make check` would run it."""
    tests = Path(__file__).parent
    assert [place for place in (*BY_PLACE, *LONGEST_FIRST) if not (tests / place).exists()] == []
