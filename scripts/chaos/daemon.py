"""The daemon as a process that is killed and started again, and what it says of itself."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

import orjson

from scripts import kafka
from scripts.chaos import setting

ROOT = pathlib.Path(__file__).resolve().parents[2]
UP = 40.0


class Failed(Exception):
    """Something did not come about in the time it had; the text says what."""


class Daemon:
    """``regstream run`` in ``folder``, always on the same port. ``heard`` has the newest position it told of each
    numbering: stream and epoch to number. Without ``bootstrap`` it has no Kafka; ``env`` are further variables.
    """

    def __init__(self, folder: pathlib.Path, replication: int, bootstrap: str, **env: str) -> None:
        self.folder, self._env = folder, {"KAFKA_BROKER": bootstrap, **env}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "streams.yaml").write_text(setting.streams_yaml(replication))
        with socket.socket() as probe:
            probe.bind((kafka.HOST, 0))
            self._port: int = probe.getsockname()[1]
        self.address = f"{kafka.HOST}:{self._port}"
        self.heard: dict[tuple[str, str], int] = {}
        self.states: set[str] = set()
        self.waiting_for: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it, and return when it answers; raises Failed."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ") if name in os.environ}
        env = {**kept, "PYTHONPATH": str(ROOT), "RATE_LIMIT": "1000/second", **self._env}
        command = [sys.executable, "-m", "regstream", "run", "--port", str(self._port)]
        tied = [sys.executable, "-c", kafka.TIED, str(os.getpid()), *command]
        with (self.folder / "daemon.log").open("ab") as log:
            # In this thread: what the kernel ties the child to is the thread that starts it
            self._process = subprocess.Popen(tied, cwd=self.folder, env=env, stdout=log, stderr=log)  # noqa: ASYNC220
        await self.until(lambda health: True, UP, "the daemon answers")

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL, and return when it is gone."""
        self._process.kill()
        self._process.wait()

    async def stop(self) -> int:
        """Ask it to stop, and give its exit code; it is killed when it does not go."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.to_thread(self._process.wait, 20)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL

    async def ask(self, path: str, body: bytes | None = None) -> Any:
        """The JSON of a page, None when it does not answer."""
        return await asyncio.to_thread(self._ask, path, body)

    def _ask(self, path: str, body: bytes | None) -> Any:
        url = f"http://{self.address}{path}"
        request = urllib.request.Request(url, body, {"content-type": "application/json"} if body else {})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return orjson.loads(answer.read())
        except (OSError, urllib.error.URLError, ValueError):
            return None

    async def until(self, holds: Any, seconds: float, what: str) -> Any:
        """What ``/health`` says when ``holds`` of it; raises Failed when it is not so in time."""
        end = time.monotonic() + seconds
        health = None
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise Failed(f"the daemon ended with {self._process.returncode}: {self.tail()}")
            health = await self.ask("/health")
            if health is not None and holds(health):
                return health
            await asyncio.sleep(0.1)
        raise Failed(f"not within {seconds:g} s: {what}; last said: {health and health['kafka']}; {self.tail()}")

    def tail(self) -> str:
        """The end of its log."""
        return (self.folder / "daemon.log").read_text(errors="replace")[-1500:]

    async def listen(self) -> None:
        """Keep asking for its counters, until cancelled."""
        while True:
            await self.note()
            await asyncio.sleep(0.5)

    async def note(self) -> dict[str, Any] | None:
        """Remember what it says now of its streams."""
        status: dict[str, Any] | None = await self.ask("/api/streaming/status")
        for one in (status or {}).get("streams", ()):
            key = (one["name"], one["epoch"])
            self.heard[key] = max(self.heard.get(key, 0), one["seq"])
        health = await self.ask("/health")
        if health:
            self.states.add(health["kafka"]["state"])
        return status
