"""Checkpoints: what is restored, a full disk, damage, and that the next step is the same."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nameplate.errors import NameplateError
from nameplate.types import Epoch

pytestmark = pytest.mark.torch
if importlib.util.find_spec("torch") is None:
    pytest.skip("needs torch", allow_module_level=True)

import torch  # noqa: E402
from torch import nn  # noqa: E402

from nameplate.train.checkpoint import (  # noqa: E402
    CHECKPOINT,
    PREVIOUS,
    State,
    load_checkpoint,
    optimizer_tensors,
    part,
    restore_optimizer,
    save_checkpoint,
)

torch.set_num_threads(1)

Count = st.integers(0, 2**40)
Number = st.floats(allow_nan=False, allow_infinity=False)
Name = st.binary(max_size=12).map(os.fsdecode)  # file names need not be UTF-8
Epochs = st.builds(
    Epoch, Count, Count, Count, Count, Number, Number, st.none() | Number, st.none() | Number, Number, Number
)  # fmt: skip
States = st.builds(
    State, Count, Count, Count, Count, Count, Count, Number, Count, Number, Number, st.none() | Number, Count, Count,
    st.lists(Epochs, max_size=2), st.dictionaries(Name, Name, max_size=2), Count,
)  # fmt: skip


def tensors(value: float = 1.0) -> dict[str, Any]:
    return {"network.a": torch.full((3, 4), value), "network.count": torch.tensor(7)}


def loaded(run: Path) -> tuple[State, dict[str, Any]]:
    found = load_checkpoint(run)
    assert found is not None
    return found


# --- what comes back ----------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(state=States)
def test_a_state_is_loaded_as_it_was_saved(tmp_path: Path, state: State) -> None:
    save_checkpoint(tmp_path, state, tensors())
    assert loaded(tmp_path)[0] == state


def test_tensors_are_loaded_as_they_were_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    given_ = {
        "last": torch.randn(2, 3, 5, 7).to(memory_format=torch.channels_last),
        "view": torch.randn(6, 6)[::2, 1:],
        "turned": torch.randn(4, 5).T,
        "scalar": torch.tensor(3.5),
        "count": torch.tensor(2**40),
        "half": torch.randn(3).to(torch.bfloat16),
        "grad": torch.randn(3, requires_grad=True),
        "none": torch.zeros(0, 3),
    }
    save_checkpoint(tmp_path, State(), given_)
    _, found = loaded(tmp_path)
    assert found.keys() == given_.keys()
    for name, tensor in given_.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        assert torch.equal(found[name], tensor), name


def test_without_a_checkpoint_nothing_is_loaded(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None
    assert load_checkpoint(tmp_path / "nowhere") is None


def test_there_is_no_pickle_and_no_rest(tmp_path: Path) -> None:
    for number in range(3):
        save_checkpoint(tmp_path, State(steps=number), tensors(number))
    assert sorted(file.name for file in tmp_path.iterdir()) == [PREVIOUS, CHECKPOINT]
    data = (tmp_path / CHECKPOINT).read_bytes()
    assert data[8:9] == b"{"  # safetensors: the header's length, then JSON
    assert not data.startswith((b"PK", b"\x80"))


def test_parts_are_by_their_prefix() -> None:
    given_ = {"best.a.b": torch.tensor(1), "best.c": torch.tensor(2), "bestial.c": torch.tensor(3)}
    assert {name: int(value) for name, value in part(given_, "best").items()} == {"a.b": 1, "c": 2}


# --- the next step ------------------------------------------------------------------------------------


def network() -> Any:
    torch.manual_seed(3)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 3))
    return layers.to(memory_format=torch.channels_last)


def optimizer(kind: str, layers: nn.Module) -> Any:
    groups = [
        {"params": [p for p in layers.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in layers.parameters() if p.ndim == 1]},
    ]
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True)
    return {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[kind](groups, lr=0.05, fused=True)


def step(layers: Any, steps: Any, number: int) -> None:
    torch.manual_seed(number)
    loss = nn.functional.cross_entropy(layers(torch.randn(4, 3, 8, 8)), torch.tensor([0, 1, 2, 0]))
    steps.zero_grad()
    loss.backward()
    steps.step()


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
def test_a_step_after_restoring_is_the_same_bit_for_bit(tmp_path: Path, kind: str) -> None:
    layers = network()
    steps = optimizer(kind, layers)
    for number in range(3):
        step(layers, steps, number)
    kept = {f"network.{name}": value for name, value in layers.state_dict().items()}
    save_checkpoint(tmp_path, State(), kept | optimizer_tensors(steps))
    _, found = loaded(tmp_path)
    again = network()
    again.load_state_dict(part(found, "network"))
    new = optimizer(kind, again)
    restore_optimizer(new, found)
    for parameter, step_events in new.state.items():
        for event in step_events.values():
            assert event.shape != parameter.shape or event.stride() == parameter.stride()
    for number in (3, 4):
        step(layers, steps, number)
        step(again, new, number)
    assert all(torch.equal(value, layers.state_dict()[name]) for name, value in again.state_dict().items())
    fresh = network()
    fresh.load_state_dict(part(found, "network"))
    other = optimizer(kind, fresh)  # its moments begin at zero: the test can tell
    step(fresh, other, 3)
    step(fresh, other, 4)
    assert not all(torch.equal(value, layers.state_dict()[name]) for name, value in fresh.state_dict().items())


def test_restored_moments_are_not_the_ones_given() -> None:
    layers = network()
    steps = optimizer("adamw", layers)
    step(layers, steps, 0)
    given_ = optimizer_tensors(steps)
    before = {name: value.clone() for name, value in given_.items()}
    other = network()
    new = optimizer("adamw", other)
    restore_optimizer(new, given_)
    step(other, new, 1)
    assert all(torch.equal(value, before[name]) for name, value in given_.items())


@pytest.mark.parametrize("fused", [True, False])
def test_a_fused_optimizer_counts_where_its_parameters_are(fused: bool) -> None:
    """On a GPU it reads the count there; the device "meta" stands for one here."""
    parameter = nn.Parameter(torch.zeros(3, 4, device="meta"))
    steps = torch.optim.AdamW([parameter])
    steps.defaults["fused"] = fused
    restore_optimizer(steps, {"optimizer.0.step": torch.tensor(5.0), "optimizer.0.exp_avg": torch.ones(3, 4)})
    assert steps.state[parameter]["step"].device.type == ("meta" if fused else "cpu")
    assert steps.state[parameter]["exp_avg"].device.type == "meta"


# --- damage -------------------------------------------------------------------------------------------


def two(run: Path) -> None:
    save_checkpoint(run, State(steps=1), tensors(1))
    save_checkpoint(run, State(steps=2), tensors(2))


@pytest.mark.parametrize("keep", [0, 4, 60, -1])
def test_a_truncated_checkpoint_falls_back_to_the_previous_one(tmp_path: Path, keep: int) -> None:
    two(tmp_path)
    assert loaded(tmp_path)[0].steps == 2
    data = (tmp_path / CHECKPOINT).read_bytes()
    (tmp_path / CHECKPOINT).write_bytes(data[:keep])
    state, found = loaded(tmp_path)
    assert state.steps == 1
    assert torch.equal(found["network.a"], tensors(1)["network.a"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_damaged_header_never_ends_in_a_traceback(tmp_path: Path, place: int, byte: int) -> None:
    save_checkpoint(tmp_path, State(steps=3, lost={"a.jpg": "gone"}), tensors())
    (tmp_path / PREVIOUS).unlink(missing_ok=True)
    data = bytearray((tmp_path / CHECKPOINT).read_bytes())
    data[place % (len(data) - 64)] = byte
    (tmp_path / CHECKPOINT).write_bytes(data)
    try:
        loaded(tmp_path)
    except NameplateError as error:
        assert "No checkpoint can be read" in str(error)


def test_two_damaged_checkpoints_are_reported_with_their_names(tmp_path: Path) -> None:
    two(tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(b"")
    (tmp_path / PREVIOUS).write_bytes(b"\x10" + bytes(30))
    with pytest.raises(NameplateError) as caught:
        load_checkpoint(tmp_path)
    for said in (f"'{tmp_path / CHECKPOINT}'", f"'{tmp_path / PREVIOUS}'", "Train anew with another --output"):
        assert said in str(caught.value)


def test_another_schema_is_refused_with_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nameplate.train.checkpoint.SCHEMA", 9)
    save_checkpoint(tmp_path, State(), tensors())
    monkeypatch.undo()
    with pytest.raises(NameplateError, match="its schema is 9, this Nameplate reads 1"):
        load_checkpoint(tmp_path)


def test_a_run_killed_between_the_two_renames_resumes_from_the_previous_one(tmp_path: Path) -> None:
    two(tmp_path)
    (tmp_path / CHECKPOINT).replace(tmp_path / PREVIOUS)
    (tmp_path / f".{CHECKPOINT}.x.part").write_bytes(b"half")
    assert loaded(tmp_path)[0].steps == 2
    save_checkpoint(tmp_path, State(steps=3), tensors(3))
    assert loaded(tmp_path)[0].steps == 3
    (tmp_path / CHECKPOINT).unlink()
    assert loaded(tmp_path)[0].steps == 2


# --- a full disk --------------------------------------------------------------------------------------

FULL = """
import resource, signal, sys
from pathlib import Path
import torch
from nameplate.errors import NameplateError
from nameplate.train.checkpoint import State, load_checkpoint, save_checkpoint

run = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit then fails as on a full disk
save_checkpoint(run, State(steps=1), {"a": torch.full((512, 512), 1.0)})
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    save_checkpoint(run, State(steps=2), {"a": torch.full((512, 512), 2.0)})
except NameplateError as error:
    print(error)
state, tensors = load_checkpoint(run)
print(state.steps, float(tensors["a"].mean()), *sorted(file.name for file in run.iterdir()))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs setrlimit")
def test_a_full_disk_leaves_the_last_good_one(tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, timeout=600, env=environment
    )
    assert done.returncode == 0, done.stderr
    said, rest = done.stdout.strip().split("\n")
    assert "File too large" in said
    assert str(tmp_path / CHECKPOINT) in said
    assert "The last good one is intact" in said
    assert f"nameplate train --resume '{tmp_path}'" in said
    assert rest == f"1 1.0 {CHECKPOINT}"  # no half-written file either


def test_a_folder_that_cannot_be_written_to_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(NameplateError, match=r"Cannot write the checkpoint '.*file.*--resume"):
        save_checkpoint(tmp_path / "file", State(), tensors())
