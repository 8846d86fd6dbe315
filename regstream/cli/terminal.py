"""What commands write on a terminal or into a pipe: what others wrote does not steer the terminal."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, BinaryIO, cast

import typer

from regstream import errors, texts


def say(text: str, *, err: bool = False, **style: Any) -> None:
    """Write one line; control characters in it are escaped."""
    typer.echo(styled(text, **style), err=err)


def styled(text: str, **style: Any) -> str:
    """``text`` without control characters but those of its style."""
    return typer.style(texts.printable(texts.redact(text)), **style)


def say_json(text: str) -> None:
    """Write JSON; in its texts all control characters are escapes of JSON."""
    typer.echo(texts.printable_json(text, keep="\n"))


class _Escaping(io.RawIOBase):
    """Takes JSON lines for a terminal."""

    def write(self, data: Any) -> int:
        text = bytes(data).decode("utf-8", "replace")
        sys.stdout.buffer.write(texts.printable_json(text, keep="\n").encode())
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
