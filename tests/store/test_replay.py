"""Stored events sent again: in order, each once, at their pace; and what operators do to a run meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from regstream import errors, store
from regstream.event import Event
from regstream.store import pool, replay
from regstream.store.replay import ReplaySpec
from tests.conftest import MakePostgres
from tests.store import making
from tests.store.making import Rig, events, kept, records, until

MINUTE = (making.SECOND, making.SECOND + 60)


class Stage:
    """Where events go in a test: what was shown and when, and what was announced."""

    def __init__(self, one: store.Store, kafka: Any = None) -> None:
        self.shown: list[Event] = []
        self.ticks: list[float] = []
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.full = 0.0
        numbers = itertools.count(1)
        ways = replay.Ways(
            self._show, lambda _: self.full, kafka, lambda *news: self.told.append((news[0], {**news[1]}))
        )
        self.runs = replay.ReplayRegistry(one.archive, ways, time.time, time.monotonic, lambda: f"R{next(numbers)}")

    def _tell(self, kind: str, data: Mapping[str, Any]) -> None:
        self.told.append((kind, dict(data)))

    def _show(self, event: Event) -> None:
        self.shown.append(event)
        self.ticks.append(time.monotonic())

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.shown]

    async def ended(self, run: replay.ReplayRun, state: str = "completed") -> None:
        await until(lambda: run.ended is not None)
        assert (run.state, run.reason if state != "failed" else "") == (state, "")


async def stored(rig: Rig, *some: Event) -> store.Store:
    one = await rig.open()
    one.record(records(some))
    await kept(one)
    return one


def order(rig: Rig) -> list[str]:
    return [name for (name,) in rig.rows("SELECT id FROM regstream.events ORDER BY time, stream, epoch, seq")]


async def test_all_events_in_their_order_each_once(rig: Rig) -> None:
    one = await stored(rig, *events(2_500, every=0.02), *events(2_500, "TWO", every=0.02), *events(5, at=3_000))
    stage = Stage(one)
    run = stage.runs.start(ReplaySpec(*MINUTE, speed=None))
    await stage.ended(run)
    assert stage.ids == order(rig)[:-5]
    assert (run.sent, run.total, run.progress) == (5_000, 5_000, 1.0)
    assert [kind for kind, _ in stage.told] == ["replay-started", "replay-ended"]
    assert stage.told[1][1] == {"runId": "R1", "sent": 5_000, "speed": "max", "state": "completed", "error": None}


async def test_of_some_streams_in_a_part_of_the_time(rig: Rig) -> None:
    one = await stored(rig, *events(60, every=1.0), *events(60, "TWO", every=1.0), *events(60, "THREE", every=1.0))
    stage = Stage(one)
    begin = making.SECOND + 10
    await stage.ended(stage.runs.start(ReplaySpec(begin, begin + 5, ("TWO", "ONE"), speed=None)))
    assert stage.ids == [f"{name}/{making.EPOCH}/{seq}" for seq in range(11, 16) for name in ("ONE", "TWO")]


async def test_of_nothing_is_completed_at_once(rig: Rig) -> None:
    stage = Stage(await rig.open())
    run = stage.runs.start(ReplaySpec(*MINUTE))
    await stage.ended(run)
    assert run.sent == 0 and stage.shown == []


@pytest.mark.parametrize("speed", [1.0, 4.0])
async def test_the_pace_is_that_of_the_events(rig: Rig, speed: float) -> None:
    one = await stored(rig, *events(200, every=0.02))
    stage = Stage(one)
    await stage.ended(stage.runs.start(ReplaySpec(*MINUTE, speed=speed)))
    first = stage.ticks[0]
    for number, tick in enumerate(stage.ticks):
        # None before its time, and whatever made some late makes none of those that follow late
        assert tick - first >= number * 0.02 / speed - 0.005
    assert stage.ticks[-1] - first < 199 * 0.02 / speed + 1.0


async def test_events_of_one_time_leave_together(rig: Rig) -> None:
    one = await stored(rig, *events(50, at=0.0), *events(50, first=51, at=0.3))
    stage = Stage(one)
    await stage.ended(stage.runs.start(ReplaySpec(*MINUTE)))
    assert stage.ticks[50] - stage.ticks[49] >= 0.29


async def test_a_pause_moves_what_is_left_by_its_length(rig: Rig) -> None:
    one = await stored(rig, *events(100, every=0.02))
    stage = Stage(one)
    run = stage.runs.start(ReplaySpec(*MINUTE))
    await until(lambda: run.sent >= 20)
    assert stage.runs.pause("R1").state == "paused" and stage.runs.pause("R1").state == "paused"
    await asyncio.sleep(0.1)
    sent = run.sent
    await asyncio.sleep(0.4)
    assert run.sent == sent
    stage.runs.resume("R1")
    stage.runs.resume("R1")
    await stage.ended(run)
    assert stage.ids == order(rig)
    gaps = [later - earlier for earlier, later in itertools.pairwise(stage.ticks)]
    # The rest is not hurried after
    assert sum(gap > 0.01 for gap in gaps[sent + 1 :]) > (99 - sent) * 0.7
    assert [kind for kind, _ in stage.told] == ["replay-started", "replay-paused", "replay-resumed", "replay-ended"]


@pytest.mark.parametrize("after", [0.0, 0.001, 0.05])
async def test_it_can_be_cancelled_at_any_moment(rig: Rig, after: float) -> None:
    one = await stored(rig, *events(1_000, every=0.02))
    stage = Stage(one)
    run = stage.runs.start(ReplaySpec(*MINUTE))
    await asyncio.sleep(after)
    assert (await stage.runs.cancel("R1")).state == "cancelled"
    sent = len(stage.shown)
    await asyncio.sleep(0.1)
    assert len(stage.shown) == sent and run.ended is not None
    assert (await stage.runs.cancel("R1")).state == "cancelled"
    for call in (stage.runs.pause, stage.runs.resume):
        with pytest.raises(errors.Conflict, match="cancelled"):
            call("R1")
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("replay-")]


async def test_a_paused_run_can_be_cancelled_and_all_end_with_the_daemon(rig: Rig) -> None:
    one = await stored(rig, *events(1_000, every=0.02))
    stage = Stage(one)
    runs = [stage.runs.start(ReplaySpec(*MINUTE)) for _ in range(replay.MAX_RUNNING)]
    with pytest.raises(errors.Overloaded):
        stage.runs.start(ReplaySpec(*MINUTE))
    stage.runs.pause("R1")
    await stage.runs.close()
    assert {run.state for run in runs} == {"cancelled"}
    assert [run.run_id for run in stage.runs.all()] == [f"R{n}" for n in range(8, 0, -1)]
    with pytest.raises(errors.UnknownName):
        stage.runs.get("R99")


async def test_readers_that_keep_reading_are_waited_for(rig: Rig) -> None:
    one = await stored(rig, *events(1_000))
    stage = Stage(one)
    stage.full = 0.3
    run = stage.runs.start(ReplaySpec(*MINUTE, speed=None))
    await until(lambda: len(stage.shown) == replay.PIECE)
    await asyncio.sleep(0.1)
    assert len(stage.shown) == replay.PIECE
    stage.full = 0.2
    await stage.ended(run)
    assert run.sent == 1_000


class TestTheDatabaseGoes:
    @pytest.fixture(autouse=True)
    def _soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pool, "CONNECT_SECONDS", 1.0)

    async def test_and_comes_back_in_the_middle(self, make_postgres: MakePostgres, tmp_path: pathlib.Path) -> None:
        cluster = make_postgres()
        rig = Rig(cluster.url(), tmp_path / "store")
        one = await stored(rig, *events(20_000, every=0.002))
        stage = Stage(one)
        run = stage.runs.start(ReplaySpec(*MINUTE, speed=20.0))
        await until(lambda: run.sent > 2_000)
        await asyncio.to_thread(cluster.kill)
        await until(lambda: run.reason != "")
        assert run.state == "running"
        await asyncio.to_thread(cluster.start)
        await stage.ended(run)
        assert stage.ids == order(rig)
        await rig.close()

    async def test_for_good(
        self, make_postgres: MakePostgres, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(replay, "PATIENCE", 1.0)
        cluster = make_postgres()
        rig = Rig(cluster.url(), tmp_path / "store")
        stage = Stage(await stored(rig, *events(20_000, every=0.002)))
        run = stage.runs.start(ReplaySpec(*MINUTE, speed=20.0))
        await until(lambda: run.sent > 1_000)
        await asyncio.to_thread(cluster.stop)
        await stage.ended(run, "failed")
        assert "no answer" in run.reason or "refused" in run.reason
        assert stage.told[-1][1]["error"] == run.reason and run.position is not None
        await rig.close()


class TestIntoTopics:
    """What Kafka does is a double here; tests/kafka has the real one."""

    async def test_without_kafka_it_is_refused(self, rig: Rig) -> None:
        with pytest.raises(errors.Conflict, match="KAFKA_BROKER"):
            Stage(await rig.open()).runs.start(ReplaySpec(*MINUTE, topics="copy"))

    async def test_a_cluster_that_is_away_for_a_moment_is_waited_for(self, rig: Rig) -> None:
        cluster = Cluster(fail=2)
        stage = Stage(await stored(rig, *events(1_000)), cluster.resend)
        run = stage.runs.start(ReplaySpec(*MINUTE, speed=None, topics={"ONE": "copy"}))
        await stage.ended(run)
        assert [event.id for event in cluster.taken] == order(rig) and stage.shown == []
        assert cluster.topics == [{"ONE": "copy"}] * 5

    async def test_what_is_refused_for_good_ends_it(self, rig: Rig) -> None:
        cluster = Cluster(fail=99, final=True)
        stage = Stage(await stored(rig, *events(10)), cluster.resend)
        run = stage.runs.start(ReplaySpec(*MINUTE, topics="copy"))
        await stage.ended(run, "failed")
        assert run.reason == "away"


class Cluster:
    def __init__(self, fail: int, final: bool = False) -> None:
        self.taken: list[Event] = []
        self.topics: list[str | Mapping[str, str]] = []
        self._fail, self._final = fail, final

    async def resend(self, topics: str | Mapping[str, str], some: Sequence[Event]) -> None:
        if self._fail:
            self._fail -= 1
            raise errors.BrokerError("away", len(some), final=self._final)
        self.topics.append(topics)
        self.taken += some
