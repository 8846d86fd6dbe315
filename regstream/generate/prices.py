"""What calls of the vocabulary cost beyond the call itself, in steps of an event's budget, by their arguments.

A price takes the budget and what the template gives the function, and counts. Arguments that the function refuses
cost nothing here: it says itself what is wrong with them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from regstream.generate import fakes, pools
from regstream.generate.budget import Budget

Price = Callable[..., None]
_RANKS_A_STEP = 2
_EVENTS_A_STEP = 3
_LOCALE, _PROVIDER, _ZONE = 15_000, 500, 300


def of_text(budget: Budget, text: Any, *_: Any, **__: Any) -> None:
    """``pattern``: each character is drawn from a number of as many digits."""
    budget.spend(len(text) // 2 if isinstance(text, str) else 0)


def of_digits(budget: Budget, n: Any, *_: Any, **__: Any) -> None:
    """``digits``: as a pattern of so many."""
    budget.spend(min(n, 1_000) // 2 if isinstance(n, int) and n > 0 else 0)


def of_ranks(budget: Budget, n: Any, s: Any = 1.1, *_: Any, **__: Any) -> None:
    """``zipf``: a table of n bounds, which is kept."""
    if isinstance(n, int) and isinstance(s, int | float):
        budget.once(("zipf", n, s), max(0, min(n, 10_000)) // _RANKS_A_STEP)


def of_format(budget: Budget, offset: Any = "", until: Any = None, format: Any = "", *_: Any, **__: Any) -> None:
    """``date``: each part of its format is made."""
    budget.spend(len(format) // 2 if isinstance(format, str) else 0)


def of_zone(
    budget: Budget, period: Any, peak: Any = "", amplitude: Any = 0.5, timezone: Any = "UTC", *_: Any, **__: Any
) -> None:
    """``seasonal``: the rules of a time zone are read, and kept."""
    if isinstance(timezone, str) and timezone != "UTC":
        budget.once(("zone", timezone), _ZONE)


def of_rows(
    budget: Budget, values: Any, zipf: Any = None, weight: Any = None, state: Any = None, *_: Any, **__: Any
) -> None:
    """``pick``: a table of all rows, by rank or by weight, which is kept."""
    if isinstance(values, pools.Rows) and (isinstance(zipf, int | float) or isinstance(weight, str)):
        budget.once(("pick", id(values), zipf, weight), len(values) // _RANKS_A_STEP)


def of_provider(budget: Budget, kind: Any, locale: Any = fakes.LOCALE, *_: Any, **__: Any) -> None:
    """``fake``: what its provider does, as counted when it was tried; locales and providers are prepared once."""
    if not isinstance(kind, str) or not fakes.is_locale(locale):
        return
    budget.prepare(("locale", locale), _LOCALE, functools.partial(fakes.prepare, locale))
    budget.prepare(("provider", kind, locale), _PROVIDER, functools.partial(fakes.work, kind, locale))
    budget.spend(fakes.work(kind, locale) // _EVENTS_A_STEP)
