"""The rules of a real browser for pages of other origins: what an allowed one may do, and another one may not."""

from __future__ import annotations

import functools
import http.server
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from playwright import sync_api

from tests import process

TOKEN = "c-0123456789abcdef"
FRIEND, STRANGER = "localhost", "stranger.localhost"
"""Names that every browser takes for this machine; `http://localhost:*` allows the first."""

# What a page of somewhere else tries; `null` is what it gets to see of what it may not
TRY = """async ([url, token]) => {
  const headers = {authorization: `Bearer ${token}`, "content-type": "application/json"};
  const get = await fetch(`${url}/api/streaming/streams`, {headers}).then((one) => one.status, () => null);
  const body = JSON.stringify({streamType: "RISK_EVENTS", count: 2});
  const post = await fetch(`${url}/api/streaming/burst`, {method: "POST", headers, body})
    .then((one) => one.json(), () => null);
  const plain = await fetch(`${url}/api/streaming/stop`, {method: "POST", body: "{}"})
    .then((one) => one.status, () => null);
  const spoken = ["regstream", `regstream.token.${btoa(token)}`.replaceAll("=", "")];
  const socket = new WebSocket(url.replace("http", "ws") + "/ws", spoken);
  const said = await new Promise((done) => {
    socket.onmessage = (message) => done(JSON.parse(message.data).data.role);
    socket.onerror = () => done(null);
  });
  socket.close();
  return {get, post: post && post.lastSeq - post.firstSeq, plain, said};
}"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[process.Daemon]:
    with process.running(tmp_path_factory.mktemp("daemon"), REGSTREAM_TOKENS=f"control:{TOKEN}") as running:
        yield running


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of another server, with one empty page."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "index.html").write_text("<!doctype html><title>elsewhere</title>")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


def tried(browser: sync_api.Browser, daemon: process.Daemon, name: str, port: int) -> Any:
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(f"http://{name}:{port}/index.html")
        return page.evaluate(TRY, [daemon.url, TOKEN])
    finally:
        context.close()


def test_a_page_of_an_allowed_origin_may_do_what_its_token_may(
    browser: sync_api.Browser, daemon: process.Daemon, elsewhere: int
) -> None:
    # The plain one carries no token: it is answered, and the page may see with what
    assert tried(browser, daemon, FRIEND, elsewhere) == {"get": 200, "post": 1, "plain": 401, "said": "control"}


def test_a_page_of_any_other_sees_nothing_and_changes_nothing_even_with_a_token(
    browser: sync_api.Browser, daemon: process.Daemon, elsewhere: int
) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    before = daemon.http.get("/api/streaming/streams/RISK_EVENTS", headers=headers).json()["epoch"]
    found = tried(browser, daemon, STRANGER, elsewhere)
    assert found == {"get": None, "post": None, "plain": None, "said": None}
    status = daemon.http.get("/api/streaming/status", headers=headers).json()
    assert status["dataStreamer"]["isStreaming"] is True
    assert daemon.http.get("/api/streaming/streams/RISK_EVENTS", headers=headers).json()["epoch"] == before
    figures = daemon.http.get("/metrics", headers=headers).text
    refused = next(
        line for line in figures.splitlines() if line.startswith('regstream_refusals_total{reason="origin"}')
    )
    assert float(refused.split()[1]) >= 2


def test_the_policy_of_the_page_lets_nothing_else_in(browser: sync_api.Browser, daemon: process.Daemon) -> None:
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(daemon.url)
        said = page.evaluate(
            """async () => {
              const blocked = [];
              document.addEventListener("securitypolicyviolation", (one) => blocked.push(one.effectiveDirective));
              const script = document.createElement("script");
              script.textContent = "window.injected = true";
              document.body.append(script);
              const image = new Image();
              image.src = "http://127.0.0.1:9/x.png";
              const frame = document.createElement("iframe");
              frame.src = location.href;
              document.body.append(image, frame);
              await fetch("http://127.0.0.1:9/").catch(() => {});
              await new Promise((done) => setTimeout(done, 300));
              return {injected: window.injected ?? false, blocked: [...new Set(blocked)].sort()};
            }"""
        )
    finally:
        context.close()
    assert said["injected"] is False
    assert {"connect-src", "frame-src", "img-src", "script-src-elem"} <= set(said["blocked"])


def test_the_page_may_not_be_put_into_a_frame(
    browser: sync_api.Browser, daemon: process.Daemon, tmp_path: pathlib.Path
) -> None:
    context = browser.new_context()
    try:
        page = context.new_page()
        (tmp_path / "frame.html").write_text(f"<!doctype html><iframe src='{daemon.url}/'></iframe>")
        page.goto(f"file://{tmp_path}/frame.html")
        page.wait_for_timeout(500)
        inside = page.frames[1]
        assert "regstream" not in (inside.content() if not inside.is_detached() else "")
    finally:
        context.close()
