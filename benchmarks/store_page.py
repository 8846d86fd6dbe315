"""A page of 1,000 events out of 10 million, by stream and time: over HTTP, beside the same SQL in ``psql``."""

from __future__ import annotations

import concurrent.futures
import random
import statistics
import subprocess
import sys
import time

import psycopg

from benchmarks import store_rig, table
from regstream.event import rfc3339
from regstream.server import cursors
from regstream.store import reader
from scripts import postgres

STREAMS = 20
DAYS = 10
PAGE = 1_000
_DAY = 86_400
# As events are: the same members, and data of a few fields
_FILL = """
    INSERT INTO regstream.events (stream, epoch, seq, type, time, key, priority, region, value)
    SELECT 'S' || n %% {streams}, '01M8BQGQM976CAW5Q585BCQNSC', n / {streams} + 1, 'bench-event', at, 'k' || n %% 97,
        'NORMAL', 'LATAM',
        format('{{"specversion":"1.0","id":"S%%s/01M8BQGQM976CAW5Q585BCQNSC/%%s","source":"/regstream/LATAM/bench",'
            '"type":"bench-event","subject":"S%%s","time":"%%s","datacontenttype":"application/json",'
            '"epoch":"01M8BQGQM976CAW5Q585BCQNSC","seq":%%s,"priority":"NORMAL","region":"LATAM",'
            '"data":{{"svpId":"SVP-%%s","amount":%%s,"state":"HEALTHY","note":"%%s"}}}}',
            n %% {streams}, n / {streams} + 1, n %% {streams},
            to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), n / {streams} + 1, n %% 500,
            n * 7919 %% 100000 / 100.0, repeat('x', 60))
    FROM (
        SELECT n, to_timestamp(%(begin)s + n * %(step)s) AS at
        FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
    ) AS numbers
"""
_SQL = """
    SELECT value, time, stream, epoch, seq FROM regstream.events
    WHERE stream = 'S{stream}' AND time >= '{since}' AND time < '{until}'
        AND time >= '-infinity' AND (time, stream, epoch, seq) > ('0001-01-01T00:00:00Z', '', '', 0)
    ORDER BY time, stream, epoch, seq LIMIT {limit};
"""


def measure(tiny: bool = False) -> list[table.Row]:
    """The same pages in turns of each way, with all that is asked for read before once; medians."""
    count, rounds = (20_000, 2) if tiny else (10_000_000, 200)
    with (
        store_rig.cluster("autovacuum=off", "synchronous_commit=off") as cluster,
        store_rig.daemon(cluster.url(), store_rig.silent("LIVE")) as port,
    ):
        began = time.monotonic()
        _fill(cluster.url(), count)
        filled = time.monotonic() - began
        asked = _questions(count, rounds)
        client = store_rig.Client(port)
        for _ in range(2):
            api = [_api(client, *one) for one in asked]
            bare = _psql(cluster.url(), asked)
    ours, floor = statistics.median(api) * 1000, statistics.median(bare) * 1000
    worst = sorted(api)[int(len(api) * 0.99)] * 1000
    note = f"{count:,} rows over {DAYS} days, {STREAMS} streams, filled in {filled:.0f} s; p99 {worst:.1f} ms"
    return [table.Row(f"events page of {PAGE} / psql", ours, "ms", 2, 1.3, floor, True, False, note)]


def _fill(url: str, count: int) -> None:
    """Whole days at a time, two at once."""
    print(f"filling a table with {count:,} rows", file=sys.stderr, flush=True)
    with psycopg.connect(url, autocommit=True) as connection:
        for day in range(DAYS):
            name = f"events_{time.strftime('%Y%m%d', time.gmtime(_begin() + day * _DAY))}"
            low, high = (rfc3339(_begin() + (day + n) * _DAY) for n in (0, 1))
            connection.execute(f"CREATE TABLE regstream.{name} (LIKE regstream.events INCLUDING ALL)")
            connection.execute(
                f"ALTER TABLE regstream.events ATTACH PARTITION regstream.{name} "
                f"FOR VALUES FROM ('{low}') TO ('{high}')"
            )
        names = ", ".join(f"('S{n}', '01M8BQGQM976CAW5Q585BCQNSC', {count // STREAMS})" for n in range(STREAMS))
        connection.execute(f"INSERT INTO regstream.positions VALUES {names}")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda day: _fill_day(url, day, count), range(DAYS)))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE regstream.events")


def _fill_day(url: str, day: int, count: int) -> None:
    first, last = day * count // DAYS, (day + 1) * count // DAYS - 1
    values = {"begin": _begin(), "step": DAYS * _DAY / count, "first": first, "last": last}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_FILL.format(streams=STREAMS), values)  # type: ignore[call-overload]


def _begin() -> float:
    # Before the days that a daemon makes by itself
    return (store_rig.BEGIN // _DAY - 30) * _DAY


def _questions(count: int, rounds: int) -> list[tuple[int, str, str]]:
    chance = random.Random(7)
    # About as long as 3,000 events of a stream take
    span = DAYS * _DAY / count * STREAMS * 3 * PAGE
    found = []
    for _ in range(rounds):
        since = _begin() + chance.uniform(0, max(1.0, DAYS * _DAY - span))
        found.append((chance.randrange(STREAMS), rfc3339(since), rfc3339(since + span)))
    return found


def _api(client: store_rig.Client, stream: int, since: str, until: str) -> float:
    began = time.perf_counter()
    client.bytes(f"/events?stream=S{stream}&since={since}&until={until}&after={_START}&limit={PAGE}")
    return time.perf_counter() - began


_START = cursors.write_place(reader.START)


def _psql(url: str, asked: list[tuple[int, str, str]]) -> list[float]:
    """By one process, which prints nothing: what it says of the time that each took."""
    script = "\\timing on\n\\o /dev/null\n" + "".join(
        _SQL.format(stream=stream, since=since, until=until, limit=PAGE + 1) for stream, since, until in asked
    )
    done = subprocess.run(
        [postgres.find("psql"), url, "-X", "-q", "-A", "-t"], input=script, capture_output=True, text=True, check=True
    )
    times = [float(line.split()[1]) / 1000 for line in done.stdout.splitlines() if line.startswith("Time:")]
    if len(times) != len(asked):
        raise RuntimeError(done.stderr)
    return times
