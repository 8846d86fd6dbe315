"""No event names a row that does not live at its time; ``make same`` looks at ten million."""

from __future__ import annotations

import os

import orjson

from regstream.generator import stream
from tests.generate import support
from tests.generate.test_lives import DAY, FINDING, PROJECT

EVENTS = 10 * int(os.environ.get("SAME_EVENTS", "20000"))
BATCH = 1_000


def test_no_event_names_a_row_that_is_not_there():
    looking = support.stream_spec(
        {"id": "{{ f.id }}", "project": "{{ f.project }}", "found": "{{ p.id }}", "open": "{{ g.id }}"},
        "LOOKING",
        **{
            "with": {
                "f": "{{ pick('finding') }}",
                "p": "{{ find('project', f.project) }}",
                "g": "{{ pick('finding', state='OPEN') }}",
            }
        },
    )
    workshop = support.workshop(looking, entities=(PROJECT, FINDING))
    made = stream.Stream(looking, workshop, "epoch")
    findings, projects = (workshop.pools[name].by_key for name in ("finding", "project"))
    named = set()
    for tick in range(EVENTS // BATCH):
        batch = made.next_ticks([stream.Tick(support.NOW + tick * DAY / 8, BATCH)])
        assert len(batch.events) == BATCH, batch.error
        for event in batch.events:
            data = orjson.loads(event.value)["data"]
            assert data["id"] in findings and data["project"] in projects
            assert data["found"] == data["project"] and findings[data["open"]]["state"] == "OPEN"
            named.add(data["id"])
    # Most of those that lived are long gone
    assert len(named) > 40 + EVENTS // BATCH // 2
