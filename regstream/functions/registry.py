"""What templates may call: chance, dates, names and identifiers.

Each function takes its random input first: ``u`` is a double in [0, 1), ``raw`` 16 random bytes. Nothing here keeps
state or reads a clock. The compiler calls them with draws that it allotted; statements reach them through ``bound``.
"""

from __future__ import annotations

import bisect
import contextlib
import datetime
import functools
import hashlib
import itertools
import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from regstream import errors
from regstream.functions import csv, faker, limits, lookup, processes, time_format
from regstream.functions.limits import Budget

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
    if isinstance(values, lookup.Rows) and (isinstance(zipf, int | float) or isinstance(weight, str)):
        budget.once(("pick", id(values), zipf, weight), len(values) // _RANKS_A_STEP)


def of_provider(budget: Budget, kind: Any, locale: Any = faker.LOCALE, *_: Any, **__: Any) -> None:
    """``fake``: what its provider does, as counted when it was tried; locales and providers are prepared once."""
    if not isinstance(kind, str) or not faker.is_locale(locale):
        return
    budget.prepare(("locale", locale), _LOCALE, functools.partial(faker.prepare, locale))
    budget.prepare(("provider", kind, locale), _PROVIDER, functools.partial(faker.work, kind, locale))
    budget.spend(faker.work(kind, locale) // _EVENTS_A_STEP)


MAX_TEXT = 1_000
MAX_RANKS = 10_000
FITTING = 20
"""So many characters can be drawn from 16 bytes."""
_OFFSET = re.compile(r"\s*([+-]?\d{1,6})\s*([smhdw])\s*")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_ALPHABETS = {"#": "0123456789", "?": "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "*": "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
_FIRST_MINUTE = datetime.datetime(1970, 1, 1)
_ROOT_2 = math.sqrt(2)
_GREATEST = 1.0 - 2.0**-53
"""The last double below 1."""
_normal = statistics.NormalDist().inv_cdf


class Instant(datetime.datetime):
    """A point in time that prints as events show it: ``2026-11-23T12:00:00.123Z``."""

    def __str__(self) -> str:
        return self.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def strftime(self, format: str) -> str:
        """As C's in UTC and the C locale, whatever those of the machine are."""
        return time_format.formatted(self, format)

    @classmethod
    def at(cls, now: float) -> Instant:
        """The instant ``now`` seconds after the epoch, in UTC."""
        # Those of a batch are of few minutes, so this takes half the time of fromtimestamp of a class of its own
        fraction, whole = math.modf(now)
        micros = round(fraction * 1e6)
        minute, second = divmod(int(whole) + micros // 1_000_000, 60)
        return cls(*_minute(minute)[1], second, micros % 1_000_000, datetime.UTC)


def time_text(now: float) -> str:
    """What ``str(Instant.at(now))`` is, in a fraction of its time."""
    fraction, whole = math.modf(now)
    # As datetime does it: of the whole in microseconds, the last binary places are lost
    micros = round(fraction * 1e6)
    minute, second = divmod(int(whole) + micros // 1_000_000, 60)
    return _minute(minute)[0] + _TWO_DIGITS[second] + _MILLIS[micros % 1_000_000 // 1000]


@functools.lru_cache(64)
def _minute(minute: int) -> tuple[str, tuple[int, int, int, int, int]]:
    """A minute since the epoch: how the text of its instants begins, and its date and time."""
    at = _FIRST_MINUTE + datetime.timedelta(minutes=minute)
    return at.isoformat()[:17], (at.year, at.month, at.day, at.hour, at.minute)


_TWO_DIGITS = tuple(f"{second:02d}" for second in range(60))
_MILLIS = tuple(f".{milli:03d}Z" for milli in range(1000))


def choice(u: float, values: Sequence[Any]) -> Any:
    """One of a list, all equally likely."""
    if not isinstance(values, Sequence) or not values:
        raise ValueError("choice takes a list with at least one value")
    return values[int(u * len(values))]


def weighted(u: float, weights: Mapping[Any, float]) -> Any:
    """One key of a mapping of values to weights."""
    if weights.__class__ is not dict and not isinstance(weights, Mapping):
        raise ValueError("weighted takes a mapping of values to weights")
    values, bounds = cumulative(weights)
    return values[bisect.bisect_right(bounds, u)]


def cumulative(weights: Mapping[Any, float]) -> tuple[tuple[Any, ...], tuple[float, ...]]:
    """Values with a weight above 0, and the upper bounds in (0, 1) of all but the last. Raises ValueError."""
    # The values stay out of the cache: 1, 1.0 and true are equal, so one mapping would be given another's
    given = tuple(weights.values())
    bounds = _bounds(given)
    if len(bounds) == len(given) - 1:
        return tuple(weights), bounds
    return tuple(value for value, weight in weights.items() if weight > 0), bounds


def _shares(weights: tuple[float, ...]) -> tuple[float, ...]:
    if not all(isinstance(one, int | float) and math.isfinite(one) for one in weights):
        raise ValueError("weights must be finite numbers")
    kept = [weight for weight in weights if weight > 0]
    if not kept or min(weights) < 0:
        raise ValueError("weights must not be negative, and one above 0")
    total = math.fsum(kept)
    return tuple(itertools.accumulate(weight / total for weight in kept[:-1]))


_bounds = functools.lru_cache(256)(_shares)


def uniform(u: float, low: float, high: float) -> float:
    """A number between low and high."""
    return low + (high - low) * u


def randint(u: float, low: int, high: int) -> int:
    """A whole number from low to high, both included; the range is at most 2**50."""
    _check_whole("randint", low, high)
    if not low <= high <= low + 2**50:
        raise ValueError(f"randint needs low <= high, at most 2**50 apart, not {low} and {high}")
    return low + int((high - low + 1) * u)


def normal(u: float, mean: float, sd: float) -> float:
    """Normal distribution, by the inverse of its cumulative function."""
    if sd < 0:
        raise ValueError(f"normal needs a standard deviation of 0 or more, not {sd}")
    return mean + sd * _normal(u or 2.0**-53)


def lognormal(u: float, mu: float, sigma: float) -> float:
    """A number whose logarithm is normal with mean mu and standard deviation sigma."""
    if sigma < 0:
        raise ValueError(f"lognormal needs a standard deviation of 0 or more, not {sigma}")
    try:
        return math.exp(mu + sigma * _normal(u or 2.0**-53))
    except OverflowError:
        raise ValueError(f"lognormal takes the mean of the logarithm, {mu} is too large") from None


def exponential(u: float, mean: float) -> float:
    """Exponential distribution with that mean."""
    return -mean * math.log(1.0 - u)


def triangular(u: float, low: float, high: float, mode: float | None = None) -> float:
    """Triangular distribution; without a mode its peak is in the middle."""
    peak = (low + high) / 2 if mode is None else mode
    if not low <= peak <= high:
        raise ValueError(f"triangular needs low <= mode <= high, not {low}, {peak} and {high}")
    if u * (high - low) <= peak - low:
        return low + math.sqrt(u * (high - low) * (peak - low))
    return high - math.sqrt((1.0 - u) * (high - low) * (high - peak))


def pareto(u: float, alpha: float, minimum: float = 1.0) -> float:
    """Pareto distribution: never below the minimum, the heavier in its tail the smaller alpha."""
    if alpha <= 0:
        raise ValueError(f"pareto needs an alpha above 0, not {alpha}")
    return float(minimum * (1.0 - u) ** (-1.0 / alpha))


def zipf(u: float, n: int, s: float = 1.1) -> int:
    """A whole number from 1 to n, k as often as k to the power of -s; n is at most 10,000."""
    return 1 + bisect.bisect_right(_zipf(n, s), u)


@functools.lru_cache(limits.RECENT)
def _zipf(n: int, s: float) -> tuple[float, ...]:
    _check_whole("zipf", n)
    if not 1 <= n <= MAX_RANKS or not 0 <= s <= 20:
        raise ValueError(f"zipf needs n from 1 to {MAX_RANKS} and s from 0 to 20, not {n} and {s}")
    # Not by way of the cache of _bounds, which would keep as many more of these tables
    return _shares(tuple(k**-s for k in range(1, n + 1)))


def chance(u: float, p: float) -> bool:
    """True with probability p."""
    if not 0 <= p <= 1:
        raise ValueError(f"chance needs a probability from 0 to 1, not {p}")
    return u < p


def marginal(z: float, name: str, *given: Any, **named: Any) -> Any:
    """The quantile of a distribution for a standard normal number.

    Numbers that are correlated so become such of any distributions, by a Gaussian copula. ``name`` is one of
    ``DISTRIBUTIONS``, its arguments follow. Raises ValueError.
    """
    check_distribution(name)
    return FUNCTIONS[name].call(share_below(z), *given, **named)


def share_below(z: float) -> float:
    """The part of the standard normal distribution below z, in [0, 1). Raises ValueError for what is no number."""
    if not isinstance(z, int | float) or math.isnan(z):
        raise ValueError(f"marginal takes a standard normal number, not {z!r}")
    return min(math.erfc(-z / _ROOT_2) / 2, _GREATEST)


def check_distribution(name: Any) -> None:
    """Raises ValueError for what is not the name of a distribution, with one that is near."""
    if not isinstance(name, str) or name not in DISTRIBUTIONS:
        hint = errors.did_you_mean(name, DISTRIBUTIONS) if isinstance(name, str) else ""
        raise ValueError(f"there is no distribution {name!r}, {hint or 'write one of ' + ', '.join(DISTRIBUTIONS)}")


def uuid(raw: bytes) -> str:
    """A UUID of version 4 (RFC 9562)."""
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{'89ab'[raw[8] & 3]}{text[17:20]}-{text[20:]}"


def digits(raw: bytes, n: int) -> str:
    """A text of n random digits, at most 1,000."""
    _check_whole("digits", n)
    if not 0 <= n <= MAX_TEXT:
        raise ValueError(f"digits makes 0 to {MAX_TEXT} digits, not {n}")
    if n > FITTING:
        return pattern(raw, "#" * n)
    # The same digits as those of the pattern, which takes the last one first
    return f"{int.from_bytes(raw, 'little') % 10**n:0{n}d}"[::-1] if n else ""


def pattern(raw: bytes, text: str) -> str:
    r"""A text where ``#`` becomes a digit, ``?`` a letter A-Z and ``*`` either; ``\`` keeps the next character."""
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        raise ValueError(f"pattern takes a text of at most {MAX_TEXT} characters")
    pool = int.from_bytes(raw if len(text) <= FITTING else hashlib.shake_128(raw).digest(len(text)), "little")
    made, characters = [], iter(text)
    for character in characters:
        alphabet = _ALPHABETS.get(character)
        if alphabet:
            pool, index = divmod(pool, len(alphabet))
            made.append(alphabet[index])
        else:
            made.append(next(characters, "") if character == "\\" else character)
    return "".join(made)


def sequence(seq: int, start: int = 1, step: int = 1) -> int:
    """start for the first event of the stream, then start + step, and so on."""
    _check_whole("sequence", start, step)
    return start + step * (seq - 1)


def date(
    u: float, now: datetime.datetime, offset: str = "0d", until: str | None = None, format: str = "%Y-%m-%d"
) -> str:
    """A date as text: ``now`` moved by an offset such as ``-5d`` or ``+2w``, or a random one between two offsets."""
    seconds = _seconds(offset)
    if until is not None:
        seconds += int((_seconds(until) - seconds) * u)
    try:
        return time_format.formatted(now + datetime.timedelta(seconds=seconds), format)
    except OverflowError:
        raise ValueError(f"date leaves the years 1 to 9999 with {offset!r}") from None


@functools.lru_cache(256)
def _seconds(offset: str) -> int:
    match = _OFFSET.fullmatch(offset) if isinstance(offset, str) else None
    if match is None:
        raise ValueError(f"{offset!r} is not an offset, write -5d, +30d, 12h or 2w")
    return int(match[1]) * _SECONDS[match[2]]


def _check_whole(name: str, *values: Any) -> None:
    for one in values:
        if not isinstance(one, int):
            raise ValueError(f"{name} takes whole numbers, not {one!r}")


class Function(NamedTuple):
    """A vocabulary function and what it is given before the arguments of the template.

    ``needs`` is a tuple of ``u`` (a double), ``raw`` (16 bytes), ``now`` and ``seq``; ``gives`` the type of the
    result as far as the compiler uses it: ``float``, ``int``, ``bool``, ``str`` or ``any``. ``price`` counts what it
    costs by its arguments, where that is more than a call of any function does.
    """

    call: Callable[..., Any]
    needs: tuple[str, ...]
    gives: str
    price: Price | None = None

    def priced(self, account: limits.Budget) -> Callable[..., Any]:
        """``call``, which counts what it costs first. Raises CostError."""
        price, call, own = self.price, self.call, len(self.needs)
        if price is None:
            return call

        def counted(*given: Any, **named: Any) -> Any:
            # What does not fit, the call itself says
            with contextlib.suppress(TypeError):
                price(account, *given[own:], **named)
            return call(*given, **named)

        return counted


def of_distribution(account: limits.Budget, z: Any, name: Any, *given: Any, **named: Any) -> None:
    """The price of ``marginal``: that of the distribution that it names."""
    price = FUNCTIONS[name].price if name in DISTRIBUTIONS else None
    if price is not None:
        price(account, *given, **named)


FUNCTIONS: dict[str, Function] = {
    "choice": Function(choice, ("u",), "any"),
    "weighted": Function(weighted, ("u",), "any"),
    "uniform": Function(uniform, ("u",), "float"),
    "randint": Function(randint, ("u",), "int"),
    "normal": Function(normal, ("u",), "float"),
    "lognormal": Function(lognormal, ("u",), "float"),
    "exponential": Function(exponential, ("u",), "float"),
    "triangular": Function(triangular, ("u",), "float"),
    "pareto": Function(pareto, ("u",), "float"),
    "zipf": Function(zipf, ("u",), "int", of_ranks),
    "chance": Function(chance, ("u",), "bool"),
    "marginal": Function(marginal, (), "any", of_distribution),
    "empirical": Function(csv.empirical, ("u",), "any"),
    "uuid": Function(uuid, ("raw",), "str"),
    "digits": Function(digits, ("raw",), "str", of_digits),
    "pattern": Function(pattern, ("raw",), "str", of_text),
    "sequence": Function(sequence, ("seq",), "int"),
    "date": Function(date, ("u", "now"), "str", of_format),
    "fake": Function(faker.fake, ("raw",), "any", of_provider),
    "mixture": Function(processes.mixture, ("u",), "any"),
    "correlated": Function(processes.correlated, ("u", "u"), "any"),
    "walk": Function(processes.walk, ("u",), "float"),
    "grow": Function(processes.grow, ("u",), "float"),
    "revert": Function(processes.revert, ("u",), "float"),
    "seasonal": Function(processes.seasonal, ("now",), "float", of_zone),
    "pick": Function(lookup.pick, ("u",), "any", of_rows),
    "find": Function(lookup.find, (), "any"),
}
DISTRIBUTIONS = (
    "uniform", "normal", "lognormal", "exponential", "triangular", "pareto", "zipf", "randint", "choice", "weighted",
)  # fmt: skip
"""Those that ``marginal`` takes: the inverse of a cumulative function, of one double."""
ROWS = ("pick", "find")
"""Those whose first argument names an entity."""
TABLES = ("empirical",)
"""Those whose first argument names a CSV file."""
NAMES = ("now", "seq", "index", "stream")
