"""What the operating system says about this process; Linux only, without a library."""

from __future__ import annotations

import os
import pathlib
import resource

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
    need = wanted + OWN_FILES
    if soft != resource.RLIM_INFINITY and soft < need:
        soft = need if hard == resource.RLIM_INFINITY else min(need, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - OWN_FILES))


def cpu_seconds() -> float:
    """Processor time of this process since it began, in user and system mode."""
    times = os.times()
    return times.user + times.system
