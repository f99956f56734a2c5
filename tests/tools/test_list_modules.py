"""The README's list of modules."""

from __future__ import annotations

from tools.list_modules import PACKAGE, ROOMS, ROOT, module_list, with_list


def test_the_readme_lists_every_module_with_its_first_sentence() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_list(readme) == readme, "run: python tools/list_modules.py"


def test_every_package_is_listed() -> None:
    packages = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert packages == set(ROOMS)
    assert "    decode.py" in module_list()
