"""Half an hour at 2,000 events a second, with 200 clients that get all of them and a reload every ten seconds.

    python -m scripts.steady            # 30 minutes
    python -m scripts.steady --short    # 40 seconds, for CI: memory is told, not judged

It holds when memory is within 10 % of what it was after a tenth of the time, nothing was logged as an error, every
event was shown once and in order, no client was cut off, and ticks are no later at the end than at the beginning.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pathlib
import re
import sys
import tempfile
import time
import urllib.request
from typing import Any, NamedTuple

import orjson
import websockets.asyncio.client

from scripts.chaos import daemon

OUT = pathlib.Path(__file__).with_name("steady.json")
LONG, SHORT = 1800.0, 40.0
CLIENTS, STREAMS, INTERVAL, BATCH = 200, 20, 50, 5
RELOAD, SAMPLE = 10.0, 5.0
GROWTH, LATER = 0.10, 2.0
LATE = 0.010
"""Seconds below which lateness counts as none: a tick cannot be told from a write to 200 sockets."""
SLACK = 0.25
"""Seconds of lateness that a short form allows: on a machine that others use, a few seconds show no tendency."""
_UPGRADE = (
    b"GET /ws?channel=dashboard-updates HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
# A ping as the daemon writes it: of four bytes, and nothing like it is in the text of an event
_PING = b"\x89\x04"


class Sample(NamedTuple):
    """What was seen at one moment: seconds since the beginning, resident bytes, and lateness by bucket so far."""

    at: float
    memory: int
    late: dict[float, float]


class Client(asyncio.Protocol):
    """A reader that costs next to nothing: it counts bytes and answers pings."""

    def __init__(self) -> None:
        self.taken, self.lost, self._tail = 0, False, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._transport.write(_UPGRADE)

    def data_received(self, data: bytes) -> None:
        self.taken += len(data)
        seen = self._tail + data
        at = seen.find(_PING)
        while 0 <= at <= len(seen) - 6:
            self._transport.write(b"\x8a\x84\0\0\0\0" + seen[at + 2 : at + 6])
            at = seen.find(_PING, at + 6)
        self._tail = seen[at:] if at >= 0 else seen[-1:]

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


async def play(seconds: float, folder: pathlib.Path) -> dict[str, Any]:
    """The whole run; gives the report."""
    one = daemon.Daemon(folder, 1, "", STREAMING_MAX_PER_ADDRESS="1000")
    (folder / "streams.yaml").write_text(_streams(0))
    await one.start()
    host, port = one.address.split(":")
    loop = asyncio.get_running_loop()
    clients = [(await loop.create_connection(Client, host, int(port)))[1] for _ in range(CLIENTS)]
    reading = asyncio.create_task(_careful(one.address))
    began = time.monotonic()
    reloads, samples = 0, list[Sample]()
    while (passed := time.monotonic() - began) < seconds:
        if passed >= reloads * RELOAD:
            reloads += 1
            (folder / "streams.yaml").write_text(_streams(reloads))
            await asyncio.to_thread(_ask, one.address, "/api/streaming/reload", b"{}")
        samples.append(await asyncio.to_thread(_sample, one, passed))
        _progress(samples, seconds)
        await asyncio.sleep(SAMPLE)
    cut = sum(client.lost for client in clients)
    status = await asyncio.to_thread(_ask, one.address, "/api/streaming/status")
    reading.cancel()
    seen, gaps = await reading
    for client in clients:
        client._transport.abort()
    await one.stop()
    log = (folder / "daemon.log").read_text()
    return _report(seconds, reloads, samples, status, seen, gaps, cut, clients, log)


def _streams(generation: int) -> str:
    """The files, in which one stream is another one each time."""
    fields = """{account: "{{ randint(1, 999) }}", amount: "{{ uniform(1, 9) | round(2) }}", text: "{{ 'x' * 300 }}"}"""
    body = [
        f"  S{number}:\n    description: Of generation {0 if number else generation}\n    interval: {INTERVAL}ms\n"
        f"    batch_size: {BATCH}\n    fields: {fields}\n"
        for number in range(STREAMS)
    ]
    return "version: 1\nseed: 1\nprofiles:\n  development: {speed: 1}\nstreams:\n" + "".join(body)


async def _careful(address: str) -> tuple[int, int]:
    """Read everything until cancelled; gives how many events came, and how often one was missing or out of order."""
    seen, gaps, last = 0, 0, dict[tuple[str, str], int]()
    url = f"ws://{address}/ws?channel=dashboard-updates"
    async with websockets.asyncio.client.connect(url, compression=None, max_queue=None) as socket:
        try:
            while True:
                event = orjson.loads(await socket.recv())["data"]
                if "specversion" in event:
                    place = event["subject"], event["epoch"]
                    gaps += event["seq"] != last.get(place, event["seq"] - 1) + 1
                    last[place] = event["seq"]
                    seen += 1
        except asyncio.CancelledError:
            return seen, gaps


def _ask(address: str, path: str, body: bytes | None = None) -> Any:
    request = urllib.request.Request(f"http://{address}{path}", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        content = answer.read()
    return orjson.loads(content) if content[:1] in b"{[" else content.decode()


def _sample(one: daemon.Daemon, at: float) -> Sample:
    text = str(_ask(one.address, "/metrics"))
    buckets = re.findall(r'^regstream_tick_lateness_seconds_bucket\{le="(\S+)"\} (\S+)$', text, re.MULTILINE)
    pages = int(pathlib.Path(f"/proc/{one.pid}/statm").read_text().split()[1])
    late = {float(bound.replace("+Inf", "inf")): float(count) for bound, count in buckets}
    return Sample(at, pages * os.sysconf("SC_PAGESIZE"), late)


def _p99(first: Sample, last: Sample) -> float:
    """The bound of the bucket in which 99 % of the ticks between two samples are."""
    counts = {bound: count - first.late[bound] for bound, count in last.late.items()}
    return next(bound for bound, count in counts.items() if count >= 0.99 * counts[float("inf")])


def _progress(samples: list[Sample], seconds: float) -> None:
    if sys.stderr.isatty():
        last = samples[-1]
        print(f"\r{last.at:6.0f} of {seconds:.0f} s, {last.memory / 1e6:.1f} MB", end="", file=sys.stderr, flush=True)


def _report(
    seconds: float, reloads: int, samples: list[Sample], status: Any, seen: int, gaps: int, cut: int,
    clients: list[Client], log: str,
) -> dict[str, Any]:  # fmt: skip
    third = len(samples) // 3
    tenth = next(one for one in samples if one.at >= seconds / 10)
    end = max(one.memory for one in samples[-max(1, len(samples) // 30) :])
    growth = end / tenth.memory - 1
    early, late = _p99(samples[0], samples[third]), _p99(samples[-third - 1], samples[-1])
    bad = [line for line in log.splitlines() if re.search(r"\b(ERROR|CRITICAL)\b|Traceback", line)]
    made = sum(one["seq"] for one in status["streams"])
    faults = {
        "memory grew": growth > GROWTH and seconds >= LONG,
        "an error was logged": bool(bad),
        "events were missing or out of order": gaps > 0,
        "clients were cut off": cut > 0,
        "ticks were later": late > (max(LATE, LATER * early) if seconds >= LONG else SLACK),
        "too few events": made < 0.98 * 1000 / INTERVAL * BATCH * STREAMS * seconds,
    }
    return {
        "seconds": seconds, "reloads": reloads, "events made": made, "events seen by one client": seen,
        "gaps": gaps, "bytes to all clients": sum(one.taken for one in clients), "clients cut off": cut,
        "memory after a tenth, MB": round(tenth.memory / 1e6, 1), "memory at the end, MB": round(end / 1e6, 1),
        "growth": round(growth, 4), "lateness p99 at first, ms": early * 1000, "lateness p99 at last, ms": late * 1000,
        "errors logged": bad[:5], "memory by minute, MB": [round(one.memory / 1e6, 1) for one in samples[::12]],
        "faults": [name for name, found in faults.items() if found],
    }  # fmt: skip


def main(given: list[str] | None = None) -> int:
    """0 when everything holds, 1 when something does not."""
    parser = argparse.ArgumentParser(prog="steady", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--short", action="store_true", help=f"{SHORT:.0f} seconds instead of {LONG:.0f}")
    parser.add_argument("--seconds", type=float, help="how long")
    parser.add_argument("--out", type=pathlib.Path, default=OUT, help="where the report goes, as JSON")
    chosen = parser.parse_args(given)
    seconds = chosen.seconds or (SHORT if chosen.short else LONG)
    with tempfile.TemporaryDirectory(prefix="steady-") as folder:
        report = asyncio.run(play(seconds, pathlib.Path(folder)))
    chosen.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for name, value in report.items():
        print(f"{name:<28} {f'{value:,}' if isinstance(value, int | float) else value}")
    print("something does NOT hold" if report["faults"] else "everything holds")
    return 1 if report["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
