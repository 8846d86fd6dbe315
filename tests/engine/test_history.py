"""A history, made at full speed: it is what would have been made live, ends where the clock begins, comes once."""

from __future__ import annotations

import asyncio
import datetime
import itertools
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest

from regstream import errors, spec
from regstream.engine import active_stream, backfill
from regstream.event import Event, Position, rfc3339
from regstream.generator import alerts
from regstream.generator import stream as streams
from tests.engine.test_order import ROWS, sharing
from tests.engine.world import World, file, stream, until
from tests.generate import support

BEGIN = 1_767_225_600.0
LONG = 100_000.0
FIELDS = {"n": "{{ seq }}", "id": "{{ uuid() }}", "at": "{{ now }}", "i": "{{ index }}"}
SHARING = {
    "fields": {"before": "{{ a.balance }}"},
    "with": {"a": "{{ pick('accounts') }}"},
    "update": {"a.balance": "{{ a.balance + 1 }}"},
}
ALERT = {"when": "{{ n % 7 == 0 }}", "severity": "INFO", "message": "it is {{ n }}"}


def specs() -> list[spec.StreamSpec]:
    return [
        support.stream_spec(FIELDS, "EVEN", interval="7s"),
        support.stream_spec(FIELDS, "SHAKEN", interval="13s", jitter="60%", batch_size=3, alert=ALERT),
        support.stream_spec(FIELDS, "HOURLY", interval=None, schedule="0 * * * *", batch_size=5),
        support.stream_spec(name="TELLER", interval="11s", **SHARING),
        support.stream_spec(name="CLERK", interval="17s", batch_size=4, jitter="10%", **SHARING),
        support.stream_spec(FIELDS, "RATED", interval=None, rate={"base": "20/m", "curve": "bank-day"}, batch_size=4),
        support.stream_spec(
            FIELDS, "MIXED", interval="20s", batch_size=3, arrival={"late": 3, "duplicates": "9%", "loss": "9%"}
        ),
    ]


def lanes_of(declared: Sequence[spec.StreamSpec], only: Sequence[str] = ()) -> list[active_stream.ActiveStream]:
    shop = support.workshop(*declared, entities=(support.entity("accounts", {"id": 1, "balance": 0}, 1),))
    made = [
        active_stream.ActiveStream(
            streams.Stream(one, shop, "E"), 1.0, active_stream.anchor(one.name, BEGIN, one.interval or 1000)
        )
        for one in declared
        if not only or one.name in only
    ]
    active_stream.regroup(made)
    return made


def past(known: dict[str, int] | None = None, only: Sequence[str] = (), **rest: Any) -> backfill.Backfill:
    found = lanes_of(specs(), only)
    alerts = streams.Stream(support.stream_spec({"message": ""}, spec.ALERTS), support.workshop(), "E")
    return backfill.Backfill(lambda: found, alerts, BEGIN, known, **rest)


def made(one: backfill.Backfill, *ends: float) -> list[Event]:
    return [event for end in ends for events in one.until(BEGIN + end) for event in events]


WHOLE = made(past(), 6 * 3600.0)


def of(events: Sequence[Event], *names: str) -> list[bytes]:
    return [one.value for one in events if one.head.stream in names]


def test_it_is_in_order_whole_and_of_the_past():
    # Those of a tick of a rate came one after the other, and late ones happened before
    times = [one.head.time for one in WHOLE if one.head.stream not in ("RATED", "MIXED")]
    assert times == sorted(times)
    assert times[-1] < "2026-01-01T06:00:00"
    rated = [one.head.time for one in WHOLE if one.head.stream == "RATED"]
    assert rated == sorted(rated) and len(set(rated)) > 0.99 * len(rated)
    for name in {one.head.stream for one in WHOLE}:
        seqs = [one.seq for one in WHOLE if one.head.stream == name]
        assert seqs == list(range(1, len(seqs) + 1))
    counts = {name: len(list(one)) for name, one in itertools.groupby(sorted(one.head.stream for one in WHOLE))}
    hours = 6 * 3600
    assert counts["HOURLY"] == 6 * 5
    assert abs(counts["EVEN"] - hours / 7) < 2
    assert abs(counts["SHAKEN"] - 3 * hours / 13) < 6
    assert abs(counts["ALERTS"] - counts["SHAKEN"] / 7) < 2


