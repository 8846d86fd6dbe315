"""The same seed gives the same bytes: twice, beside other streams, in other batches, live, and after a kill -9.

``make same`` does it with a million events, which takes some minutes; here are a few thousand.
"""

from __future__ import annotations

import collections
import datetime
import hashlib
import json
import os
import pathlib
import signal
import time
from collections.abc import Iterable, Mapping

import psycopg
import pytest

from tests import process

pytestmark = pytest.mark.slow
EVENTS = int(os.environ.get("SAME_EVENTS", "20000"))
A_SECOND = 4_000
BEGIN = "2026-01-01"
ENTITIES = """
entities:
  accounts:
    count: 500
    key: id
    fields: {id: "{{ 'ACC-%04d' | format(index) }}", balance: "{{ uniform(0, 1e6) | round(2) }}"}
  owners:
    count: 20
    key: id
    fields: {id: "{{ 'O-%d' | format(index) }}"}
    states: {HERE: {lasts: {mean: 4s}, then: {GONE: 1}}, GONE: {lasts: 1s}}
  cases:
    count: 100
    key: id
    fields: {id: "{{ 'C-%d' | format(index) }}", owner: "{{ pick('owners').id }}", seen: 0}
    states:
      OPEN: {lasts: {mean: 2s, spread: 50%}, then: {REVIEW: 3, CLOSED: 1}}
      REVIEW: {lasts: {mean: 3s}, then: {CLOSED: 1}}
      CLOSED: {lasts: {between: [1s, 2s]}}
"""
FOLLOWS = """
  CASES:
    interval: 250ms
    follow: cases
    key: "{{ row.id }}"
    with: {owner: "{{ find('owners', row.owner) }}"}
    fields: {id: "{{ row.id }}", owner: "{{ owner.id }}", state: "{{ state }}", was: "{{ was }}", n: "{{ row.seen }}"}
  LOOKS:
    interval: 100ms
    batch_size: 5
    with: {case: "{{ pick('cases', state='REVIEW') }}"}
    fields: {id: "{{ case.id }}", seen: "{{ case.seen + 1 }}", since: "{{ case.since }}"}
    update: {case.seen: "{{ seen }}"}
"""
STREAM = """
  {name}:
    interval: {interval}ms
    jitter: {jitter}%
    batch_size: {batch}
    {sharing}
    fields:
      id: "{{{{ uuid() }}}}"
      who: "{{{{ fake('name') }}}}"
      amount: "{{{{ lognormal(5, 1) | round(2) }}}}"
      account: "{{{{ a.id }}}}"
      balance: "{{{{ a.balance }}}}"
      text: "{{% if amount > 100 %}}much{{% else %}}{{{{ digits(4) }}}}{{% endif %}}"
"""
PICKS = """with: {a: "{{ pick('accounts') }}"}"""
CHANGES = (
    PICKS
    + """
    update: {a.balance: "{{ (a.balance - 1) | round(2) }}"}"""
)


def streams(factor: int = 1, other: bool = False, sharing: bool = True) -> str:
    """Eight streams that make ``A_SECOND`` events a second, three of which share what they change, and two that tell of
    rows that come and go."""
    declared = "".join(
        STREAM.format(
            name=f"S{number}",
            interval=100 * factor,
            batch=A_SECOND // 80 * factor,
            jitter=20 if number % 2 else 0,
            sharing=CHANGES if sharing and number < 3 else PICKS.replace("pick('accounts')", "{'id': 1, 'balance': 2}"),
        )
        for number in range(8)
    )
    more = '  OTHER:\n    interval: 1s\n    fields: {x: "{{ uuid() }}"}\n' if other else ""
    follows = FOLLOWS if sharing else ""
    return f"seed: 1846\n{ENTITIES}streams:{declared}{follows}{more}"


