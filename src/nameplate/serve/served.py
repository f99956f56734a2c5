"""`Engines`: the served bundles by name, and the aliases. Both are exchanged while requests go on."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from nameplate.errors import BundleError, NameplateError, UsageError, WriteError, did_you_mean
from nameplate.model.bundle import BACKBONE, IN_RUN, MANIFEST, MAX_BYTES, load_bundle
from nameplate.model.model import Model
from nameplate.serve.aliases import DEFAULT, NAME, Aliases, Weights, check_alias, choose, read_aliases, write_aliases
from nameplate.serve.copies import BundleCopy, remove_orphans
from nameplate.serve.engine import Engine, Observer
from nameplate.serve.errors import Problem
from nameplate.serve.observability import event
from nameplate.serve.settings import ServeSettings
from nameplate.storage import sha256

CHECK_SECONDS = 1.0
"""Seconds between two checks whether a bundle has changed on disk."""


@dataclass(slots=True)
class Served:
    """A bundle that is served."""

    source: str
    """The name or path of the bundle that the operator gave."""
    called: str
    """The name that the operator gave the model; empty: as its bundle is called."""
    engine: Engine
    copy: BundleCopy
    """A copy of the bundle. Workers that start later read it, so changes to the original cannot reach them."""
    digest: str
    """SHA-256 of its bundle.json, which itself holds the SHA-256 of all other files."""
    exchanging: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held during a reload, so that two requests for one do not load the bundle twice."""


