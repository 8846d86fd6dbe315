"""One door for every reload: SIGHUP, POST and changed files all come through here, one at a time.

Files are read, checked, planned and prepared beside what runs; then the engine commits, which cannot fail. A reload
that is refused changes nothing but what is told about it.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import fcntl
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import watchfiles

from regstream import engine, errors, plan, spec

DEBOUNCE_MS = 50
LOOK_MS = 5_000
MAX_LOGGED = 10
SOURCES = ("start", "SIGHUP", "api", "changed files")
"""What asks for reloads."""
_log = logging.getLogger("regstream.reload")


@dataclasses.dataclass(frozen=True, slots=True)
class Paths:
    """Where the files are."""

    streams: Path
    scenarios: Path
    templates: Path

    def concerns(self, changed: Path) -> bool:
        """Whether a changed file can be one of ours."""
        if changed.name == "..data" or changed in self.folders():
            # The link that a mounted volume swaps to bring new files in at once
            return True
        streams, scenarios, templates = (one.absolute() for one in (self.streams, self.scenarios, self.templates))
        yaml = changed.suffix == ".yaml" and changed.parent == scenarios
        return yaml or changed == streams or templates in changed.parents

    def folders(self) -> set[Path]:
        """The two folders, which may come and go."""
        return {self.scenarios.absolute(), self.templates.absolute()}

    def identity(self) -> dict[Path, int]:
        """What tells a folder that is watched from another one of the same name: its inode."""
        found = {}
        for folder in self.watched():
            with contextlib.suppress(OSError):
                found[folder] = folder.stat().st_ino
        return found

    def watched(self) -> list[Path]:
        """The folders to watch: those that exist, and the parents, where one may appear or a file be replaced."""
        wanted = {self.streams.absolute().parent, *(folder.parent for folder in self.folders()), *self.folders()}
        return sorted(folder for folder in wanted if folder.is_dir())


@dataclasses.dataclass(frozen=True, slots=True)
class ReloadResult:
    """What a reload did: the generation in force, when it was loaded (epoch seconds), and the differences.

    ``added changed removed unchanged`` name streams. With ``dry_run`` nothing was changed. ``warnings`` holds what is
    odd in the files but does not refuse them.
    """

    generation: int
    loaded_at: float
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: tuple[str, ...]
    scenarios: plan.Diff
    entities: plan.Diff
    dry_run: bool = False
    warnings: tuple[errors.Problem, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Settling:
    """When files that changed are taken for whole; who asks for a reload waits for neither.

    A file that is written in place is there in part, and no notice tells its end. So what changed has to stay the same
    for ``rest`` seconds, and ``removal`` seconds more when streams or entities would go, because what comes back after
    that begins anew; and as long as ``is_written`` says that somebody has the streams file open for writing.
    """

    rest: float = 0.3
    removal: float = 10.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    is_written: Callable[[], bool] = lambda: False


def is_written(path: Path) -> bool:
    """Whether a process has the file open for writing; False where this system or this user cannot tell.

    Linux grants a read lease to the owner of a file, unless somebody writes to it (fcntl(2), "Leases").
    """
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Who opens it while the lease is held has a signal sent here, and SIGIO would end the process
            fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
    return False


class _Removal(Exception):
    """Changed files would remove these streams and entities, and have not said so for long enough."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(names)
        self.names = names


