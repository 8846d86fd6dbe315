"""One load, from three paths to a catalog."""

from __future__ import annotations

import hashlib
import logging
import pathlib
import time

from regstream import errors, model
from regstream.config import checks, files, scenarios, streams, syntax
from regstream.config import sheet as sheets
from regstream.generate import tables
from regstream.generate import trial as trials

_remembered = checks.Memory()
"""What the last load found sound. Replaced whole, so that loads in several threads do not disturb each other."""

_log = logging.getLogger("regstream.config")


class Loading:
    """All files of a configuration, read once; what is wrong with them is kept until the end."""

    def __init__(self, streams_path: pathlib.Path, scenarios_path: pathlib.Path, templates_path: pathlib.Path) -> None:
        self._problems: list[errors.Problem] = []
        self._streams = sheets.Sheet(streams_path)
        self._scenarios = self._folder(scenarios_path, ".yaml")
        self._templates = self._folder(templates_path, ".j2", tables.SUFFIX)

    def _folder(self, folder: pathlib.Path, *suffixes: str) -> list[sheets.Sheet]:
        found: list[sheets.Sheet] = []
        total = 0
        try:
            for path in files.listed(folder, suffixes):
                found.append(sheets.Sheet(path))
                total += len(found[-1].data)
                files.check_total(total)
        except syntax.Unreadable as error:
            self._problems.append(errors.Problem(str(folder), 1, 1, "", error.message, error.hint))
        return found

    def catalog(self, env: str) -> model.Catalog:
        """Everything declared; raises errors.ConfigError with all problems."""
        global _remembered  # noqa: PLW0603 - see there
        memory = checks.Memory(_remembered)
        templates = checks.Templates(self._templates)
        declared = streams.read(self._streams.parse(), templates, memory, env, time.time())
        known = self._read_scenarios(declared)
        self._refuse()
        _log.debug("%d streams, %d scenarios, %d templates", len(declared.streams), len(known), len(templates.texts))
        _remembered = memory.closed()
        return model.Catalog(
            seed=declared.head.seed,
            profile=declared.head.profiles.get(env, model.Profile()),
            entities=declared.scope.entities.known,
            streams=declared.streams,
            scenarios=known,
            templates=templates.texts,
            digest=self.digest(),
            channels=declared.head.channels,
            warnings=self._warnings(),
            notes=self._notes(declared.scope.trial),
        )

    def _read_scenarios(self, declared: streams.Streams) -> dict[str, model.ScenarioSpec]:
        known: dict[str, model.ScenarioSpec] = {}
        places: dict[str, str] = {}
        for sheet in self._scenarios:
            spec = scenarios.read(sheet.parse(), declared)
            name = sheet.value(("name",))
            if isinstance(name, str) and name in places:
                sheet.report(
                    ("name",), f"name '{name}' is taken by the scenario in {places[name]}", "choose another name"
                )
            elif isinstance(name, str):
                places[name] = sheet.file
            if spec is not None:
                known[spec.name] = spec
        return known

    def _refuse(self) -> None:
        """Raises what was found, if anything was."""
        problems = list(self._problems)
        for sheet in self._sheets():
            problems += sheet.problems
        if problems:
            raise errors.ConfigError(tuple(sorted(problems)), self._warnings())

    def _warnings(self) -> tuple[errors.Problem, ...]:
        return tuple(sorted(warning for sheet in self._sheets() for warning in sheet.warnings))

    def _notes(self, trial: trials.Trial) -> tuple[errors.Problem, ...]:
        return tuple(sorted(self._streams.note(note.path, note.message) for note in trial.notes))

    def _sheets(self) -> list[sheets.Sheet]:
        return [self._streams, *self._scenarios, *self._templates]

    def digest(self) -> str:
        """What identifies the files. Names and lengths are hashed too: bytes that move to the next file count."""
        digest = hashlib.sha256()
        for kind, group in (("", [self._streams]), ("scenarios", self._scenarios), ("templates", self._templates)):
            for sheet in group:
                digest.update(
                    f"{kind}\0{sheet.name if kind else ''}\0{len(sheet.data)}\0".encode(errors="surrogateescape")
                )
                digest.update(sheet.data)
        return digest.hexdigest()
