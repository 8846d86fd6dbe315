"""A daemon as its users have it: a process on copies of the shipped files, its address, and a client of ``/ws``.

Nothing here imports regstream: what these tests know of it is its contract.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import websockets.exceptions
import websockets.sync.client

from tests.support import ROOT

SECONDS = 60.0
"""How long anything may take on a machine that is busy with something else."""


def environment(**more: str) -> dict[str, str]:
    """An environment in which this tree is imported, and none of ours is set but ``more``.

    Tests make more control calls than people, so the pace of these is not bounded unless ``more`` says so.
    """
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ") if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "", "RATE_LIMIT": "1000/second", **more}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "regstream", *map(str, arguments)]


def run(
    *arguments: object, cwd: pathlib.Path = ROOT, stdin: str | None = None, seconds: float = 3 * SECONDS, **env: str
) -> subprocess.CompletedProcess[str]:
    """One command of the program, to its end."""
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(**env),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=seconds,
    )


def shell(line: str, cwd: pathlib.Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    """A line for the shell, to its end."""
    return subprocess.run(
        line, shell=True, cwd=cwd, env=environment(**env), capture_output=True, text=True, timeout=3 * SECONDS
    )


def copy_files(folder: pathlib.Path) -> pathlib.Path:
    """The shipped files in ``folder``."""
    shutil.copy(ROOT / "streams.yaml", folder)
    for name in ("scenarios", "templates"):
        shutil.copytree(ROOT / name, folder / name)
    return folder


def eventually(condition: Callable[[], Any], seconds: float = SECONDS, what: str = "") -> Any:
    """What ``condition`` gives as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what or condition}"
        time.sleep(0.02)
    return found


