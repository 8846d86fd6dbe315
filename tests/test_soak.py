"""The judge of ``make soak`` finds each fault that it is there for; and a short run of the whole."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from scripts.soak import __main__ as soak
from scripts.soak import judge, transports

FLAT = [100.0] * 40


def told(seq: int, recovered: bool = False, replayed: int = 0) -> dict[str, Any]:
    return {"ONE": {"epoch": "E", "seq": seq, "recovered": recovered, "replayed": replayed}}


def shown(one: judge.Judge, *seqs: int, epoch: str = "E") -> judge.Judge:
    for seq in seqs:
        one.event({"subject": "ONE", "epoch": epoch, "seq": seq})
    return one


def reader(*seqs: int) -> judge.Judge:
    one = judge.Judge()
    one.told(told(0))
    return shown(one, *seqs)


def status(seq: int = 4, events: int = 4, sent: int = 5) -> dict[str, Any]:
    stream = {"name": "ONE", "epoch": "E", "seq": seq, "events": events}
    return {"streams": [stream], "dataStreamer": {"totalMessagesSent": sent}}


def found(one: judge.Judge, **more: Any) -> set[str]:
    memory, seconds = more.pop("memory", FLAT), more.pop("seconds", 600.0)
    return set(judge.faults({"her": one}, status(**more), memory, seconds))


def back(one: judge.Judge, answer: dict[str, Any]) -> judge.Judge:
    one.ask()
    one.told(answer)
    return one


def test_nothing_is_wrong() -> None:
    assert found(reader(1, 2, 3, 4)) == set()
    assert found(shown(back(reader(1, 2), told(3, True, 1)), 3, 4)) == set()


@pytest.mark.parametrize(
    ("one", "fault"),
    [
        (lambda: reader(1, 2, 4), "lost by her"),
        (lambda: shown(judge.Judge(), 1, 2, 3, 4), "lost by her"),
        (lambda: shown(reader(1, 2, 3), 4, epoch="F"), "lost by her"),
        (lambda: reader(1, 2, 2, 3, 4), "doubled for her"),
        (lambda: reader(1, 2, 3, 4, 1), "doubled for her"),
        (lambda: shown(back(reader(1, 2), told(4, True, 2)), 4), "lost by her"),
        (lambda: back(reader(1, 2), told(4)), "not recovered for her"),
        (lambda: reader(1, 2, 3), "not shown to her at the end"),
    ],
)
def test_what_is_wrong_with_a_client(one: Callable[[], judge.Judge], fault: str) -> None:
    assert fault in found(one())


def test_who_comes_back_as_somebody_else_need_not_be_recovered() -> None:
    one = reader(1, 2)
    one.forget()
    assert found(back(one, told(4))) == set()


@pytest.mark.parametrize("more", [{"events": 3}, {"sent": 3}])
def test_a_daemon_that_contradicts_itself(more: dict[str, int]) -> None:
    assert found(reader(1, 2, 3, 4), **more) == {"daemon"}


def test_memory_is_judged_by_its_second_half_when_the_run_was_long_enough() -> None:
    grows = [100.0 + n for n in range(40)]
    filled = [100.0 + min(n, 10) for n in range(40)]
    assert judge.growth(grows) > judge.GROWTH > judge.growth(filled) == 0
    assert found(reader(1, 2, 3, 4), memory=grows) == {"memory"}
    assert found(reader(1, 2, 3, 4), memory=grows, seconds=20.0) == set()


def test_faults_are_told_with_how_often_and_the_first() -> None:
    one = reader(*range(1, 5), *[4] * 9)
    fault = judge.faults({"her": one}, status(), FLAT, 600)["doubled for her"]
    assert fault["count"] == 9 and len(fault["first"]) == judge.SHOWN and "E/4" in fault["first"][0]


async def test_each_event_comes_by_two_names_on_socket_io() -> None:
    one = transports.SocketIO("", judge.Judge())
    said = {"specversion": "1.0", "subject": "ONE", "epoch": "E", "seq": 1}
    one._named("streaming-update", said)
    one._named("one-made", said)
    with pytest.raises(transports.Failed, match="without a streaming-update"):
        one._named("one-made", said)


@pytest.mark.slow
def test_a_short_run(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.json"
    assert soak.main(["--seconds", "6", "--seed", "3", "--out", str(path)]) == 0, capsys.readouterr().out
    report = json.loads(path.read_text(encoding="utf-8"))
    assert report["holds"] and {"WebSocket", "SSE"} <= set(report["transports"])
    assert report["shown"] > report["events"] > 1000 and report["leaves"] > 0
    assert "everything holds" in capsys.readouterr().out


@pytest.mark.slow
def test_what_cannot_be_played_is_a_fault(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(transports.Events, "_message", lambda *_: 1 / 0)
    path = tmp_path / "report.json"
    assert soak.main(["--seconds", "3", "--out", str(path)]) == 1
    assert "not played to its end" in json.loads(path.read_text(encoding="utf-8"))["faults"]
    assert "something does NOT hold" in capsys.readouterr().out
