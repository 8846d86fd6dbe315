"""What several tests use: where the repository is, and its package as source text."""

from __future__ import annotations

import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "regstream"
