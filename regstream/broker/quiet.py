"""A client library that retries logs each try; this lets each of its messages through once a minute, with a count."""

from __future__ import annotations

import logging

SECONDS = 60.0


class Seldom(logging.Filter):
    """Passes a message when the same one was not passed within ``SECONDS``; times come from the records themselves."""

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log; a message that was held back says how often when it is passed again."""
        name = str(record.msg)
        if record.created - self._passed.get(name, -SECONDS) < SECONDS:
            self._held[name] = self._held.get(name, 0) + 1
            return False
        self._passed[name] = record.created
        if held := self._held.pop(name, 0):
            record.msg = f"{record.getMessage()} (and {held} more like it)"
            record.args = ()
        return True


def begin(library: str) -> None:
    """Quieten everything that a library logs; once is enough."""
    for name in [library, *(one for one in logging.root.manager.loggerDict if one.startswith(f"{library}."))]:
        logger = logging.getLogger(name)
        if not any(isinstance(one, Seldom) for one in logger.filters):
            logger.addFilter(Seldom())
