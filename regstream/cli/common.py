"""One request to a running daemon; what an error means to people is for the command to say.

Who asks is told by ``REGSTREAM_TOKEN``: in the environment, because others on the machine can read a command line.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import time
import urllib.request
from typing import Any, BinaryIO, cast

import typer

from regstream import errors, sanitize, spec
from regstream.client import subscription
from regstream.event import rfc3339
from regstream.server import timestamps


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
    with subscription.request(request, seconds) as answer:
        return json.loads(answer.read() or b"null")


_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


def moment(option: str, text: str) -> float:
    """Seconds since 1970 for RFC 3339 text, or for a date alone, which is its midnight in UTC. Raises BadValue."""
    try:
        return timestamps.parse(f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text)
    except ValueError:
        raise errors.BadValue(option, f"{text!r} is not a time, write 2026-01-01 or 2026-01-01T09:30:00Z") from None


def past(option: str, text: str) -> float:
    """Like ``moment``; one that is still to come is a BadValue."""
    found = moment(option, text)
    if found > time.time():
        raise errors.BadValue(option, f"{text} is still to come")
    return found


def span(begin: str | None, end: str | None, duration: str | None) -> tuple[float, float]:
    """From when to when: two of the three, or ``duration`` alone, which ends now. Raises BadValue."""
    length = None if duration is None else _seconds(duration)
    start = None if begin is None else moment("--from", begin)
    stop = None if end is None else moment("--to", end)
    if start is not None and stop is not None and length is not None:
        raise errors.BadValue("--duration", "give two of --from, --to and --duration")
    if length is not None and stop is None and start is None:
        stop = time.time()
    if length is not None:
        start, stop = (stop or 0.0) - length if start is None else start, start + length if start is not None else stop
    if start is None or stop is None:
        raise errors.BadValue("--from", "say from when to when: --from and --to, or --from and --duration")
    if stop <= start:
        raise errors.BadValue("--to", f"{rfc3339(stop)} is not after {rfc3339(start)}")
    return start, stop


def _seconds(text: str) -> float:
    try:
        return spec.milliseconds(text) / 1000
    except ValueError:
        raise errors.BadValue("--duration", f"{text!r} is not a duration, write 90d, 12h, 30m, 45s") from None


def say(text: str, *, err: bool = False, **style: Any) -> None:
    """Write one line; control characters in it are escaped."""
    typer.echo(styled(text, **style), err=err)


def styled(text: str, **style: Any) -> str:
    """``text`` without control characters but those of its style."""
    return typer.style(sanitize.printable(sanitize.redact(text)), **style)


def say_json(text: str) -> None:
    """Write JSON; in its texts all control characters are escapes of JSON."""
    typer.echo(sanitize.printable_json(text, keep="\n"))


class _Escaping(io.RawIOBase):
    """Takes JSON lines for a terminal."""

    def write(self, data: Any) -> int:
        text = bytes(data).decode("utf-8", "replace")
        sys.stdout.buffer.write(sanitize.printable_json(text, keep="\n").encode())
        return len(data)


def output() -> BinaryIO:
    """Standard output for JSON lines: byte for byte, but for a terminal with its control characters escaped.

    Raises BadValue when it is closed.
    """
    if sys.stdout is None:
        raise errors.BadValue("--out", "standard output is closed")
    return cast(BinaryIO, _Escaping()) if sys.stdout.isatty() else sys.stdout.buffer


def give_up(error: OSError) -> str:
    """What to say of an ``error`` of standard output; what is buffered for it is not tried again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return errors.of_file(error, "standard output")
