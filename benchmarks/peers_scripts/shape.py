"""The values of the reference event, for those peers that are told them in Python."""

from __future__ import annotations

import datetime
import random
import uuid
from typing import Any

PEOPLE = ["Ana Torres", "Luis Prado", "Maria Silva", "Jorge Diaz", "Carla Nunez", "Pedro Rojas"]
REGIONS = ["MX", "BR", "AR", "CL", "CO", "PE"]
ENVELOPE = {
    "specversion": "1.0",
    "source": "/regstream/LATAM/bench",
    "type": "reference",
    "subject": "REFERENCE",
    "datacontenttype": "application/json",
    "priority": "NORMAL",
    "region": "LATAM",
}


def seed(number: int) -> dict[str, Any]:
    """What the fields of event ``number`` are made of."""
    allocated = round(random.uniform(100_000, 5_000_000), 2)
    spent = round(allocated * random.uniform(0.3, 1.1), 2)
    utilization = round(spent / allocated * 100, 1)
    return {
        "ref": str(uuid.uuid4()),
        "svp": random.choice(PEOPLE),
        "region": random.choice(REGIONS),
        "allocated": allocated,
        "spent": spent,
        "utilization": utilization,
        "level": "CRITICAL" if utilization > 95 else "WARNING" if utilization > 80 else "OK",
        "quarter": random.randint(1, 4),
        "project": random.randint(1, 400),
        "at": datetime.datetime.now(datetime.UTC).isoformat(),
        "n": number,
    }


def data(number: int) -> dict[str, Any]:
    """The twelve fields of event ``number``."""
    made = seed(number)
    made["quarter"] = f"Q{made['quarter']}"
    made["project"] = f"PRJ-{made['project']:04d}"
    made["note"] = f"{made['svp']} budget at {made['utilization']}% in {made['region']}"
    return made


def event(number: int) -> dict[str, Any]:
    """Event ``number`` in its envelope."""
    fields = data(number)
    return {**ENVELOPE, "id": f"REFERENCE/0/{number}", "time": fields["at"], "seq": number, "data": fields}