def test_events_are_what_ticks_one_by_one_would_be():
    """The oracle: each stream's own schedule and ``next_batch``, the sharing ones merged by time."""
    alone = lanes_of(specs(), ["SHAKEN"])[0]
    points = alone.schedule().between(BEGIN, BEGIN + 6 * 3600)
    expected = [event.value for due in points for event in alone.source.next_batch(due, 3).events]
    assert of(WHOLE, "SHAKEN") == expected
    teller, clerk = lanes_of(specs(), ["TELLER", "CLERK"])
    turns = [(due, one.name, one) for one in (teller, clerk) for due in one.schedule().between(BEGIN, BEGIN + 6 * 3600)]
    turns.sort(key=lambda turn: turn[:2])
    shared = [event.value for due, _, one in turns for event in one.source.next_batch(due).events]
    assert of(WHOLE, "TELLER", "CLERK") == shared
    assert [json.loads(one)["data"]["before"] for one in shared] == list(range(len(shared)))


@pytest.mark.parametrize("window", [20, 300, 100_000])
@pytest.mark.parametrize("ends", [(21600.0,), (1.0, 1.0, 5000.5, 21600.0), tuple(range(0, 21601, 900))])
def test_neither_windows_nor_pauses_change_it(window, ends):
    assert made(past(window=window), *ends) == WHOLE


def test_other_streams_do_not_matter_but_those_that_share_rows():
    assert of(made(past(only=["EVEN", "SHAKEN"]), 21600.0), "EVEN", "SHAKEN") == of(WHOLE, "EVEN", "SHAKEN")
    assert of(made(past(only=["TELLER"]), 21600.0), "TELLER") != of(WHOLE, "TELLER")


@pytest.mark.parametrize("part", [0.0, 0.31, 0.5, 1.0])
def test_what_is_known_does_not_come_again_and_the_rest_is_the_same(part):
    known, expected = {}, []
    cut = int(len(WHOLE) * part)
    for event in WHOLE[:cut]:
        known[event.head.stream] = event.seq
    # A batch may have been published in part
    expected = WHOLE[cut:]
    one = past(known)
    assert made(one, 3000.0, 21600.0) == expected


def test_an_interval_that_is_changed_counts_from_there():
    found = lanes_of(specs(), ["EVEN"])
    one = backfill.Backfill(
        lambda: found, streams.Stream(support.stream_spec({"m": ""}, "A"), support.workshop(), "E"), BEGIN
    )
    first = made(one, 700.0)
    found[0].set["interval"] = 70_000
    second = made(one, 1400.0)
    assert (len(first), len(second)) == (100, 10)
    found[0].paused = True
    assert made(one, 2100.0) == []
    assert [event.seq for event in first + second] == list(range(1, 111))


def test_an_epoch_is_of_the_seed_and_the_beginning():
    names = {backfill.epoch(seed, begin) for seed in (1, 2) for begin in (BEGIN, BEGIN + 1)}
    assert len(names) == 4
    assert backfill.epoch(1, BEGIN) in names
    assert backfill.epoch(1, BEGIN) < backfill.epoch(1, BEGIN + 1)


# In the engine


def moment(event: dict[str, Any]) -> float:
    return datetime.datetime.fromisoformat(event["time"]).timestamp()


async def test_it_goes_live_at_the_seam_without_a_gap_an_overlap_or_a_future(tmp_path):
    begin = round(time.time()) - 600.0
    declared = {"FAST": stream("20ms"), "ONE": sharing("50ms"), "TWO": sharing("30ms", batch_size=2)}
    world = World(tmp_path, {"streams.yaml": file(ROWS, **declared)}, begin=begin)
    async with world.running():
        await until(lambda: world.engine.progress is None)
        made = len(world.shown)
        await until(lambda: len(world.shown) > made + 400)
        now = world.now()
        missed = world.engine.totals.missed
    world.whole()
    for name, gap in (("FAST", 0.02), ("ONE", 0.05), ("TWO", 0.03)):
        times = sorted({moment(one) for one in world.events(name)})
        gaps = [after - before for before, after in itertools.pairwise(times)]
        assert min(gaps) > gap - 0.0015
        # What a busy machine could not do in time is counted as missed, and is no gap of the history
        assert sum(round(one / gap) - 1 for one in gaps) <= missed
        assert begin <= times[0] < begin + 1 and times[-1] <= now
    shared = [json.loads(one.value)["data"]["before"] for one in world.shown if one.head.stream != "FAST"]
    assert shared == list(range(len(shared)))


