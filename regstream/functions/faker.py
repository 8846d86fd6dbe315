"""Faker's providers as a vocabulary function: only those that give the same for the same draw, whatever the day is."""

from __future__ import annotations

import decimal
import functools
import inspect
import random
import sys
from collections.abc import Sequence
from typing import Any

from regstream import errors

LOCALE = "es_MX"
MAX_WORK = 60_000
"""A provider that calls more functions than this is refused: 10 to 30 ms."""
_CLOCKS = frozenset({"now", "today", "utcnow", "time", "time_ns", "localtime", "gmtime"})
_TRIALS = 20


def fake(raw: bytes, kind: str, locale: str = LOCALE) -> Any:
    """What Faker's provider of that name gives, seeded by the event. Raises ValueError for one that cannot be used."""
    work(kind, locale)
    return _plain(_call(kind, locale, random.Random(int.from_bytes(raw, "little"))))  # noqa: S311 - no secrets


def providers(locale: str = LOCALE) -> frozenset[str]:
    """The names of Faker's providers in a locale, those that ``fake`` refuses included. Raises ValueError."""
    return _providers(locale)


def is_locale(name: Any) -> bool:
    """Whether Faker has a locale of that name. Raises ValueError when Faker cannot be used."""
    return isinstance(name, str) and name.replace("-", "_") in _locales()


def prepare(locale: str) -> None:
    """Load the data of a locale, which is kept. Raises ValueError."""
    _faker(locale)


@functools.lru_cache(512)
def gives(kind: str, locale: str = LOCALE) -> type | None:
    """``str``, ``int``, ``float`` or ``bool`` when a provider says that it gives it, and does; else None."""
    try:
        work(kind, locale)
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


@functools.cache
def _locales() -> frozenset[str]:
    try:
        import faker.config
    except ImportError as error:
        raise _unusable(error) from error
    return frozenset(faker.config.AVAILABLE_LOCALES)


def _unusable(error: BaseException) -> ValueError:
    return ValueError(f"Faker cannot be used ({error}), install it again: pip install --force-reinstall Faker")


def _check_locale(locale: Any) -> None:
    """Raises ValueError for what is not the name of one locale, with those that may be meant."""
    if isinstance(locale, str):
        if not is_locale(locale):
            raise ValueError(f"there is no locale {locale!r}, {_cure(locale, sorted(_locales()))}")
    elif isinstance(locale, list | tuple) and locale:
        raise ValueError(f"fake takes one locale, not a list: write locale=choice({list(locale)!r})")
    else:
        raise ValueError(f"the locale of fake is a text such as 'pt_BR', not {locale!r}")


def _cure(locale: str, known: Sequence[str]) -> str:
    language = locale[:2].lower()
    # Of another language it would give other names than those that were meant
    same = [one for one in known if one.startswith(f"{language}_") or one == language]
    return errors.did_you_mean(locale.replace("-", "_"), same) or (
        f"of that language there are {', '.join(same)}" if same else "write one such as es_MX, es_CO, pt_BR or en_US"
    )


@functools.cache
def _faker(locale: str) -> Any:
    # Faker takes 0.1 s and 10 MB, a further locale 0.03 s and 0.5 MB: only a template that names it pays
    _check_locale(locale)
    try:
        import faker.factory

        return faker.factory.Factory.create(locale)
    except (AttributeError, ImportError, TypeError) as error:
        raise _unusable(error) from error


@functools.cache
def _providers(locale: str) -> frozenset[str]:
    own = {"random", "seed", "seed_instance", "parse", "format", "add_provider", "del_arguments"}
    methods = (
        name
        for provider in _faker(locale).get_providers()
        for name in dir(provider)
        if not name.startswith("_") and callable(getattr(provider, name, None))
    )
    return frozenset(methods) - own


def work(kind: str, locale: str) -> int:
    """How many functions a provider calls at most, as tried. Raises ValueError for one that cannot be used."""
    if not isinstance(kind, str):
        raise ValueError(f"fake takes the name of one provider as a text, such as 'name', not {kind!r}")
    if not isinstance(locale, str):
        _check_locale(locale)
    return _work(kind, locale)


@functools.lru_cache(4_096)
def _work(kind: str, locale: str) -> int:
    if kind not in _providers(locale):
        hint = errors.did_you_mean(kind, sorted(_providers(locale)), lambda one: _is_usable(one, locale))
        raise ValueError(f"there is no provider {kind!r}" + (hint and f", {hint}"))
    watch, most = _Watch(), 0
    for trial in range(_TRIALS):
        source = random.Random(trial)  # noqa: S311 - no secrets
        try:
            value = _plain(watch.call(kind, locale, source))
        except Exception as error:
            raise ValueError(f"{kind!r}: {error}") from error
        most = max(most, watch.events + (4 * len(value) if isinstance(value, list) else 0))
    if watch.reasons:
        raise ValueError(f"{kind!r} {watch.reasons[0]}, so that its events could not be made again")
    return most


def _is_usable(kind: str, locale: str) -> bool:
    try:
        return _work(kind, locale) >= 0
    except ValueError:
        return False


class _Watch:
    """Watches a provider at work: whether it asks the machine for the time, or for chance that is not ours."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.events = 0
        self._source: random.Random | None = None

    def call(self, kind: str, locale: str, source: random.Random) -> Any:
        before, self._source, self.events = sys.getprofile(), source, 0
        sys.setprofile(self._see)
        try:
            return _call(kind, locale, source)
        finally:
            sys.setprofile(before)

    def _see(self, _frame: Any, event: str, function: Any) -> None:
        self.events += 1
        if self.events > MAX_WORK:
            raise ValueError("it takes too long for an event")
        if event != "c_call":
            return
        if getattr(function, "__name__", "") in _CLOCKS:
            self.reasons.append("depends on the day")
        owner = getattr(function, "__self__", None)
        if isinstance(owner, random.Random) and owner is not self._source:
            self.reasons.append("draws by itself")
