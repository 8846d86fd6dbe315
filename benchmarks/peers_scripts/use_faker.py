"""Faker alone, as it is used by hand: one call a field, seeded, and the standard library's JSON."""

from __future__ import annotations

import json
import sys

from faker import Faker
from shape import ENVELOPE, PEOPLE, REGIONS

fake = Faker()
Faker.seed(7)
for number in range(1, int(sys.argv[1]) + 1):
    person, region = fake.random_element(PEOPLE), fake.random_element(REGIONS)
    allocated = fake.pyfloat(min_value=100_000, max_value=5_000_000, right_digits=2)
    spent = round(allocated * fake.pyfloat(min_value=0.3, max_value=1.1), 2)
    utilization = round(spent / allocated * 100, 1)
    at = fake.date_time_this_year().isoformat()
    data = {
        "ref": fake.uuid4(),
        "svp": person,
        "region": region,
        "allocated": allocated,
        "spent": spent,
        "utilization": utilization,
        "level": "CRITICAL" if utilization > 95 else "WARNING" if utilization > 80 else "OK",
        "quarter": f"Q{fake.random_int(1, 4)}",
        "project": fake.numerify("PRJ-0###"),
        "at": at,
        "n": number,
        "note": f"{person} budget at {utilization}% in {region}",
    }
    print(json.dumps({**ENVELOPE, "id": f"REFERENCE/0/{number}", "time": at, "seq": number, "data": data}))
