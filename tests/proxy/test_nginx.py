"""The shipped configuration of nginx, but for name, ports and certificate, in front of a real daemon with tokens."""

from __future__ import annotations

import asyncio
import json
import pathlib
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from typing import NamedTuple

import httpx
import pytest
import websockets

from tests import needs, process
from tests.support import ROOT

CURE = "they need nginx and openssl: apt-get install nginx-light openssl"
TOKENS = {"read": "r-0123456789abcdef", "control": "c-0123456789abcdef"}
READ = {"authorization": f"Bearer {TOKENS['read']}"}
missing: dict[str, str] = {}
"""The tests that did not run, and why."""


class Proxied(NamedTuple):
    """A daemon behind nginx: how it is reached, and by whom that is trusted."""

    daemon: process.Daemon
    port: int
    trust: ssl.SSLContext

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, verify=self.trust, timeout=process.SECONDS, headers=READ)


@pytest.fixture(autouse=True, scope="module")
def _possible(request: pytest.FixtureRequest) -> None:
    absent = [one for one in ("nginx", "openssl") if shutil.which(one, path="/usr/sbin:/usr/bin:/sbin:/bin") is None]
    reason = f"there is no {absent[0]} on this machine" if absent else None
    needs.unless(reason, request.node.nodeid, missing, reason or "")


def _free() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def proxied(_possible: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    folder = tmp_path_factory.mktemp("nginx")
    port = _free()
    tokens = " ".join(f"{role}:{token}" for role, token in TOKENS.items())
    origin = f"https://localhost:{port}"
    env = {"REGSTREAM_TOKENS": tokens, "STREAMING_PROXIES": "1", "CORS_ORIGINS": origin, "RATE_LIMIT": "5/hour"}
    with process.running(tmp_path_factory.mktemp("daemon"), **env) as daemon:
        certificate = _certificate(folder)
        child = _nginx(folder, port, daemon.port)
        try:
            trust = ssl.create_default_context(cafile=str(certificate))
            one = Proxied(daemon, port, trust)
            process.eventually(lambda: _answers(one), what="nginx answers")
            yield one
        finally:
            child.terminate()
            child.wait(process.SECONDS)


def _certificate(folder: pathlib.Path) -> pathlib.Path:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    return folder / "cert.pem"


def _nginx(folder: pathlib.Path, port: int, behind: int) -> subprocess.Popen[bytes]:
    text = (ROOT / "proxy" / "nginx.conf").read_text()
    for old, new in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("server_name bank.example", "server_name localhost"),
        ("/etc/ssl/bank.example.pem", str(folder / "cert.pem")),
        ("/etc/ssl/bank.example.key", str(folder / "key.pem")),
        ("server 127.0.0.1:3001", f"server 127.0.0.1:{behind}"),
    ):
        assert old in text, old
        text = text.replace(old, new)
    (folder / "site.conf").write_text(text)
    paths = " ".join(
        f"{name}_temp_path {folder / name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    whole = f"daemon off; pid {folder}/pid; error_log {folder}/error.log warn; user root; events {{}}\n"
    whole += f"http {{ access_log off; {paths} include {folder}/site.conf; }}\n"
    (folder / "nginx.conf").write_text(whole)
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    assert program is not None
    return subprocess.Popen([program, "-p", str(folder), "-c", str(folder / "nginx.conf")])


def _answers(one: Proxied) -> bool:
    try:
        with one.client() as client:
            return client.get("/health/live").status_code == 200
    except httpx.TransportError:
        return False


def test_pages_and_the_api_over_tls(proxied: Proxied) -> None:
    with proxied.client() as client:
        page = client.get("/")
        assert page.status_code == 200 and "max-age" in page.headers["strict-transport-security"]
        assert client.get("/health").json()["status"] == "ok"
        assert client.get("/health", headers={"authorization": ""}).status_code == 401


async def test_websockets_over_tls(proxied: Proxied) -> None:
    address = f"{proxied.url.replace('https', 'wss')}/ws?channel=dashboard-updates&rewind=1"
    async with websockets.connect(
        address,
        ssl=proxied.trust,
        additional_headers=READ,
        origin=proxied.url,  # type: ignore[arg-type]
    ) as client:
        async with asyncio.timeout(process.SECONDS):
            said = [json.loads(await client.recv())["event"] for _ in range(2)]
    assert said == ["welcome", "subscribed"]


def test_server_sent_events_are_not_held_back(proxied: Proxied) -> None:
    with proxied.client() as client, client.stream("GET", "/api/streaming/stream?channel=SYSTEM_METRICS") as answer:
        lines = answer.iter_lines()
        began = time.monotonic()
        assert any(line.startswith("event: subscribed") for line in lines)
        assert any(line.startswith("event: production-metrics") for line in lines)
        assert time.monotonic() - began < process.SECONDS


def test_socket_io_over_tls(proxied: Proxied) -> None:
    with proxied.client() as client:
        opened = client.get("/socket.io/?EIO=4&transport=polling").text
        path = f"/socket.io/?EIO=4&transport=polling&sid={json.loads(opened[1:])['sid']}"
        assert client.post(path, content="40").status_code == 200
        assert client.get(path).text.startswith('40{"sid":"')
        assert client.post(path, content="1").status_code == 200


def test_a_client_is_who_nginx_saw(proxied: Proxied) -> None:
    headers = {"authorization": f"Bearer {TOKENS['control']}"}
    path = "/api/streaming/streams/SYSTEM_METRICS/resume"
    with proxied.client() as client:
        # What a client says itself does not give it another share
        codes = [
            client.post(path, headers={**headers, "x-forwarded-for": f"192.0.2.{number}"}).status_code
            for number in range(7)
        ]
    assert codes[-1] == 429 and codes.count(429) == 2


def test_a_large_body_does_not_reach_the_daemon(proxied: Proxied) -> None:
    with proxied.client() as client:
        assert client.post("/api/streaming/burst", content=b"x" * (2**20 + 1)).status_code == 413
