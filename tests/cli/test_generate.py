"""``regstream generate`` and ``regstream run --from``: the same events, whoever makes them and whenever."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import time
from typing import Any

import pytest

from tests import process, profiles

# What makes an event differ, if anything does: draws, names, picks, shared rows, statements, the time, the batch
FIELDS = """
    fields:
      id: "{{ uuid() }}"
      who: "{{ fake('name') }}"
      account: "{{ a.id }}"
      before: "{{ a.balance }}"
      text: "{% for i in range(2) %}{{ randint(1, 99) }} {% endfor %}"
      at: "{{ now }}"
      u: "{{ uniform(0, 1) }}"
"""
STREAMS = f"""seed: 7
profiles: {{development: {{speed: 2}}}}
entities:
  accounts: {{count: 5, key: id, fields: {{id: "{{{{ index }}}}", balance: 100}}}}
streams:
  PAID:
    interval: 1s
    jitter: 40%
    with: {{a: "{{{{ pick('accounts') }}}}"}}
    update: {{a.balance: "{{{{ a.balance - 1 }}}}"}}
    alert: {{when: "{{{{ u < 0.05 }}}}", severity: WARNING, message: "{{{{ who }}}} paid"}}{FIELDS}
  BOOKED:
    interval: 700ms
    batch_size: 3
    priority: CRITICAL
    with: {{a: "{{{{ pick('accounts') }}}}"}}
    update: {{a.balance: "{{{{ a.balance + 2 }}}}"}}{FIELDS}
  RATED:
    rate: {{base: 3/s, curve: bank-day}}
    batch_size: 4
    with: {{a: "{{{{ pick('accounts') }}}}"}}{FIELDS}
  DAILY:
    schedule: "*/2 * * * *"
    with: {{a: "{{{{ pick('accounts') }}}}"}}{FIELDS}
"""
OTHER = """
  OTHER:
    interval: 50ms
    fields: {x: "{{ uuid() }}"}
"""
BEGIN = "2026-01-01"
# The lines of ten minutes of STREAMS, sorted: who has a seed relies on its events from release to release
BYTES = "a5a28ade1e30b6de25b548b34681bdd818bd111e24706cae8e5deb6dbf3d7f06"


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "streams.yaml").write_text(STREAMS)
    return tmp_path


def lines(folder: pathlib.Path, *arguments: str, **env: str) -> list[bytes]:
    done = process.run("generate", *arguments, "--out", "out.jsonl", cwd=folder, **env)
    assert done.returncode == 0, done.stderr
    assert not (folder / "out.jsonl.part").exists()
    return (folder / "out.jsonl").read_bytes().splitlines()


def span(folder: pathlib.Path, *arguments: str) -> list[bytes]:
    return lines(folder, "--from", BEGIN, "--duration", "10m", *arguments)


def of(found: list[bytes], *names: str) -> list[bytes]:
    return [one for one in found if json.loads(one)["subject"] in names]


def test_the_same_seed_gives_the_same_bytes_beside_any_other_stream(folder):
    first = span(folder)
    assert len(first) > 600 * 2 * (1 + 3 / 0.7)
    assert span(folder) == first
    assert hashlib.sha256(b"\n".join(sorted(first))).hexdigest() == BYTES
    times = [json.loads(one)["time"] for one in first]
    assert times == sorted(times)
    assert (times[0][:16], times[-1][:16]) == ("2026-01-01T00:00", "2026-01-01T00:09")
    (folder / "streams.yaml").write_text(STREAMS + OTHER)
    beside = span(folder)
    assert [one for one in beside if json.loads(one)["subject"] != "OTHER"] == first
    assert span(folder, "--seed", "7") == beside
    other = span(folder, "--seed", "8")
    assert len(other) != 0 and not set(other) & set(beside)


SLOW = """
seed: 3
profiles: {development: {speed: 1}}
entities:
  case:
    count: 40
    key: id
    fields: {id: "{{ index }}"}
    states: {OPEN: {lasts: 50s, then: {DONE: 1}}, DONE: {lasts: 9s}}
