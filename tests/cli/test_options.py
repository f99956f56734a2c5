"""`--ray` on the command line: an option whose address may be absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nameplate.cli.options import with_address
from tests.cli.run import nameplate


@pytest.mark.parametrize(
    ("given", "spelled"),
    [
        ("predict b p --ray", "predict b p --ray local"),
        ("predict b --ray p -o o", "predict b --ray local p -o o"),
        ("predict b --ray -o o p", "predict b --ray local -o o p"),
        ("predict b p --ray auto", "predict b p --ray auto"),
        ("predict b p --ray h:6379 -o o", "predict b p --ray h:6379 -o o"),
        ("predict b p --ray=ray://h:1", "predict b p --ray=ray://h:1"),
        ("identify -- --ray x", "identify -- --ray x"),
    ],
)
def test_a_missing_address_is_this_machine(given: str, spelled: str) -> None:
    assert with_address(given.split()) == spelled.split()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict", "cars196", "p", "-o", "o.csv", "--ray=photos"], "'photos' is no address of a Ray cluster"),
        (["predict", "cars196", "p", "-o", "o.csv", "--workers", "2"], "--workers are Ray's"),
        (["predict", "cars196", "p", "-o", "o.csv", "--ray", "--profile"], "A profile can be made of one process only"),
    ],
)
def test_what_does_not_go_together_is_wrong_usage(tmp_path: Path, arguments: list[str], said: str) -> None:
    assert said in nameplate(*arguments, check=2, cwd=tmp_path).stderr
    assert not any(tmp_path.iterdir())


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ray.py").write_text("raise ImportError('no ray', name='ray')\n", "ascii")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.jpg").write_bytes(b"no photo")
    done = nameplate("predict", "cars196", "p", "-o", "o.csv", "--ray", check=1, cwd=tmp_path)
    assert "--ray needs Ray ('ray' is missing): pip install 'nameplate[ray]'" in done.stderr
