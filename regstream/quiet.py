"""A client library that retries logs each try; this lets each of its messages through once a minute, with a count.

What a library calls an error can be made a warning: what is lost, and who must act, is for those to say who use it.
"""

from __future__ import annotations

import logging

SECONDS = 60.0
MAX_KNOWN = 500


class Seldom(logging.Filter):
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


def begin(library: str, worst: int = logging.CRITICAL) -> None:
    """Quieten everything that a library logs; once is enough."""
    for name in [library, *(one for one in logging.root.manager.loggerDict if one.startswith(f"{library}."))]:
        logger = logging.getLogger(name)
        if not any(isinstance(one, Seldom) for one in logger.filters):
            logger.addFilter(Seldom(worst))
