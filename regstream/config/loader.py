"""One load, from three paths to a catalog."""

from __future__ import annotations

import hashlib
import logging
import pathlib
import time

from regstream import errors, spec
from regstream import schema as regstream_schema
from regstream.config import checks, document, scenarios, streams, yaml
from regstream.config.json_schema import files_schema
from regstream.functions import csv
from regstream.generator import trial as trials

__all__ = ["digest", "files_schema", "large_numbers", "load", "problem_at"]

_remembered = checks.CheckCache()
"""What the last load found sound. Replaced whole, so that loads in several threads do not disturb each other."""

_log = logging.getLogger("regstream.config")


class Loading:
    """All files of a configuration, read once; what is wrong with them is kept until the end."""

    def __init__(self, streams_path: pathlib.Path, scenarios_path: pathlib.Path, templates_path: pathlib.Path) -> None:
        self._problems: list[errors.Problem] = []
        self._streams = document.Document(streams_path)
        self._scenarios = self._folder(scenarios_path, ".yaml")
        self._templates = self._folder(templates_path, ".j2", csv.SUFFIX)

    def _folder(self, folder: pathlib.Path, *suffixes: str) -> list[document.Document]:
        found: list[document.Document] = []
        total = 0
        try:
            for path in document.listed(folder, suffixes):
                found.append(document.Document(path))
                total += len(found[-1].data)
                document.check_total(total)
        except yaml.Unreadable as error:
            self._problems.append(errors.Problem(str(folder), 1, 1, "", error.message, error.hint))
        return found

    def catalog(self, env: str) -> spec.Catalog:
        """Everything declared; raises errors.ConfigError with all problems."""
        global _remembered  # noqa: PLW0603 - see there
        memory = checks.CheckCache(_remembered)
        templates = checks.Templates(self._templates)
        declared = streams.read(self._streams.parse(), templates, memory, env, time.time())
        known = self._read_scenarios(declared)
        self._refuse()
        _log.debug("%d streams, %d scenarios, %d templates", len(declared.streams), len(known), len(templates.texts))
        _remembered = memory.closed()
        return spec.Catalog(
            seed=declared.head.seed,
            profile=declared.head.profiles.get(env, spec.Profile()),
            entities=declared.scope.entities.known,
            streams=declared.streams,
            scenarios=known,
            templates=templates.texts,
            digest=self.digest(),
            channels=declared.head.channels,
            warnings=self._warnings(),
            notes=self._notes(declared.scope.trial),
        )

    def _read_scenarios(self, declared: streams.StreamsDocument) -> dict[str, spec.ScenarioSpec]:
        known: dict[str, spec.ScenarioSpec] = {}
        places: dict[str, str] = {}
        for sheet in self._scenarios:
            declaration = scenarios.read(sheet.parse(), declared)
            name = sheet.value(("name",))
            if isinstance(name, str) and name in places:
                sheet.report(
                    ("name",), f"name '{name}' is taken by the scenario in {places[name]}", "choose another name"
                )
            elif isinstance(name, str):
                places[name] = sheet.file
            if declaration is not None:
                known[declaration.name] = declaration
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

    def _sheets(self) -> list[document.Document]:
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


def load(streams: pathlib.Path, scenarios: pathlib.Path, templates: pathlib.Path, env: str) -> spec.Catalog:
    """The catalog that a streams file and two folders declare, with the profile of ``env``.

    A missing folder is an empty one, an environment without a profile has the default one. Raises errors.ConfigError
    with every problem of every file. May run in any thread; waits for nothing but the disk.
    """
    return Loading(streams, scenarios, templates).catalog(env)


def large_numbers(streams: pathlib.Path, catalog: spec.Catalog) -> tuple[errors.Problem, ...]:
    """Warnings of fields whose whole numbers are known to go beyond 2**53 - 1; it takes some milliseconds a stream."""
    sheet, known = document.Document(streams).parse(), regstream_schema.Schemas(catalog)
    for name in catalog.streams:
        for path in known.unsafe(name):
            message = f"{'.'.join(path)}: whole numbers beyond 2^53 - 1 reach JavaScript as others"
            where = ("streams", name, "template" if catalog.streams[name].fields is None else "fields", *path)
            sheet.warn(where, message, "send them as texts: a constant in quotes, an expression as {{ (…) | string }}")
    return tuple(sheet.warnings)


def digest(streams: pathlib.Path, scenarios: pathlib.Path, templates: pathlib.Path) -> str:
    """``Catalog.digest`` of what the files hold now; they are read but not understood. May run in any thread."""
    return Loading(streams, scenarios, templates).digest()


def problem_at(streams: pathlib.Path, where: tuple[str, ...], message: str) -> errors.Problem:
    """A fault that shows only when declarations are put to use, at its place in the streams file as it is now."""
    sheet = document.Document(streams).parse()
    sheet.report(where, f"{where[-1]}: {message}")
    return sheet.problems[-1]
