"""Commands that have to do with a running daemon: run, tail, check."""

from __future__ import annotations

import json
import pathlib
import queue
import re
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest

from regstream import cli, spec
from tests import process
from tests.process import Daemon, eventually


def test_run_says_where_it_is_what_it_makes_and_what_to_try(daemon: Daemon) -> None:
    lines = daemon.summary.splitlines()
    assert lines[0].startswith(f"regstream listens on {daemon.url} ") and "simulation" in lines[0]
    assert "6 streams, 5 scenarios" in lines[1] and "development" in lines[1]
    rates = {line.split()[0]: " ".join(line.split()[1:]) for line in lines[2:8]}
    assert rates["COMPLIANCE_ALERTS"] == "changes of state, every 500ms, CRITICAL"
    assert rates["RISK_EVENTS"] == "2 events every 9s, HIGH"
    assert re.fullmatch(r"5 events about every [1-9]\d{1,3}ms now, NORMAL", rates["TRANSACTION_STREAM"])
    tried = "\n".join(lines[8:])
    assert f"regstream tail --url {daemon.url}" in tried
    assert f"curl {daemon.url}/api/streaming/status" in tried
    assert f"curl -X POST {daemon.url}/api/streaming/simulate" in tried


def test_run_logs_what_was_asked_for_and_no_event(daemon: Daemon) -> None:
    with daemon.reader("?channel=TRANSACTION_STREAM") as reader:
        reader.event("TRANSACTION_STREAM")
    text = daemon.log.read_text()
    assert "generation 1 in force" in text
    assert "TRANSACTION_STREAM" not in text and daemon.complaints == []


def test_run_with_nothing_to_run_says_why(tmp_path: pathlib.Path) -> None:
    done = process.run("run", "--port", "0", cwd=tmp_path)
    assert done.returncode == 78 and done.stdout == ""
    assert "streams.yaml:1:1: there is no such file" in done.stderr


def test_run_takes_the_files_it_is_told(tmp_path: pathlib.Path) -> None:
    (tmp_path / "other").mkdir()
    files = process.copy_files(tmp_path / "other")
    (tmp_path / "here").mkdir()
    flags = [f"--{name}={files / name}" for name in ("scenarios", "templates")]
    daemon = Daemon(tmp_path / "here", f"--streams={files / 'streams.yaml'}", *flags, "--port=0", "--host=::1")
    try:
        assert daemon.url.startswith("http://[::1]:")
        assert len(daemon.streams()) == 6
    finally:
        assert daemon.stop() == 0


