"""What the operating system says about this process; Linux only, without a library."""

from __future__ import annotations

import os
import pathlib
import resource

_PAGE = resource.getpagesize()


def memory() -> int:
    """Resident memory in bytes; the greatest so far where there is no ``/proc``."""
    try:
        return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def cpu_seconds() -> float:
    """Processor time of this process since it began, in user and system mode."""
    times = os.times()
    return times.user + times.system
