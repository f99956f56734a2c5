"""`nameplate train` under torchrun: several processes on one machine, two nodes, a node that dies, a resumed run."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nameplate.fit.recipe import Recipe, Stage, recipe_toml
from tests.cli.run import few_photos, nameplate

NEEDED = ("torch", "timm", "accelerate", "onnx", "onnxscript", "tensorboard")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(any(importlib.util.find_spec(name) is None for name in NEEDED), reason="needs the train extra"),
]

# Without batch norm, whose statistics are each process's own, and without anything drawn at random, several processes
# compute what one computes, up to the order of sums.
PLAIN = Recipe(
    "plain",
    "for trying",
    "test_vit",
    (
        Stage(height=32, width=48, epochs=1, batch=8, learning_rate=2e-3, train="head"),
        Stage(height=32, width=48, epochs=2, batch=8, learning_rate=2e-3, layer_decay=0.8),
    ),
    weights="none",
    precision="float32",
    holdout=0.3,
    seed=3,
    optimizer="sgd",
    ema=0.5,
)

DRIVER = """
import json, os, signal
from pathlib import Path
import nameplate.train.loop as loop
from nameplate.cli import main

made = loop.training_batches
rank = int(os.environ["RANK"])

def recorded(paths, mine, size, augmentation, seed, epoch, threads):
    if os.environ.get("DIES") == f"rank {rank}, epoch {epoch}":
        os.kill(os.getpid(), signal.SIGKILL)
    with Path(os.environ["SHARES"]).joinpath(f"{rank}.jsonl").open("a") as file:
        file.write(json.dumps([epoch, len(paths), [int(place) for batch in mine for place in batch]]) + "\\n")
    return made(paths, mine, size, augmentation, seed, epoch, threads)

loop.training_batches = recorded
main()
"""
"""`nameplate` that writes down which photos each process trains on, and dies on demand."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "plain.toml"
    file.write_text(recipe_toml(PLAIN), "utf-8")
    return file


@pytest.fixture(scope="module")
def alone(data: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run by one process."""
    run = tmp_path_factory.mktemp("alone") / "run"
    nameplate("train", data, "--recipe", recipe, "--threads", "1", "-o", run)
    return run


def torchrun(options: list[str], arguments: list[str | Path], **environment: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", *options]
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            **{k: str(v) for k, v in environment.items()},
        },
    )


def one_machine(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Two processes of one node."""
    process = torchrun(["--standalone", "--nproc-per-node", "2", "-m"], ["nameplate", *arguments])
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def two_nodes(
    driver: Path, *arguments: str | Path, **environment: str | Path
) -> list[subprocess.CompletedProcess[str]]:
    """One process on each of two nodes, as two machines would start them, that meet on the loopback interface."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", str(port)]
    nodes = [
        torchrun([*meeting, "--node-rank", str(number)], [driver, *arguments], **environment) for number in range(2)
    ]
    said = [node.communicate(timeout=300) for node in nodes]
    return [
        subprocess.CompletedProcess(node.args, node.returncode, *texts) for node, texts in zip(nodes, said, strict=True)
    ]


def tensors(file: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(file)


def refuse_difference(run: Path, other: Path) -> None:
    """Fail where two runs have other figures on held-out photos, or other weights."""
    rows, others = (
        list(csv.DictReader((each / "metrics.csv").read_text("utf-8").splitlines())) for each in (run, other)
    )
    assert len(rows) == 3
    for row, alike in zip(rows, others, strict=True):
        assert row["validation_top1"] == alike["validation_top1"]
        assert float(row["validation_loss"]) == pytest.approx(float(alike["validation_loss"]), abs=1e-5)
    first, second = (tensors(each / "weights.safetensors") for each in (run, other))
    assert first.keys() == second.keys()
    assert max(abs(first[name] - second[name]).max() for name in first) < 1e-4


def test_two_processes_train_as_one(data: Path, recipe: Path, alone: Path, tmp_path: Path) -> None:
    two = one_machine("train", data, "--recipe", recipe, "--threads", "1", "-o", tmp_path / "two")
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("Trained on") == 1
    assert two.stderr.count("epoch 1,") == 1
    run = json.loads((tmp_path / "two" / "run.json").read_text("ascii"))
    assert run["processes"] == 2
    held = sum(row["split"] == "validation" for row in run["photos"])
    assert held % 2 == 1
    refuse_difference(tmp_path / "two", alone)


def test_two_nodes_train_as_one_process_also_after_one_of_them_died(
    data: Path, recipe: Path, alone: Path, tmp_path: Path
) -> None:
    driver, run, shares = tmp_path / "driver.py", tmp_path / "run", tmp_path / "shares"
    driver.write_text(DRIVER, "utf-8")
    shares.mkdir()
    begin = ("train", data, "--recipe", recipe, "--threads", "1", "-o", run)
    died = two_nodes(driver, *begin, SHARES=shares, DIES="rank 1, epoch 2")
    assert [node.returncode != 0 for node in died] == [True, True], died
    assert "Signal 9 (SIGKILL)" in died[1].stderr
    assert "Another of the 2 processes has ended, or cannot be reached" in died[0].stderr
    assert f"nameplate train --resume '{run}'" in died[0].stderr
    assert (run / "checkpoint.safetensors").is_file()
    assert not (run / "bundle").exists()

    first, second = two_nodes(driver, "train", "--resume", run, "--json", SHARES=shares)
    assert (first.returncode, second.returncode) == (0, 0), (first.stderr, second.stderr)
    said = json.loads(first.stdout)
    assert 0 < said["resumed"] < said["steps"]
    assert second.stdout == ""  # one process writes the run, and tells of it
    assert second.stderr.count("epoch ") == 0
    assert json.loads((run / "run.json").read_text("ascii"))["processes"] == 2
    refuse_difference(run, alone)

    seen: list[dict[int, set[int]]] = []
    photos = 0
    for rank in range(2):
        lines = [json.loads(line) for line in (shares / f"{rank}.jsonl").read_text("ascii").splitlines()]
        seen.append({epoch: set(places) for epoch, _, places in lines})
        photos = lines[0][1]
    for epoch in range(3):  # in each epoch every photo trains once, on one of the nodes
        assert not seen[0][epoch] & seen[1][epoch]
        assert seen[0][epoch] | seen[1][epoch] == set(range(photos))


def test_processes_that_cannot_share_a_batch_are_refused_and_none_is_left_waiting(
    data: Path, recipe: Path, tmp_path: Path
) -> None:
    done = one_machine("train", data, "--recipe", recipe, "--set", "stages.batch=7", "-o", tmp_path / "run")
    assert done.returncode != 0
    assert done.stderr.count("A batch of 7 cannot be shared evenly by 2 processes") == 1
    assert re.search(r"exitcode\s*: 2\b", done.stderr)
    assert not (tmp_path / "run").exists()