class Tail:
    """A `regstream tail` that is under way."""

    def __init__(self, *arguments: str) -> None:
        self.child = subprocess.Popen(
            process.command("tail", *arguments),
            cwd=process.ROOT,
            env=process.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

        # Lines that come together are read together, and then none of them can be waited for at the pipe
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            self._lines.put(line)

    def line(self) -> str:
        """The next line, which comes at once although nobody sees a terminal."""
        return self._lines.get(timeout=process.SECONDS)

    def end(self) -> str:
        """Wait for its end; what it said on standard error."""
        assert self.child.stdout is not None and self.child.stderr is not None
        self.child.wait(process.SECONDS)
        self._reader.join(process.SECONDS)
        with self.child.stdout, self.child.stderr:
            return self.child.stderr.read()

    def lines(self, count: int) -> list[str]:
        return [self.line() for _ in range(count)]


@pytest.fixture
def tails() -> Iterator[list[Tail]]:
    tails: list[Tail] = []
    yield tails
    for tail in tails:
        if tail.child.poll() is None:
            tail.child.kill()
            tail.end()


def test_tail_shows_so_many_events_and_ends(daemon: Daemon) -> None:
    done = process.run("tail", "--url", daemon.url, "-c", "TRANSACTION_STREAM", "-n", 7)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 7
    matches = [re.match(r"\d\d:\d\d:\d\d\.\d{3} TRANSACTION_STREAM #(\d+) transactionId=", line) for line in lines]
    numbers = [int(match[1]) for match in matches if match]
    assert numbers == list(range(numbers[0], numbers[0] + 7))


def test_tail_gives_frames_to_programs(daemon: Daemon) -> None:
    daemon.burst("RISK_EVENTS", 5)
    done = process.run(
        "tail", "--url", daemon.url, "--channel", "risk-event", "--channel", "system", "--json", "--rewind=5", "-n5"
    )
    frames = [json.loads(line) for line in done.stdout.splitlines()]
    assert [frame["event"] for frame in frames[:2]] == ["welcome", "subscribed"]
    assert [frame["event"] for frame in frames].count("risk-event") == 5


def test_tail_begins_with_a_snapshot_when_asked(daemon: Daemon) -> None:
    daemon.burst("BUDGET_UPDATES", 200)
    shown = ("--json", "-c", "BUDGET_UPDATES", "-n5")
    done = process.run("tail", "--url", daemon.url, "--snapshot", "--policy=conflate", "--max-rate=0.5", *shown)
    _, subscribed, *events = [json.loads(line) for line in done.stdout.splitlines()]
    answer = subscribed["data"]["streams"]["BUDGET_UPDATES"]
    assert answer["snapshot"] >= 5 and answer["replayed"] == 0
    numbers = [event["data"]["seq"] for event in events]
    assert numbers == sorted(numbers) and numbers[-1] < answer["seq"]


def test_tail_takes_the_policies_that_there_are(daemon: Daemon) -> None:
    assert {one.value for one in cli.Policy} == {one.value for one in spec.Policy}
    for wrong in (["--policy", "slowly"], ["--max-rate", "0"]):
        done = process.run("tail", "--url", daemon.url, *wrong)
        assert done.returncode == 2 and done.stdout == ""
        assert "rate" in done.stderr.lower() or "dropOldest" in done.stderr


def test_tail_of_an_unknown_channel_names_the_near_ones(daemon: Daemon) -> None:
    done = process.run("tail", "--url", daemon.url, "--channel", "RISK_EVENT")
    assert done.returncode == 2
    assert "RISK_EVENT" in done.stderr and "did you mean RISK_EVENTS" in done.stderr


def test_tail_shows_what_happens_to_the_daemon(daemon: Daemon, tails: list[Tail]) -> None:
    tails.append(Tail("--url", daemon.url, "-c", "system", "-c", "PROJECT_UPDATES"))
    eventually(lambda: daemon.get("/api/streaming/status")["subscribers"] >= 1)
    daemon.post("reload")
    line = tails[0].line()
    while "reloaded" not in line:
        line = tails[0].line()
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} \* reloaded generation=", line)


def test_tail_reads_like_a_story_while_a_scenario_runs(daemon: Daemon, tails: list[Tail]) -> None:
    (daemon.folder / "scenarios" / "short.yaml").write_text(
        "name: SHORT\nsteps:\n  - alert: {severity: CRITICAL, message: It begins}\n  - wait: 10ms\n"
    )
    daemon.post("reload")
    # One of an earlier test may not have left yet
    eventually(lambda: daemon.get("/api/streaming/status")["subscribers"] == 0)
    tails.append(Tail("--url", daemon.url, "-c", "system", "-c", "immediate-alert"))
    eventually(lambda: daemon.get("/api/streaming/status")["subscribers"] == 1)
    run = daemon.post("simulate", {"scenario": "SHORT"}, 202)["runId"]
    story: list[str] = []
    while not any("ended" in line for line in story) or not any(line.endswith("It begins") for line in story):
        story.append(tails[0].line()[13:].rstrip())
    expected = [
        f"* scenario-started SHORT {run}",
        "* scenario-step SHORT steps[0] alert CRITICAL",
        "* scenario-step SHORT steps[1] wait 10ms",
        "* scenario-ended SHORT completed",
    ]
    assert [line for line in story if "SHORT" in line] == expected
    alert = next(line for line in story if line.endswith("It begins"))
    assert re.fullmatch(r"ALERTS #\d+ CRITICAL It begins", alert)


def test_tail_comes_back_when_the_daemon_does(tmp_path: pathlib.Path, tails: list[Tail]) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    daemon = Daemon(process.copy_files(tmp_path), "--port", str(port))
    try:
        tails.append(Tail("--url", daemon.url, "--json", "-c", "TRANSACTION_STREAM"))
        before = [json.loads(line) for line in tails[0].lines(8)]
        assert daemon.stop() == 0
        daemon.start()
        after = [json.loads(line) for line in tails[0].lines(40)]
    finally:
        daemon.stop()
    epochs = {frame["data"]["epoch"] for frame in before + after if "epoch" in frame["data"]}
    assert len(epochs) == 2
    # The first numbers of the new epoch may be over before it is back; from then on none is missing
    numbers = [one["data"]["seq"] for one in after if one["data"].get("epoch") == after[-1]["data"]["epoch"]]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_tail_ends_with_ctrl_c_and_without_a_traceback(daemon: Daemon, tails: list[Tail]) -> None:
    tails.append(Tail("--url", daemon.url))
    tails[0].line()
    tails[0].child.send_signal(2)
    said = tails[0].end()
    assert tails[0].child.returncode == 130 and "Traceback" not in said


