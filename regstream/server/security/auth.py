"""Who may do what, and how often: tokens, roles and the pace of control calls, for every way to the daemon.

A token comes in a header (RFC 6750), or where a browser cannot set one in a subprotocol or a first message; never in an
address, which proxies and histories keep.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from regstream import credentials, settings
from regstream.server import problems
from regstream.server.security.admission import RejectionCounter

if TYPE_CHECKING:
    from sanic.request import Request

SUBPROTOCOL = "regstream"
"""What a WebSocket speaks whose client names a subprotocol."""
TOKEN_PREFIX = "regstream.token."  # noqa: S105 - not one
"""A subprotocol that begins so carries a token, in base64url without padding (RFC 4648, section 5)."""
GRACE = 10.0
"""Seconds in which a connection that carried no token has to send one."""


class Caller(NamedTuple):
    """Whoever asks: what they may do, and how they are called in the audit."""

    role: credentials.Role
    name: str


ANYBODY = Caller("admin", "anonymous")
"""Who asks where nobody has to say who they are."""


class Authenticator:
    """The tokens of one daemon, and how often their bearers may control it; without ``tokens`` it is open to all."""

    def __init__(
        self,
        tokens: Sequence[credentials.Token] = (),
        rate: settings.RateLimit | None = None,
        refusals: RejectionCounter | None = None,
    ) -> None:
        self.refusals = refusals or RejectionCounter()
        self._known = [_known(one) for one in tokens]
        self._pace = CallPace(rate) if rate is not None else None

    @property
    def is_open(self) -> bool:
        """Whether everybody may do everything."""
        return not self._known

    def caller(self, token: str | None) -> Caller:
        """Whoever bears ``token``. Raises Unauthorized. It takes as long for a token that is almost right."""
        if self.is_open:
            return ANYBODY
        if token is None:
            raise problems.Unauthorized(given=False)
        digest = _digest(token)
        found = [caller for known, caller in self._known if hmac.compare_digest(known, digest)]
        if not found:
            raise problems.Unauthorized(given=True)
        return found[0]

    def admit(self, token: str | None, wanted: credentials.Role) -> Caller:
        """Whoever bears ``token``, if that is good for what needs the role ``wanted``.

        Raises Unauthorized and Forbidden.
        """
        caller = self.caller(token)
        if not credentials.may(caller.role, wanted):
            raise problems.Forbidden(caller.role, wanted)
        return caller

    async def pace(self, caller: Caller, address: str) -> None:
        """One more control call of ``caller``. Raises TooOften."""
        if self._pace is not None:
            await self._pace.take(f"{caller.name} {address}")


def _known(token: credentials.Token) -> tuple[bytes, Caller]:
    digest = _digest(token.secret.get_secret_value())
    # Enough of it to tell two bearers apart, and far from enough to find the token
    return digest, Caller(token.role, f"{token.role}:{digest.hex()[:8]}")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


class CallPace:
    """At most so many calls of a client in any span of that length, by the library ``limits``."""

    def __init__(self, rate: settings.RateLimit) -> None:
        self._rate = rate
        self._window: tuple[Any, Any] | None = None

    async def take(self, client: str) -> None:
        """One more call. Raises TooOften, which says when the next one is due."""
        window, item = self._window or await self._begin()
        if not await window.hit(item, client):
            stats = await window.get_window_stats(item, client)
            raise problems.TooOften(self._rate, max(1, math.ceil(stats.reset_time - time.time())))

    async def _begin(self) -> tuple[Any, Any]:
        # At the first call, and in a thread: the library takes 5 MB and 50 ms
        storage, strategy, item = await asyncio.to_thread(_limits)
        if self._window is None:
            self._window = strategy(storage()), item(self._rate.times, self._rate.seconds)
        return self._window


def _limits() -> tuple[Any, Any, Any]:
    from limits import RateLimitItemPerSecond
    from limits.aio import storage, strategies

    return storage.MemoryStorage, strategies.MovingWindowRateLimiter, RateLimitItemPerSecond


def bearer(headers: Mapping[str, str]) -> str | None:
    """The token of the header ``Authorization`` (RFC 6750, section 2.1), None without one; another scheme is none."""
    scheme, _, token = headers.get("authorization", "").strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def of_handshake(headers: Mapping[str, str]) -> str | None:
    """The token that a WebSocket's handshake carries, in a header or as a subprotocol; None without one."""
    token = bearer(headers)
    return token if token is not None else _offered(protocols(headers))


def protocols(headers: Mapping[str, str]) -> list[str]:
    """The subprotocols that a client offers (RFC 6455, section 4.1)."""
    return [one.strip() for one in headers.get("sec-websocket-protocol", "").split(",") if one.strip()]


def _offered(names: Sequence[str]) -> str | None:
    text = next((one.removeprefix(TOKEN_PREFIX) for one in names if one.startswith(TOKEN_PREFIX)), None)
    if text is None:
        return None
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        # Something was said, and it is no token of ours
        return ""


def address(request: Request[Any, Any]) -> str:
    """Where a request comes from: what the first of the proxies in front saw, or else whoever is connected."""
    return str(request.client_ip)
