"""`train_on_ray`: the processes that torchrun would start, started by Ray Train; what they do is the same.

Ray Train launches and nothing more: checkpoints and resuming are ours, in the run's folder. A worker that dies ends
the group; a new one goes on from the last checkpoint.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nameplate.cluster import Letters, connected, crew
from nameplate.datasets.sources import Dataset
from nameplate.errors import NameplateError
from nameplate.models.collection import Progress
from nameplate.models.runtime import available_cpus
from nameplate.training.recipe import Recipe
from nameplate.training.run import load_run

if TYPE_CHECKING:
    from nameplate.training.fine_tune import FineTuned, Say, Watch
    from nameplate.training.loop import Moment

RESTARTS = 3
"""Groups of workers that are started anew after one of them died."""
TOLD_SECONDS = 0.5
"""Between two words of a worker's progress."""
ATTEMPTS_LEFT = "Go on from the last checkpoint: nameplate train --resume '{}' --ray."
Refusals = Callable[[list[tuple[str, str]], tuple[str, ...]], None]
"""What is called with what a data set left out, and why, and with its notes."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a new run begins with; see `start`."""

    read: Callable[[Progress], Dataset]
    """Must bear being sent to a worker: it may hold paths, but nothing that is open."""
    recipe: Recipe
    index: bool = False
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Orders:
    """What each worker is told."""

    folder: Path
    working: Path
    """The folder that relative paths are meant from."""
    beginning: Beginning | None
    threads: int


def train_on_ray(
    folder: Path,
    beginning: Beginning | None,
    *,
    address: str,
    workers: int | None = None,
    threads: int | None = None,
    watch: Watch = lambda _: None,
    say: Say = lambda _: None,
    progress: Progress = lambda *_: None,
    refused: Refusals = lambda *_: None,
) -> FineTuned:
    """Train a run on the processors of a Ray cluster.

    Args:
        folder: the run's, on storage that all nodes share.
        beginning: of a new run; None goes on with the one in `folder`, with as many workers as it began with.
        address: see `nameplate.cluster.connected`.
        workers: processes that train together; None takes those that a run began with, else as many as fit.
        threads: processors of each; likewise.
        watch: see `fine_tune`.
        say: see `fine_tune`.
        progress: see `start`.
        refused: called with what the data set left out, and why, and with its notes.

    Raises:
        UsageError: the nodes cannot hold so many workers; or as for `start` and `fine_tune`.
        NameplateError: as for these; or workers died again and again.
    """
    folder = folder.absolute()
    if beginning is None:
        run = load_run(folder)
        workers, threads = workers or run.processes, threads or run.threads
    with connected(address, available_cpus()) as cluster:
        hands = crew(cluster, workers, threads, workers or cluster.cpus)
        orders = Orders(folder, Path.cwd(), beginning, hands.threads)
        mail = _Mail(watch, say, progress, refused)
        for _ in range(1 + RESTARTS):
            mail.failed = None
            died = _launch(orders, hands.workers, mail)
            if mail.failed is not None:
                raise mail.failed
            if mail.made is not None:
                return mail.made
            if mail.begun:
                orders = replace(orders, beginning=None)
            say("a worker died; a new group goes on from the last checkpoint")
        raise died or NameplateError(f"Workers died {1 + RESTARTS} times. {ATTEMPTS_LEFT.format(folder)}")


class _Mail:
    """Delivers what workers wrote."""

    def __init__(self, watch: Watch, say: Say, progress: Progress, refused: Refusals) -> None:
        self._shown: dict[str, Callable[[Any], None]] = {
            "watch": watch,
            "say": say,
            "progress": lambda content: progress(*content),
            "refused": lambda content: refused(*content),
        }
        self.begun = False
        self.made: FineTuned | None = None
        self.failed: NameplateError | None = None

    def deliver(self, letters: list[tuple[str, Any]]) -> None:
        """Show them, or keep them."""
        for kind, content in letters:
            if kind in self._shown:
                self._shown[kind](content)
            elif kind == "begun":
                self.begun = True
            elif kind == "made":
                self.made = content
            else:
                self.failed = self.failed or content


def _launch(orders: Orders, workers: int, mail: _Mail) -> Exception | None:
    """One group of workers from beginning to end; what Ray says where it ended badly."""
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    letters: Any = ray.remote(num_cpus=0)(Letters).remote()
    own = orders.folder.with_name(f".{orders.folder.name}.ray")  # Ray Train's, on storage that the nodes share
    trainer = TorchTrainer(
        _work,
        train_loop_config={"orders": orders, "letters": letters},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": orders.threads}),
        run_config=RunConfig(name="run", storage_path=str(own)),
    )
    ended = threading.Event()

    def show() -> None:
        while not ended.wait(TOLD_SECONDS):
            mail.deliver(ray.get(letters.take.remote()))

    showing = threading.Thread(target=show, daemon=True)
    showing.start()
    try:
        trainer.fit()
        return None
    except TrainingFailedError as error:
        died: Exception = error
        return died
    finally:
        ended.set()
        showing.join()
        mail.deliver(ray.get(letters.take.remote()))
        shutil.rmtree(own, ignore_errors=True)


def _work(config: dict[str, Any]) -> None:
    """One worker: `start` and `fine_tune`, as under torchrun."""
    orders, letters = config["orders"], config["letters"]
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # processors are what it was given
    if orders.working.is_dir():
        os.chdir(orders.working)  # the process is ours alone

    def put(kind: str, content: Any) -> None:
        import ray

        ray.get(letters.put.remote(kind, content))

    try:
        _train(orders, put)
    except NameplateError as error:
        put("failed", error)
        raise


def _train(orders: Orders, put: Callable[[str, Any], None]) -> None:
    from nameplate.training.fine_tune import fine_tune, start  # here, so that Ray's own processes go without

    begin, teller = orders.beginning, _Teller(put)
    if begin is not None:

        def read() -> Dataset:
            dataset = begin.read(teller.progress)
            put("refused", ([(entry.name, entry.reason) for entry in dataset.refused], dataset.notes))
            return dataset

        start(
            read,
            orders.folder,
            begin.recipe,
            threads=orders.threads,
            index=begin.index,
            overwrite=begin.overwrite,
            progress=teller.progress,
        )
    put("begun", None)
    main = os.environ["RANK"] == "0"
    made = fine_tune(orders.folder, watch=teller.watch if main else lambda _: None, say=teller.say)
    if made is not None:
        put("made", made)


class _Teller:
    """Tells how far a worker is, no oftener than can be read."""

    def __init__(self, put: Callable[[str, Any], None]) -> None:
        self._put = put
        self._told = 0.0
        self._last: Moment | None = None

    def progress(self, step: str, done: int, total: int) -> None:
        """See `Progress`."""
        if self._is_time() or done == total:
            self._put("progress", (step, done, total))

    def watch(self, moment: Moment) -> None:
        """See `fine_tune`."""
        first, self._last = self._last is None, moment
        if self._is_time() or first:
            self._put("watch", moment)

    def say(self, text: str) -> None:
        """See `fine_tune`; the last moment again before it, which by now knows how its epoch ended."""
        if self._last is not None:
            self._put("watch", self._last)
        self._put("say", text)

    def _is_time(self) -> bool:
        now = time.monotonic()
        due = now - self._told >= TOLD_SECONDS
        self._told = now if due else self._told
        return due
