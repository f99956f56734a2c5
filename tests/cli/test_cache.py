"""`nameplate cache`: its sizes, and that --clear deletes what is ours and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from nameplate.cli.cache import KINDS, kept
from tests.cli.run import nameplate

SOURCE = Path(__file__).parents[2] / "src/nameplate"


def test_sizes_and_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    monkeypatch.setenv("NAMEPLATE_CACHE", str(folder))
    assert kept() == []
    (folder / "embeddings" / "a").mkdir(parents=True)
    (folder / "embeddings" / "a" / "1.safetensors").write_bytes(b"x" * 2_000_000)
    (folder / "proofs").mkdir()
    (folder / "proofs" / "b.json").write_bytes(b"{}")
    (folder / "letters").mkdir()
    (folder / "letters" / "dear.txt").write_bytes(b"mine")
    elsewhere.mkdir()
    (elsewhere / "photo.jpg").write_bytes(b"mine")
    (folder / "archives").symlink_to(elsewhere)
    found = json.loads(nameplate("cache", "--json").stdout)
    assert (found["files"], found["bytes"], found["folder"]) == (2, 2_000_002, str(folder))
    assert [each["kind"] for each in found["kinds"]] == ["embeddings", "proofs"]
    assert "2.0 MB" in nameplate("cache").stdout
    nameplate("cache", "--clear")
    assert sorted(path.name for path in folder.iterdir()) == ["letters"]
    assert (folder / "letters" / "dear.txt").exists()
    assert (elsewhere / "photo.jpg").exists()


def test_every_folder_of_the_cache_is_known() -> None:
    text = "".join(path.read_text("utf-8") for path in SOURCE.rglob("*.py"))
    used = set(re.findall(r'cache_folder\(\) / "(\w+)"', text)) | set(re.findall(r'ArrayCache\(\s*"(\w+)"', text))
    assert used <= set(KINDS)
    assert len(used) >= 7
