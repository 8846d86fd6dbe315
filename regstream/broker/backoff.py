"""How long to wait before the next try to connect."""

from __future__ import annotations

SOON = 1.0
LONGEST = 10.0
SHORT = 10.0
FIRST_LOGIN = 10.0
LONGEST_LOGIN = 300.0


class Backoff:
    """Told how each try ended, it says how many seconds to wait.

    One that is lost again and again as soon as it is there is no reason for a change of state each second. A server
    that refuses the credentials counts, and locks the account after some tries.
    """

    def __init__(self) -> None:
        self._short, self._login = SOON, 0.0

    def after_loss(self, lasted: float, answered: bool) -> float:
        """After a connection that lasted so many seconds, or a try that nobody ``answered``."""
        if answered:
            self._login = 0.0
        self._short = min(2 * self._short, LONGEST) if answered and lasted < SHORT else SOON
        return self._short

    def after_login(self) -> float:
        """After the credentials were refused: twice as long as the last time."""
        self._login = min(2 * self._login or FIRST_LOGIN, LONGEST_LOGIN)
        return self._login