def digests(lines: Iterable[tuple[str, str]], counts: Mapping[str, int]) -> dict[str, str]:
    """SHA-256 of the first so many events of each stream, from pairs of a stream and an event's text, in order."""
    found = {name: hashlib.sha256() for name in counts}
    seen: dict[str, int] = collections.Counter()
    for name, text in lines:
        if seen[name] < counts.get(name, 0):
            seen[name] += 1
            found[name].update(text.encode() + b"\n")
    assert dict(seen) == dict(counts)
    return {name: one.hexdigest() for name, one in found.items()}


def generated(folder: pathlib.Path, text: str, begin: str = BEGIN, seconds: int = 0) -> list[tuple[str, str]]:
    (folder / "streams.yaml").write_text(text)
    duration = f"{seconds or EVENTS // A_SECOND + 1}s"
    out = folder / "out.jsonl"
    done = process.run("generate", "--from", begin, "--duration", duration, "--out", out, cwd=folder, seconds=3600)
    assert done.returncode == 0, done.stderr
    with out.open() as file:
        return [(line.split('"subject":"', 1)[1].split('"', 1)[0], line.rstrip("\n")) for line in file]


def whole(lines: list[tuple[str, str]]) -> dict[str, int]:
    return dict(collections.Counter(name for name, _ in lines if name != "OTHER"))


def test_twice_and_beside_another_stream(tmp_path: pathlib.Path) -> None:
    first = generated(tmp_path, streams())
    assert len(first) >= EVENTS * 0.95
    counts = whole(first)
    expected = digests(first, counts)
    assert digests(generated(tmp_path, streams()), counts) == expected
    assert digests(generated(tmp_path, streams(other=True)), counts) == expected


def test_in_other_batches_at_the_same_rate(tmp_path: pathlib.Path) -> None:
    """The draws, for the times are those of other ticks; what streams share is changed in another order then."""
    found = []
    for factor in (1, 5):
        lines = generated(tmp_path, streams(factor, sharing=False))
        found.append([(name, json.dumps(json.loads(line)["data"])) for name, line in lines])
    counts = {name: min(whole(lines)[name] for lines in found) for name in whole(found[0])}
    assert sum(counts.values()) > EVENTS * 0.8
    assert digests(found[0], counts) == digests(found[1], counts)


@pytest.mark.timeout(7200)
def test_live_and_after_a_kill_in_the_middle(tmp_path: pathlib.Path, database_url: str) -> None:
    (tmp_path / "streams.yaml").write_text(streams())
    begin = datetime.datetime.fromtimestamp(int(time.time()), datetime.UTC).isoformat()
    daemon = process.Daemon(tmp_path, "--port", "0", "--from", begin, DATABASE_URL=database_url)
    bound = 60 + 10 * EVENTS / A_SECOND
    with psycopg.connect(database_url, autocommit=True) as connection:

        def recorded() -> int:
            return int(connection.execute("SELECT count(*) FROM regstream.events").fetchone()[0])  # type: ignore[index]

        try:
            process.eventually(lambda: daemon.get("/api/streaming/status")["dataStreamer"].get("history") is None)
            for part in (0.3, 0.7):
                process.eventually(lambda part=part: recorded() > part * EVENTS, bound)
                daemon.stop(signal.SIGKILL)
                daemon.start()
            process.eventually(lambda: recorded() > EVENTS, bound)
            missed = {one["name"]: one["missed"] for one in daemon.streams()}
        finally:
            daemon.stop()
        rows = connection.execute("SELECT stream, value FROM regstream.events ORDER BY stream, epoch, seq").fetchall()
        assert connection.execute("SELECT count(DISTINCT epoch) FROM regstream.events").fetchone() == (1,)
    seconds = int(time.time() - datetime.datetime.fromisoformat(begin).timestamp()) + 1
    made = generated(tmp_path, streams(), begin, seconds)
    counts = whole(rows)
    assert set(counts) == {"CASES", "LOOKS", *(f"S{number}" for number in range(8))}
    # However slow the machine is: what cannot be made in time is made late
    assert not any(missed.values()), missed
    assert digests(rows, counts) == digests(made, counts)
