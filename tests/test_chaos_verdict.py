"""The judge of ``make chaos`` must find each fault that it is there for."""

from __future__ import annotations

import collections
from typing import Any

import orjson
import pytest

from scripts.chaos import client, harm, topics, verdict

NOON = 1795435200.0
TIME = "2026-11-23T12:00:00.000Z"


def record(seq: int, key: bytes = b"k", partition: int = 0) -> tuple[int, bytes, bytes]:
    return partition, key, orjson.dumps({"subject": "ONE", "epoch": "E", "seq": seq, "time": TIME})


def read(*records: tuple[int, bytes, bytes]) -> topics.Topics:
    judge = topics._Judge()
    for partition, key, value in records:
        judge.take("t", partition, key, value)
    return judge.found


def reader(*seqs: int, away: bool = False) -> client.Client:
    one = client.Client("", "steady", lambda: away)
    one._take({"event": "subscribed", "data": {"streams": {"ONE": told(0)}}})
    for seq in seqs:
        one._take({"event": "x", "data": {"specversion": "1.0", "subject": "ONE", "epoch": "E", "seq": seq}})
    return one


def told(seq: int, recovered: bool = False) -> dict[str, Any]:
    return {"epoch": "E", "seq": seq, "recovered": recovered, "replayed": 0}


def final(seq: int = 4, **more: Any) -> dict[str, Any]:
    stream = {"name": "ONE", "epoch": "E", "seq": seq, "events": seq}
    kafka = {"messagesProduced": seq, "errors": 0, "state": "live", "skipped": 0, "dropped": {}, **more}
    status = {"streams": [stream], "kafka": kafka, "dataStreamer": {"totalMessagesSent": seq}}
    return {"status": status, "health": {"kafka": kafka}, "exit": 0}


def judged(found: topics.Topics, one: client.Client, **more: Any) -> set[str]:
    injuries = [harm.Injury("broker", NOON - 1, NOON + 1)] if more.pop("hurt", False) else []
    heard = collections.defaultdict(int, {("ONE", "E"): more.pop("heard", 4)})
    return set(verdict.judge(found, [one], heard, final(**more), injuries)["faults"])


FOUR = [record(seq) for seq in (1, 2, 3, 4)]


def test_nothing_is_wrong() -> None:
    assert judged(read(*FOUR), reader(1, 2, 3, 4)) == set()


@pytest.mark.parametrize(
    ("records", "fault"),
    [
        ([*FOUR[:2], FOUR[3]], "missing on the topics"),
        ([FOUR[0], FOUR[2], FOUR[1], FOUR[3]], "out of order on the topics"),
        ([*FOUR[:3], record(4, partition=1)], "key in two partitions"),
        ([*FOUR, FOUR[3]], "twice on the topics without a doubt"),
        ([*FOUR, record(5)], "counters differ"),
    ],
)
def test_what_is_wrong_on_the_topics(records: list[tuple[int, bytes, bytes]], fault: str) -> None:
    assert fault in judged(read(*records), reader(1, 2, 3, 4))


def test_what_only_a_counter_or_a_client_knew_of_is_missing() -> None:
    assert "missing on the topics" in judged(read(*FOUR), reader(1, 2, 3, 4), heard=5)
    assert "missing on the topics" in judged(read(*FOUR), reader(1, 2, 3, 4, 5))


def test_a_double_near_an_injury_is_counted_and_must_be_rare() -> None:
    assert judged(read(*FOUR, FOUR[3]), reader(1, 2, 3, 4), hurt=True) == {"too many twice on the topics"}


@pytest.mark.parametrize(
    ("seqs", "fault"),
    [
        ((1, 2, 2, 3, 4), "shown twice to the steady client"),
        ((1, 2, 4), "not shown to the steady client"),
        ((1, 2, 3), "not shown to the steady client"),
    ],
)
def test_what_is_wrong_with_a_client(seqs: tuple[int, ...], fault: str) -> None:
    assert fault in judged(read(*FOUR), reader(*seqs))


@pytest.mark.parametrize("away", [False, True])
def test_a_past_that_is_not_told_is_a_fault_unless_kafka_is_away(away: bool) -> None:
    one = reader(1, 2, away=away)
    one._asked = {"ONE": {"epoch": "E", "seq": 2}}
    one._take({"event": "subscribed", "data": {"streams": {"ONE": told(4)}}})
    assert judged(read(*FOUR), one) == (set() if away else {"not recovered for the steady client"})
    assert one.excused == away


def test_what_the_daemon_says_it_lost_is_a_fault() -> None:
    assert judged(read(*FOUR), reader(1, 2, 3, 4), skipped=2) == {"counters differ"}
