"""The engine: due ticks become events at the broker, the most urgent stream first.

The clock says which stream is due, ``floor`` knows what is in force on each, ``work`` serves those that are due,
``runs`` drives scenarios over them. This module makes catalogs live and holds what operators may do.
"""

from __future__ import annotations

from regstream.engine.engine import Engine, Environment, Prepared, ensure_topics

__all__ = [
    "Engine",
    "Environment",
    "Prepared",
    "ensure_topics",
]
