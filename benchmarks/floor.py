"""The reference event without regstream: written by hand, and with a Jinja template for each of its fields."""

from __future__ import annotations

import datetime
import random
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import jinja2
import orjson

Maker = Callable[[int], None]
"""Makes and encodes that many events."""

_PEOPLE = ["Ana Torres", "Luis Prado", "Maria Silva", "Jorge Diaz", "Carla Nunez", "Pedro Rojas"]
_REGIONS = ["MX", "BR", "AR", "CL", "CO", "PE"]


def _cloud_event(seq: int, data: Mapping[str, Any]) -> bytes:
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": f"REFERENCE/0/{seq}",
            "source": "/regstream/LATAM/bench",
            "type": "reference",
            "subject": "REFERENCE",
            "time": data["at"],
            "datacontenttype": "application/json",
            "epoch": "0",
            "seq": seq,
            "priority": "NORMAL",
            "region": "LATAM",
            "data": data,
        }
    )


def by_hand() -> Maker:
    """What a programmer writes who needs this one event, fast, and no other."""
    chance, bits, now, utc = random.random, random.getrandbits, datetime.datetime.now, datetime.UTC

    def make(count: int) -> None:
        for seq in range(1, count + 1):
            person, region = _PEOPLE[int(chance() * 6)], _REGIONS[int(chance() * 6)]
            allocated = round(100_000 + 4_900_000 * chance(), 2)
            spent = round(allocated * (0.3 + 0.8 * chance()), 2)
            utilization = round(spent / allocated * 100, 1)
            text = f"{bits(128):032x}"
            data = {
                "ref": f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}",
                "svp": person,
                "region": region,
                "allocated": allocated,
                "spent": spent,
                "utilization": utilization,
                "level": "CRITICAL" if utilization > 95 else "WARNING" if utilization > 80 else "OK",
                "quarter": f"Q{1 + int(4 * chance())}",
                "project": f"PRJ-{1 + int(400 * chance()):04d}",
                "at": now(utc),
                "n": seq,
                "note": f"{person} budget at {utilization}% in {region}",
            }
            _cloud_event(seq, data)

    return make


def template_per_field(fields: Mapping[str, str]) -> Maker:
    """What is written first: each field is a template, rendered for each event; numbers are read back from text."""
    environment = jinja2.Environment(autoescape=False)
    templates = {name: environment.from_string(text) for name, text in fields.items()}
    vocabulary = {
        "uuid": lambda: str(uuid.UUID(int=random.getrandbits(128), version=4)),
        "choice": random.choice,
        "uniform": random.uniform,
        "randint": random.randint,
    }

    def make(count: int) -> None:
        for seq in range(1, count + 1):
            now = datetime.datetime.now(datetime.UTC).isoformat()
            scope = {**vocabulary, "seq": seq, "now": now, "svp": {"name": random.choice(_PEOPLE)}}
            data = {}
            for name, template in templates.items():
                scope[name] = data[name] = _native(template.render(scope))
            _cloud_event(seq, data)

    return make


def _native(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text
