"""Who may talk to the daemon: the one matcher of origins, for HTTP and for both WebSockets."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

_DEFAULT_PORTS = {"http": "80", "https": "443"}


def origin_allowed(origin: str, patterns: Iterable[str]) -> bool:
    """Whether a browser's ``Origin`` header matches one of ``patterns``.

    A pattern is an origin in which ``*`` may stand for the port (``http://localhost:*``, the scheme's own port
    included) or for part of the host (``https://*.bank.example``); ``*`` alone allows every origin, ``null`` included.
    Letter case does not count.
    """
    return any(_compiled(pattern).fullmatch(_plain(origin)) for pattern in patterns)


def _plain(origin: str) -> str:
    """Browsers leave the scheme's own port out; people who write patterns or clients may not."""
    text = origin.strip().lower()
    port = _DEFAULT_PORTS.get(text.partition("://")[0])
    return text.removesuffix(f":{port}") if port else text


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    text = _plain(pattern)
    if text == "*":
        return re.compile(r".*", re.DOTALL)
    base, any_port = (text[:-2], r"(:\d{1,5})?") if text.endswith(":*") else (text, "")
    # A star never crosses `:` `/` or `@`, or http://localhost:1@evil.example would pass for localhost.
    return re.compile(re.escape(base).replace(r"\*", r"[a-z0-9.-]+") + any_port)
