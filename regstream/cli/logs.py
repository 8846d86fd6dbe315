"""Logging of the daemon: one line for each thing that an operator asked for or must know, on standard error."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable


def begin(debug: Iterable[str]) -> None:
    """Log INFO and above, and all of the parts named in ``debug``.

    journald stamps each line itself, so there the time is left out.
    """
    stamped = "JOURNAL_STREAM" not in os.environ
    form = ("%(asctime)s " if stamped else "") + "%(levelname)-8s %(name)s: %(message)s"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(form, "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("regstream").setLevel(logging.INFO)
    for part in debug:
        logging.getLogger(f"regstream.{part}").setLevel(logging.DEBUG)
