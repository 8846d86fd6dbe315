"""What the operating system says about this process; Linux only, without a library."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import resource

from regstream.engine import status

OWN_FILES = 200
"""How many files the daemon needs besides its connections: spool, Kafka, database, watched folders."""

_PAGE = resource.getpagesize()


def memory() -> int:
    """Resident memory in bytes; the greatest so far where there is no ``/proc``."""
    try:
        return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def connections(wanted: int) -> int:
    """How many connections there may be: ``wanted``, or fewer if the system does not give this process as many files.

    What it may have is raised to what the system lets it raise it to.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    need = wanted + OWN_FILES
    most = need if hard == resource.RLIM_INFINITY else min(need, hard)
    if most > soft:
        # A supervisor may forbid it; then it stays as it is
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    return max(1, min(wanted, soft - OWN_FILES))


def cpu_seconds() -> float:
    """Processor time of this process since it began, in user and system mode."""
    times = os.times()
    return times.user + times.system


SECONDS = 0.5


class LoopLag:
    """Asks the loop for a call every ``SECONDS``, and counts in ``lag`` how much later it came."""

    def __init__(self) -> None:
        self.lag = status.Lateness()

    async def beat(self) -> None:
        """Do so until cancelled."""
        time = asyncio.get_running_loop().time
        while True:
            due = time() + SECONDS
            await asyncio.sleep(SECONDS)
            self.lag.add(max(0.0, time() - due))
