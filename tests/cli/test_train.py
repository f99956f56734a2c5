"""`train` by recipes as processes: killed, interrupted, without disk space, several at once."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from nameplate.cli import main
from nameplate.demo import photo, photos_folder
from nameplate.fit.recipe import Recipe, Stage, recipe_toml
from nameplate.images.augment import Augmentation
from nameplate.images.mixing import Mixing
from nameplate.storage import working_in, writing
from tests.cli.forked import forked
from tests.cli.run import FORBIDDEN, MORE, few_photos, nameplate

needs_torch = pytest.mark.torch
MISSING = [
    name
    for name in ("torch", "timm", "accelerate", "onnx", "onnxscript", "tensorboard")
    if importlib.util.find_spec(name) is None
]
needs_extra = pytest.mark.skipif(bool(MISSING), reason="needs the train extra")

STAGE = Stage(height=32, width=48, epochs=2, batch=8, learning_rate=2e-3)
TINY = Recipe(
    "tiny", "for trying", "test_efficientnet", (STAGE,), weights="none", precision="float32", holdout=0.25, seed=3
)
RANDOM = replace(
    TINY,
    stages=(replace(STAGE, patience=2, restore_best=True), replace(STAGE, height=48, layer_decay=0.8, warmup=1)),
    augmentation=Augmentation(
        crop=(0.5, 1.0), zoom_out=0.5, fill="scene", brightness=0.2, hue=0.1, policy="trivialaugment"
    ),
    mixing=Mixing(mixup=0.5, cutmix=0.5, until=0.8),
    amsgrad=True,
    weight_decay=0.05,
    ema=0.9,
    dropout=0.2,
    drop_path=0.2,
    head_start=True,
)
"""Everything that draws."""


@dataclass(frozen=True)
class Started:
    """Starts `nameplate …` with a checkpoint after every step."""

    log: Path

    def run(self, *arguments: str | Path, meanwhile: Callable[[int], None] = lambda _: None) -> int:
        """The exit code; negative the signal. `meanwhile` is given the process's id."""
        self.log.unlink(missing_ok=True)
        program, words = str(Path(__file__).with_name("saving.py")), [str(each) for each in arguments]
        code = forked(program, words, (self.log, self.log), more=MORE, meanwhile=meanwhile)
        if code is not None:
            return code
        with (
            self.log.open("w") as log,
            subprocess.Popen([sys.executable, program, *words], stdout=log, stderr=log) as process,
        ):
            meanwhile(process.pid)
            return process.wait(300)


@pytest.fixture
def started(tmp_path: Path) -> Started:
    return Started(tmp_path / "log")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_photos(tmp_path_factory.mktemp("data") / "photos")


def written(target: Path, recipe: Recipe) -> Path:
    target.write_text(recipe_toml(recipe), "utf-8")
    return target


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("finished")
    recipe = written(folder / "random.toml", RANDOM)
    run = folder / "run"
    return run, nameplate("train", data, "--recipe", recipe, "--threads", "1", "-o", run, "--json")


