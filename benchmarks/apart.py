"""Each measurement in a process of its own: the heap of one would be in the figures of the next."""

from __future__ import annotations

import concurrent.futures
import importlib
import multiprocessing

from benchmarks import table


def _measured(name: str, tiny: bool) -> list[table.Row]:
    rows: list[table.Row] = importlib.import_module(f"benchmarks.{name.replace('-', '_')}").measure(tiny)
    return rows


def measured(name: str, tiny: bool) -> list[table.Row]:
    """The rows of a module of this package, measured in a fresh process."""
    fresh = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=fresh) as pool:
        return pool.submit(_measured, name, tiny).result()
