"""The command line: arguments in, exit codes out. What a command does is done elsewhere.

Exit codes: 0 done, 1 failed, 2 wrong use (an unknown stream too), 78 bad configuration (``EX_CONFIG`` of sysexits.h).
"""

from __future__ import annotations

from regstream.cli.app import (
    Policy,
    app,
    main,
)

__all__ = [
    "Policy",
    "app",
    "main",
]
