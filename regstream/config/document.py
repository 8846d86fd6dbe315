"""One file on its way to specs: its text, its tree, and the problems found in it, each with its place."""

from __future__ import annotations

import os
import pathlib
import stat
from collections.abc import Iterator
from typing import Any

from regstream import errors
from regstream.config import yaml

MAX_BYTES = 8 * 1024 * 1024
MAX_FILES = 2_000
MAX_TOTAL = 32 * 1024 * 1024
"""Bytes of all files of one folder."""


def read(path: pathlib.Path) -> bytes:
    """The bytes of a regular file; raises syntax.Unreadable for anything else, and never waits for one."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            return _bounded(descriptor)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise _refusal(path, error) from None


def _bounded(descriptor: int) -> bytes:
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(mode):
        raise yaml.Unreadable(0, "a folder, a file is expected here")
    if not stat.S_ISREG(mode):
        raise yaml.Unreadable(0, "not a regular file")
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise yaml.Unreadable(0, f"larger than {MAX_BYTES // 1024 // 1024} MiB")
    return data


def _refusal(path: pathlib.Path, error: OSError | ValueError) -> yaml.Unreadable:
    if isinstance(error, FileNotFoundError):
        if path.is_symlink():
            return yaml.Unreadable(0, "a link to a file that does not exist")
        hint = errors.did_you_mean(path.name, _siblings(path)) or "write it, or name another with --streams"
        return yaml.Unreadable(0, "there is no such file", hint)
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return yaml.Unreadable(0, f"cannot be read: {reason[:1].lower()}{reason[1:]}")


def _siblings(path: pathlib.Path) -> list[str]:
    try:
        return [one.name for one in path.parent.iterdir() if one.suffix in (".yaml", ".yml")]
    except OSError:
        return []


def decode(data: bytes) -> str:
    """The text of UTF-8 bytes, without a byte order mark; raises syntax.Unreadable for bytes that are no text."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = 3 if data.startswith(b"\xef\xbb\xbf") else 0
        before = len(data[start : error.start].decode("utf-8", "replace"))
        raise yaml.Unreadable(before, "not UTF-8 text", "save the file as UTF-8") from None


def listed(folder: pathlib.Path, suffixes: tuple[str, ...]) -> Iterator[pathlib.Path]:
    """The files of a folder that end in one of these, by name, hidden ones left out; none when the folder is missing.

    Raises syntax.Unreadable when it is no folder, cannot be read, or holds too many.
    """
    try:
        found = sorted(one for one in folder.iterdir() if one.name.endswith(suffixes) and not one.name.startswith("."))
    except FileNotFoundError:
        return iter(())
    except NotADirectoryError:
        raise yaml.Unreadable(0, "a file, a folder is expected here") from None
    except (OSError, ValueError) as error:
        raise _refusal(folder, error) from None
    if len(found) > MAX_FILES:
        raise yaml.Unreadable(0, f"more than {MAX_FILES:,} files")
    return iter(found)


def check_total(size: int) -> None:
    """Raises syntax.Unreadable when the files of a folder are too many bytes together."""
    if size > MAX_TOTAL:
        raise yaml.Unreadable(0, f"its files are larger than {MAX_TOTAL // 1024 // 1024} MiB together")


MAX_PROBLEMS = 1_000
LONGEST = 400
"""Characters of a message: what it quotes from a file may be any text."""