class Reloader:
    """Reloads, one at a time; ``receipt`` is the last that was done, ``error`` why the last one was refused.

    ``counts`` has how many came into force and how many were refused, by who asked and ``applied`` or ``refused``.
    ``locate`` gives the problem at a place of the streams file, for what shows only when a catalog is prepared.
    ``digest`` tells the ``Catalog.digest`` that the files would have now. ``settling`` says how long they have to rest.
    """

    def __init__(
        self,
        load: Callable[[], spec.Catalog],
        worker: engine.Engine,
        now: Callable[[], float],
        announce: Callable[[str, Mapping[str, Any]], None],
        locate: Callable[[tuple[str, ...], str], errors.Problem] | None = None,
        digest: Callable[[], str] | None = None,
        settling: Settling | None = None,
    ) -> None:
        self.error: errors.ConfigError | None = None
        self.receipt = ReloadResult(0, now(), (), (), (), (), plan.Diff(), plan.Diff())
        self.refused = 0
        self.counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self._load = load
        self._engine = worker
        self._now = now
        self._announce = announce
        self._locate = locate or _at_the_beginning
        self._digest = digest
        self._settling = settling or Settling()
        self._lock = asyncio.Lock()
        self._closed = False
        self._seen = ""

    def close(self) -> None:
        """Take no more reloads, and let the one under way change nothing: the daemon is stopping."""
        self._closed = True

    async def reload(self, reason: str, dry_run: bool = False) -> ReloadResult:
        """Bring the files into force, or with ``dry_run`` only say what would change.

        Raises ConfigError with all problems; then everything is as it was, and a dry run leaves no trace at all.
        Raises Conflict when the daemon is stopping.
        """
        async with self._lock:
            try:
                return await self._reload(reason, dry_run)
            except errors.ConfigError as error:
                if not dry_run:
                    self._refuse(reason, error)
                raise

    async def changed(self) -> None:
        """Reload because files changed, once they have settled; a refusal is only told.

        Nothing is done when they hold what is in force already. What changes meanwhile has to settle anew.
        """
        may_remove = None if self._digest is None else ""
        while await self._differ():
            found = await self._stays(self._settling.rest)
            if not found:
                continue
            try:
                await self._take(may_remove)
                return
            except _Removal as removal:
                if found == may_remove:
                    # They changed while they were read
                    continue
                names, seconds = ", ".join(removal.names), self._settling.removal
                _log.info("the files no longer declare %s; they take effect if that stays so for %g s", names, seconds)
                may_remove = await self._stays(seconds)
                while may_remove:
                    is_written = await asyncio.to_thread(self._settling.is_written)
                    if not is_written:
                        break
                    may_remove = await self._stays(self._settling.rest)

    async def _take(self, may_remove: str | None) -> None:
        async with self._lock:
            try:
                if await self._differ():
                    await self._reload("changed files", only_new=True, may_remove=may_remove)
            except errors.ConfigError as error:
                self._refuse("changed files", error)
            except errors.Conflict:
                return

    async def _stays(self, seconds: float) -> str:
        """The digest of the files, if it is the same for so long; else the empty string, as soon as it is not."""
        found, left = await self._look(), seconds
        while left > 0:
            pause = min(left, self._settling.rest)
            await self._settling.sleep(pause)
            left -= pause
            if await self._look() != found:
                return ""
        return found

    async def _look(self) -> str:
        if self._digest is None:
            return "unknown"
        try:
            return await asyncio.to_thread(self._digest)
        except errors.ConfigError as error:
            return f"unreadable: {error}"

    async def _differ(self) -> bool:
        """Whether the files are others than those in force, and than those that were looked at last."""
        if self._digest is None:
            return True
        digest = await self._look()
        if digest == self._engine.catalog.digest:
            # Back to what is in force: nothing to do but to take the complaint back
            return self.error is not None
        return digest != self._seen

    async def _reload(
        self, reason: str, dry_run: bool = False, only_new: bool = False, may_remove: str | None = None
    ) -> ReloadResult:
        """With ``only_new`` what is in force already changes nothing.

        Raises _Removal for files that remove something, unless they have the digest ``may_remove`` (None: any).
        """
        self._check_open()
        if self._digest is not None and not dry_run:
            self._seen = await self._look()
        catalog = await asyncio.to_thread(self._load)
        _log.debug("files read (%s): digest %s, in force %s", reason, catalog.digest, self._engine.catalog.digest)
        if only_new and self.error is None and catalog.digest == self._engine.catalog.digest:
            # The look found a file while it was being written, and what was written is in force already
            return self.receipt
        difference = plan.plan(self._engine.catalog, catalog)
        gone = (*difference.streams.removed, *difference.entities.removed)
        if gone and may_remove not in (None, catalog.digest):
            self._seen = ""
            raise _Removal(gone)
        prepared = await self._prepare(catalog, difference)
        if dry_run:
            return self._receipt(self.receipt.generation, difference, catalog.warnings, dry_run=True)
        await self._equip(catalog)
        self._check_open()
        self._engine.commit(prepared)
        self.error = None
        self.receipt = self._receipt(self.receipt.generation + 1, difference, catalog.warnings)
        self.counts[reason, "applied"] += 1
        self._tell(reason)
        return self.receipt

    async def _equip(self, catalog: spec.Catalog) -> None:
        try:
            await self._engine.equip(catalog)
        except errors.BrokerError as error:
            raise errors.ConfigError((self._locate(("streams",), error.reason),)) from error

    def _check_open(self) -> None:
        if self._closed:
            raise errors.Conflict("the daemon is stopping")

    async def _prepare(self, catalog: spec.Catalog, difference: plan.Plan) -> engine.Prepared:
        try:
            return await self._engine.prepare(catalog, difference)
        except errors.RenderError as error:
            where = ("entities", error.stream, *filter(None, error.field.split(".")))
            raise errors.ConfigError((self._locate(where, error.cause),)) from error

    def _receipt(
        self, generation: int, difference: plan.Plan, warnings: tuple[errors.Problem, ...], dry_run: bool = False
    ) -> ReloadResult:
        streams, scenarios, entities = difference.streams, difference.scenarios, difference.entities
        return ReloadResult(generation, self._now(), *streams, scenarios, entities, dry_run, warnings)

    def _tell(self, reason: str) -> None:
        receipt = self.receipt
        for warning in receipt.warnings[:MAX_LOGGED]:
            _log.warning("%s", warning)
        diff = {name: getattr(receipt, name) for name in ("added", "changed", "removed")}
        counts = ", ".join(f"{len(names)} {name}" for name, names in diff.items())
        _log.info("generation %d in force (%s): %s", receipt.generation, reason, counts)
        self._announce("reloaded", {"generation": receipt.generation, "reason": reason, **diff})

    def _refuse(self, reason: str, error: errors.ConfigError) -> None:
        repeated = self.error is not None and self.error.problems == error.problems
        self.error = error
        self.refused += 1
        self.counts[reason, "refused"] += 1
        # At the start, whoever started the daemon gets the error itself
        if self.receipt.generation and not repeated:
            self._log_refusal(reason, error)
        problems = [problem.data() for problem in error.problems]
        self._announce("reload-refused", {"reason": reason, "problems": problems})

    @staticmethod
    def _log_refusal(reason: str, error: errors.ConfigError) -> None:
        for problem in error.problems[:MAX_LOGGED]:
            _log.error("%s", problem)
        count = len(error.problems)
        _log.error("reload refused (%s): %d problem%s, nothing was changed", reason, count, "s" if count > 1 else "")


def _at_the_beginning(where: tuple[str, ...], message: str) -> errors.Problem:
    path = ".".join(where)
    return errors.Problem("streams.yaml", 1, 1, path, f"{path}: {message}")


async def watch(paths: Paths, door: Reloader) -> None:
    """Reload when files change, are added, removed or replaced, until cancelled.

    Some file systems tell nothing, and a folder can be replaced while a watch begins: so the files are also looked at
    every ``LOOK_MS``.
    """
    while True:
        seen = paths.identity()
        changes = watchfiles.awatch(
            *paths.watched(),
            watch_filter=lambda _, path: paths.concerns(Path(path)),
            debounce=DEBOUNCE_MS,
            step=20,
            recursive=False,
            rust_timeout=LOOK_MS,
            yield_on_timeout=True,
        )
        first = asyncio.ensure_future(anext(changes))
        try:
            # The watch begins with its first step; what changed before that is found by this reload
            await asyncio.sleep(0)
            await door.changed()
            await first
            while paths.identity() == seen:
                await door.changed()
                await anext(changes)
        finally:
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            await changes.aclose()