streams:
  FAST: {interval: 500ms, fields: {x: "{{ seq }}"}}
  # A tick of these tells of minutes
  GATHERED: {rate: 20/m, batch_size: 30, fields: {x: "{{ seq }}"}}
  FOLLOWING: {follow: case, interval: 70s, fields: {x: "{{ row.id }}", to: "{{ state }}"}}
  LATE: {interval: 1s, arrival: {late: "{{ exponential(60) }}"}, fields: {x: "{{ seq }}"}}
"""


@pytest.mark.parametrize("jobs", ["1", "3"])
def test_lines_are_in_the_order_of_time_whatever_a_tick_tells_of(folder, jobs):
    (folder / "streams.yaml").write_text(SLOW)
    events = [json.loads(one) for one in lines(folder, "--from", BEGIN, "--duration", "20m", "--jobs", jobs)]
    assert {event["subject"] for event in events} == {"FAST", "GATHERED", "FOLLOWING", "LATE"}
    # What is late by its declaration has its place where it arrives
    arrivals = [event.get("recordedtime", event["time"]) for event in events]
    assert arrivals == sorted(arrivals)
    for name in ("FAST", "GATHERED", "FOLLOWING", "LATE"):
        seqs = [event["seq"] for event in events if event["subject"] == name]
        assert seqs == list(range(1, len(seqs) + 1))


def test_a_part_of_the_streams_is_that_part_of_all(folder):
    whole = span(folder)
    for names in (["DAILY"], ["PAID"], ["BOOKED", "DAILY"], ["ALERTS"]):
        asked = [one for name in names for one in ("--stream", name)]
        part = span(folder, *asked)
        assert part == of(whole, *names) and part


@pytest.mark.slow
def test_any_number_of_processes_makes_the_same(folder):
    (folder / "streams.yaml").write_text(STREAMS + OTHER)
    whole = span(folder, "--jobs", "1")
    for number in ("2", "3"):
        assert span(folder, "--jobs", number) == whole
    process.copy_files(folder)
    arguments = ("--from", BEGIN, "--duration", "6h" if profiles.NAME == "nightly" else "1h")
    assert lines(folder, *arguments, "--jobs", "1") == lines(folder, *arguments, "-j", "4")


def members(group: int) -> list[int]:
    """The processes of a group that run."""
    found = []
    for one in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, number = one.read_text().rpartition(")")[2].split()[:3]
            if int(number) == group and state != "Z":
                found.append(int(one.parent.name))
    return found


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_one_that_is_ended_leaves_no_process(folder, jobs, number):
    (folder / "streams.yaml").write_text(STREAMS + OTHER)
    line = process.command("generate", "--from", BEGIN, "--duration", "300d", "--out", "out.jsonl", "--jobs", jobs)
    with subprocess.Popen(line, cwd=folder, stderr=subprocess.PIPE, start_new_session=True) as made:
        part = folder / "out.jsonl.part"
        process.eventually(lambda: part.exists() and part.stat().st_size > 0)
        # The two units of these files
        assert len(members(made.pid)) == (1 if jobs == 1 else 3)
        # A terminal tells all of them of Ctrl-C, who kills one does not
        (os.killpg if number == signal.SIGINT else os.kill)(made.pid, number)
        said = made.communicate(timeout=process.SECONDS)[1].decode()
    process.eventually(lambda: members(made.pid) == [])
    assert made.returncode != 0
    assert not (folder / "out.jsonl").exists()
    assert "Traceback" not in said
    if number == signal.SIGINT:
        assert not part.exists()


def test_from_when_to_when(folder):
    whole = span(folder)
    assert lines(folder, "--from", "2026-01-01T00:00:00Z", "--to", "2026-01-01T01:10:00+01:00") == whole
    assert lines(folder, "--to", "2026-01-01T00:10:00Z", "--duration", "600s") == whole
    before = time.time()
    done = process.run("generate", "--duration", "1m", cwd=folder)
    assert done.returncode == 0
    after = time.time()
    times = [datetime.datetime.fromisoformat(json.loads(one)["time"]).timestamp() for one in done.stdout.splitlines()]
    assert len(times) > 600 and before - 60 <= times[0] and times[-1] <= after and 55 < times[-1] - times[0] <= 60
    assert " events of " in done.stderr and done.stderr.count("\n") == 1


REFUSED = [
    (["--from", BEGIN], "say from when to when"),
    (["--from", BEGIN, "--to", BEGIN], "is not after"),
    (["--from", "soon", "--to", BEGIN], "'soon' is not a time, write 2026-01-01"),
    (["--from", BEGIN, "--duration", "1 week"], "write 90d"),
    (["--from", BEGIN, "--to", "2026-02-01", "--duration", "1d"], "give two of"),
    (["--duration", "1m", "--stream", "PAYD"], "did you mean PAID?"),
    (["--duration", "1m", "--out", "no/such/folder/x"], "no/such/folder/x: no such file or directory: make the folder"),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSED)
def test_what_cannot_be_is_said(folder, arguments, said):
    done = process.run("generate", *arguments, cwd=folder)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(("out", "variable"), [("kafka", "KAFKA_BROKER"), ("postgres", "DATABASE_URL")])
def test_what_it_needs_is_named(folder, out, variable):
    done = process.run("generate", "--duration", "1m", "--out", out, cwd=folder)
    assert done.returncode == 78
    assert variable in done.stderr


def test_a_file_that_would_have_a_hole_is_not_left_behind(folder):
    (folder / "out.jsonl").write_text("what was there")
    (folder / "streams.yaml").write_text(STREAMS.replace("u < 0.05", "1 // (seq - 900) < 0.05"))
    done = process.run("generate", "--duration", "1h", "--out", "out.jsonl", cwd=folder)
    assert done.returncode == 1
    assert "PAID: alert.when: ZeroDivisionError" in done.stderr
    assert (folder / "out.jsonl").read_text() == "what was there"
    assert sorted(one.name for one in folder.glob("out*")) == ["out.jsonl"]


def test_without_a_seed_it_says_how_to_get_the_same_again(folder):
    (folder / "streams.yaml").write_text(STREAMS.replace("seed: 7\n", ""))
    first = process.run("generate", "--from", BEGIN, "--duration", "2m", cwd=folder)
    said = first.stderr.splitlines()[0]
    seed = said.partition("--seed ")[2].split()[0]
    again = process.run("generate", "--from", BEGIN, "--duration", "2m", "--seed", seed, cwd=folder)
    assert first.stdout == again.stdout != ""


def test_a_pipe_that_is_closed_ends_it_quietly(folder):
    command = " ".join(process.command("generate", "--from", BEGIN, "--duration", "300d"))
    done = process.shell(f"{command} | head -n 3", cwd=folder)
    assert len(done.stdout.splitlines()) == 3
    assert "Traceback" not in done.stderr


def test_only_what_was_asked_for_is_replaced(folder):
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "kept.jsonl").write_text("what was there")
    (folder / "out.jsonl").symlink_to("elsewhere/kept.jsonl")
    expected = lines(folder, "--from", BEGIN, "--duration", "1m")
    assert (folder / "out.jsonl").is_symlink()
    assert (folder / "elsewhere" / "kept.jsonl").read_bytes().splitlines() == expected
    (folder / "elsewhere.part").write_text("somebody's")
    done = process.run("generate", "--from", BEGIN, "--duration", "1m", "--out", "elsewhere", cwd=folder)
    assert done.returncode == 2 and "elsewhere: is a directory" in done.stderr
    assert (folder / "elsewhere.part").read_text() == "somebody's"


def test_a_file_needs_no_standard_output(folder):
    command = " ".join(process.command("generate", "--from", BEGIN, "--duration", "1m", "--out", "out.jsonl"))
    done = process.shell(f"{command} >&-", cwd=folder)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert (folder / "out.jsonl").stat().st_size > 0


@pytest.mark.parametrize("jobs", [1, 3])
def test_an_output_that_takes_nothing_is_named(folder, jobs):
    (folder / "streams.yaml").write_text(STREAMS + OTHER)
    command = " ".join(process.command("generate", "--from", BEGIN, "--duration", "1h", "--jobs", jobs))
    full = "standard output: no space left on device: free space on its disk, or choose another place"
    for where, code, why in ((">/dev/full", 1, full), (">&-", 2, "--out: standard output is closed")):
        done = process.shell(f"{command} {where}", cwd=folder)
        assert (done.returncode, done.stderr) == (code, f"regstream: {why}\n")


def test_a_pipe_with_a_name_is_written_to_and_stays_one(folder):
    command = " ".join(process.command("generate", "--from", BEGIN, "--duration", "10m", "--out", "pipe"))
    done = process.shell(f"mkfifo pipe && (cat pipe > got & {command}; wait)", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "got").read_bytes().splitlines() == span(folder)
    assert (folder / "pipe").is_fifo()


PLANNED = """seed: 7
streams:
  CHANCE: {rate: 40/m, fields: {x: 1}}
  EVEN: {rate: {base: 1000/h, arrivals: even}, batch_size: 7, fields: {x: 1}}
  TICKS: {interval: 9s, jitter: 50%, batch_size: 3, fields: {x: 1}}
  TIMES: {schedule: "*/10 * * * *", batch_size: 2, fields: {x: 1}}
  LOSSY: {interval: 2s, fields: {x: 1}, arrival: {loss: 20%}}
