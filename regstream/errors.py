"""The tree of everything that can go wrong, as data.

Fields are given where an error is raised; its text is made in ``__str__``: lower case, no full stop. What an error
means over HTTP is decided in one table in ``server``, what it means as an exit code in ``cli``.
"""

from __future__ import annotations

import dataclasses
import difflib
import errno
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from regstream import sanitize

Severity = Literal["error", "warning", "note"]


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One fault in a configuration file.

    ``file`` is the path as given, ``line`` and ``column`` are 1-based and lie inside the file (1:1 for a file that is
    empty or cannot be read), ``path`` is the dotted place in the tree (``streams.BUDGET.interval``, empty for the whole
    file), ``message`` says what is wrong, ``hint`` what to do (empty when there is nothing to add). One whose
    ``severity`` is ``warning`` does not refuse the file; a ``note`` says what could not be looked at.
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    hint: str = ""
    severity: Severity = "error"

    def __str__(self) -> str:
        """``file:line:column: message (hint)``, the form that editors and terminals can jump to."""
        tail = f" ({self.hint})" if self.hint else ""
        kind = "" if self.severity == "error" else f"{self.severity}: "
        return f"{self.file}:{self.line}:{self.column}: {kind}{self.message}{tail}"

    def data(self) -> dict[str, Any]:
        """The members of the problem as the API gives them: all but the severity, which follows from the list."""
        return {name: getattr(self, name) for name in ("file", "line", "column", "path", "message", "hint")}


def near(
    name: str, known: Iterable[str], count: int = 3, accepted: Callable[[str], bool] | None = None
) -> tuple[str, ...]:
    """The known names nearest to ``name``, best first; letter case does not count as a difference.

    What is offered must do where ``name`` stood: where not all that is known does, ``accepted`` says which. The search
    costs the product of both: a name of more than 100 characters is near to none, and no more than 2,000 known ones are
    looked at.
    """
    if len(name) > 100:
        return ()
    by_fold = {one.casefold(): one for one in itertools.islice(known, 2000)}
    wanted = count if accepted is None else 4 * count
    found = (by_fold[one] for one in difflib.get_close_matches(name.casefold(), by_fold, n=wanted, cutoff=0.6))
    return tuple(itertools.islice((one for one in found if accepted is None or accepted(one)), count))


def did_you_mean(name: str, known: Iterable[str], accepted: Callable[[str], bool] | None = None) -> str:
    """The hint that follows an unknown name: ``did you mean X?`` or, when nothing is near, the empty string."""
    found = near(name, known, accepted=accepted)
    return f"did you mean {' or '.join(found)}?" if found else ""


_FILE_CURES = {
    errno.ENOSPC: "free space on its disk, or choose another place",
    errno.EDQUOT: "free space within the quota, or choose another place",
    errno.EFBIG: "raise the limit on the size of files, or choose another place",
    errno.EROFS: "choose a place that can be written",
    errno.EACCES: "give this user the right to it, or choose another place",
    errno.EPERM: "give this user the right to it, or choose another place",
    errno.ENOENT: "make the folder first",
    errno.ENOTDIR: "a part of the path is a file, choose another place",
    errno.EIO: "the disk fails, choose another place",
    errno.EMFILE: "raise the limit on open files",
    errno.ENFILE: "raise the system's limit on open files",
}


def of_file(error: OSError, path: object) -> str:
    """What went wrong with a file or folder: its path, the cause, and the cure."""
    cure = _FILE_CURES.get(error.errno or 0, "")
    return f"{path}: {(error.strerror or str(error)).lower()}{': ' if cure else ''}{cure}"


class RegstreamError(Exception):
    """The root: every error that regstream raises on purpose.

    A ``reason`` or ``cause`` may have been written by a library, so no part of a secret is left in it.
    """

    def __post_init__(self) -> None:
        for name in ("reason", "cause"):
            if isinstance(text := getattr(self, name, None), str):
                setattr(self, name, sanitize.redact(text))


@dataclasses.dataclass(eq=False)
class ConfigError(RegstreamError):
    """The files cannot become a catalog; ``problems`` holds all of them, sorted by file and position.

    ``warnings`` holds what else was found, which does not refuse the files by itself.
    """

    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...] = ()

    def __str__(self) -> str:
        count = len(self.problems)
        return f"{count} problem{'s' if count != 1 else ''} in the configuration: {self.problems[0]}"


@dataclasses.dataclass(eq=False)
class SettingsError(RegstreamError):
    """An environment variable or flag has a value that cannot be used."""

    variable: str
    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.variable}={self.value!r}: {self.reason}"


@dataclasses.dataclass(eq=False)
class UnknownName(RegstreamError):
    """A stream, scenario, run or channel that does not exist was named; ``near`` holds what may have been meant."""

    kind: str
    name: str
    near: tuple[str, ...] = ()

    def __str__(self) -> str:
        tail = f", did you mean {' or '.join(self.near)}?" if self.near else ""
        return f"unknown {self.kind} {self.name!r}{tail}"


@dataclasses.dataclass(eq=False)
class BadValue(RegstreamError):
    """A value from outside has the wrong form or lies outside its bounds; nothing was changed."""

    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}"


@dataclasses.dataclass(eq=False)
class Conflict(RegstreamError):
    """What was asked for cannot be done in the present state."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclasses.dataclass(eq=False)
class Overloaded(RegstreamError):
    """A bounded queue is full; the same request may succeed in ``retry_after`` seconds."""

    what: str
    retry_after: float = 1.0

    def __str__(self) -> str:
        return f"{self.what} is full, try again in {self.retry_after:g} s"


@dataclasses.dataclass(eq=False)
class RenderError(RegstreamError):
    """A template failed while an event was made.

    ``field`` is the place in the declaration (``fields.spent``), ``cause`` the text of the underlying error: together
    with ``stream`` they identify one cause, however often it occurs.
    """

    stream: str
    field: str
    cause: str

    def __str__(self) -> str:
        return f"{self.stream}: {self.field}: {self.cause}"


@dataclasses.dataclass(eq=False)
class BrokerError(RegstreamError):
    """The broker refused or lost something; ``count`` events are concerned, ``refused`` holds those that are known.

    ``final``: it will never take those, and has taken all others of the call. ``topics`` says why, for each topic that
    is concerned, when it is about topics.
    """

    reason: str
    count: int = 0
    refused: tuple[Any, ...] = ()
    final: bool = False
    topics: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return self.reason


class LoginError(BrokerError):
    """The broker does not take the credentials. Whoever tries again soon and often may lock the account."""


@dataclasses.dataclass(eq=False)
class StoreError(RegstreamError):
    """The database did not do what it was asked; ``retry_after`` seconds later it may.

    ``lost``: the connection is gone, or was cut because no answer came in time.
    """

    reason: str
    retry_after: float = 2.0
    lost: bool = False

    def __str__(self) -> str:
        return self.reason


class QueryCostError(StoreError):
    """A question would have taken the database longer than anyone may ask it to work."""


@dataclasses.dataclass(eq=False)
class StartError(RegstreamError):
    """The daemon cannot start: a port in use, an address that is not ours, a file that cannot be read."""

    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"