@pytest.mark.parametrize(
    ("flags", "steps"),
    [([], 14), (["--health"], 4), (["--api"], 7), (["--ws"], 1), (["--socketio"], 1), (["--shutdown"], 1)],
)
def test_check_passes_on_a_good_daemon(daemon: Daemon, flags: list[str], steps: int) -> None:
    done = process.run("check", *flags, "--url", daemon.url + "/")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    *lines, sum_ = done.stdout.splitlines()
    assert len(lines) == steps and all(re.match(r"pass  [a-z]+: .* ms  \S", line) for line in lines)
    assert sum_ == f"{steps} of {steps} steps passed"


def test_check_as_json_tells_all_steps_with_their_times(daemon: Daemon) -> None:
    done = process.run("check", "--health", "--ws", "--json", "--url", daemon.url)
    told = json.loads(done.stdout)
    assert (done.returncode, told["pass"], told["fail"], told["skip"]) == (0, 5, 0, 0)
    assert [one["step"] for one in told["steps"]] == [
        "health: alive", "health: ready", "health: health", "health: broker", "ws: subscribe and burst",
    ]  # fmt: skip
    assert all(one["state"] == "pass" and one["seconds"] > 0 and one["detail"] for one in told["steps"])


def test_check_skips_what_its_token_is_not_good_for(tmp_path: pathlib.Path) -> None:
    tokens = {"read": "r-0123456789abcdef", "control": "c-0123456789abcdef", "admin": "a-0123456789abcdef"}
    given = " ".join(f"{role}:{token}" for role, token in tokens.items())
    with process.running(tmp_path, REGSTREAM_TOKENS=given) as daemon:
        told = {}
        for role, token in tokens.items():
            done = process.run("check", "--json", "--url", daemon.url, REGSTREAM_TOKEN=token)
            found = json.loads(done.stdout)
            told[role] = (done.returncode, [one["step"] for one in found["steps"] if one["state"] == "skip"])
        nobody = process.run("check", "--health", "--url", daemon.url, REGSTREAM_TOKEN="wrong")
    bursts = ["api: burst", "api: consumption", "api: retrieval", "api: scenario"]
    ways = ["ws: subscribe and burst", "socketio: join and burst"]
    assert told == {
        "read": (0, [*bursts, "api: dry reload", *ways]),
        "control": (0, ["api: dry reload"]),
        "admin": (0, []),
    }
    assert nobody.returncode == 1 and "401" in nobody.stdout


def test_tail_needs_a_token_where_there_are_some(tmp_path: pathlib.Path) -> None:
    with process.running(tmp_path, REGSTREAM_TOKENS="read:r-0123456789abcdef") as daemon:
        told = process.run("tail", "--url", daemon.url, "-n", "1", REGSTREAM_TOKEN="r-0123456789abcdef")
        assert (told.returncode, len(told.stdout.splitlines()) >= 1) == (0, True)
        refused = process.run("tail", "--url", daemon.url, "-n", "1")
    assert refused.returncode == 1 and "unauthorized" in refused.stderr


@pytest.mark.parametrize("command", ["check", "tail"])
def test_without_a_daemon_the_cure_is_told(command: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: nobody answers, and nobody else can
        done = process.run(command, "--url", f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 1
    assert "start it: regstream run" in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_check_fails_on_a_daemon_that_generates_nothing(tmp_path: pathlib.Path) -> None:
    with process.running(tmp_path, ENABLE_STREAMING="false", STREAMING_PORT="0") as daemon:
        done = process.run("check", REGSTREAM_URL=daemon.url)
    assert done.returncode == 1
    assert re.search(r"^FAIL  api: status .*start it", done.stdout, re.MULTILINE)
    assert re.search(r"^pass  health: health", done.stdout, re.MULTILINE)
    assert "Traceback" not in done.stdout + done.stderr
