"""`Engines`: the bundles that are served, and how one is exchanged for a newer one while requests go on."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path

from nameplate.errors import BundleError, NameplateError, UsageError, did_you_mean
from nameplate.models.bundle import BACKBONE, IN_RUN, MANIFEST, MAX_BYTES, load_bundle
from nameplate.models.model import Model
from nameplate.serving.engine import Engine, Observer
from nameplate.serving.problems import Problem
from nameplate.serving.settings import ServeSettings
from nameplate.storage import sha256

LOOK_SECONDS = 1.0
"""How often bundles are looked at for changes."""


@dataclass(slots=True)
class Served:
    """A bundle that is served."""

    source: str
    """As the operator named it."""
    engine: Engine
    folder: Path
    """A copy of the bundle, which workers that are started later read, whatever becomes of the original."""
    digest: str
    """SHA-256 of its bundle.json, which holds those of all its files."""
    exchanging: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class Engines:
    """All bundles that are served, by name; the first answers where none is named."""

    settings: ServeSettings
    observer: Observer
    served: dict[str, Served] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def load(self) -> None:
        """Read and check every bundle; no worker is started yet.

        Raises:
            NameplateError: one cannot be served.
            UsageError: two have one name.
        """
        for source in self.settings.bundles:
            served = self._read(source)
            if served.engine.name in self.served:
                raise UsageError(f"Two bundles are called '{served.engine.name}'. Serve one of them, or rename one.")
            self.served[served.engine.name] = served

    async def start(self) -> None:
        """Start every bundle's workers.

        Raises:
            NameplateError: one cannot be served.
        """
        for served in self.served.values():
            await served.engine.start()
        if self.settings.reload_on_change:
            self._keep(self._watch())

    async def stop(self, patience: float) -> None:
        """Answer what is under way, for so many seconds, then end all workers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(served.engine.stop(patience) for served in self.served.values()))
        self.remove_copies()

    def remove_copies(self) -> None:
        """Remove the copies of the bundles."""
        for served in self.served.values():
            shutil.rmtree(served.folder, ignore_errors=True)

    @property
    def ready(self) -> dict[str, bool]:
        """Of each bundle, whether it answers."""
        return {name: served.engine.ready for name, served in self.served.items()}

    def get(self, name: str | None = None) -> Engine:
        """The engine of that name, or the first.

        Raises:
            Problem: there is none; `not-found`.
        """
        return self.find(name).engine

    def find(self, name: str | None = None) -> Served:
        """`get`, with where it comes from."""
        if name is None:
            return next(iter(self.served.values()))
        if name not in self.served:
            known = ", ".join(self.served)
            raise Problem(
                "not-found", f"No model '{name}' is served.{did_you_mean(name, self.served)} There is {known}."
            )
        return self.served[name]

    async def reload(self, name: str) -> bool:
        """Exchange a bundle for what now stands on disk: load, check, warm up, switch; False where it is the same.

        Raises:
            Problem: the old one goes on, and why.
        """
        served = self.find(name)
        async with served.exchanging:
            try:
                changed = await self._exchange(served)
            except NameplateError as error:
                self.observer.event("reload refused", model=name, reason=str(error))
                raise Problem("conflict", f"'{name}' goes on as it was: {error}") from None
        self.observer.event("reload", model=name, changed=changed, digest=served.digest)
        return changed

    async def _exchange(self, served: Served) -> bool:
        new = await asyncio.to_thread(self._read, served.source)
        try:
            if new.digest == served.digest:
                shutil.rmtree(new.folder, ignore_errors=True)
                return False
            if new.engine.name != served.engine.name:
                raise BundleError(f"the bundle is called '{new.engine.name}' now")
            await new.engine.start()
        except BaseException:
            shutil.rmtree(new.folder, ignore_errors=True)
            raise
        old, folder = served.engine, served.folder
        served.engine, served.folder, served.digest = new.engine, new.folder, new.digest

        async def leave() -> None:
            await old.stop(self.settings.drain_seconds)
            shutil.rmtree(folder, ignore_errors=True)

        self._keep(leave())
        return True

    def _read(self, source: str) -> Served:
        original = load_bundle(source).folder
        assert original is not None
        folder = Path(tempfile.mkdtemp(prefix="nameplate-served-"))
        try:
            for name in MAX_BYTES:  # a bundle's files and no others
                if (original / name).is_file():
                    shutil.copyfile(original / name, folder / name)
            settings = self.settings
            model = Model.load(folder, runtime="onnxruntime", threads=1, limits=settings.limits, tta=settings.tta)
            model.require_head()
            digest = sha256((folder / MANIFEST).read_bytes())
            return Served(source, Engine(model, settings, self.observer), folder, digest)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise BundleError(f"Cannot copy '{source}': {error.strerror or error}.") from None
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    async def _watch(self) -> None:
        """Reload what changes on disk; what is refused is not tried again until it changes once more."""
        seen = {name: _stamp(served.source) for name, served in self.served.items()}
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for name, served in self.served.items():
                stamp = _stamp(served.source)
                if stamp is None or stamp == seen[name]:
                    continue
                seen[name] = stamp
                try:
                    await self.reload(name)
                except Problem:
                    continue  # the observer was told

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _stamp(source: str) -> tuple[int, ...] | None:
    """What changes when a bundle does; None while there is none, as for a moment when it is replaced."""
    for folder in (Path(source), Path(source) / IN_RUN):
        try:
            found = [(folder / name).stat() for name in (MANIFEST, BACKBONE)]
        except OSError:
            continue
        return tuple(number for each in found for number in (each.st_mtime_ns, each.st_size, each.st_ino))
    return None
