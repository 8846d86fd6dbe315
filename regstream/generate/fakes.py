"""Faker's providers as a vocabulary function: only those that give the same for the same draw, whatever the day is."""

from __future__ import annotations

import decimal
import functools
import inspect
import random
import sys
from typing import Any

_CLOCKS = frozenset({"now", "today", "utcnow", "time", "time_ns", "localtime", "gmtime"})
_TRIALS = 20


def fake(raw: bytes, kind: str, locale: str = "es_MX") -> Any:
    """What Faker's provider of that name gives, seeded by the event. Raises ValueError for one that cannot be used."""
    _check(kind, locale)
    return _plain(_call(kind, locale, random.Random(int.from_bytes(raw, "little"))))  # noqa: S311 - no secrets


def providers(locale: str = "es_MX") -> frozenset[str]:
    """The names of Faker's providers in a locale, those that ``fake`` refuses included. Raises ValueError."""
    return _providers(locale)


@functools.lru_cache(512)
def gives(kind: str, locale: str = "es_MX") -> type | None:
    """``str``, ``int``, ``float`` or ``bool`` when a provider says that it gives it, and does; else None."""
    try:
        _check(kind, locale)
        said = inspect.get_annotations(getattr(_faker(locale), kind), eval_str=True).get("return")
        made = {type(fake(bytes([trial]), kind, locale)) for trial in range(_TRIALS)}
    except Exception:
        return None
    return said if said in (str, int, float, bool) and made == {said} else None


def _call(kind: str, locale: str, source: random.Random) -> Any:
    generator = _faker(locale)
    generator.random = source
    return getattr(generator, kind)()


def _plain(value: Any) -> Any:
    """A value as JSON has it. Raises ValueError for what has no place in an event."""
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, str | int | float | bool | None):
        return value
    raise ValueError(f"a provider that gives a {type(value).__name__} cannot be used")


@functools.lru_cache(16)
def _faker(locale: str) -> Any:
    # Faker takes 0.1 s and 10 MB: only a template that names it pays
    import faker.factory

    try:
        return faker.factory.Factory.create(locale)
    except (AttributeError, ImportError, TypeError) as error:
        raise ValueError(f"there is no locale {locale!r}") from error


@functools.lru_cache(16)
def _providers(locale: str) -> frozenset[str]:
    own = {"random", "seed", "seed_instance", "parse", "format", "add_provider", "del_arguments"}
    methods = (
        name
        for provider in _faker(locale).get_providers()
        for name in dir(provider)
        if not name.startswith("_") and callable(getattr(provider, name, None))
    )
    return frozenset(methods) - own


@functools.lru_cache(512)
def _check(kind: str, locale: str) -> None:
    if kind not in _providers(locale):
        raise ValueError(f"there is no provider {kind!r}")
    watch = _Watch()
    for trial in range(_TRIALS):
        source = random.Random(trial)  # noqa: S311 - no secrets
        try:
            _plain(watch.call(kind, locale, source))
        except Exception as error:
            raise ValueError(f"{kind!r}: {error}") from error
    if watch.reasons:
        raise ValueError(f"{kind!r} {watch.reasons[0]}, so that its events could not be made again")


class _Watch:
    """Watches a provider at work: whether it asks the machine for the time, or for chance that is not ours."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self._source: random.Random | None = None

    def call(self, kind: str, locale: str, source: random.Random) -> Any:
        before, self._source = sys.getprofile(), source
        sys.setprofile(self._see)
        try:
            return _call(kind, locale, source)
        finally:
            sys.setprofile(before)

    def _see(self, _frame: Any, event: str, function: Any) -> None:
        if event != "c_call":
            return
        if getattr(function, "__name__", "") in _CLOCKS:
            self.reasons.append("depends on the day")
        owner = getattr(function, "__self__", None)
        if isinstance(owner, random.Random) and owner is not self._source:
            self.reasons.append("draws by itself")
