"""What a supervisor is told: readiness, reloads, the end, signs of life and one line of state, as sd_notify(3) has it.

systemd names a datagram socket in ``NOTIFY_SOCKET``; where nobody does, nothing is said. What cannot be told is left
out: a supervisor that does not listen must not take the daemon down.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping

LONGEST = 500
"""Characters of the line of state; systemd takes more, but people read it in ``systemctl status``."""


class Notifier:
    """Whoever started the process ``pid``, as its environment says."""

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._said = ""
        self.watchdog = _watchdog(environ, pid) if self._address else None
        """Seconds within which a sign of life has to come; None: nobody waits for one."""

    @property
    def listens(self) -> bool:
        """Whether there is anybody to tell."""
        return bool(self._address)

    def ready(self, status: str) -> None:
        """The start, or a reload, is complete."""
        self._said = _line(status)
        self._tell("READY=1", f"STATUS={self._said}")

    def reloading(self, now: int) -> None:
        """A reload begins; ``now`` is the system's monotonic clock in microseconds."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now}")

    def stopping(self) -> None:
        """The end has begun."""
        self._tell("STOPPING=1", "STATUS=stopping")

    def alive(self, status: str) -> None:
        """A sign of life, and the line of state if it is another one."""
        line = _line(status)
        changed = [f"STATUS={line}"] if line != self._said else []
        life = ["WATCHDOG=1"] if self.watchdog is not None else []
        self._said = line
        if life or changed:
            self._tell(*life, *changed)

    def _tell(self, *variables: str) -> None:
        if not self._address:
            return
        # Never waits: a supervisor whose queue is full hears the next one
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as end,
        ):
            end.sendto("\n".join(variables).encode(), self._address)


def _address(name: str) -> str:
    """The address of the socket; a leading ``@`` stands for the zero byte of an abstract one (unix(7))."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else ""


def _watchdog(environ: Mapping[str, str], pid: int) -> float | None:
    """See sd_watchdog_enabled(3)."""
    meant, microseconds = environ.get("WATCHDOG_PID", ""), environ.get("WATCHDOG_USEC", "")
    if (meant and meant != str(pid)) or not microseconds.isascii() or not microseconds.isdigit():
        return None
    return int(microseconds) / 1e6 or None


def _line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= LONGEST else flat[: LONGEST - 1] + "…"
