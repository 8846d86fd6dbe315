"""One request to a running daemon; what an error means to people is for the command to say.

Who asks is told by ``REGSTREAM_TOKEN``: in the environment, because others on the machine can read a command line.
"""

from __future__ import annotations

import json
import os
import urllib.request
from typing import Any

from regstream.client import direct


def token() -> str | None:
    """What to say to the daemon, None for nothing."""
    return os.environ.get("REGSTREAM_TOKEN", "").strip() or None


def headers(media: str = "application/json") -> dict[str, str]:
    """The headers of a request with a body of that type."""
    said = token()
    return {"content-type": media, **({"authorization": f"Bearer {said}"} if said else {})}


def call(address: str, body: Any = None, method: str = "", seconds: float = 10.0) -> Any:
    """The JSON of an answer, None for an empty one; without ``method`` it is POST when there is a body, else GET.

    Raises ``urllib.error.HTTPError`` for an answer that is an error, OSError when nobody answers, and ValueError for
    what is no JSON. The address is the operator's own.
    """
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(  # noqa: S310
        address, content, headers(), method=method or ("POST" if content else "GET")
    )
    with direct.request(request, seconds) as answer:
        return json.loads(answer.read() or b"null")
