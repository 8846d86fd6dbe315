"""What a test needs of the machine: where it is not there the test does not run, and the last lines of a report say so.

With ``CI`` set it fails.
"""

from __future__ import annotations

import os
from typing import TypeVar

import pytest

Noted = TypeVar("Noted")


def in_ci() -> bool:
    """Whether what is missing fails a test instead of skipping it."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def unless(reason: str | None, test: str, missing: dict[str, Noted], noted: Noted) -> None:
    """Go on when there is no ``reason`` not to; else fail in CI, or skip the test and note it in ``missing``."""
    if reason is None:
        return
    if in_ci():
        pytest.fail(f"this must run here: {reason}", pytrace=False)
    missing[test] = noted
    pytest.skip(reason)
