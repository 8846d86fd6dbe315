"""Logging of the daemon, on standard error: one line for each thing that an operator asked for or must know.

As text for people, with levels that journald understands where it listens; or each line a JSON object, for programs.
"""

from __future__ import annotations

import datetime
import logging
import os
import sys
from collections.abc import Iterable
from typing import Any

import orjson

from regstream import sanitize

ABOUT = {"stream": "stream", "run": "run", "event_id": "eventId"}
"""What a line is about, by the name under which it is given as ``extra``."""
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_TEXT = "%(levelname)-8s %(name)s: %(message)s"


class TextFormatter(logging.Formatter):
    """A line a record, and the lines of its traceback; no secret and no control character is in them."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The first line."""
        record.message = sanitize.printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        """The traceback."""
        return sanitize.printable(super().formatException(ei), keep="\n")

    def format(self, record: logging.LogRecord) -> str:
        """All lines of the record."""
        return sanitize.redact(super().format(record))


class JournalFormatter(TextFormatter):
    """Text whose lines begin with their priority (sd-daemon(3)); journald takes it off, and stamps each line itself."""

    def format(self, record: logging.LogRecord) -> str:
        """All lines of the record."""
        mark = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(mark + line for line in super().format(record).splitlines())


class JsonFormatter(TextFormatter):
    """One JSON object a line: ``time level logger message``, what it is about, and the traceback as ``error``."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, Any] = {
            "time": f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": sanitize.redact(record.getMessage()),
        }
        line |= {key: found for name, key in ABOUT.items() if (found := getattr(record, name, None)) is not None}
        if record.exc_info:
            line["error"] = sanitize.redact(super().formatException(record.exc_info))
        return sanitize.printable_json(orjson.dumps(line, default=_text).decode())


def configure(debug: Iterable[str], form: str = "text") -> None:
    """Log INFO and above, and all of the parts named in ``debug``; ``form`` is ``text`` or ``json``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(form))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("regstream").setLevel(logging.INFO)
    for part in debug:
        logging.getLogger(f"regstream.{part}").setLevel(logging.DEBUG)


def _formatter(form: str) -> logging.Formatter:
    if form == "json":
        return JsonFormatter()
    return JournalFormatter(_TEXT) if _journald() else TextFormatter(f"%(asctime)s {_TEXT}", "%H:%M:%S")


def _text(value: object) -> str:
    return sanitize.redact(str(value))


def _journald() -> bool:
    """Whether standard error is the journal, by the device and inode in ``JOURNAL_STREAM`` (systemd.exec(5))."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


SECONDS = 60.0
MAX_KNOWN = 500


class RateLimitFilter(logging.Filter):
    """Passes a message when the same one was not passed within ``SECONDS``; times come from the records themselves.

    Those that are worse than ``worst`` are passed as that. At most ``MAX_KNOWN`` messages are remembered.
    """

    def __init__(self, worst: int = logging.CRITICAL) -> None:
        super().__init__()
        self._worst = worst
        self._passed: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log; a message that was held back says how often when it is passed again."""
        name = str(record.msg)
        if record.created - self._passed.get(name, -SECONDS) < SECONDS:
            self._held[name] = self._held.get(name, 0) + 1
            return False
        self._remember(name, record.created)
        if record.levelno > self._worst:
            record.levelno, record.levelname = self._worst, logging.getLevelName(self._worst)
        if held := self._held.pop(name, 0):
            record.msg = f"{record.getMessage()} (and {held} more like it)"
            record.args = ()
        return True

    def _remember(self, name: str, when: float) -> None:
        self._passed.pop(name, None)
        self._passed[name] = when
        if len(self._passed) > MAX_KNOWN:
            oldest = next(iter(self._passed))
            self._held.pop(oldest, None)
            del self._passed[oldest]


def limit_rate(library: str, worst: int = logging.CRITICAL) -> None:
    """Quieten everything that a library logs; once is enough."""
    for name in [library, *(one for one in logging.root.manager.loggerDict if one.startswith(f"{library}."))]:
        logger = logging.getLogger(name)
        if not any(isinstance(one, RateLimitFilter) for one in logger.filters):
            logger.addFilter(RateLimitFilter(worst))
