"""Bytes and texts of the configuration's files, within bounds, and why one cannot be had."""

from __future__ import annotations

import os
import pathlib
import stat
from collections.abc import Iterator

from regstream import errors
from regstream.config import syntax

MAX_BYTES = 8 * 1024 * 1024
MAX_FILES = 2_000
MAX_TOTAL = 32 * 1024 * 1024
"""Bytes of all files of one folder."""


def read(path: pathlib.Path) -> bytes:
    """The bytes of a regular file; raises syntax.Unreadable for anything else, and never waits for one."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            return _bounded(descriptor)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise _refusal(path, error) from None


def _bounded(descriptor: int) -> bytes:
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(mode):
        raise syntax.Unreadable(0, "a folder, a file is expected here")
    if not stat.S_ISREG(mode):
        raise syntax.Unreadable(0, "not a regular file")
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise syntax.Unreadable(0, f"larger than {MAX_BYTES // 1024 // 1024} MiB")
    return data


def _refusal(path: pathlib.Path, error: OSError | ValueError) -> syntax.Unreadable:
    if isinstance(error, FileNotFoundError):
        if path.is_symlink():
            return syntax.Unreadable(0, "a link to a file that does not exist")
        hint = errors.did_you_mean(path.name, _siblings(path)) or "write it, or name another with --streams"
        return syntax.Unreadable(0, "there is no such file", hint)
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return syntax.Unreadable(0, f"cannot be read: {reason[:1].lower()}{reason[1:]}")


def _siblings(path: pathlib.Path) -> list[str]:
    try:
        return [one.name for one in path.parent.iterdir() if one.suffix in (".yaml", ".yml")]
    except OSError:
        return []


def decode(data: bytes) -> str:
    """The text of UTF-8 bytes, without a byte order mark; raises syntax.Unreadable for bytes that are no text."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = 3 if data.startswith(b"\xef\xbb\xbf") else 0
        before = len(data[start : error.start].decode("utf-8", "replace"))
        raise syntax.Unreadable(before, "not UTF-8 text", "save the file as UTF-8") from None


def listed(folder: pathlib.Path, suffixes: tuple[str, ...]) -> Iterator[pathlib.Path]:
    """The files of a folder that end in one of these, by name, hidden ones left out; none when the folder is missing.

    Raises syntax.Unreadable when it is no folder, cannot be read, or holds too many.
    """
    try:
        found = sorted(one for one in folder.iterdir() if one.name.endswith(suffixes) and not one.name.startswith("."))
    except FileNotFoundError:
        return iter(())
    except NotADirectoryError:
        raise syntax.Unreadable(0, "a file, a folder is expected here") from None
    except (OSError, ValueError) as error:
        raise _refusal(folder, error) from None
    if len(found) > MAX_FILES:
        raise syntax.Unreadable(0, f"more than {MAX_FILES:,} files")
    return iter(found)


def check_total(size: int) -> None:
    """Raises syntax.Unreadable when the files of a folder are too many bytes together."""
    if size > MAX_TOTAL:
        raise syntax.Unreadable(0, f"its files are larger than {MAX_TOTAL // 1024 // 1024} MiB together")