class Document:
    """A file that is read, parsed and complained about.

    ``root`` is None when the file cannot be read or parsed: the reason is among ``problems`` then. ``data`` holds the
    bytes of the file.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.file, self.name = str(path), path.name
        self.data = b""
        self.root: yaml.Node | None = None
        self.text = ""
        self._lines = yaml.LineIndex("")
        self._problems: dict[tuple[int, int, str], errors.Problem] = {}
        self._warnings: dict[tuple[int, int, str], errors.Problem] = {}
        try:
            self.data = read(path)
            self._show(self.data.decode("utf-8-sig", "replace"))
            self.text = decode(self.data)
        except yaml.Unreadable as error:
            self._at(error.at, error.message, error.hint)

    def _show(self, text: str) -> None:
        self._lines = yaml.LineIndex(text)

    def parse(self) -> Document:
        """Reads the text as YAML, unless there is none for a reason that is known already."""
        if not self._problems:
            self.root = yaml.parse(self.text, self._at)
        return self

    @property
    def problems(self) -> list[errors.Problem]:
        """Everything reported so far, sorted by position; what is said twice about one place is there once."""
        return sorted(self._problems.values())

    @property
    def warnings(self) -> list[errors.Problem]:
        """What is odd but does not refuse the file, as ``problems`` has what does."""
        return sorted(self._warnings.values())

    @property
    def count(self) -> int:
        """How many problems there are."""
        return len(self._problems)

    @property
    def remarks(self) -> int:
        """How many problems and warnings there are."""
        return len(self._problems) + len(self._warnings)

    def _at(
        self, offset: int, message: str, hint: str = "", path: str = "", severity: errors.Severity = "error"
    ) -> None:
        line, column = self._lines.place(offset)
        self._add(line, column, message, hint, path, severity)

    def _add(
        self, line: int, column: int, message: str, hint: str, path: str, severity: errors.Severity = "error"
    ) -> None:
        found, kind = (self._problems, "problems") if severity == "error" else (self._warnings, "warnings")
        if len(found) > MAX_PROBLEMS:
            return
        if len(found) == MAX_PROBLEMS:
            message, hint, path = f"more than {MAX_PROBLEMS:,} {kind}, the others are not shown", "", ""
        texts = _printable(path), _printable(message), _printable(hint)
        found.setdefault((line, column, message), errors.Problem(self.file, line, column, *texts, severity))

    def report(
        self,
        where: yaml.Where,
        message: str,
        hint: str = "",
        *,
        key: bool = False,
        severity: errors.Severity = "error",
    ) -> None:
        """A problem of the value at ``where``, or of its key; of the nearest one above it when there is no such value.

        Nothing is added when the value is known to be broken already.
        """
        at, broken = self._find(where, key)
        if not broken:
            self._at(at, message, hint, dotted(where), severity)

    def warn(self, where: yaml.Where, message: str, hint: str = "", *, key: bool = False) -> None:
        """The same as a warning: the file is odd there, and can be used."""
        self.report(where, message, hint, key=key, severity="warning")

    def note(self, where: yaml.Where, message: str) -> errors.Problem:
        """What could not be looked at, at its place; it is not kept."""
        line, column = self._lines.place(self._find(where, key=False)[0])
        return errors.Problem(self.file, line, column, dotted(where), message, severity="note")

    def _find(self, where: yaml.Where, key: bool) -> tuple[int, bool]:
        node, at = self.root, 0
        if node is None:
            return 0, False
        at = node.at
        for depth, part in enumerate(where):
            child = node.child(part)
            if child is None or node.broken:
                return at, node.broken
            missing = child.plain and child.at == child.end
            as_key = part in node.keys and (key or missing or depth + 1 < len(where))
            at, node = (node.keys[part] if as_key else child.at), child
        return at, node.broken and not key

    def report_text(
        self, where: yaml.Where, line: int, message: str, hint: str = "", severity: errors.Severity = "error"
    ) -> None:
        """A problem inside the text at ``where``, in its line ``line`` (from 1)."""
        node = self.node(where)
        if node is None or not isinstance(node.data, str):
            self.report(where, message, hint, severity=severity)
            return
        begin, column = self._lines.place(node.at)
        row = min(begin + node.block + line - 1, self._lines.place(max(node.at, node.end - 1))[0])
        if row > begin:
            column = self._lines.first(row)
        self._add(row, column, message, hint, dotted(self._indexed(where)), severity)

    def _indexed(self, where: yaml.Where) -> yaml.Where:
        """``where`` with the indexes of lists as numbers."""
        parents = (self.value(where[:depth]) for depth in range(len(where)))
        return tuple(
            int(part) if isinstance(parent, list) else part for parent, part in zip(parents, where, strict=True)
        )

    def report_line(self, line: int, message: str, hint: str = "") -> None:
        """A problem of a whole line, for files that are not YAML."""
        self._add(max(1, min(line, len(self._lines))), 1, message, hint, "")

    def node(self, where: yaml.Where) -> yaml.Node | None:
        """The node at ``where``, None when there is none."""
        node = self.root
        for part in where:
            node = node.child(part) if node is not None else None
        return node

    def value(self, where: yaml.Where) -> Any:
        """The plain data at ``where``, None when there is none."""
        node = self.node(where)
        return None if node is None else node.data

    def whole(self, where: yaml.Where) -> bool:
        """Whether nothing within the value at ``where`` is broken."""
        node = self.node(where)
        return node is not None and _whole(node)


def _whole(node: yaml.Node) -> bool:
    return not node.broken and all(_whole(child) for child in node.children.values())


def _printable(text: str) -> str:
    short = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    return (
        short
        if short.isprintable()
        else "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in short)
    )


def dotted(where: yaml.Where) -> str:
    """``streams.BUDGET.interval``, ``steps[2].parallel[0]``: a place as people write it."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where)
    return text.removeprefix(".")
