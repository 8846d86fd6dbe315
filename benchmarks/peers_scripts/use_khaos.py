"""khaos-cli: its own payload generator for JSON, as its producers call it. It knows no derived fields, so the five that
are derived or formatted are drawn by themselves, and its note is letters."""

from __future__ import annotations

import sys

from khaos.generators.schema import SchemaPayloadGenerator
from khaos.models.schema import FieldSchema
from shape import ENVELOPE, PEOPLE, REGIONS


def of(name: str, kind: str, **rest: object) -> dict[str, object]:
    return {"name": name, "type": kind, **rest}


FIELDS = [
    of("ref", "uuid"),
    of("svp", "enum", values=PEOPLE),
    of("region", "enum", values=REGIONS),
    of("allocated", "float", min=100_000, max=5_000_000),
    of("spent", "float", min=30_000, max=5_500_000),
    of("utilization", "float", min=30, max=110),
    of("level", "enum", values=["CRITICAL", "WARNING", "OK"]),
    of("quarter", "enum", values=["Q1", "Q2", "Q3", "Q4"]),
    of("project", "string", min_length=8, max_length=8, cardinality=400),
    of("at", "timestamp"),
    of("n", "int", max=10**9),
    of("note", "string", min_length=36, max_length=44),
]
EVENT = [
    *(of(name, "enum", values=[value]) for name, value in ENVELOPE.items()),
    of("id", "uuid"),
    of("time", "timestamp"),
    of("seq", "int", max=10**9),
    of("data", "object", fields=FIELDS),
]
make = SchemaPayloadGenerator([FieldSchema.from_dict(one) for one in EVENT]).generate
write = sys.stdout.buffer.write
for _ in range(int(sys.argv[1])):
    write(make() + b"\n")
