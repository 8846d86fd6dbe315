"""avalon-generator: a template model of its own kind, and its format json-lines in batches of 100."""

from __future__ import annotations

import itertools
import sys

from avalon.formats.linebase import JsonLinesFormat
from avalon.models.templates import LogTemplateModel
from shape import ENVELOPE, seed

numbers = itertools.count(1)


def fields(known: dict) -> dict:
    """The seed of a template, from which its texts are filled in."""
    return seed(next(numbers))


def nested(known: dict) -> dict:
    texts = {
        "quarter": "Q{quarter}",
        "project": "PRJ-{project:04d}",
        "note": "{svp} budget at {utilization}% in {region}",
    }
    plain = ("ref", "svp", "region", "allocated", "spent", "utilization", "level", "at", "n")
    return {**{name: known[name] for name in plain}, **{name: text.format(**known) for name, text in texts.items()}}


class Reference(LogTemplateModel):
    __title__ = "reference"
    enable_default_log_seeds = False
    templates_weights = [1]
    templates = [
        {
            "__seed__": fields,
            **ENVELOPE,
            "id": "REFERENCE/0/{n}",
            "time": "{at}",
            "seq": lambda known: known["n"],
            "data": nested,
        }
    ]


model, form = Reference(), JsonLinesFormat()
left = int(sys.argv[1])
while left > 0:
    sys.stdout.write(form.batch(model, min(100, left)))
    left -= 100