async def test_what_is_late_is_made_late_and_left_out_by_nobody(tmp_path):
    begin = round(time.time()) - 5.0
    declared = {"FAST": stream("5ms"), "ONE": sharing("7ms"), "TWO": sharing("3ms", batch_size=2)}
    world = World(tmp_path, {"streams.yaml": file(ROWS, **declared)}, begin=begin, limit=500)
    async with world.running():
        await until(lambda: world.engine.progress is None)
        for _ in range(3):
            made = len(world.shown)
            # The loop stands still, and then the broker takes nothing
            time.sleep(0.4)
            world.flowing.clear()
            await asyncio.sleep(0.2)
            world.flowing.set()
            await until(lambda made=made: len(world.shown) > made + 1_000)
        assert world.engine.totals.missed == 0
    world.whole()
    for name, gap in (("FAST", 0.005), ("ONE", 0.007), ("TWO", 0.003)):
        times = sorted({moment(one) for one in world.events(name)})
        assert max(after - before for before, after in itertools.pairwise(times)) < gap + 0.0015
    shared = [json.loads(one.value)["data"]["before"] for one in world.shown if one.head.stream != "FAST"]
    assert shared == list(range(len(shared)))
    times = [one.head.time for one in world.shown if one.head.stream != "FAST"]
    assert times == sorted(times)


async def test_nothing_is_begun_while_it_is_made_and_a_stop_holds_it(tmp_path):
    begin = time.time() - LONG
    world = World(tmp_path, {"streams.yaml": file(A=stream("1s"))}, begin=begin)
    async with world.running(streaming=False):
        world.engine.start()
        await until(lambda: len(world.shown) > 2_000)
        with pytest.raises(errors.Conflict, match=r"history is being made, wait for it: made up to 20.*%"):
            await world.engine.burst("A", 1)
        world.engine.stop()
        await asyncio.sleep(0.01)
        seen = len(world.shown)
        await asyncio.sleep(0.05)
        assert len(world.shown) - seen < 500
        progress = world.engine.progress
        assert progress is not None and 0 < progress.done < 1
        world.engine.start()
        await until(lambda: world.engine.stream("A").seq > 30_000)
        # A stream that a reload brings has a past from there on
        await world.reload({"streams.yaml": file(A=stream("1s"), B=stream("1s"))})
        await until(lambda: world.engine.progress is None, 120)
        await world.engine.burst("A", 1)
    world.whole()
    assert abs(len(world.seqs("A")) - LONG) < 200
    assert 0 < len(world.seqs("B")) < LONG - 25_000


async def test_a_restart_goes_on_where_the_first_run_was_and_refuses_what_is_of_another(tmp_path):
    begin = time.time() - 3000
    declared = {"A": stream("1s", fields=FIELDS), "ONE": sharing("2s"), "TWO": sharing("3s")}
    files = {"streams.yaml": file(ROWS, **declared)}
    first = World(tmp_path / "one", files, begin=begin) if (tmp_path / "one").mkdir() is None else None
    async with first.running():
        await until(lambda: len(first.shown) > 500)
        first.tasks[0].cancel()
    known: dict[str, Position] = {}
    for event in first.shown[:1777]:
        known[event.head.stream] = Position(event.head.epoch, event.seq)
    (tmp_path / "two").mkdir()
    second = World(tmp_path / "two", files, begin=begin)
    second.broker.position = known.get
    async with second.running():
        await until(lambda: second.engine.progress is None)
        for name in declared:
            await second.count(name, 1)
    joined = [*first.shown[:1777], *second.shown]
    for name in declared:
        assert [one.seq for one in joined if one.head.stream == name] == [
            *range(1, 1 + sum(one.head.stream == name for one in joined))
        ]
    shared = [json.loads(one.value)["data"]["before"] for one in joined if one.head.stream in ("ONE", "TWO")]
    assert shared == list(range(len(shared)))
    (tmp_path / "three").mkdir()
    third = World(tmp_path / "three", files, begin=begin + 1)
    third.broker.position = known.get
    with pytest.raises(errors.StartError, match="leave --from out to go on"):
        async with third.running():
            pass


@pytest.mark.parametrize("begin", [BEGIN, BEGIN + 1.234, BEGIN + 3600.5])
def test_a_rate_with_a_batch_size_has_no_event_before_the_beginning(begin: float) -> None:
    declared = [
        support.stream_spec(FIELDS, "RATED", interval=None, rate={"base": "5/s"}, batch_size=40),
        support.stream_spec(FIELDS, "REGULAR", interval=None, rate={"base": "50/s", "arrivals": "even"}, batch_size=7),
    ]
    shop = support.workshop(*declared)
    sources = [streams.Stream(one, shop, "E") for one in declared]
    at_work = [active_stream.begun(source, 1.0, begin) for source in sources]
    past = backfill.Backfill(lambda: at_work, streams.Stream(alerts.SPEC, shop, "E"), begin)
    made = [event for events in past.until(begin + 60) for event in events]
    for name, count in (("RATED", 200), ("REGULAR", 2_900)):
        own = [event for event in made if event.head.stream == name]
        assert own[0].head.time >= rfc3339(begin)
        assert len(own) > count
        assert [event.seq for event in own] == list(range(1, len(own) + 1))