@dataclass(slots=True)
class Engines:
    """All served bundles by name. Requests that name no model get the alias `default`, or else the first one."""

    settings: ServeSettings
    observer: Observer
    served: dict[str, Served] = field(default_factory=dict)
    aliases: Aliases = field(default_factory=dict)
    """Replaced as a whole, so that a request sees either the old weights or the new ones."""
    _switching: asyncio.Lock = field(default_factory=asyncio.Lock)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def load(self) -> None:
        """Read and check every bundle; no worker is started yet.

        Raises:
            NameplateError: a bundle cannot be served, or the file of aliases cannot be read.
            UsageError: two bundles have the same name, or settings name a model that is not served.
        """
        if orphans := remove_orphans():
            event("copies removed", folders=orphans, reason="their service was killed")
        with ExitStack() as copies:
            for given in self.settings.bundles:
                served = self._read(*named_bundle(given))
                copies.callback(served.copy.remove)
                name = served.engine.name
                if name in self.served:
                    raise UsageError(f"Two bundles are called '{name}'. Give one another name: OTHER={served.source}")
                self.served[name] = served
            self.aliases = self._aliases()
            for name in self.settings.threads_of:
                if name not in self.served:
                    raise UsageError(f"Threads are set for '{name}', which is not served.{self._known(name)}")
            copies.pop_all()

    def _aliases(self) -> Aliases:
        """The aliases that the file keeps, or else those of the settings."""
        file, found = self.settings.aliases_file, self.settings.aliases
        if file is not None and file.exists():
            found = read_aliases(file)
            event("aliases kept", aliases=found, file=str(file))
        for name, weights in found.items():
            check_alias(name, weights, self.served)
        return found

    def _known(self, name: str) -> str:
        return (
            f"{did_you_mean(name, [*self.served, *self.aliases])} There is {', '.join([*self.served, *self.aliases])}."
        )

    async def start(self) -> None:
        """Start every bundle's workers.

        Raises:
            NameplateError: a bundle cannot be served.
        """
        for served in self.served.values():
            await served.engine.start()
        if self.settings.reload_on_change:
            self._spawn(self._reload_changes())

    async def stop(self, patience: float) -> None:
        """Answer what is under way for up to `patience` seconds, then end all workers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(served.engine.stop(patience) for served in self.served.values()))
        self.remove_copies()  # last: a worker that restarts meanwhile still reads its copy

    def remove_copies(self) -> None:
        """Delete the copies of the bundles from disk."""
        for served in self.served.values():
            served.copy.remove()

    @property
    def ready(self) -> dict[str, bool]:
        """Bundle's name → whether it answers."""
        return {name: served.engine.ready for name, served in self.served.items()}

    def alias(self, name: str | None) -> str | None:
        """Return the alias by which a request finds its model; None if it names a model itself."""
        if name is None:
            return DEFAULT if DEFAULT in self.aliases else None
        return name if name in self.aliases else None

    def find(self, name: str | None = None, key: str = "") -> Served:
        """Return the bundle that answers a request.

        Args:
            name: of a model or an alias; None: the alias `default`, or the first bundle if there is none.
            key: by which an alias chooses among its models.

        Raises:
            Problem: nothing has that name (`not-found`).
        """
        alias = self.alias(name)
        if alias is not None:
            return self.served[choose(self.aliases[alias], key)]
        if name is None:
            return next(iter(self.served.values()))
        if name not in self.served:
            raise Problem("not-found", f"No model '{name[:80]}' is served.{self._known(name)}")
        return self.served[name]

    def of(self, name: str) -> list[Served]:
        """Return all bundles that a name stands for.

        Raises:
            Problem: nothing has that name (`not-found`).
        """
        return [self.served[model] for model in self.aliases[name]] if name in self.aliases else [self.find(name)]

    async def switch(self, name: str, weights: Weights | None) -> None:
        """Make an alias, or change its weights at once for all requests that come; None removes it.

        It is kept first, so that a service which is started anew has it too.

        Raises:
            Problem: it cannot be (`unprocessable`) or be kept (`not-kept`), or there is none to remove (`not-found`).
        """
        async with self._switching:
            if weights is None and name not in self.aliases:
                known = ", ".join(self.aliases) or "none"
                raise Problem("not-found", f"No alias is called '{name[:80]}'. There is {known}.")
            wanted = {other: found for other, found in self.aliases.items() if other != name}
            try:
                if weights is not None:
                    check_alias(name, weights, self.served)
                    wanted[name] = weights
                if self.settings.aliases_file is not None:
                    await asyncio.to_thread(write_aliases, self.settings.aliases_file, wanted)
            except UsageError as error:
                raise Problem("unprocessable", str(error)) from None
            except WriteError as error:
                raise Problem("not-kept", f"The aliases stay as they were: {error}") from None
            self.aliases = wanted
        event("alias", alias=name, weights=weights)

    async def reload(self, name: str) -> bool:
        """Exchange a bundle for the one that is now on disk: load, check, warm up, switch.

        Returns:
            Whether it changed; False if the files on disk are the ones that are served already.

        Raises:
            Problem: the new bundle cannot be served (`conflict`); the old one goes on.
        """
        if name in self.aliases:
            raise Problem("not-found", f"'{name}' is an alias. Reload its models: {', '.join(self.aliases[name])}.")
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
        # Reading and hashing a bundle takes seconds; in a thread, the event loop goes on answering.
        new = await asyncio.to_thread(self._read, served.source, served.called)
        try:
            if new.digest == served.digest:
                new.copy.remove()
                return False
            # Clients address a bundle by its name, so the new one must have the same.
            if new.engine.name != served.engine.name:
                raise BundleError(f"the bundle is called '{new.engine.name}' now")
            await new.engine.start()
        except BaseException:
            new.copy.remove()
            raise
        # No `await` from here to the assignment: requests see either the old engine or the new one, with its digest.
        old, copy = served.engine, served.copy
        served.engine, served.copy, served.digest = new.engine, new.copy, new.digest

        async def drain() -> None:
            await old.stop(self.settings.drain_seconds)
            copy.remove()

        self._spawn(drain())  # requests that the old engine has taken are still answered by it
        return True

    def _read(self, source: str, called: str) -> Served:
        original = load_bundle(source).folder
        assert original is not None
        try:
            copy = BundleCopy.make()
        except OSError as error:
            raise _not_copied(source, error) from None
        try:
            for name in MAX_BYTES:  # a bundle's own files; a run's folder may hold gigabytes of others
                if (original / name).is_file():
                    shutil.copyfile(original / name, copy.folder / name)
            settings = self.settings
            # This process only decides verdicts with the model and never opens the runtime, so the choice is free.
            model = Model.load(
                copy.folder,
                runtime="onnxruntime",
                threads=1,
                limits=settings.limits,
                tta=settings.tta,
                cars=settings.cars,
            )
            model.require_head()
            digest = sha256((copy.folder / MANIFEST).read_bytes())
            return Served(source, called, Engine(model, settings, self.observer, called), copy, digest)
        except OSError as error:
            copy.remove()
            raise _not_copied(source, error) from None
        except BaseException:
            copy.remove()
            raise

    async def _reload_changes(self) -> None:
        """Reload bundles that change on disk. One that is refused is not tried again until it changes once more."""
        seen = {name: _stamp(served.source) for name, served in self.served.items()}
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            for name, served in self.served.items():
                stamp = _stamp(served.source)
                if stamp is None or stamp == seen[name]:
                    continue
                seen[name] = stamp
                try:
                    await self.reload(name)
                except Problem:
                    continue  # `reload` has told the observer

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run a coroutine in the background. The set keeps its task alive: asyncio itself holds weak references."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def named_bundle(given: str) -> tuple[str, str]:
    """Split `NAME=BUNDLE` into bundle and name. The name is empty where there is none, or where that is a path."""
    name, equals, source = given.partition("=")
    return (source, name) if equals and NAME.fullmatch(name) and not Path(given).exists() else (given, "")


def _not_copied(source: str, error: OSError) -> BundleError:
    return BundleError(f"Cannot copy '{source}': {error.strerror or error}.")


def _stamp(source: str) -> tuple[int, ...] | None:
    """Times, sizes and inodes of a bundle's files; None while they are missing, as in the middle of a replacement."""
    for folder in (Path(source), Path(source) / IN_RUN):  # a bundle itself, or the folder of a training run
        try:
            found = [(folder / name).stat() for name in (MANIFEST, BACKBONE)]
        except OSError:
            continue
        return tuple(number for each in found for number in (each.st_mtime_ns, each.st_size, each.st_ino))
    return None
