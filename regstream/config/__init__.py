"""Files → ``Catalog``, or all problems of all files, each with its place.

One problem never hides another: what is wrong is reported and mended, and reading goes on.
"""

from __future__ import annotations

from regstream import (
    errors,
)
from regstream.config.json_schema import (
    files_schema,
)
from regstream.config.loader import digest, large_numbers, load, problem_at

__all__ = [
    "digest",
    "errors",
    "files_schema",
    "large_numbers",
    "load",
    "problem_at",
]
