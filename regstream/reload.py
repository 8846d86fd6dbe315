"""One door for every reload: SIGHUP, POST and changed files all come through here, one at a time.

Files are read, checked, planned and prepared beside what runs; then the engine commits, which cannot fail. A reload
that is refused changes nothing but what is told about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import watchfiles

from regstream import engine, errors, model, plan

DEBOUNCE_MS = 200
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Paths:
    """Where the files are."""

    streams: Path
    scenarios: Path
    templates: Path

    def concerns(self, changed: Path) -> bool:
        """Whether a changed file can be one of ours."""
        # ..data is the link that a mounted volume swaps to bring new files in at once
        beside = changed.parent == self.streams.absolute().parent
        if beside and changed.name in (self.streams.name, "..data"):
            return True
        yaml = changed.suffix in (".yaml", ".yml") and changed.parent == self.scenarios.absolute()
        return yaml or self.templates.absolute() in changed.parents or changed in self.folders()

    def folders(self) -> set[Path]:
        """The two folders, which may come and go."""
        return {self.scenarios.absolute(), self.templates.absolute()}

    def watched(self) -> list[Path]:
        """The folders to watch: those that exist, and the parents, where one may appear or a file be replaced."""
        wanted = {self.streams.absolute().parent, *(folder.parent for folder in self.folders()), *self.folders()}
        return sorted(folder for folder in wanted if folder.is_dir())


@dataclasses.dataclass(frozen=True, slots=True)
class Receipt:
    """What a reload did: the generation in force, when it was loaded (epoch seconds), and the differences.

    ``added changed removed unchanged`` name streams. With ``dry_run`` nothing was changed.
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


class Door:
    """Reloads, one at a time; ``receipt`` is the last that was done, ``error`` why the last one was refused.

    ``load`` makes a catalog of the files, ``digest`` tells the ``Catalog.digest`` that they would have.
    """

    def __init__(
        self,
        load: Callable[[], model.Catalog],
        worker: engine.Engine,
        now: Callable[[], float],
        announce: Callable[[str, Mapping[str, Any]], None],
        digest: Callable[[], str] | None = None,
    ) -> None:
        self.error: errors.ConfigError | None = None
        self.receipt = Receipt(0, now(), (), (), (), (), plan.Diff(), plan.Diff())
        self.refused = 0
        self._load = load
        self._engine = worker
        self._now = now
        self._announce = announce
        self._digest = digest
        self._lock = asyncio.Lock()
        self._closed = False

    def close(self) -> None:
        """Take no more reloads: the daemon is stopping."""
        self._closed = True

    async def reload(self, reason: str, dry_run: bool = False) -> Receipt:
        """Bring the files into force, or with ``dry_run`` only say what would change.

        Raises ConfigError with all problems; then everything is as it was, and a dry run leaves no trace at all.
        """
        async with self._lock:
            if self._closed:
                raise errors.Conflict("the daemon is stopping")
            try:
                return await self._reload(reason, dry_run)
            except errors.ConfigError as error:
                if not dry_run:
                    self._refuse(reason, error)
                raise

    async def changed(self) -> None:
        """Reload because files changed, unless they hold what is in force already; a refusal is only told."""
        try:
            async with self._lock:
                if not self._closed and await self._differ():
                    await self._reload("changed files", False)
        except errors.ConfigError as error:
            self._refuse("changed files", error)

    async def _differ(self) -> bool:
        """Whether the files are others than those in force; after a refusal they are always."""
        if self.error is not None or self._digest is None:
            return True
        return await asyncio.to_thread(self._digest) != self._engine.catalog.digest

    async def _reload(self, reason: str, dry_run: bool) -> Receipt:
        catalog = await asyncio.to_thread(self._load)
        difference = plan.plan(self._engine.catalog, catalog)
        prepared = await self._prepare(catalog, difference)
        if dry_run:
            return self._receipt(self.receipt.generation, difference, dry_run=True)
        await self._engine.provide(prepared)
        self._engine.commit(prepared)
        self.error = None
        self.receipt = self._receipt(self.receipt.generation + 1, difference)
        self._tell(reason)
        return self.receipt

    async def _prepare(self, catalog: model.Catalog, difference: plan.Plan) -> engine.Prepared:
        try:
            return await self._engine.prepare(catalog, difference)
        except errors.RenderError as error:
            where = f"entities.{error.stream}.{error.field}"
            problem = errors.Problem("streams.yaml", 1, 1, where, f"{where}: {error.cause}")
            raise errors.ConfigError((problem,)) from error

    def _receipt(self, generation: int, difference: plan.Plan, dry_run: bool = False) -> Receipt:
        return Receipt(generation, self._now(), *difference.streams, difference.scenarios, difference.entities, dry_run)

    def _tell(self, reason: str) -> None:
        receipt = self.receipt
        diff = {name: getattr(receipt, name) for name in ("added", "changed", "removed")}
        counts = ", ".join(f"{len(names)} {name}" for name, names in diff.items())
        _log.info("generation %d in force (%s): %s", receipt.generation, reason, counts)
        self._announce("reloaded", {"generation": receipt.generation, "reason": reason, **diff})

    def _refuse(self, reason: str, error: errors.ConfigError) -> None:
        repeated = self.error is not None and self.error.problems == error.problems
        self.error = error
        self.refused += 1
        if not repeated:
            for problem in error.problems[:10]:
                _log.error("%s", problem)
            _log.error("reload refused (%s): %d problems, nothing was changed", reason, len(error.problems))
        problems = [dataclasses.asdict(problem) for problem in error.problems]
        self._announce("reload-refused", {"reason": reason, "problems": problems})


async def watch(paths: Paths, door: Door) -> None:
    """Reload when files change, are added, removed or replaced, until cancelled."""
    while True:
        watching = paths.watched()
        async with contextlib.aclosing(_changes(paths, watching)) as changes:
            # Beginning with one that asks whether anything changed before the watch
            async for _ in changes:
                await door.changed()
                if paths.watched() != watching:
                    # A folder that came or went needs another watch
                    break


async def _changes(paths: Paths, watching: list[Path]) -> AsyncGenerator[None, None]:
    """Yields once when the watch has begun, and again after each change."""
    changes = watchfiles.awatch(
        *watching,
        watch_filter=lambda _, path: paths.concerns(Path(path)),
        debounce=DEBOUNCE_MS,
        step=20,
        recursive=False,
    )
    while True:
        step = asyncio.create_task(_step(changes), name="watch-files")
        try:
            # The watch is set up in the first step of its task, and what changes before that is never told
            await asyncio.sleep(0)
            yield
            await step
        finally:
            step.cancel()
            await asyncio.gather(step, return_exceptions=True)


async def _step(changes: AsyncIterator[Any]) -> None:
    await anext(changes)
