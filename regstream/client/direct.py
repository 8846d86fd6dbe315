"""Connections to the daemon that was named, and to nobody else.

The libraries would go by way of a proxy of the environment, to an address of this machine too, and would follow an
answer that sends them elsewhere, some with the token. A daemon does neither need the one nor give the other.
"""

from __future__ import annotations

import urllib.request
from typing import Any

import websockets.asyncio.client


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """None: the answer is an error like any other."""


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)


def request(asked: urllib.request.Request, seconds: float) -> Any:
    """The answer to a request, as ``urllib.request.urlopen`` gives it, and with its errors."""
    return _opener.open(asked, timeout=seconds)


class socket(websockets.asyncio.client.connect):
    """``websockets.asyncio.client.connect``."""

    def __init__(self, address: str, **options: Any) -> None:
        super().__init__(address, proxy=None, **options)

    def process_redirect(self, exc: Exception) -> Exception | str:
        """The answer as an error."""
        return exc