def tensors(file: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(file)


def metrics(run: Path) -> list[dict[str, str]]:
    """metrics.csv without the columns of time."""
    with (run / "metrics.csv").open(newline="") as file:
        return [
            {k: v for k, v in row.items() if k not in ("seconds", "photos_per_second")} for row in csv.DictReader(file)
        ]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_for(happened: Callable[[], bool], pid: int) -> None:
    """Look all the time until it has, or the process has ended."""
    end = time.monotonic() + 300
    while not happened() and _alive(pid) and time.monotonic() < end:
        time.sleep(0.0005)


@needs_torch
@needs_extra
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been(
    finished: tuple[Path, object], data: Path, started: Started, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    checkpoint, events = run / "checkpoint.safetensors", random.Random(7)
    arguments: list[str | Path] = ["train", data, "--recipe", written(tmp_path / "r.toml", RANDOM)]
    arguments += ["--threads", "1", "-o", run]

    def inode() -> int:
        try:
            return checkpoint.stat().st_ino
        except OSError:  # between two
            return 0

    def while_it_trains(pid: int) -> None:
        for _ in range(events.randint(1, 2)):
            before = inode()
            wait_for(lambda before=before: inode() not in (0, before), pid)  # type: ignore[misc]
        time.sleep(events.random() * 0.3)
        os.kill(pid, signal.SIGKILL)

    def while_it_writes(pid: int) -> None:
        before = inode()
        wait_for(lambda: inode() not in (0, before), pid)
        wait_for(lambda: any(run.glob(".checkpoint.safetensors.*.part")), pid)
        os.kill(pid, signal.SIGKILL)

    def before_the_first_step(pid: int) -> None:
        wait_for((run / "augmented.jpg").exists, pid)
        os.kill(pid, signal.SIGKILL)

    def while_the_bundle_is_made(pid: int) -> None:
        wait_for((run / "weights.safetensors").exists, pid)
        os.kill(pid, signal.SIGKILL)

    half_written, said = 0, ""
    step_events = [before_the_first_step, while_it_writes, while_it_trains, while_it_writes, while_it_trains]
    for event in [*step_events, while_the_bundle_is_made]:
        assert started.run(*arguments, meanwhile=event) == -signal.SIGKILL, started.log.read_text("utf-8")
        half_written += any(run.glob(".checkpoint.safetensors.*.part"))
        said += started.log.read_text("utf-8")
        arguments = ["train", "--resume", run]
    assert half_written
    assert re.search(r"going on from epoch \d of at most 4(, after its step \d+)? …", said)
    assert started.run(*arguments) == 0, started.log.read_text("utf-8")
    _same_end(run, finished[0])
    assert not list(run.glob(".*"))
    nameplate("identify", "--model", run, photo())


def _same_end(run: Path, other: Path) -> None:
    for name in ("checkpoint.safetensors", "weights.safetensors"):
        first, second = tensors(run / name), tensors(other / name)
        assert first.keys() == second.keys()
        assert [key for key in first if first[key].tobytes() != second[key].tobytes()] == []
    saved = {key.split(".")[0] for key in tensors(run / "checkpoint.safetensors")}
    assert saved >= {"network", "average", "optimizer", "chosen"}
    assert metrics(run) == metrics(other)
    assert len(metrics(run)) == 4


@needs_torch
@needs_extra
@pytest.mark.parametrize(
    ("sent", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_an_interrupted_run_says_how_to_go_on(
    sent: signal.Signals, code: int, word: str, started: Started, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    recipe = written(tmp_path / "r.toml", replace(TINY, stages=(replace(STAGE, epochs=1000),)))

    def interrupt(pid: int) -> None:
        wait_for((run / "checkpoint.safetensors").exists, pid)
        os.kill(pid, sent)

    ended = started.run("train", data, "--recipe", recipe, "--threads", "1", "-o", run, meanwhile=interrupt)
    said = started.log.read_text("utf-8")
    assert ended == code, said
    assert f"{word} Go on from the last checkpoint: nameplate train --resume '{run}'." in said
    assert "Traceback" not in said
    assert "stopped: interrupted" in (run / "index.html").read_text("utf-8")


@needs_torch
@needs_extra
def test_a_run_that_another_process_works_on_is_refused_and_goes_on(
    started: Started, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    recipe = written(tmp_path / "r.toml", replace(TINY, stages=(replace(STAGE, epochs=1000),)))
    begin = ("train", data, "--recipe", recipe, "--threads", "1", "-o", run)

    def meanwhile(pid: int) -> None:
        wait_for((run / "checkpoint.safetensors").exists, pid)
        os.kill(pid, signal.SIGSTOP)  # it lives, and takes no processor meanwhile
        before = (run / "run.json").read_bytes()
        for arguments in (("train", "--resume", run), (*begin, "--overwrite")):
            code, _, err = call(monkeypatch, capsys, *arguments)
            assert code == 1
            assert f"Another run is writing '{run}'" in err
        assert (run / "run.json").read_bytes() == before
        assert _alive(pid)
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGCONT)

    assert started.run(*begin, meanwhile=meanwhile) == 130, started.log.read_text("utf-8")
    assert not (run / ".lock").exists()


@pytest.mark.parametrize(
    ("command", "made"),
    [
        (["train", "DATA", "-o", "OUT"], writing),
        (["compare", "DATA", "--backbones", "Lite0,Lite1", "-o", "OUT"], working_in),
        (["extra-data", "DATA", "DATA", "-o", "OUT"], working_in),
        (["export", "cars196", "--int8", "--calibrate", "DATA", "-o", "OUT"], writing),
    ],
)
def test_of_two_that_write_one_output_at_once_the_second_is_refused(
    command: list[str],
    made: Callable[[Path], AbstractContextManager[None]],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if command[0] in ("compare", "export") and MISSING:
        pytest.skip("needs the train extra")
    out = tmp_path / "out"
    with made(out):
        before = sorted(tmp_path.rglob("*"))
        code, said, err = call(monkeypatch, capsys, *({"DATA": str(data), "OUT": str(out)}.get(a, a) for a in command))
        assert (code, said) == (1, ""), err
        assert f"Another run is writing '{out}'" in err
        assert sorted(tmp_path.rglob("*")) == before
    assert not list(tmp_path.iterdir())


@needs_torch
@needs_extra
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs prlimit")
@pytest.mark.parametrize("limit", [600_000, 2_000])  # too little for a checkpoint; for anything
def test_a_full_disk_is_a_clear_end_and_the_last_checkpoint_stays(
    limit: int, started: Started, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    recipe = written(tmp_path / "r.toml", replace(TINY, stages=(replace(STAGE, epochs=1000),)))

    def fill(pid: int) -> None:
        wait_for((run / "metrics.csv").exists, pid)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, limit))

    code = started.run("train", data, "--recipe", recipe, "--threads", "1", "-o", run, meanwhile=fill)
    said = started.log.read_text("utf-8")
    assert code == 1, said
    assert "Traceback" not in said
    [error] = [line for line in said.splitlines() if line.startswith("error")]
    assert f"nameplate train --resume '{run}'" in error
    assert "File too large" in error
    kept = [name for name in ("checkpoint.safetensors", "checkpoint.previous.safetensors") if (run / name).exists()]
    assert tensors(run / kept[0])


@needs_torch
@needs_extra
def test_json_is_one_value_and_all_else_is_on_stderr(finished: tuple[Path, Any], data: Path) -> None:
    run, done = finished
    said = json.loads(done.stdout)
    assert said.keys() == {
        *("run", "bundle", "photos", "epochs", "exported", "steps", "resumed", "seconds", "runtime", "parity"),
        *("evaluation", "held_out_known", "left_out"),
    }
    assert (said["run"], said["bundle"]) == (str(run), str(run / "bundle"))
    assert [row["epoch"] for row in said["epochs"]] == [1, 2, 3, 4]
    assert (said["resumed"], said["steps"]) == (0, 4 * (said["photos"] // 8))
    assert said["photos"] + said["evaluation"]["photos"] == 35
    assert {each["runtime"] for each in said["parity"]} >= {"onnxruntime"}
    assert re.search(r"unreadable .*Corvane Lark/000\.jpg: truncated", done.stderr)
    told = re.findall(r"^epoch (\d), (\d+)×48: loss .* validation top-1", done.stderr, re.MULTILINE)
    assert told == [("1", "32"), ("2", "32"), ("3", "48"), ("4", "48")]


@needs_torch
@needs_extra
@pytest.mark.parametrize("keep_best", [True, False])
def test_figures_are_of_the_epoch_in_the_bundle_and_the_epoch_is_named(
    keep_best: bool,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ruin = replace(STAGE, height=48, width=64, epochs=1, learning_rate=1.0)
    stages = (replace(STAGE, epochs=3, learning_rate=5e-3), ruin)
    recipe = written(tmp_path / "r.toml", replace(TINY, stages=stages, optimizer="sgd", keep_best=keep_best))
    run = tmp_path / "run"
    code, out, err = call(monkeypatch, capsys, "train", data, "--recipe", recipe, "--threads", "1", "-o", run, "--json")
    assert code == 0, err
    said = json.loads(out)
    best = max(said["epochs"], key=lambda row: (row["validation_top1"], -row["validation_loss"]))
    assert best["stage"] == 1
    expected = best if keep_best else said["epochs"][-1]
    assert {key: said["exported"][key] for key in ("epoch", "stage", "height", "width", "validation_top1")} == {
        key: expected[key] for key in ("epoch", "stage", "height", "width", "validation_top1")
    }
    assert said["exported"]["chosen_by_held_out"] is keep_best
    bundle = json.loads((run / "bundle" / "bundle.json").read_text("utf-8"))
    assert bundle["provenance"]["exported"] == said["exported"]
    assert (bundle["preprocess"]["height"], bundle["preprocess"]["width"]) == (expected["height"], expected["width"])
    assert said["evaluation"]["top1"] == pytest.approx(expected["validation_top1"], abs=0.13)  # one photo
    page = (run / "index.html").read_text("utf-8")
    assert f"The bundle holds epoch {expected['epoch']} of 4, " in page
    assert re.search(rf"<b>{100 * said['evaluation']['top1']:.1f} %</b>top-1 of the bundle", page)
    code, out, _ = call(monkeypatch, capsys, "train", "--resume", run)
    [line] = [line for line in out.splitlines() if line.startswith("Exported")]
    assert f"epoch {expected['epoch']} of 4, {expected['height']}×{expected['width']}" in line
    assert ("flatter a little" in line) is keep_best
    assert (f"epoch {best['epoch']} had" in line) is not keep_best


@needs_torch
@needs_extra
def test_resuming_a_finished_run_says_that_it_is_and_keeps_it(
    finished: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    code, out, err = call(monkeypatch, capsys, "train", "--resume", run)
    assert code == 0, err
    assert "all epochs were completed before" in err
    assert "Held out" in out
    _same_end(run, finished[0])


@needs_torch
@needs_extra
def test_a_run_goes_on_from_elsewhere_and_with_photos_that_have_moved(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    shutil.copytree(data, tmp_path / "here" / "photos")
    monkeypatch.chdir(tmp_path / "here")
    recipe = written(tmp_path / "r.toml", TINY)
    arguments = ("train", "photos", "--recipe", recipe, "--threads", "1", "-o", "run")
    monkeypatch.setattr("nameplate.train.finetune.fine_tune", interrupt)
    assert call(monkeypatch, capsys, *arguments)[0] == 130
    monkeypatch.undo()
    run, moved = tmp_path / "here" / "run", tmp_path / "there" / "all"
    moved.mkdir()
    for number, path in enumerate(sorted((tmp_path / "here" / "photos").rglob("*.jpg"))):
        path.rename(moved / f"{number}.jpg")
    (moved / "35.jpg").unlink()
    monkeypatch.chdir(tmp_path / "there")
    code, _, err = call(monkeypatch, capsys, "train", "--resume", run)
    assert code == 1
    assert "photos of" in err
    assert f"nameplate train --resume '{run}' --data FOLDER" in err
    code, _, err = call(monkeypatch, capsys, "train", "--resume", run, "--data", photos_folder("train"))
    assert code == 1
    assert "None of the 35 photos of" in err
    code, out, err = call(monkeypatch, capsys, "train", "--resume", run, "--data", "all")
    assert code == 0, err
    assert f"34 of 35 photos of '{run}' are where --data says." in err
    assert re.search(r"missing /.*/here/photos/.*\.jpg: neither there nor where it was", err)
    assert "Held out" in out
    rows = json.loads((run / "run.json").read_text("ascii"))["photos"]
    assert sum(row["path"].startswith(str(moved)) for row in rows) == 34


def interrupt(*_: object, **__: object) -> None:
    """What a person does."""
    raise KeyboardInterrupt


@needs_torch
@needs_extra
def test_a_loss_that_is_no_number_is_one_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, run = written(tmp_path / "r.toml", TINY), tmp_path / "run"
    arguments = ("train", data, "--recipe", recipe, "--set", "stages.learning_rate=1e30", "--threads", "1", "-o", run)
    code, out, err = call(monkeypatch, capsys, *arguments)
    assert (code, out) == (1, "")
    [line] = [line for line in err.splitlines() if line.startswith("error")]
    assert "The loss is" in line
    assert "learning_rate=" in line
    assert "stopped: The loss is" in (run / "index.html").read_text("utf-8")
    code, _, err = call(monkeypatch, capsys, *arguments)
    assert code == 1
    assert "--resume" in err
    assert "--overwrite" in err


@needs_torch
@needs_extra
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--resume", "."], 1, "is not a run that can be resumed"),
        (["DATA", "--recipe", "RECIPE", "-o", "DATA"], 1, "is not a run, so it is not replaced"),
        (["DATA", "--recipe", "RECIPE", "-o", "DATA", "--overwrite"], 1, "is not a run, so it is not replaced"),
        (["DATA", "--recipe", "RECIPE", "-o", "r", "--backbone", "EfficentNetB7"], 2, "EfficientNetB7"),
        (["nowhere", "--recipe", "RECIPE", "-o", "r"], 1, "There is no 'nowhere'"),
    ],
)
def test_what_training_refuses(
    arguments: list[str],
    code: int,
    said: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"DATA": str(data), "RECIPE": str(written(tmp_path / "tiny.toml", TINY))}
    before = sorted(data.rglob("*"))
    found, out, err = call(monkeypatch, capsys, "train", *(given.get(a, a) for a in arguments), "--threads=1")
    if "--resume" in arguments:  # which takes no --threads
        found, out, err = call(monkeypatch, capsys, "train", *arguments)
    assert (found, out) == (code, ""), err
    assert said in err
    assert sorted(data.rglob("*")) == before
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.toml"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "x", "--resume", "r"], "--resume"),
        (["train", "--resume", "r", "-o", "b"], "--resume"),
        (["train", "--resume", "r", "--set", "seed=1"], "--resume"),
        (["train", "--resume", "r", "--seed", "0"], "--resume"),
        (["train", "-o", "b", "--recipe", "fast"], "Give the labelled photos"),
        (["train", "x", "-o", "b", "--data", "y"], "--data says where the photos of a run are now"),
        (["train", "x", "-o", "b", "--recipe", "fine-tun"], "Did you mean 'fine-tune'?"),
        (["train", "x", "-o", "b", "--recipe", "fast", "--set", "stages.epoch=3"], "Did you mean 'stages.epochs'?"),
        (["train", "x", "-o", "b", "--recipe", "fast", "--mirror"], "--mirror is for recipe 'head'"),
        (["train", "x", "-o", "b", "--recipe", "fast", "--seed", "-1"], "--seed"),
        (["train", "--resume", "r", "--epochs", "3"], "--resume"),
        (["train", "x", "-o", "b", "--track", "wandb"], "--track is for the training of one network"),
        (["train", "x", "-o", "b", "--recipe", "fast", "--track", "neptune"], "give wandb or mlflow"),
        (["train", "x", "-o", "b", "--epochs", "3"], "--epochs is for recipes that train a network, not for 'head'"),
        (["train", "x", "-o", "b", "--batch", "8"], "--batch is for recipes that train a network"),
        (["train", "x", "-o", "b", "--recipe", "fine-tune", "--epochs", "3"], "the recipe has 4 stages"),
        (["train", "x", "-o", "b", "--recipe", "fast", "--size", "big"], "--size big"),
        (["train", "x", "-o", "b", "--recipe", "fast", "--size", "20x20"], "--size 20x20"),
        (["augment", "x", "-o", "a.jpg", "--recipe", "head"], "trains no network"),
        (["augment", "x", "-o", "a.gif"], "Cannot write 'a.gif': its name must end in .jpg, .jpeg, .png"),
        (["augment", "x", "-o", "sheet"], "Cannot write 'sheet'"),
        (["augment", "x", "-o", "a.jpg", "--recipe", "original", "--stage", "9"], "There is no stage 9"),
    ],
)
def test_wrong_usage_exits_with_2_before_anything_is_read(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(monkeypatch, capsys, *arguments)
    assert (code, out) == (2, ""), err
    assert said in err
    assert not list(tmp_path.iterdir())


@needs_torch
@needs_extra
def test_holdout_seed_epochs_size_and_batch_reach_the_recipe(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, run = written(tmp_path / "r.toml", replace(TINY, weights="nowhere.safetensors")), tmp_path / "run"
    plain = ("--epochs", "1", "--size", "48x64", "--batch", "4")
    options = ("--holdout", "0", "--seed", "11", "--set", "weights=none", *plain, "--threads", "1")
    code, out, err = call(monkeypatch, capsys, "train", data, "--recipe", recipe, *options, "-o", run, "--json")
    assert code == 0, err
    assert json.loads(out)["evaluation"] is None
    assert json.loads(out)["photos"] == 35
    made = json.loads((run / "run.json").read_text("ascii"))["recipe"]
    assert made["seed"] == 11
    [stage] = made["stages"]
    assert (stage["epochs"], stage["height"], stage["width"], stage["batch"]) == (1, 48, 64, 4)
    assert json.loads(out)["steps"] == 8


def test_without_torch_the_commands_say_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules.update(torch=None, timm=None, accelerate=None)\nfrom nameplate.cli import main; main()"
    )
    for arguments in (
        ["train", str(photos_folder("test")), "--recipe", "fast", "-o", "run"],
        ["train", "--resume", "run"],
        ["backbones"],
        ["backbone", "Lite0", "-o", "bundle"],
        ["convert-weights", "a.pth", "b.safetensors"],
    ):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 1, f"{arguments}: {done.stderr}"
        assert "pip install 'nameplate[train]'" in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
    assert not list(tmp_path.iterdir())


def test_help_recipes_and_augment_import_nothing_heavy(tmp_path: Path) -> None:
    heavy = [name for name in FORBIDDEN if name != "matplotlib"]  # whose font the sheet is written in
    code = (
        "import sys; from nameplate.cli import app\n"
        "for arguments in sys.argv[1].split(';'):\n"
        "    try: app(arguments.split())\n"
        "    except SystemExit as error: assert not error.code, arguments\n"
        f"sys.exit(' '.join(m for m in {heavy} if m in sys.modules) or 0)"
    )
    commands = ["--help", "train --help", "recipes", "recipes --json", f"augment {photos_folder('test')} -o a.jpg"]
    done = subprocess.run(
        [sys.executable, "-c", code, ";".join(commands)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.jpg").exists()


def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str | Path
) -> tuple[int, str, str]:
    """`nameplate …` in this process: exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["nameplate", *map(str, arguments)])
    code: Any = 0
    try:
        main()
    except SystemExit as error:
        code = error.code or 0
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return int(code), said.out, said.err
