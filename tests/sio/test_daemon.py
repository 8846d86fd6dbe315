"""The real client against the daemon as its users have it."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import re
import signal
from collections.abc import AsyncIterator

import pytest

from tests import node_packages, process
from tests.sio import world
from tests.sio.world import POLLING, UPGRADE, WEBSOCKET, until
from tests.support import ROOT

EVENTS = {
    "BUDGET_UPDATES": "budget-update",
    "PROJECT_UPDATES": "project-status-update",
    "COMPLIANCE_ALERTS": "compliance-alert",
    "TRANSACTION_STREAM": "transaction-update",
    "RISK_EVENTS": "risk-event",
    "SYSTEM_METRICS": "production-metrics",
}


@contextlib.asynccontextmanager
async def running(folder: pathlib.Path, *arguments: str) -> AsyncIterator[process.Daemon]:
    """A daemon that must end in order, with nothing to complain of."""
    with process.running(folder, *arguments) as daemon:
        yield daemon
        await asyncio.to_thread(daemon.stop)
        assert daemon.complaints == []


@pytest.mark.parametrize("way", [POLLING, WEBSOCKET, UPGRADE], ids=["polling", "websocket", "upgrade"])
async def test_every_event_under_both_names(
    tmp_path: pathlib.Path, request: pytest.FixtureRequest, way: dict[str, object]
) -> None:
    async with running(tmp_path) as daemon, world.node(request.node.nodeid) as client:
        await client.open(daemon.port, way)
        answer = await client.ask("join-streaming", "dashboard-updates")
        assert set(answer["streams"]) == {*EVENTS, "ALERTS"}
        assert daemon.get("/api/streaming/status")["subscribers"] == 1
        for stream in EVENTS:
            await asyncio.to_thread(daemon.burst, stream, 3)
        run = (await asyncio.to_thread(daemon.post, "simulate", {"scenario": "BUDGET_CRISIS"}, 202))["runId"]
        await until(lambda: {*EVENTS.values(), "immediate-alert"} <= set(client.names()))
        both = [one for one in client.all("event") if one["event"] != "streaming-update"]
        every = [one for one in client.all("event") if one["event"] == "streaming-update"]
        assert [one["data"]["id"] for one in every][: len(both)] == [one["data"]["id"] for one in both][: len(every)]
        for one in both:
            event = one["data"]
            assert event["type"] == one["event"] == {**EVENTS, "ALERTS": "immediate-alert"}[event["subject"]]
            assert event["specversion"] == "1.0"
            assert event["id"] == f"{event['subject']}/{event['epoch']}/{event['seq']}"
        for stream in EVENTS:
            seqs = [seq for name, _, seq in client.seqs() if name == stream]
            assert seqs == list(range(answer["streams"][stream]["seq"] + 1, seqs[-1] + 1)), stream
        await asyncio.to_thread(daemon.http.delete, f"/api/streaming/simulate/{run}")
        assert await client.ask("leave-streaming", "dashboard-updates") == {"channels": ["dashboard-updates"]}
        assert daemon.get("/api/streaming/status")["subscribers"] == 0
        assert client.all("disconnect") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
async def test_a_restart(tmp_path: pathlib.Path, request: pytest.FixtureRequest, number: signal.Signals) -> None:
    async with world.node(request.node.nodeid) as client, running(tmp_path) as daemon:
        stream = "TRANSACTION_STREAM"
        async with world.proxied(daemon.port) as proxy:
            await client.open(proxy.port, UPGRADE, follow=[stream])
            first = (await client.until("joined"))["data"]["streams"][stream]
            await until(lambda: len(client.seqs()) >= 5)
            await asyncio.to_thread(daemon.stop, number)
            assert (await client.until("disconnect"))["reason"] in ("transport close", "transport error")
            await asyncio.to_thread(daemon.start)
            proxy.target = daemon.port
            again = (await client.until("joined", 2))["data"]["streams"][stream]
            assert again["epoch"] != first["epoch"]
            assert (again["recovered"], again["replayed"]) == (False, 0)
            await until(lambda: client.seqs()[-1][1] == again["epoch"])
            seqs = [seq for _, epoch, seq in client.seqs() if epoch == again["epoch"]]
            assert seqs == list(range(again["seq"] + 1, again["seq"] + 1 + len(seqs)))


async def test_the_end_does_not_wait_for_clients(tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> None:
    async with contextlib.AsyncExitStack() as stack:
        daemon = await stack.enter_async_context(running(tmp_path))
        for way in (POLLING, WEBSOCKET):
            client = await stack.enter_async_context(world.node(request.node.nodeid))
            await client.open(daemon.port, way, follow=["dashboard-updates"])
            await client.until("joined")
        assert await asyncio.to_thread(daemon.stop, signal.SIGTERM, 8.0) == 0


async def test_the_example_of_the_readme(tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> None:
    await asyncio.to_thread(node_packages.need, request.node.nodeid)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```js\n(import \{ io \}.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    async with running(tmp_path) as daemon:
        text = example.replace("http://127.0.0.1:3001", daemon.url)
        assert text != example
        command = ["node", "--input-type=module", "--eval", text]
        child = await asyncio.create_subprocess_exec(
            *command, cwd=node_packages.FOLDER, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            assert child.stdout is not None
            await until(lambda: daemon.get("/api/streaming/status")["subscribers"] == 1)
            first, last = await asyncio.to_thread(daemon.burst, "BUDGET_UPDATES", 20)
            lines: list[str] = []
            async with asyncio.timeout(world.BOUND):
                while not lines or not lines[-1].startswith(f"{last} SVP-"):
                    lines.append((await child.stdout.readline()).decode())
            seqs = [int(line.split()[0]) for line in lines if " SVP-" in line and line[0].isdigit()]
            assert seqs[-20:] == list(range(first, last + 1))
        finally:
            child.kill()
            _, complaints = await child.communicate()
        assert complaints == b""
