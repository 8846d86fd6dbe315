"""No command and no client sends anything, least of all a token, to whom nobody named: by a proxy, or by a redirect."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import pathlib
import re
import threading
import urllib.error
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from regstream import client, errors
from regstream.cli import common, probes, replay
from tests.support import ROOT

TOKEN = "t-0123456789abcdef"
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy", "socks_proxy")


class Peer:
    """Records who calls it, and answers with ``status``, if need be to ``location``."""

    def __init__(self, status: int = 200, location: str = "") -> None:
        self.calls: list[tuple[str, str]] = []
        peer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def _answer(self) -> None:
                peer.calls.append((f"{self.command} {self.path}", str(self.headers)))
                self.send_response(status)
                if location:
                    self.send_header("Location", location + self.path)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_GET = do_POST = do_DELETE = do_CONNECT = _answer

            def log_message(self, *_: Any) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Peer:
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Iterator[Peer]:
    """A proxy that the environment names for everything, and a login for everybody."""
    with Peer(502) as peer:
        for name in VARIABLES:
            monkeypatch.setenv(name, peer.url)
            monkeypatch.setenv(name.upper(), peer.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        (tmp_path / ".netrc").write_text("default login somebody password n-secret\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        monkeypatch.setenv("REGSTREAM_TOKEN", TOKEN)
        yield peer


async def _follow(url: str) -> None:
    async with client.subscribe(url, ["ONE"], token=TOKEN):
        pass


CLIENTS: dict[str, Callable[[str], Any]] = {
    "calling": lambda url: common.call(f"{url}/health"),
    "calling with a body": lambda url: common.call(f"{url}/api/streaming/burst", {"count": 1}),
    "replay": lambda url: replay._ask("DELETE", f"{url}/api/streaming/replay/1"),
    "check --socketio": probes.PollingSession,
    "tail, check --ws": lambda url: asyncio.run(_follow(url)),
}
FAULTS = (OSError, probes.SocketIOError, errors.RegstreamError, ValueError, AssertionError)


@pytest.mark.parametrize("name", CLIENTS)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_proxy_of_the_environment_is_asked(proxy: Peer, name: str, host: str) -> None:
    with Peer() as daemon, contextlib.suppress(*FAULTS):
        CLIENTS[name](daemon.url.replace("127.0.0.1", host))
    assert proxy.calls == []
    assert daemon.calls and all(TOKEN in headers for _, headers in daemon.calls)
    assert not [headers for _, headers in daemon.calls if "Basic" in headers]


@pytest.mark.parametrize("name", CLIENTS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(proxy: Peer, name: str, status: int) -> None:
    with Peer() as other, Peer(status, other.url) as daemon, pytest.raises((*FAULTS, urllib.error.HTTPError)):
        CLIENTS[name](daemon.url)
    assert daemon.calls and other.calls == [] == proxy.calls


def test_the_daemon_of_a_check_is_asked_directly(proxy: Peer) -> None:
    assert "exit code 0" in probes.check_shutdown()
    assert proxy.calls == []


def test_traces_go_to_the_collector_alone(proxy: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    from regstream import tracing

    with Peer() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        traces = tracing.make("otlp", "0", "test")
        traces.begin("one", {}).end()
        asyncio.run(traces.close())
    assert proxy.calls == []
    assert [call for call, _ in collector.calls] == ["POST /v1/traces"]
    assert "Authorization" not in collector.calls[0][1]


def test_nothing_of_ours_connects_in_another_way() -> None:
    wrong = re.compile(r"\burlopen\(|client\.connect\(|websockets\.connect\(|import (httpx|aiohttp|http\.client)\b")
    found = [
        path.name
        for path in (ROOT / "regstream").rglob("*.py")
        if wrong.search(path.read_text()) and path.name != "direct.py"
    ]
    assert found == []
