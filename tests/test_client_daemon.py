"""The client against a daemon as its users have it, through a relay that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import re
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import regstream.client
from regstream import client
from tests import process
from tests.process import SECONDS, Daemon
from tests.relay import Relay, relaying
from tests.support import ROOT
from tests.test_client import Heard

QUIET = "PROJECT_UPDATES"
LONGER = 7000
"""More events than memory holds of a stream."""
QUICK = client.Timing(shortest=0.02, longest=0.1)
DECLARED = """
  {name}:
    interval: 1h
    fields: {{visitors: 1}}
"""
Event = dict[str, Any]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with process.running(tmp_path_factory.mktemp("daemon")) as running:
        yield running


@contextlib.asynccontextmanager
async def relayed(daemon: Daemon) -> AsyncIterator[tuple[Relay, str]]:
    async with relaying(Relay(daemon.port)) as relay:
        yield relay, f"ws://127.0.0.1:{relay.port}/ws"


async def until(events: client.Subscription, stream: str, seq: int) -> list[Event]:
    """The events up to this one."""
    found: list[Event] = []
    async with asyncio.timeout(SECONDS):
        async for event in events:
            found.append(event)
            if event["subject"] == stream and event["seq"] >= seq:
                break
    return found


def outgrow(daemon: Daemon) -> int:
    """Show more events than are kept, and give the number of the last one."""
    _, last = daemon.burst(QUIET, LONGER)
    page = f"/api/streaming/events?stream={QUIET}&limit=1"
    process.eventually(lambda: daemon.get(page)["events"][-1]["seq"] >= last, what="all of the burst is shown")
    return last


def numbers(events: list[Event], stream: str) -> list[int]:
    return [event["seq"] for event in events if event["subject"] == stream]


async def test_over_cuts_every_event_comes_once_and_in_order(daemon: Daemon) -> None:
    channels = ["dashboard-updates"]
    async with relayed(daemon) as (relay, url), client.subscribe(url, channels, timing=QUICK) as events:
        begun = dict(events.positions)
        seen: list[Event] = []
        for _ in range(4):
            daemon.burst(QUIET, 30)
            seen += [await anext(events) for _ in range(20)]
            relay.cut()
            _, last = daemon.burst(QUIET, 30)
            relay.mend()
            seen += await until(events, QUIET, last)
        for stream, position in events.positions.items():
            assert numbers(seen, stream) == list(range(begun[stream].seq + 1, position.seq + 1)), stream
    assert events.positions[QUIET].seq - begun[QUIET].seq >= 240


async def test_positions_carry_over_to_another_subscription(daemon: Daemon) -> None:
    async with client.subscribe(daemon.url, [QUIET]) as events:
        _, last = daemon.burst(QUIET, 5)
        await until(events, QUIET, last)
    daemon.burst(QUIET, 5)
    async with client.subscribe(daemon.url + "/ws", [QUIET], after=events.positions) as events:
        assert numbers(await until(events, QUIET, last + 5), QUIET) == list(range(last + 1, last + 6))


async def test_cut_off_for_longer_than_history_it_is_told_and_goes_on(daemon: Daemon) -> None:
    heard = Heard()
    answered = asyncio.Event()

    def notice(event: str, data: dict[str, Any]) -> None:
        heard(event, data)
        if heard.names.count("subscribed") == 2:
            answered.set()

    async with relayed(daemon) as (relay, url), client.subscribe(url, [QUIET], notice=notice, timing=QUICK) as events:
        relay.cut()
        outgrow(daemon)
        relay.mend()
        waiting = asyncio.create_task(anext_of(events))
        await asyncio.wait_for(answered.wait(), SECONDS)
        answer = heard.data("subscribed")[1]["streams"][QUIET]
        first, last = daemon.burst(QUIET, 3)
        seen = [await asyncio.wait_for(waiting, SECONDS), *await until(events, QUIET, last)]
    assert answer["recovered"] is False and answer["seq"] < first
    assert numbers(seen, QUIET) == list(range(answer["seq"] + 1, last + 1))
    assert "lost" in heard.names


async def test_a_snapshot_comes_when_history_does_not_reach(daemon: Daemon) -> None:
    heard = Heard()
    asked = {"snapshot": True, "notice": heard, "timing": QUICK}
    async with relayed(daemon) as (relay, url), client.subscribe(url, [QUIET], **asked) as events:
        _, known = daemon.burst(QUIET, 50)
        await until(events, QUIET, known)
        relay.cut()
        last = outgrow(daemon)
        relay.mend()
        seen = numbers(await until(events, QUIET, last), QUIET)
        first, last = daemon.burst(QUIET, 3)
        # A tick of its own may have come into the snapshot, behind what the history was outgrown with
        seen += numbers(await until(events, QUIET, last), QUIET)
    answer = heard.data("subscribed")[1]["streams"][QUIET]
    # … and one before the cut
    while seen[0] == known + 1:
        known = seen.pop(0)
    assert (answer["recovered"], answer["snapshot"]) == (False, len([seq for seq in seen if seq <= answer["seq"]]))
    assert 1 < answer["snapshot"] < LONGER
    assert seen == sorted(seen) and seen[-3:] == list(range(first, last + 1))


async def test_conflation_leaves_gaps_and_ends_with_the_newest(daemon: Daemon) -> None:
    heard = Heard()
    asked = {"policy": "conflate", "max_rate": 5.0, "notice": heard}
    async with client.subscribe(daemon.url, ["BUDGET_UPDATES"], **asked) as events:
        first, last = daemon.burst("BUDGET_UPDATES", 2000)
        seen = numbers(await until(events, "BUDGET_UPDATES", last), "BUDGET_UPDATES")
    assert seen == sorted(set(seen))
    assert len(seen) < last - first
    assert "lost" not in heard.names


async def anext_of(events: client.Subscription) -> Event:
    return await anext(events)


async def test_streams_come_and_go_while_it_is_away(tmp_path: pathlib.Path) -> None:
    heard = Heard()
    files = process.copy_files(tmp_path) / "streams.yaml"
    shipped = files.read_text()
    files.write_text(shipped + DECLARED.format(name="LEAVES"))
    daemon = Daemon(tmp_path)
    channels = ["dashboard-updates", "LEAVES", "system"]
    try:
        async with (
            relayed(daemon) as (relay, url),
            client.subscribe(url, channels, notice=heard, timing=QUICK) as events,
        ):
            relay.cut()
            files.write_text(shipped + DECLARED.format(name="COMES"))
            daemon.post("reload")
            _, last = daemon.burst("COMES", 7)
            relay.mend()
            seen = await until(events, "COMES", last)
    finally:
        daemon.stop()
    assert numbers(seen, "COMES") == list(range(1, last + 1))
    assert heard.data("error") == [{"code": "unknown_channel", "message": "unknown channel 'LEAVES'"}]


async def test_a_daemon_that_starts_again_begins_another_epoch(tmp_path: pathlib.Path) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    daemon = Daemon(process.copy_files(tmp_path), "--port", str(port))
    try:
        async with client.subscribe(daemon.url, ["TRANSACTION_STREAM"], timing=QUICK) as events:
            first = await anext(events)
            assert daemon.stop() == 0
            daemon.start()
            async with asyncio.timeout(SECONDS):
                rest = [first]
                while rest[-1]["epoch"] == first["epoch"] or len(rest) < 30:
                    rest.append(await anext(events))
    finally:
        daemon.stop()
    for epoch in {event["epoch"] for event in rest}:
        found_numbers = [event["seq"] for event in rest if event["epoch"] == epoch]
        assert found_numbers == list(range(found_numbers[0], found_numbers[0] + len(found_numbers)))


def examples() -> list[Any]:
    found = [pytest.param(re.sub(r"(?m)^    ", "", _shown_in_docstring()), id="client")]
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        found += [pytest.param(block, id=f"{page.name}-{number}") for number, block in enumerate(blocks, 1)]
    return found


def _shown_in_docstring() -> str:
    shown = re.search(r"::\n\n((?:    .*\n|\n)+)", regstream.client.__doc__ or "")
    assert shown
    return shown[1]


@pytest.mark.parametrize("code", examples())
def test_examples_that_are_shown_print_events(code: str, daemon: Daemon, tmp_path: pathlib.Path) -> None:
    assert "http://127.0.0.1:3001" in code
    program = tmp_path / "example.py"
    program.write_text(code.replace("http://127.0.0.1:3001", daemon.url))
    child = subprocess.Popen(
        [sys.executable, "-u", program], cwd=tmp_path, env=process.environment(), stdout=subprocess.PIPE
    )
    late = threading.Timer(SECONDS, child.kill)
    late.start()
    try:
        assert child.stdout is not None
        assert any(re.search(rb"[A-Z]+_[A-Z]+ \d+ \{", line) for line in child.stdout), "no event was printed"
    finally:
        late.cancel()
        child.kill()
        child.communicate()
