"""What ``check --socketio`` says of a server that does not answer as it should."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from regstream.cli import probes

OPEN = '0{"sid":"s"}'
CONNECTED = '40{"sid":"t"}'
JOINED = '431[{"channels":["ONE"],"streams":{"ONE":{"epoch":"E","seq":4,"recovered":false,"replayed":0}}}]'
LEFT = '431[{"channels":["ONE"]}]'


def event(seq: int, *names: str) -> list[str]:
    return ["42" + json.dumps([name, {"type": "one-type", "seq": seq}]) for name in names]


def both(seq: int) -> list[str]:
    return event(seq, "streaming-update", "one-type")


class Script:
    """A server that says what is written, a poll at a time."""

    def __init__(self) -> None:
        self.polls: list[list[str]] = []
        self.posts: list[str] = []
        script = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._reply("\x1e".join(script.polls.pop(0)) if script.polls else None)

            def do_POST(self) -> None:
                script.posts.append(self.rfile.read(int(self.headers["content-length"])).decode())
                self._reply("OK")

            def _reply(self, text: str | None) -> None:
                self.send_response(404 if text is None else 200)
                self.end_headers()
                self.wfile.write((text or "not there").encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def exchange(self, *polls: list[str]) -> str:
        self.polls = list(polls)
        return probes.check_socketio(self.url, "ONE", lambda: {"firstSeq": 5, "lastSeq": 6})


@pytest.fixture
def script() -> Iterator[Script]:
    one = Script()
    thread = threading.Thread(target=one.server.serve_forever)
    thread.start()
    yield one
    one.server.shutdown()
    thread.join()
    one.server.server_close()


def test_what_is_whole_passes(script: Script) -> None:
    said = script.exchange([OPEN], [CONNECTED], ["2", JOINED], both(5), ["2", *both(6), LEFT])
    assert said == "ONE 5 to 6, each as streaming-update and one-type"
    assert script.posts == ["40", '421["join-streaming", "ONE"]', "3", "3", '421["leave-streaming", "ONE"]', "1"]


@pytest.mark.parametrize(
    ("polls", "what"),
    [
        ([], "answered 404: not there"),
        ([[OPEN], ['44{"message":"no"}']], "came where 40 was due"),
        ([[OPEN], [CONNECTED], ['431[{"error":{"message":"unknown channel"}}]']], "unknown channel"),
        ([[OPEN], [CONNECTED], [JOINED], both(6)], "[6, 6] came where"),
        ([[OPEN], [CONNECTED], [JOINED], both(5), both(5)], "[5, 5] came where"),
        ([[OPEN], [CONNECTED], [JOINED], event(5, "one-type", "streaming-update")], "came where"),
        ([[OPEN], [CONNECTED], [JOINED], event(5, "one-type"), event(6, "streaming-update")], "came where"),
        ([[OPEN], [CONNECTED], [JOINED], ["1"]], "'1' came where 42 was due"),
    ],
)
def test_what_is_not_is_told(script: Script, polls: list[list[str]], what: str) -> None:
    with pytest.raises(probes.SocketIOError) as caught:
        script.exchange(*polls)
    assert what in str(caught.value)


def test_silence_ends(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "SOCKETIO_SECONDS", 0.2)
    with pytest.raises(probes.SocketIOError, match=r"no packet 40 came within|came where|answered 404|did not answer"):
        script.exchange([OPEN], *[["2"]] * 10_000)
