"""Asking over HTTP: pages, downloads, figures and control calls agree with psql, and no input is SQL."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import pathlib
import subprocess
import urllib.parse
from collections.abc import AsyncIterator
from typing import Any

import pytest

from regstream import spec
from regstream.server import audit as server_audit
from regstream.store import audit
from scripts import postgres
from tests import databases
from tests.conftest import MakePostgres
from tests.server import conftest
from tests.server.test_routes import BASE, is_problem
from tests.store import making

SINCE, UNTIL = making.stamp(0), making.stamp(3600)
INJECTIONS = (
    "'; DROP TABLE regstream.events; --",
    "x' OR '1'='1",
    "1); DELETE FROM regstream.events; SELECT (1",
    "%s",
    "%(stream)s",
    '"; TRUNCATE regstream.audit; --',
    "$1",
    "\\'; DROP SCHEMA regstream CASCADE; --",
    "x\0y",
    "pg_sleep(10)",
    "{stream}",
)

DEEP = b'{"streamType":"SYSTEM_METRICS","count":1,"x":' + b"[" * 500 + b"]" * 500 + b"}"
LONG = b'{"streamType":"' + b"\xc3\xa9" * 10_000 + b'"}'
ESCAPED = rb'{"streamType":"SYSTEM_METRICS","count":1,"x":"a\\u0000 \u0000\u0000"}'
BODIES = (
    DEEP,
    LONG,
    ESCAPED,
    *(b'{"a":' * depth + b"1" + b"}" * depth for depth in (63, 64, 65, 200, 254, 255, 1_100, 100_000)),
    rb'{"\u0000":{"\\\u0000":"\\\\u0000"}}',
    rb'{"x":"\ud800"}',
    b'{"x":"\xff\xfe"}',
    b"\xff\xfe{}",
    b'\xef\xbb\xbf{"count":1}',
    b"\0",
    b'{"count":' + b"9" * 5_000 + b"}",
    b'{"count":123456789012345678901234567890,"x":-1e308,"y":1e400}',
    b'{"count":18446744073709551616}',
    b'{"count":NaN,"x":-Infinity}',
    b"[" + b"{}," * 5_000 + b"{}]",
    b'{"streamType":"' + b"[" * 900_000 + b'"}',
    b"{" + b",".join(b'"%d":1' % n for n in range(1_500)) + b"}",
    b'{"x":1,"x":2}',
    rb'"\u2028\ud83c\udfe6"',
)


@pytest.fixture
async def live(database_url: str, tmp_path: pathlib.Path) -> AsyncIterator[conftest.Live]:
    conftest.write(tmp_path)
    async with conftest.serving(tmp_path, database_url) as running:
        running.url_of_database = database_url  # type: ignore[attr-defined]
        yield running


@pytest.fixture
async def hour(live: Any) -> Any:
    """An hour of three streams, half of it within the second hour."""
    for name in ("TRANSACTION_STREAM", "SYSTEM_METRICS", "OLD_STREAM"):
        live.services.store.record(making.records(making.events(1_500, name, every=3.6, key='a,"b"')))
    await making.kept(live.services.store)
    return live


def psql(live: Any, statement: str) -> list[str]:
    """What the command of that name prints, a row a line."""
    done = subprocess.run(
        [postgres.find("psql"), live.url_of_database, "-X", "-A", "-t", "-c", statement],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return done.stdout.splitlines()


def the_hour(condition: str = "TRUE", wanted: str = "value") -> str:
    return (
        f"SELECT {wanted} FROM regstream.events WHERE time >= '{SINCE}' AND time < '{UNTIL}' AND {condition} "
        "ORDER BY time, stream, epoch, seq"
    )


async def pages(live: Any, query: str) -> list[str]:
    """All events of a question, page by page."""
    first = await live.get(f"/events?{query}&limit=1")
    found: list[str] = []
    cursor = "&after=" + BEGIN if first["events"] else ""
    while cursor:
        page = await live.get(f"/events?{query}&limit=400{cursor}")
        found += [json.dumps(event, separators=(",", ":"), ensure_ascii=False) for event in page["events"]]
        cursor = f"&after={page['cursor']}" if page["more"] else ""
    return found


BEGIN = "Wy02MjEzNTU5NjgwMDAwMDAwMCwiIiwiIiwwXQ"
"""The place before all events, as a cursor."""


@pytest.mark.parametrize(
    ("query", "condition"),
    [
        ("", "TRUE"),
        ("stream=OLD_STREAM", "stream = 'OLD_STREAM'"),
        ("stream=OLD_STREAM&stream=SYSTEM_METRICS", "stream <> 'TRANSACTION_STREAM'"),
        ("priority=NORMAL&fromSeq=10&toSeq=900", "seq BETWEEN 10 AND 900"),
        ("where=svpId=SVP-003&where=n=17", "data ->> 'svpId' = 'SVP-003' AND data ->> 'n' = '17'"),
        ('where=svpId="SVP-004"', "data ->> 'svpId' = 'SVP-004'"),
        ("priority=LOW", "FALSE"),
    ],
)
async def test_the_same_hour_by_api_and_by_psql_agrees(hour: Any, query: str, condition: str) -> None:
    wanted = psql(hour, the_hour(condition))
    question = f"since={SINCE}&until={UNTIL}&{query}"
    assert await pages(hour, question) == wanted
    lines = await hour.client.get(f"{BASE}/events?{question}&format=ndjson")
    assert lines.headers["content-type"].startswith("application/x-ndjson")
    assert lines.text.splitlines() == wanted
    table = await hour.client.get(f"{BASE}/events?{question}", headers={"accept": "text/csv"})
    assert table.headers["content-type"].startswith("text/csv")
    names, *cells = csv.reader(io.StringIO(table.text))
    assert names == ["stream", "epoch", "seq", "id", "type", "time", "key", "priority", "region", "data"]
    assert [(row[0], row[2], json.loads(row[9])) for row in cells] == [
        (event["subject"], str(event["seq"]), event["data"]) for event in map(json.loads, wanted)
    ]
    assert [row[6] for row in cells] == psql(hour, the_hour(condition, "coalesce(key, '')"))


async def test_pages_go_backwards_too(hour: Any) -> None:
    wanted = [json.loads(line)["id"] for line in psql(hour, the_hour())]
    page = await hour.get(f"/events?since={SINCE}&until={UNTIL}&limit=500")
    found = [event["id"] for event in page["events"]]
    assert page["more"] is False
    while True:
        page = await hour.get(f"/events?since={SINCE}&until={UNTIL}&limit=500&before={page['previous']}")
        found = [event["id"] for event in page["events"]] + found
        if not page["more"]:
            break
    assert found == wanted


async def test_a_limit_bounds_a_download(hour: Any) -> None:
    question = f"since={SINCE}&until={UNTIL}&format=ndjson"
    wanted = psql(hour, the_hour())
    for limit in (1, 1_000, 1_500):
        answer = await hour.client.get(f"{BASE}/events?{question}&limit={limit}")
        assert answer.text.splitlines() == wanted[:limit]


async def test_what_was_made_a_moment_ago_is_there(live: Any) -> None:
    for _ in range(3):
        made = (await live.client.post(f"{BASE}/burst", json={"streamType": "SYSTEM_METRICS", "count": 200})).json()
        await live.until(lambda made=made: live.services.hub.position("SYSTEM_METRICS").seq >= made["lastSeq"])
        page = await live.get("/events?stream=SYSTEM_METRICS&limit=1000")
        assert page["events"][-1]["seq"] == made["lastSeq"]


async def test_figures_agree_with_psql(hour: Any) -> None:
    for aggregate in ("count", "rate", "avg", "min", "max", "p50", "p95"):
        await _agree(hour, aggregate)


async def _agree(hour: Any, aggregate: str) -> None:
    number = "(data ->> 'n')::float8"
    expression = {
        "count": "count(*)", "rate": "count(*) / 300.0", "avg": f"avg({number})", "min": f"min({number})",
        "max": f"max({number})", "p50": f"percentile_cont(0.5) WITHIN GROUP (ORDER BY {number})",
        "p95": f"percentile_cont(0.95) WITHIN GROUP (ORDER BY {number})",
    }[aggregate]  # fmt: skip
    wanted = psql(
        hour,
        f"SELECT to_char(date_bin('5 minutes', time, '1970-01-01Z') AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI'), "
        f"({expression})::float8 FROM regstream.events WHERE stream = 'OLD_STREAM' AND time < '{UNTIL}' "
        "GROUP BY 1 ORDER BY 1",
    )
    field = "" if aggregate in ("count", "rate") else "&field=n"
    found = await hour.get(f"/analytics?stream=OLD_STREAM&agg={aggregate}{field}&bucket=5m&since={SINCE}&until={UNTIL}")
    assert [(one["time"][:16], one["value"]) for one in found["buckets"]] == [
        (line.split("|")[0], pytest.approx(float(line.split("|")[1]))) for line in wanted
    ]
    assert len(wanted) == 12 and found["skipped"] == 0


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("stream=SYSTEM_METRICS&agg=avg", "field"),
        ("stream=SYSTEM_METRICS&agg=count&field=n", "field"),
        (f"stream=SYSTEM_METRICS&since={UNTIL}&until={SINCE}", "since"),
        (f"stream=SYSTEM_METRICS&since={SINCE}&until={UNTIL}&bucket=1s", "bucket"),
        ("stream=SYSTEM_METRICS&bucket=0s", "bucket"),
        ("stream=SYSTEM_METRICS&agg=sum", "agg"),
        ("agg=count", "stream"),
    ],
)
async def test_figures_that_cannot_be(live: Any, query: str, path: str) -> None:
    problem = is_problem(await live.client.get(f"{BASE}/analytics?{query}"), 400)
    assert [one["path"] for one in problem["errors"]] == [path]


async def test_a_stream_that_nobody_knows_is_404_and_one_that_was_is_not(hour: Any) -> None:
    for path in ("/events?stream=NOBODY", "/analytics?stream=NOBODY"):
        is_problem(await hour.client.get(BASE + path), 404)
    assert (await hour.get("/events?stream=OLD_STREAM&limit=3"))["events"]
    assert (await hour.get("/events?stream=ALERTS"))["events"] == []


async def test_a_cursor_of_the_ring_is_none_here(live: Any) -> None:
    assert (
        "before there was a database" in is_problem(await live.client.get(f"{BASE}/events?after=1a-5"), 409)["detail"]
    )
    for bad in ("W", "Wzz", "x", "WzEsMl0", "W251bGxd"):
        is_problem(await live.client.get(f"{BASE}/events?after={bad}"), 400)
        is_problem(await live.client.get(f"{BASE}/events?before={bad}"), 400)


class TestNothingIsSql:
    PARAMETERS = (
        *(f"/events?{name}=" for name in (
            "stream", "since", "until", "after", "before", "limit", "format", "priority", "epoch", "fromSeq", "toSeq",
            "where", "nothing",
        )),
        *(f"/analytics?stream=SYSTEM_METRICS&{name}=" for name in ("agg", "field", "bucket", "since", "until")),
        "/analytics?stream=",
        *(f"/audit?{name}=" for name in ("since", "until", "action", "target", "after", "limit")),
        "/events?where=svpId=",
        "/events?where=a.b",
    )  # fmt: skip

    async def test_in_every_parameter_it_is_refused_and_changes_nothing(self, hour: Any) -> None:
        await self.still(hour)
        before = self.content(hour)
        for parameter in self.PARAMETERS:
            for injection in INJECTIONS:
                answer = await hour.client.get(BASE + parameter + urllib.parse.quote(injection))
                assert answer.status_code == 400, (parameter, injection, answer.text)
        assert self.content(hour) == before

    async def test_as_a_value_that_is_looked_for_it_is_only_that(self, hour: Any) -> None:
        await self.still(hour)
        before = self.content(hour)
        for injection in INJECTIONS:
            value = urllib.parse.quote(json.dumps(injection))
            answer = await hour.client.get(f"{BASE}/events?where=svpId={value}")
            assert (answer.status_code, answer.json()["events"]) == (200, []), answer.text
        assert self.content(hour) == before

    @staticmethod
    async def still(live: Any) -> None:
        """Nothing is written any more: all is there, the last call too."""
        await live.client.post(f"{BASE}/stop")
        await live.services.engine.drain()
        await making.kept(live.services.store)

    @staticmethod
    def content(live: Any) -> list[Any]:
        """How many rows each table has, and a sum over them."""
        found = []
        tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'regstream' ORDER BY 1"
        rows_of = "SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM regstream."
        for (name,) in databases.rows(live.url_of_database, tables):
            found.append((name, databases.rows(live.url_of_database, f"{rows_of}{name} t")))
        return found


class TestDownloads:
    async def test_one_that_is_left_gives_its_connection_back(self, hour: Any) -> None:
        for _ in range(12):
            async with hour.client.stream("GET", f"{BASE}/events?format=ndjson&stream=OLD_STREAM") as answer:
                async for _ in answer.aiter_bytes(100):
                    break
        assert len((await hour.get("/events?stream=OLD_STREAM&limit=5"))["events"]) == 5

    async def test_one_that_is_not_read_waits_and_holds_little(self, live: Any) -> None:
        for first in range(1, 40_001, 4_000):
            live.services.store.record(making.records(making.events(4_000, "BIG", first, at=first, every=0.001)))
        await making.kept(live.services.store)
        reader, writer = await asyncio.open_connection("127.0.0.1", live.server.port, limit=2**16)
        writer.write(f"GET {BASE}/events?stream=BIG&format=ndjson HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"200 OK" in head
        await asyncio.sleep(0.3)
        # Meanwhile the others are served
        assert len((await live.get("/events?stream=BIG&limit=5"))["events"]) == 5
        total = 0
        while not (chunk := await reader.read(2**16)).endswith(b"0\r\n\r\n"):
            total += len(chunk)
        writer.close()
        assert total > 40_000 * 300

    async def test_one_that_breaks_in_the_middle_does_not_look_whole(
        self, make_postgres: MakePostgres, tmp_path: pathlib.Path
    ) -> None:
        cluster = make_postgres()
        conftest.write(tmp_path)
        async with conftest.serving(tmp_path, cluster.url()) as live:
            kept = live.services.store
            assert kept is not None
            for first in range(1, 60_001, 4_000):
                kept.record(making.records(making.events(4_000, "BIG", first, at=first, every=0.001)))
            await making.kept(kept)
            reader, writer = await asyncio.open_connection("127.0.0.1", live.server.port, limit=2**16)
            writer.write(f"GET {BASE}/events?stream=BIG&format=ndjson HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.to_thread(cluster.kill)
            end = b""
            with pytest.raises(ConnectionError):
                while chunk := await reader.read(2**16):
                    end = (end + chunk)[-5:]
                assert end != b"0\r\n\r\n"
                raise ConnectionResetError
            writer.close()
            answer = await live.client.get(f"{BASE}/events?stream=BIG")
            assert is_problem(answer, 503)["type"] == "/docs#problem-store-unavailable"
            assert int(answer.headers["retry-after"]) >= 1


class TestAudit:
    async def test_each_control_call_is_a_row(self, live: Any) -> None:
        client = live.client
        await client.patch(f"{BASE}/streams/SYSTEM_METRICS", json={"batchSize": 7, "priority": "HIGH"})
        await client.post(f"{BASE}/streams/SYSTEM_METRICS/pause")
        await client.post(f"{BASE}/streams/NOBODY/pause")
        await client.post(f"{BASE}/reload?dryRun=true")
        await client.post(f"{BASE}/burst", content=b"{", headers={"content-type": "application/json"})
        await client.post(f"{BASE}/burst", json={"streamType": "SYSTEM_METRICS", "count": 3, "x": "nul\0 \U0001f3e6"})
        await live.get("/streams")
        calls = (await live.get("/audit"))["calls"]
        assert [(one["action"], one["target"].removeprefix(BASE), one["status"]) for one in calls] == [
            ("patch", "/streams/SYSTEM_METRICS", 200),
            ("pause", "/streams/SYSTEM_METRICS/pause", 200),
            ("pause", "/streams/NOBODY/pause", 404),
            ("reload", "/reload?dryRun=true", 200),
            ("burst", "/burst", 400),
            ("burst", "/burst", 400),
        ]
        patch, pause, nobody, _, broken, odd = calls
        assert patch["request"] == {"batchSize": 7, "priority": "HIGH"}
        assert {**patch["before"], "batchSize": 7, "priority": "HIGH"} == patch["after"] != patch["before"]
        assert (pause["before"]["paused"], pause["after"]["paused"]) == (False, True)
        assert (nobody["before"], nobody["after"], broken["request"]) == (None, None, "{")
        assert odd["request"]["x"] == "nul\ufffd \U0001f3e6"
        assert {(one["actor"], one["address"]) for one in calls} == {("anonymous", "127.0.0.1")}

    async def test_no_body_breaks_it(self, live: Any) -> None:
        kinds = {"content-type": "application/json"}
        wanted: list[int] = []
        for body in BODIES:
            for method, path in (("POST", "/burst"), ("PATCH", "/streams/SYSTEM_METRICS"), ("POST", "/stop")):
                answer = await live.client.request(method, f"{BASE}{path}", content=body, headers=kinds)
                assert answer.status_code in (200, 400, 404, 422), (body[:80], answer.text)
                wanted.append(answer.status_code)
        calls = (await live.get(f"/audit?limit={len(wanted)}"))["calls"]
        assert [one["status"] for one in calls] == wanted
        for body, one in zip(BODIES, calls[::3], strict=True):
            kept = one["request"]
            if isinstance(kept, dict) and "truncated" in kept:
                assert kept["bytes"] == len(body)
                assert kept["text"].replace("\ufffd", "").encode() in body.replace(b"\0", b"").replace(b"\xff", b"")
            elif isinstance(kept, dict):
                assert len(body) <= server_audit.LARGEST
        by_body = dict(zip(BODIES, calls[::3], strict=True))
        assert by_body[DEEP]["request"]["truncated"] == "nested deeper than 64 levels"
        assert by_body[LONG]["request"]["truncated"] == "longer than 16384 bytes"
        assert by_body[ESCAPED]["request"]["x"] == "a\\u0000 \ufffd\ufffd"

    async def test_a_row_that_the_database_does_not_take_takes_no_other_with_it(self, live: Any) -> None:
        kept = live.services.store
        sound = audit.Control(making.SECOND, "a", "::1", "patch", "/x", {"n": 2**80}, 200, [1], {"\0": "\ud800"})
        for one in (sound, sound._replace(status=2**40), sound._replace(request=object(), after=float("nan"))):
            kept.note(one)
        deep: list[Any] = []
        for _ in range(300):
            deep = [deep]
        kept.note(sound._replace(request=deep, target="last"))
        await making.kept(kept)
        calls = (await live.get("/audit"))["calls"]
        assert [one["target"] for one in calls] == ["/x", "/x", "last"]
        assert calls[0]["before"] == [1]
        assert [set(one["request"]) >= {"truncated", "text"} for one in calls] == [True] * 3
        assert kept.status.refused == 1

    async def test_can_be_asked_for_in_parts(self, live: Any) -> None:
        for count in range(1, 6):
            await live.client.post(f"{BASE}/burst", json={"streamType": "SYSTEM_METRICS", "count": count})
        await live.client.post(f"{BASE}/stop")
        first = await live.get("/audit?action=burst&limit=2")
        assert [one["request"]["count"] for one in first["calls"]] == [4, 5]
        all_ = await live.get("/audit")
        found, cursor = [], all_["calls"][0]["id"]
        while page := (await live.get(f"/audit?after={cursor}&limit=2"))["calls"]:
            found += [one["id"] for one in page]
            cursor = page[-1]["id"]
        assert found == [one["id"] for one in all_["calls"]][1:]
        until = all_["calls"][2]["at"]
        assert len((await live.get(f"/audit?until={until}"))["calls"]) <= 2
        assert len((await live.get(f"/audit?target={BASE}/stop"))["calls"]) == 1


async def test_without_a_database_what_needs_one_says_so(tmp_path: pathlib.Path) -> None:
    conftest.write(tmp_path)
    async with conftest.serving(tmp_path) as live:
        for path in (
            "/analytics?stream=SYSTEM_METRICS", "/audit", "/events?where=a=1", "/events?priority=LOW",
            "/events?fromSeq=0", f"/events?before={BEGIN}", f"/events?after={BEGIN}",
        ):  # fmt: skip
            problem = is_problem(await live.client.get(BASE + path), 409)
            assert "DATABASE_URL" in problem["detail"] or "read without it" in problem["detail"]
        await live.client.post(f"{BASE}/burst", json={"streamType": "SYSTEM_METRICS", "count": 30})
        await live.until(lambda: live.services.hub.position("SYSTEM_METRICS").seq >= 30)
        lines = (await live.client.get(f"{BASE}/events?stream=SYSTEM_METRICS&format=ndjson")).text.splitlines()
        assert [json.loads(line)["seq"] for line in lines][:30] == list(range(1, 31))


def test_priorities_are_those_of_the_model() -> None:
    assert [str(one) for one in spec.Priority] == ["CRITICAL", "HIGH", "NORMAL", "LOW"]
