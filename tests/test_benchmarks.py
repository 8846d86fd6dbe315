"""The benchmarks run and give a table; what the figures are is not for a test to judge."""

from __future__ import annotations

import json
import pathlib
import socket

import pytest
from websockets.frames import Frame, Opcode

from benchmarks import __main__ as benchmarks
from benchmarks import apart, crowd, fanout_conflated, fanout_rig, peers, table
from scripts import kafka
from tests import databases


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (table.Row("a", 12, "ms", must=15, aim=5), "must"),
        (table.Row("a", 4, "ms", must=15, aim=5), "aim"),
        (table.Row("a", 16, "ms", must=15, aim=5), "no"),
        (table.Row("a", 90, "events", must=0.45, aim=0.8, floor=100, by_ratio=True, rising=True), "aim"),
        (table.Row("a", 40, "events", must=0.45, aim=0.8, floor=100, by_ratio=True, rising=True), "no"),
        (table.Row("a", 40, "MB", floor=10), ""),
    ],
)
def test_a_row_says_what_it_meets(row: table.Row, met: str) -> None:
    assert row.met == met


def test_the_table_has_a_line_a_row_and_its_notes_below() -> None:
    rows = [table.Row("first", 1234.5, "ms", 15, 5, 10, note="one\ntwo"), table.Row("second row", 0.5, "s")]
    head, first, *notes, second = table.text(rows).splitlines()
    assert head.split() == ["row", "figure", "floor", "ratio", "must", "aim", "met"]
    assert "1,234 ms" in first and "123.45" in first and first.endswith("no")
    assert [one.strip() for one in notes] == ["one", "two"]
    assert second.split() == ["second", "row", "0.50", "s"]


@pytest.mark.slow
def test_cheap_rows_run_and_are_written_as_json(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "figures.json"
    assert benchmarks.main(["generation", "ticks", "reload", "--tiny", "--json", str(path)]) == 0
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    shown = capsys.readouterr().out
    assert len(rows) == 5
    for row in rows:
        assert row["figure"] > 0 and row["floor"] > 0 and row["must"] and row["met"] in ("aim", "must", "no")
        assert row["name"] in shown


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in benchmarks.ROWS if name.startswith("fanout-")])
def test_rows_of_fan_out_run(name: str) -> None:
    rows = apart.measured(name, tiny=True)
    assert rows and all(row.figure > 0 and row.must for row in rows)
    if name == "fanout-conflated":
        assert rows[0].figure == 100 and "exact" in rows[0].note


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in benchmarks.ROWS if name.startswith("store-")])
def test_rows_of_the_store_run(request: pytest.FixtureRequest, name: str) -> None:
    databases.need(request.node.nodeid, own=True)
    rows = apart.measured(name, tiny=True)
    assert rows and all(row.figure > 0 and row.must and row.note for row in rows)


def made(number: int, key: str) -> fanout_rig.Made:
    return fanout_rig.Made("ONE", "E", number, key, 0.0)


EVENTS = [made(1, "a"), made(2, "b"), made(3, "a"), made(4, "c"), made(5, "a"), made(6, "b")]


@pytest.mark.parametrize(
    ("rounds", "wrong", "right"),
    [
        ([[2, 3], [4, 5, 6]], 0, 5),
        ([[2, 3, 4, 5, 6]], 2, 3),
        ([[3], [4, 5, 6]], 1, 4),
        ([[1, 2], [4, 5, 6]], 0, 5),
        ([[2, 3], [5, 4, 6]], 6, 2),
        ([[2, 3], [4]], 2, 3),
        ([[2, 3], [3, 4, 5, 6]], 1, 5),
    ],
    ids=["exact", "older after newer", "one missing", "exact earlier", "out of order", "the last missing", "twice"],
)
def test_what_differs_from_the_newest_of_each_key(rounds: list[list[int]], wrong: int, right: int) -> None:
    came = [[EVENTS[number - 1] for number in one] for one in rounds]
    assert fanout_conflated.differing(EVENTS, [came]) == (wrong, right)


def test_gaps_are_seen_in_each_stream() -> None:
    assert fanout_conflated.missing(EVENTS) == 0
    assert fanout_conflated.missing([EVENTS[0], EVENTS[2], EVENTS[2]]) == 2


def test_frames_are_read_as_far_as_they_are_whole() -> None:
    sizes = [5, 200, 70_000]
    frames = [Frame(Opcode.TEXT, b"x" * size).serialize(mask=False, extensions=[]) for size in sizes]
    data = b"".join(frames)
    found = list(crowd.frames(data))
    assert [len(one.payload) for one in found] == sizes and found[-1].end == len(data)
    for cut in (1, 5, 69_000):
        assert len(list(crowd.frames(data[:-cut]))) == 2
    assert len(list(crowd.frames(data[: len(frames[0]) + 3]))) == 1


def test_when_each_frame_was_whole_for_a_client() -> None:
    one = crowd.Reader(socket.socket(), b"", False, True)
    one.log = [(1.0, 10), (2.0, 25), (3.0, 30)]
    assert list(crowd.arrivals(one, [10, 20, 30])) == [(0, 1.0), (1, 2.0), (2, 3.0)]
    assert crowd.delays([one, one], [10, 20, 30], [0.5, 0.5, 1.0]) == [[0.5] * 2, [1.5] * 2, [2.0] * 2]
    one.sock.close()


def test_rows_with_kafka_are_passed_over_in_one_line_where_there_is_none(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "available", lambda: "no java: install Java 17 or newer")
    path = tmp_path / "figures.json"
    assert benchmarks.main(["kafka", "--tiny", "--json", str(path)]) == 0
    assert json.loads(path.read_text(encoding="utf-8")) == {"rows": []}
    said = [line for line in capsys.readouterr().err.splitlines() if "Java 17" in line]
    assert len(said) == 1 and said[0].startswith("skipping kafka-publish, ")


@pytest.mark.slow
def test_other_generators_are_measured_beside_ours(tmp_path: pathlib.Path) -> None:
    reason = peers.why_not()
    if reason is not None:
        pytest.skip(reason)
    path = tmp_path / "figures.json"
    assert benchmarks.main(["peers", "--tiny", "--json", str(path)]) == 0
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert [row["name"].split()[-1] for row in rows] == [peer.project for peer in peers.PEERS]
    for row, peer in zip(rows, peers.PEERS, strict=True):
        assert row["figure"] > 0 and row["floor"] > 0
        assert row["note"].startswith(f"{peer.project} {peer.version}: ")


@pytest.mark.slow
def test_where_they_cannot_be_had_it_says_why(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(peers, "PEERS", (peers.Peer("khaos-cli", "0.0.0", "use_khaos.py", ""),))
    assert benchmarks.main(["peers", "--tiny", "--json", str(tmp_path / "figures.json")]) == 0
    assert "skipping peers: khaos-cli cannot be installed: " in capsys.readouterr().err


def test_rows_are_listed_and_unknown_ones_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmarks.main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(benchmarks.ROWS)
    with pytest.raises(SystemExit):
        benchmarks.main(["speed"])
    assert "no row 'speed'" in capsys.readouterr().err
