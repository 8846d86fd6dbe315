"""What a template may cost: how large values may be, and the operations whose results are measured before they exist.

A size is about the number of characters of a value as text, with all that it contains. Whatever a guard has let pass
is at most ``LIMIT``; the compiler adds sizes up and asks for a guard only where a sum could pass ``CEILING``.
"""

from __future__ import annotations

import datetime
import functools
import itertools
import re
import string
import time
import types
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from typing import Any, cast

import jinja2
import jinja2.runtime
import jinja2.utils

LIMIT = 200_000
CEILING = 32 * LIMIT
MAX_EVENT = 1_000_000
MAX_RANGE = 100_000
MAX_BITS = 4_096
MAX_PLACES = 300
SMALL = 32
_SMALL_TYPES = frozenset({float, bool, type(None)})
_PLAIN = _SMALL_TYPES | {str, int, list, tuple, dict}
VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
_MANY = (list, tuple, *VIEWS)
FUNCTIONS = (
    types.BuiltinFunctionType, types.FunctionType, types.MethodType, types.MethodWrapperType, functools.partial, type,
)  # fmt: skip
"""What is to be called: as a text it would be its place in memory, another one at every start."""
_SHOWN = (
    float, bool, type(None), complex, datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo,
    jinja2.Undefined, jinja2.runtime.Macro, jinja2.runtime.LoopContext, jinja2.environment.TemplateModule,
)  # fmt: skip
_GROWING = frozenset(
    {"join", "indent", "wordwrap", "expandtabs", "center", "ljust", "rjust", "zfill", "batch", "slice", "tojson"}
)
_PERCENT_WIDE = re.compile(r"%(?:\([^()]*\))?[^a-zA-Z%(]*(?:\d{4,}|\*)|%\([^()]*\(")
_OF_TIME = re.compile(r"%[-_^#0-9EO]*[A-Za-z]")
_WIDE = re.compile(r"\d{4,}|\{")


class CostError(jinja2.TemplateError):
    """A template wanted more steps or more memory than one event may have."""


def size(value: Any) -> int:
    """About how many characters ``value`` has as text.

    Raises CostError when they are more than ``LIMIT``, ValueError for NaN and infinity.
    """
    kind = type(value)
    if kind is str:
        return _kept(len(value))
    if kind is int:
        return _bits(value) // 3 + 2
    if kind is float and value - value != 0.0:
        raise ValueError(f"{value} is not a number that an event can carry")
    return SMALL if kind in _SMALL_TYPES else _deep(value)


def _kept(total: int) -> int:
    if total > LIMIT:
        raise CostError(f"makes a value of more than {LIMIT} characters")
    return total


def _deep(value: Any) -> int:
    total, waiting = 0, [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str | range):
            total += len(one) + 2
        elif isinstance(one, int):
            total += _bits(one) // 3 + 2
        else:
            total += 4
            waiting.extend(_parts(one))
        _kept(total)
    return total


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return itertools.chain(value.keys(), value.values()) if _kept(len(value)) else ()
    if isinstance(value, _MANY):
        many = cast("Collection[Any]", value)
        return many if _kept(len(many)) else ()
    if isinstance(value, jinja2.utils.Namespace):
        return _attributes(value).values()
    if not isinstance(value, _SHOWN):
        raise ValueError(f"a {type(value).__name__} is not a value that a template can show")
    return ()


def _attributes(space: jinja2.utils.Namespace) -> dict[str, Any]:
    # A namespace answers every other name with one of the template's own
    found: dict[str, Any] = object.__getattribute__(space, "_Namespace__attrs")
    return found


def _bits(number: int) -> int:
    if number.bit_length() > MAX_BITS:
        raise CostError(f"makes a number of more than {MAX_BITS} bits")
    return number.bit_length()


def listed(value: Any) -> Any:
    """``value``, an iterator as a list of at most a few more than ``LIMIT``."""
    if type(value) not in _PLAIN and isinstance(value, Iterator):
        return list(itertools.islice(value, LIMIT + 1))
    return value


def bounded(value: Any) -> Any:
    """``value``, an iterator as a list, unless it is too large. Raises CostError."""
    value = listed(value)
    size(value)
    return value


def times(left: Any, right: Any) -> Any:
    """``left * right`` with the size of what it makes checked first. Raises CostError."""
    for one, other in ((left, right), (right, left)):
        if isinstance(one, int) and isinstance(other, str | list | tuple) and one * (size(other) or 1) > LIMIT:
            raise CostError(f"repeats a value {one} times, which makes more than {LIMIT} characters")
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > MAX_BITS:
        raise CostError(f"makes a number of more than {MAX_BITS} bits")
    made = left * right
    if made.__class__ is float:
        size(made)
    return made


def power(left: Any, right: Any) -> Any:
    """``left ** right`` with the size of what it makes checked first. Raises CostError."""
    if isinstance(left, int) and isinstance(right, int) and abs(left) > 1 and left.bit_length() * abs(right) > MAX_BITS:
        raise CostError(f"makes a number of more than {MAX_BITS} bits")
    return left**right


def modulo(left: Any, right: Any) -> Any:
    """``left % right``, which may format a text. Raises CostError."""
    if isinstance(left, str):
        check_percent(left, size(right))
    return left % right