class Reader:
    """One WebSocket client; ``frames`` is everything that it has received."""

    def __init__(self, address: str) -> None:
        self._connect = websockets.sync.client.connect(address, open_timeout=SECONDS, compression=None, max_queue=None)
        self.frames: list[dict[str, Any]] = []

    def __enter__(self) -> Reader:
        self.socket = self._connect.__enter__()
        return self

    def __exit__(self, *about: Any) -> None:
        self._connect.__exit__(*about)

    def send(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def next(self, seconds: float = SECONDS) -> dict[str, Any]:
        """The next frame; every frame has the same two keys."""
        text = self.socket.recv(timeout=max(0.0, seconds))
        assert isinstance(text, str)
        frame: dict[str, Any] = json.loads(text)
        assert set(frame) == {"event", "data"}, frame
        self.frames.append(frame)
        return frame

    def until(
        self, wanted: str | Callable[[dict[str, Any]], Any], seconds: float = SECONDS, what: str = ""
    ) -> dict[str, Any]:
        """The first frame from now on whose event is ``wanted``, or for which ``wanted`` holds."""
        deadline = time.monotonic() + seconds
        holds = wanted if callable(wanted) else lambda frame: frame["event"] == wanted
        while True:
            try:
                frame = self.next(deadline - time.monotonic())
            except TimeoutError:
                raise AssertionError(f"not within {seconds:g} s: {what or wanted}; last: {self.frames[-3:]}") from None
            if holds(frame):
                return frame

    def subscribe(self, *channels: str, **more: Any) -> dict[str, Any]:
        """Subscribe, and give what ``subscribed`` says."""
        self.send(action="subscribe", channels=list(channels), **more)
        data: dict[str, Any] = self.until("subscribed")["data"]
        return data

    def event(self, stream: str, seq: int | None = None, seconds: float = SECONDS) -> dict[str, Any]:
        """The next event of ``stream``, or the one numbered ``seq``, which may have come already."""
        for one in self.events(stream):
            if one["seq"] == seq:
                return one
        frame = self.until(
            lambda frame: frame["data"].get("subject") == stream and seq in (None, frame["data"]["seq"]),
            seconds,
            f"{stream} {seq}",
        )
        return dict(frame["data"])

    def system(self, kind: str, seconds: float = SECONDS, **more: Any) -> dict[str, Any]:
        """The next ``system`` frame of that kind, with those members."""
        frame = self.until(
            lambda frame: frame["event"] == "system" and {"kind": kind, **more}.items() <= frame["data"].items(),
            seconds,
            f"system {kind} {more}",
        )
        return dict(frame["data"])

    def events(self, stream: str | None = None) -> list[dict[str, Any]]:
        """The events received so far, of one stream or of all."""
        found = (frame["data"] for frame in self.frames if "specversion" in frame["data"])
        return [event for event in found if stream in (None, event["subject"])]

    def closed(self) -> int:
        """The code with which the server closes the connection; what comes before it is received."""
        deadline = time.monotonic() + SECONDS
        try:
            while True:
                self.next(deadline - time.monotonic())
        except websockets.exceptions.ConnectionClosed as error:
            assert error.rcvd is not None, "cut off without a close frame"
            return int(error.rcvd.code)


class Daemon:
    """``regstream run`` on the files of ``folder``."""

    def __init__(self, folder: pathlib.Path, *arguments: str, **env: str) -> None:
        self.folder = folder
        self.log = folder / "stderr.log"
        self._out = folder / "stdout.log"
        self._arguments = arguments or ("--port", "0")
        self.environ = env
        self.start()

    def start(self) -> None:
        """Start it, and wait until it says where it listens; its standard output is a file, as in a supervisor's."""
        with self._out.open("w") as out, self.log.open("w") as log:
            self.process = subprocess.Popen(
                command("run", *self._arguments),
                cwd=self.folder,
                env=environment(**self.environ),
                stdout=out,
                stderr=log,
            )
        said = eventually(self._listens, what="the line that says where it listens")
        self.url = said[0]
        self.http = httpx.Client(base_url=self.url, timeout=SECONDS)

    def _listens(self) -> re.Match[str] | None:
        assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.log.read_text()}"
        return re.search(r"http://\S+", self._out.read_text())

    @property
    def summary(self) -> str:
        """What it said on standard output."""
        return self._out.read_text()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def reader(self, query: str = "") -> Reader:
        return Reader(f"{self.url.replace('http', 'ws')}/ws{query}")

    def get(self, path: str) -> Any:
        """The JSON of a page that must be there."""
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any = None, status: int = 200) -> Any:
        """The JSON that a POST is answered with; ``path`` is that behind ``/api/streaming/``."""
        answer = self.http.post(f"/api/streaming/{path}", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def stream(self, name: str) -> dict[str, Any]:
        return dict(self.get(f"/api/streaming/streams/{name}"))

    def streams(self) -> list[dict[str, Any]]:
        return list(self.get("/api/streaming/streams")["streams"])

    def burst(self, stream: str, count: int) -> tuple[int, int]:
        """The first and last number of a burst."""
        made = self.post("burst", {"streamType": stream, "count": count})
        return made["firstSeq"], made["lastSeq"]

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = SECONDS) -> int:
        """End it, and give its exit code."""
        self.http.close()
        if self.process.poll() is None:
            self.tell(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired as late:
            late.add_note(self.log.read_text()[-4000:])
            raise
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()

    @property
    def complaints(self) -> list[str]:
        """The lines of its log that say that something was lost or that someone must act."""
        return [
            line
            for line in self.log.read_text().splitlines()
            if re.search(r"\b(ERROR|CRITICAL)\b|Traceback|Exception|Task .* destroyed|never awaited", line)
        ]


@contextlib.contextmanager
def running(folder: pathlib.Path, *arguments: str, **env: str) -> Iterator[Daemon]:
    """A daemon on copies of the shipped files, which must stop in order."""
    daemon = Daemon(copy_files(folder), *arguments, **env)
    try:
        yield daemon
    finally:
        code = daemon.stop()
    assert code == 0, daemon.log.read_text()