"""


def test_a_virtual_day_is_what_plan_says(folder):
    (folder / "streams.yaml").write_text(PLANNED)
    planned = json.loads(process.run("plan", "--json", cwd=folder).stdout)
    made = lines(folder, "--from", "2026-01-05", "--duration", "1d")
    names = [json.loads(one)["subject"] for one in made]
    for stream in planned["streams"]:
        assert names.count(stream["stream"]) == pytest.approx(stream["eventsPerDay"], rel=0.01), stream


# Live


def digest(found: list[str]) -> str:
    return hashlib.sha256("\n".join(found).encode()).hexdigest()


def told(event: dict[str, Any]) -> str:
    return json.dumps(event, sort_keys=True)


def test_what_is_shown_live_is_what_generate_makes(folder):
    begin = datetime.datetime.fromtimestamp(int(time.time()) - 240, datetime.UTC).isoformat()
    daemon = process.Daemon(folder, "--port", "0", "--from", begin)
    try:
        with daemon.reader() as reader:
            reader.subscribe("dashboard-updates", rewind=1000)
            process.eventually(lambda: daemon.get("/api/streaming/status")["dataStreamer"].get("history") is None)
            live = {name: daemon.stream(name)["seq"] for name in ("PAID", "BOOKED")}
            # Well beyond the seam
            for name, seq in live.items():
                reader.event(name, seq + 8)
            shown = {(one["subject"], one["seq"]): one for one in reader.events()}
        missed = {one["name"]: one["missed"] for one in daemon.streams()}
    finally:
        assert daemon.stop() == 0
    made = [
        json.loads(one)
        for one in lines(folder, "--from", begin, "--duration", "6m", "--stream", "PAID", "--stream", "BOOKED")
    ]
    expected = [one for one in made if (one["subject"], one["seq"]) in shown]
    found = [shown[one["subject"], one["seq"]] for one in expected]
    # How many there are depends on how soon the reader came
    assert len(expected) > 200 and {one["seq"] > live[one["subject"]] for one in expected} == {True, False}
    if not any(missed.values()):
        assert digest(list(map(told, found))) == digest(list(map(told, expected)))
    else:
        # A machine that could not keep up: the numbers have other times then, and nothing else
        assert [one["data"]["id"] for one in found] == [one["data"]["id"] for one in expected]


def test_a_beginning_that_is_to_come_is_refused(folder):
    for arguments, said in ((["--from", "2199-01-01"], "still to come"), (["--from", "x"], "is not a time")):
        done = process.run("run", *arguments, cwd=folder)
        assert (done.returncode, said in done.stderr) == (2, True)
    done = process.run("run", "--from", BEGIN, cwd=folder, ENABLE_STREAMING="false")
    assert done.returncode == 2 and "ENABLE_STREAMING" in done.stderr