def check_percent(text: str, extent: int) -> int:
    """The greatest size of ``text % values`` for values of a total size ``extent``. Raises CostError."""
    if _PERCENT_WIDE.search(text):
        raise CostError("formats to a width above 999")
    return _format_size(text, "%", extent)


def check_braces(text: str, extent: int) -> int:
    """The greatest size of ``text.format(values)`` for values of a total size ``extent``. Raises CostError."""
    for _, _, spec, _ in string.Formatter().parse(text):
        if spec and _WIDE.search(spec):
            raise CostError("formats to a width above 999")
        if spec and spec.endswith("n"):
            raise ValueError("the format type n depends on the machine's locale, write d, f or ,d")
        if spec and _OF_TIME.search(spec):
            raise ValueError("the parts of a time are formatted by strftime, write now.strftime('%d/%m/%Y')")
    return _format_size(text, "{", extent)


def _format_size(text: str, mark: str, extent: int) -> int:
    made = len(text) + text.count(mark) * (extent + (999 if re.search(r"\d{3}", text) else 99))
    if made > CEILING:
        raise CostError(f"formats to a text of up to {made} characters")
    return made


def plus(left: Any, right: Any) -> Any:
    """``left + right`` with its size checked. Raises CostError."""
    return bounded(left + right)


def joined(parts: Iterable[Any]) -> str:
    """The texts of the parts in a row (Jinja's ``~``). Raises CostError."""
    made, total = [], 0
    for part in parts:
        text = part if isinstance(part, str) else _text(part)
        total += len(text)
        _kept(total)
        made.append(text)
    return "".join(made)


def _text(value: Any) -> str:
    size(value)
    return str(value)


def rounded(value: Any, places: Any) -> Any:
    """``round(value, places)``. Raises CostError for more than 300 places."""
    if places.__class__ is int and value.__class__ is float and -MAX_PLACES <= places <= MAX_PLACES:
        return round(value, places)
    check_growth("round", (places,))
    return round(value, places)


def safe_range(*args: int) -> range:
    """``range`` of at most 100,000 numbers. Raises CostError."""
    made = range(*args)
    # len() overflows on the very ranges that are to be refused
    if made and (made[-1] - made[0]) // made.step >= MAX_RANGE:
        raise CostError(f"ranges over more than {MAX_RANGE} numbers")
    return made


def check_growth(name: str, values: tuple[Any, ...]) -> None:
    """Refuse a filter or method that would make a huge value of ``values``, its owner first. Raises CostError."""
    if name == "replace":
        _check_product(name, (values[0], *values[2:3]))
    elif name in _GROWING:
        _check_product(name, values)
    elif name == "round" and any(isinstance(one, int) and abs(one) > MAX_PLACES for one in values[-2:]):
        raise CostError(f"rounds to more than {MAX_PLACES} places")
    elif name == "sum" and any(isinstance(one, list | tuple) for one in values[1:]):
        raise CostError("sum adds numbers, write + to join lists")


def _check_product(name: str, values: Iterable[Any]) -> None:
    product = 1
    for one in values:
        factor = abs(one) if isinstance(one, int) else 1 if one is None else size(one)
        product *= max(1, factor)
    if product > CEILING:
        raise CostError(f"{name} would make a text of up to {product} characters")


MAX_STEPS = 100_000
MAX_SECONDS = 0.1
RECENT = 32
"""So many results that are dear to make are kept, here in the accounts and by those who make them."""
_LOOK = 2_000


class Budget:
    """The steps that an event has left, and the CPU time that it took. ``clock`` gives that of this thread."""

    __slots__ = ("_clock", "_next", "_recent", "_seconds", "_since", "left")

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self._recent: dict[Hashable, None] = {}
        self.renew()

    def renew(self) -> None:
        """Give the next event all its steps and time."""
        self.left = MAX_STEPS
        self._next = MAX_STEPS - _LOOK
        self._seconds, self._since = 0.0, -1.0
        if self._recent:
            self._recent = {}

    def spend(self, steps: int) -> None:
        """Count steps. Raises CostError when they, or the time, are more than an event may take."""
        self.left -= steps
        if self.left < self._next:
            self._look()

    def _look(self) -> None:
        if self.left < 0:
            raise CostError(f"takes more than {MAX_STEPS} steps")
        now = self._clock()
        if self._since >= 0:
            # One pause that is not the template's, a garbage collection of a large process, must not stop it
            self._seconds += min(now - self._since, MAX_SECONDS / 2)
        self._since = now
        self._next = max(0, self.left - _LOOK)
        if self._seconds >= MAX_SECONDS:
            raise CostError(f"takes more than {MAX_SECONDS * 1000:g} ms")

    def once(self, what: Hashable, steps: int) -> None:
        """Count the steps of making something that is kept, unless it is among the last that the event used."""
        known = what in self._recent
        if known:
            del self._recent[what]
        elif len(self._recent) >= RECENT:
            del self._recent[next(iter(self._recent))]
        self._recent[what] = None
        if not known:
            self.spend(steps)

    def prepare(self, what: Hashable, steps: int, make: Callable[[], object]) -> None:
        """Count and make what a process makes once. The clock stands still: later events do not pay for it."""
        self.once(what, steps)
        make()
        self._since = -1.0


class Fixed(Budget):
    """The budget of what is known when templates are compiled: what is prepared is ready before the first event."""

    __slots__ = ()

    def prepare(self, what: Hashable, steps: int, make: Callable[[], object]) -> None:
        """Nothing."""
