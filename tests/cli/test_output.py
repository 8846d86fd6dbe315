"""What commands write: no text of others steers the terminal, and an output that takes nothing ends in one line."""

from __future__ import annotations

import json
import os
import pathlib
import pty
import subprocess
import sys
from typing import Any

import pytest

from regstream.cli import check, common, replay, tail
from regstream.cli.app import _announce, _complain
from tests import process
from tests.support import ROOT

HOSTILE = "al\x1b[31mRED\x1b]0;pwned\x07\nFAKE LINE \r\u202eevil\u2066\x9b31m\x85\u2028"


def event(**more: Any) -> dict[str, Any]:
    return {
        "type": "t", "subject": HOSTILE, "seq": 1, "time": "2026-01-01T00:00:00.000Z" + HOSTILE, "priority": "LOW",
        "data": {HOSTILE: HOSTILE}, **more,
    }  # fmt: skip


def alert() -> dict[str, Any]:
    return event(type="immediate-alert", data={"severity": HOSTILE, "message": HOSTILE, "stream": HOSTILE})


SYSTEM: dict[str, Any] = {"kind": HOSTILE, "time": HOSTILE, HOSTILE: HOSTILE}
SHOWN = {
    "event": lambda: tail._Printer(False).event(event()),
    "replayed": lambda: tail._Printer(False).event(event(replay=True)),
    "alert": lambda: tail._Printer(False).event(alert()),
    "frame": lambda: tail._Printer(True).event(alert()),
    "system frame": lambda: tail._Printer(True).notice("system", SYSTEM),
    "system": lambda: tail._Printer(False).notice("system", SYSTEM),
    "scenario": lambda: tail._Printer(False).notice("system", {"kind": "scenario-started", "scenario": HOSTILE}),
    "error": lambda: tail._Printer(False).notice("error", {"message": HOSTILE}),
    "lost": lambda: tail._Printer(False).notice("lost", {"reason": HOSTILE}),
    "lagging": lambda: tail._Printer(False).notice("lagging", {"dropped": {HOSTILE: 1}}),
    "check": lambda: check._show(check.Outcome("x", "fail", 0.1, HOSTILE)),
    "replay": lambda: common.say(replay._outcome({"state": HOSTILE, "sent": 1, "reason": HOSTILE})),
    "complaint": lambda: _complain(HOSTILE, "red"),
}


@pytest.mark.parametrize("name", SHOWN)
def test_a_text_of_others_is_one_line_without_control_characters(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    SHOWN[name]()
    shown = "".join(capsys.readouterr())
    assert shown.endswith("\n") and shown[:-1].isprintable(), repr(shown)
    assert "RED" in shown


def test_a_frame_of_tail_says_the_same_with_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    tail._Printer(True).event(alert())
    assert json.loads(capsys.readouterr().out)["data"]["data"]["message"] == HOSTILE


def test_a_preview_is_escaped_for_a_terminal_and_for_nobody_else(tmp_path: pathlib.Path) -> None:
    (tmp_path / "streams.yaml").write_text(json.dumps({"streams": {"X": {"interval": "1s", "fields": {"s": HOSTILE}}}}))
    command = process.command("preview", "X", "-n", "1", "--seed", "1")
    piped = subprocess.run(command, cwd=tmp_path, env=process.environment(), capture_output=True, timeout=60)
    leader, follower = pty.openpty()
    try:
        done = subprocess.run(command, cwd=tmp_path, env=process.environment(), stdout=follower, timeout=60)
        seen = os.read(leader, 65536).decode()
    finally:
        os.close(leader)
        os.close(follower)
    assert done.returncode == piped.returncode == 0
    assert json.loads(piped.stdout)["data"]["s"] == json.loads(seen)["data"]["s"] == HOSTILE
    assert "\x9b" in piped.stdout.decode() and seen.removesuffix("\r\n").isprintable()


@pytest.mark.parametrize(
    "arguments",
    [["preview", "BUDGET_UPDATES", "-n", "2000"], ["preview", "BUDGET_UPDATES", "-n", "1"], ["validate"],
     ["plan", "--json"], ["schema", "streams"], ["--version"], ["--help"],
     ["generate", "--duration", "1h", "--seed", "1", "-s", "BUDGET_UPDATES"]],
    ids=" ".join,
)  # fmt: skip
def test_an_output_that_is_full_ends_in_one_line(arguments: list[str]) -> None:
    with pathlib.Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            process.command(*arguments), cwd=ROOT, env=process.environment(), stdout=full, stderr=subprocess.PIPE,
            text=True, timeout=60,
        )  # fmt: skip
    said = "regstream: standard output: no space left on device: free space on its disk, or choose another place\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_a_daemon_whose_first_lines_go_nowhere_serves(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_: Any) -> str:
        raise OSError(28, "No space left on device")

    from regstream.cli import rendering

    monkeypatch.setattr(rendering, "summary", full)
    given: list[OSError] = []
    monkeypatch.setattr(common, "give_up", lambda error: given.append(error) or "standard output: full")
    _announce(None)
    assert given and caplog.messages == ["standard output: full"]
    assert sys.stdout is not None


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"REGSTREAM_ENV": "prodution"}, "did you mean production?"),
        ({"NODE_ENV": "qqqq"}, "there are development, "),
        ({"REGSTREAM_ENV": "production"}, ""),
        ({}, ""),
        ({"KAFKA_BROKERS": "a:9092"}, "did you mean KAFKA_BROKER?"),
    ],
)
def test_validate_warns_of_what_has_no_effect(environ: dict[str, str], said: str) -> None:
    done = process.run("validate", **environ)
    lines = done.stderr.splitlines()
    assert done.returncode == 0 and len(lines) == bool(said)
    assert all("warning: " in one and said in one for one in lines)


@pytest.mark.parametrize("secret", ["correct-horse", "battery@stable", "with/slash#42"])
@pytest.mark.parametrize("command", [["check"], ["check", "--health"], ["tail"], ["replay", "--from", "1h"]])
def test_a_password_in_the_address_is_shown_nowhere(command: list[str], secret: str) -> None:
    made = process.run(*command, "--url", f"http://me:{secret}@127.0.0.1:1", REGSTREAM_TOKEN="token-of-mine")
    assert made.returncode != 0
    assert not [
        part for part in ("horse", "battery", "stable", "slash", "of-mine") if part in made.stdout + made.stderr
    ]
