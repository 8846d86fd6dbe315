"""What the measurements of the store stand on: a private PostgreSQL, and rows like the daemon's."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import json
import pathlib
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from benchmarks import generation, rig
from regstream import broker
from scripts import postgres

BATCH = 500
BEGIN = datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.UTC).timestamp()


@contextlib.contextmanager
def cluster(*settings: str) -> Iterator[postgres.Cluster]:
    """A server of one's own, that keeps what it confirms, with more memory than those of tests."""
    lines = ("shared_buffers=512MB", "max_wal_size=2GB", "checkpoint_timeout=30min", *settings)
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as name,
        postgres.Cluster(pathlib.Path(name) / "postgres", settings=lines) as one,
    ):
        yield one


def batches(count: int) -> Iterator[list[broker.Record]]:
    """Events of the reference stream, as the broker gives them out."""
    source = generation.source(generation.catalog())
    for number in range(count // BATCH):
        made = source.next_batch(BEGIN + number / 10, BATCH)
        yield [broker.Record(event, event.head.topic, 0, event.seq) for event in made.events]


class Client:
    """Asks one daemon, over one connection."""

    def __init__(self, port: int) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def ask(self, path: str, body: Any = None) -> Any:
        """The JSON of a page. Raises RuntimeError when there is none."""
        return json.loads(self.bytes(path, body))

    def bytes(self, path: str, body: Any = None) -> bytes:
        """What a page holds."""
        method, content = ("GET", None) if body is None else ("POST", json.dumps(body))
        self._http.request(method, f"/api/streaming{path}", content, {"content-type": "application/json"})
        answer = self._http.getresponse()
        found = answer.read()
        if answer.status >= 300:
            raise RuntimeError(found.decode())
        return found


def silent(name: str) -> str:
    """A streams file with one stream, which makes nothing by itself."""
    return f'streams:\n  {name}:\n    schedule: "0 0 29 2 *"\n    fields: {{n: "{{{{ seq }}}}"}}\n'


@contextlib.contextmanager
def daemon(url: str, streams_file: str) -> Iterator[int]:
    """A daemon on that database, with the streams of that text; its port."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = pathlib.Path(name)
        (folder / "streams.yaml").write_text(streams_file)
        with rig.daemon(*rig.flags(folder), DATABASE_URL=url, REGSTREAM_STATE=name) as (child, port):
            rig.until_ready(child, port)
            yield port


def until(condition: Any, seconds: float = 120.0) -> Any:
    """What ``condition`` gives once that is true. Raises RuntimeError."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise RuntimeError("it did not come about in time")
        time.sleep(0.02)
    return found
