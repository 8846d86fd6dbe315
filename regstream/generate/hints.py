"""What was probably meant by names and signs that templates do not have: the way in which it is written here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

PYTHON: Mapping[str, str] = {
    "abs": "write x | abs",
    "all": "write a and b",
    "any": "write a or b",
    "bool": "write true, false or a comparison",
    "datetime": "write now, or date('-5d') for another day",
    "enumerate": "write loop.index0 in a {% for %}",
    "faker": "write fake('name')",
    "filter": "write x | select or x | selectattr",
    "float": "write x | float",
    "format": "write '%.2f' % x",
    "int": "write x | int",
    "isinstance": "write x is string, x is number or x is mapping",
    "len": "write x | length",
    "list": "write x | list",
    "map": "write x | map",
    "math": "write x ** 0.5, x | round or x | abs",
    "Math": "write x ** 0.5, x | round or x | abs",
    "max": "write [a, b] | max",
    "min": "write [a, b] | min",
    "np": "write normal(0, 1), uniform(0, 1) or choice([…])",
    "null": "write none",
    "nil": "write none",
    "numpy": "write normal(0, 1), uniform(0, 1) or choice([…])",
    "os": "a template reads no environment, write the value into the file",
    "pow": "write x ** 2",
    "random": "write uniform(0, 1), randint(1, 6) or choice([…])",
    "rand": "write uniform(0, 1)",
    "repr": "write x | string or x | tojson",
    "reversed": "write x | reverse",
    "round": "write x | round(2)",
    "secrets": "write digits(8), uuid() or pattern('??-####')",
    "set": "write x | unique | list",
    "sorted": "write x | sort",
    "sqrt": "write x ** 0.5",
    "str": "write x | string, or put the text around {{ x }}",
    "sum": "write [a, b] | sum",
    "time": "write now, now.timestamp() or date('-5d')",
    "timedelta": "write date('-5d') or date('+12h')",
    "today": "write now, or date() for the day alone",
    "tuple": "write [a, b]",
    "type": "write x is string, x is number or x is mapping",
    "undefined": "write none, or x is defined",
    "uuid4": "write uuid()",
    "zip": "write a[index] and b[index]",
}
"""Names of Python, and of what people write like it."""

_SIGNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"""\b[fFrR]{1,2}(["'])"""),
        "there are no f-strings, put the text around {{ x }} or write 'text ' ~ x",
    ),
    (re.compile(r"&&"), "write and"),
    (re.compile(r"\|\|"), "write or"),
    (re.compile(r"[^=!<>]!\s*[\w(]"), "write not"),
    (re.compile(r"[=!]=="), "write == or !="),
    (re.compile(r"\blambda\b"), "there is no lambda, write x | map(…) or a macro"),
    (re.compile(r"[\[({][^\])}]*\bfor\b.*\bin\b"), "write x | map or x | select, or {% for %} … {% endfor %}"),
    (re.compile(r"\?[^?:]*:"), "write a if condition else b"),
    (re.compile(r"\?\?"), "write x | default(y)"),
    (re.compile(r"\+\+|--|[-+*/]="), "a template changes nothing: write x + 1, and update for an entity's field"),
    (re.compile(r"\{\{[^}]*[^=!<>]=[^=][^}]*\}\}"), "write == to compare"),
)
_EXPRESSION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)


def of_syntax(source: str, line: int) -> str:
    """What to write in place of a text that cannot be read, by what stands in the line; empty when nothing is known."""
    lines = source.splitlines()
    here = lines[line - 1] if 0 < line <= len(lines) else source
    within = " ".join(f"{{{{{one}}}}}" for one in _EXPRESSION.findall(here)) or here
    return next((hint for sign, hint in _SIGNS if sign.search(within)), "")


class Later(NamedTuple):
    """Where a template stands among those of a mapping, which ``outer`` may stand in in turn.

    ``at`` is its key; None when all of the mapping comes later, ``what`` being told of it.
    """

    values: Mapping[str, object]
    at: str | None
    what: str
    outer: Later | None = None

    def hint(self, name: str) -> str:
        """Why a name of the declaration cannot be used here, empty when it is none that comes later."""
        if name in self.values:
            if self.at is None:
                return self.what
            if name == self.at:
                return f"{self.what} {name} cannot use itself"
            keys = list(self.values)
            if keys.index(name) > keys.index(self.at):
                return f"{self.what} {name} is declared after {self.at}; move it before"
        return self.outer.hint(name) if self.outer is not None else ""
