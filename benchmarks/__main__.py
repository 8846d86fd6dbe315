"""``python -m benchmarks [ROW …]``: measure, print the table, write it as JSON."""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import time
import traceback
from collections.abc import Iterable

from benchmarks import apart, peers, table
from scripts import kafka, postgres

ROWS = {
    "generation": "events a CPU second, over the event by hand and over a template per field",
    "history": "the shipped bank and a virtual week of a hundred streams at full speed, over the event by hand",
    "peers": "the reference event by regstream generate, over four other generators from PyPI",
    "entities": "memory with a million entity rows",
    "ticks": "lateness and CPU of 1,000 streams at 1 s",
    "delivery": "emission to a WebSocket client at 1,000 events a second",
    "startup": "regstream run to the first 200 of /health/ready",
    "memory": "resident memory after a minute of the shipped streams",
    "reload": "longest stall of the loop while 1,000 streams are reloaded",
    "fanout-rates": "deliveries a CPU second to 100 WebSocket clients, at 2,000 events a second and at 20",
    "fanout-socketio": "deliveries a CPU second to 100 clients of Socket.IO",
    "fanout-many": "emission to the last of 1,000 clients",
    "fanout-idle": "memory for each of 5,000 idle clients",
    "fanout-stalled": "what 50 stalled clients cost the 50 others at 2,000 events a second",
    "fanout-conflated": "2,000 events a second in, the newest of each key every two seconds out",
    "kafka-publish": "events to real Kafka until acknowledged a CPU second, over the client library's own loop",
    "kafka-delivery": "emission through real Kafka to a WebSocket client at 500 events a second",
    "kafka-drain": "real Kafka back until 60,000 events on disk are sent",
    "store-recording": "rows into real PostgreSQL a CPU second, over a bare binary COPY",
    "store-page": "a page of 1,000 events out of 10 million, over the same SQL in psql (minutes to fill)",
    "store-replay": "stored events sent again: the error of their gaps, and the rate at full speed",
}
LAST = pathlib.Path(__file__).with_name("last.json")


def arguments(given: list[str] | None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"{', '.join(ROWS)}; none: all")
    parser.add_argument("--list", action="store_true", help="name the rows and stop")
    parser.add_argument("--json", type=pathlib.Path, default=LAST, help="where the figures go (benchmarks/last.json)")
    parser.add_argument(
        "--tiny", action="store_true", help="so small that the figures mean nothing: tests the benchmarks"
    )
    chosen = parser.parse_args(given)
    unknown = [name for name in chosen.rows if not _named(name)]
    if unknown:
        parser.error(f"no row {unknown[0]!r}, there are {', '.join(ROWS)}")
    return chosen


def _named(name: str) -> list[str]:
    """The rows of a name, or all whose names begin with it: ``kafka`` names those that need Kafka."""
    return [row for row in ROWS if row == name or row.startswith(f"{name}-")]


def _possible(rows: Iterable[str]) -> list[str]:
    """Those that can be measured here; why others cannot is told once."""
    left = list(rows)
    for group, why_not in (("kafka", kafka.available), ("store", postgres.why_not), ("peers", peers.why_not)):
        without = [row for row in left if row not in _named(group)]
        reason = why_not() if without != left else None
        if reason is not None:
            print(f"skipping {', '.join(_named(group))}: {reason}", file=sys.stderr)
            left = without
    return left


def _keep(path: pathlib.Path, rows: list[table.Row]) -> None:
    path.write_text(json.dumps({"rows": [row.as_json() for row in rows]}, indent=2) + "\n", encoding="utf-8")


def main(given: list[str] | None = None) -> int:
    """Exit code 0 whatever the figures are: they tell, they do not judge. 1 when a row could not be measured."""
    chosen = arguments(given)
    if chosen.list:
        print("\n".join(f"{name:<16} {what}" for name, what in ROWS.items()))
        return 0
    began, rows, failed = time.monotonic(), list[table.Row](), list[str]()
    asked = list(dict.fromkeys(row for name in chosen.rows for row in _named(name)))
    for name in _possible(asked or ROWS):
        print(f"measuring {name}: {ROWS[name]}", file=sys.stderr, flush=True)
        try:
            rows += apart.measured(name, chosen.tiny)
        except Exception:
            # What the others say is worth as much
            traceback.print_exc()
            failed.append(name)
        _keep(chosen.json, rows)
    _keep(chosen.json, rows)
    print(table.text(rows))
    print(f"measured in {time.monotonic() - began:.0f} s", file=sys.stderr)
    if failed:
        print(f"could not measure {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
