"""Coming back for more than a ring holds: hub, recorder and table in every order in which they may come to act."""

from __future__ import annotations

import asyncio
import collections
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from regstream import errors, hub, store
from regstream.broker import spool
from regstream.event import Event, Position
from regstream.hub import ring
from regstream.server import resume
from regstream.store import pool, recorder, writer
from tests import profiles
from tests.store import making

NAMES = ("ONE", "TWO")
RING, PAGE = 6, 4


class Table:
    """What the archive reads. A page is of the moment in which it was asked for, and comes when it is let."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[int, Event]] = collections.defaultdict(dict)
        self.deleted: dict[str, int] = collections.Counter()
        self.asked: list[asyncio.Future[None]] = []
        self.faults = 0

    async def run(self, stream: str, after: Position, limit: int) -> list[Event]:
        numbers = sorted(seq for seq in self.rows[stream] if seq > after.seq)[:limit]
        found = [self.rows[stream][seq] for seq in numbers]
        self.asked.append(asyncio.get_running_loop().create_future())
        await self.asked[-1]
        if self.faults:
            self.faults -= 1
            raise errors.StoreError("no answer within 3 s", lost=True)
        return found

    def let(self) -> None:
        """Answer the one that waits for longest."""
        while self.asked:
            waiting = self.asked.pop(0)
            if not waiting.done():
                waiting.set_result(None)
                return


class Recorder:
    """Writes what the store took in, or what is on topics, when it is told to."""

    def __init__(self, rows: Table) -> None:
        self.state, self.counts, self.source_reason = recorder.RecorderState("live"), recorder.RecorderCounts(), ""
        self.topic: collections.deque[Event] = collections.deque()
        self._rows, self._moved = rows, asyncio.Event()

    async def moved(self) -> None:
        await self._moved.wait()

    def write(self, some: list[Event]) -> None:
        for event in some:
            self._rows.rows[event.head.stream][event.seq] = event
        self.counts.add(writer.Written(len(some), 0, "", {one.head.stream: one.position for one in some}))
        self._moved.set()
        self._moved = asyncio.Event()


class Reader:
    """One who comes back; ``answer`` once it was confirmed, and ``seen`` what it was sent."""

    def __init__(self, world: World, after: Mapping[str, Position]) -> None:
        self.after, self.answer = after, dict[str, hub.Subscribed]()
        self.made_before = dict(world.made)
        self.deleted_before = dict(world.rows.deleted)
        self.made_until = dict(world.made)
        self._world = world
        self.queue = hub.Subscriber(lambda: None)
        request = hub.SubscriptionRequest(list(after), after)
        work = resume.join(world.hub, world.store.history, self.queue, request, self._confirm)
        self.task = asyncio.create_task(work)

    def _confirm(self, answer: Mapping[str, hub.Subscribed]) -> None:
        self.answer, self.made_until = dict(answer), dict(self._world.made)

    def check(self) -> None:
        seen: dict[str, list[int]] = collections.defaultdict(list)
        for entry in self.queue.take(10**6, 10**9):
            assert entry.head is not None
            seen[entry.head.stream].append(entry.seq)
        for name, after in self.after.items():
            told = self.answer[name]
            begin = after.seq if told.recovered else told.seq
            assert told.replayed == (told.seq - after.seq if told.recovered else 0), name
            # Whole, in order and each once, or nothing of it
            assert seen[name] == list(range(begin + 1, self._world.made[name] + 1)), (name, told)
            moved = self.made_until[name] - self.made_before[name]
            has_all = self._world.rows.deleted[name] <= after.seq
            if has_all and moved <= (ring.PINNED - 1) * RING:
                assert told.recovered, f"{name}: the table has all behind {after.seq}, and it was told {told}"


class World:
    """A hub with short rings, and a store whose recorder and table act when they are told to."""

    def __init__(self, folder: pathlib.Path, with_topics: bool) -> None:
        self.hub = hub.Hub(lambda: 0.0, RING, 10**9)
        self.rows = Table()
        self.recorder = Recorder(self.rows)
        self.made = dict.fromkeys(NAMES, 0)
        self.readers: list[Reader] = []
        source = store.Source(lambda _: pytest.fail("no topics here"), tuple) if with_topics else None
        moments = store.Moments(lambda: 0.0, lambda: 0.0)
        url = "postgresql://nowhere.invalid"
        self.store: Any = store.Store(
            pool.Database(url), spool.Spool(folder), source, moments, "E1", None, lambda *_: None
        )
        self.store.archive, self.store._recorder = self.rows, self.recorder
        self.store._intake.open()
        self._with_topics = with_topics
        for name in NAMES:
            self.hub.declare(name, name.lower(), Position(making.EPOCH, 0))

    def make(self, name: str, count: int) -> None:
        some = making.events(count, name, self.made[name] + 1)
        self.made[name] += count
        self.store.record(making.records(some))
        self.recorder.topic.extend(some if self._with_topics else ())
        for event in some:
            self.hub.broadcast(event)

    def flush(self, count: int) -> None:
        if self._with_topics:
            self.recorder.write([self.recorder.topic.popleft() for _ in range(min(count, len(self.recorder.topic)))])
        elif (chunk := self.store._intake.take(count)) is not None:
            self.recorder.write(chunk.events)
            self.store._intake.acknowledge(chunk.upto)

    def delete(self, name: str, count: int) -> None:
        """Retention takes the oldest."""
        for seq in sorted(self.rows.rows[name])[:count]:
            del self.rows.rows[name][seq]
            self.rows.deleted[name] = max(seq, self.rows.deleted[name])

    def come_back(self, names: tuple[str, ...], missed: int) -> None:
        after = {name: Position(making.EPOCH, max(0, self.made[name] - missed)) for name in names}
        self.readers.append(Reader(self, after))

    def fault(self) -> None:
        self.rows.faults += 1

    async def settle(self) -> None:
        for _ in range(8):
            await asyncio.sleep(0)

    async def end(self) -> None:
        """Write and answer everything, and look at what came of it."""
        async with asyncio.timeout(making.BOUND):
            while not all(one.task.done() for one in self.readers):
                self.flush(100)
                self.rows.let()
                await asyncio.sleep(0.0002)
        for one in self.readers:
            one.task.result()
            one.check()
        for name in NAMES:
            # Whatever was held for them is let go of
            assert len(self.hub._streams[name].ring) <= RING
        self.store._intake.close()


names = st.sampled_from(NAMES)
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("make"), names, st.integers(1, 12)),
        st.tuples(st.just("flush"), st.integers(1, 12)),
        st.tuples(st.just("let")),
        st.tuples(st.just("come_back"), st.sampled_from([*((one,) for one in NAMES), NAMES]), st.integers(0, 60)),
        st.tuples(st.just("delete"), names, st.integers(1, 20)),
        st.tuples(st.just("fault")),
    ),
    max_size=40,
)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regstream.store.store.PAGE", PAGE)
    monkeypatch.setattr("regstream.store.store.POLL_SECONDS", 0.001)


async def played(acts: list[tuple[Any, ...]], with_topics: bool) -> World:
    with tempfile.TemporaryDirectory() as folder:
        world = World(pathlib.Path(folder), with_topics)
        does: dict[str, Callable[..., None]] = {
            **{name: getattr(world, name) for name in ("make", "flush", "come_back", "delete", "fault")},
            "let": world.rows.let,
        }
        for act, *details in acts:
            does[act](*details)
            await world.settle()
        await world.end()
        return world


@pytest.mark.usefixtures("brief")
@hypothesis.settings(
    max_examples=profiles.examples(60), suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(ACTS, st.booleans())
def test_who_comes_back_gets_all_of_it_once_and_in_order(acts: list[tuple[Any, ...]], with_topics: bool) -> None:
    asyncio.run(played([("make", "ONE", 40), ("make", "TWO", 9), *acts], with_topics))


AWAY = [("make", "ONE", 40), ("flush", 40), ("come_back", ("ONE",), 30)]


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("with_topics", [False, True], ids=["simulation", "topics"])
@pytest.mark.parametrize(
    "acts",
    [
        [*AWAY, ("make", "ONE", 1)],
        [*AWAY, *[("make", "ONE", 4), ("flush", 4), ("let",)] * 9],
        [("make", "ONE", 40), ("come_back", ("ONE",), 30), ("make", "ONE", 20), ("flush", 5), ("let",), ("flush", 9)],
        [AWAY[0], ("flush", 20), AWAY[2], *[("make", "ONE", 4), ("flush", 4), ("let",), ("let",)] * 40],
        [*AWAY, ("fault",), ("let",), ("make", "ONE", 3), ("fault",), ("let",)],
        [*AWAY, ("let",), ("come_back", ("ONE", "TWO"), 38), ("make", "ONE", 30), ("let",)],
    ],
    ids=[
        "one more",
        "the ring moves with each page",
        "a late recorder",
        "one that stays late",
        "faults on the way",
        "two at a time",
    ],
)
async def test_a_ring_does_not_move_away_from_what_is_read(acts: list[tuple[Any, ...]], with_topics: bool) -> None:
    world = await played(acts, with_topics)
    assert [told.recovered for one in world.readers for told in one.answer.values()] == [True] * sum(
        len(one.after) for one in world.readers
    )


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("with_topics", [False, True], ids=["simulation", "topics"])
async def test_what_the_table_has_not_is_said_at_once(with_topics: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regstream.store.store.HISTORY_SECONDS", 10 * making.BOUND)
    world = await played([("make", "ONE", 40), ("flush", 40), ("delete", "ONE", 20), AWAY[-1]], with_topics)
    assert not world.readers[0].answer["ONE"].recovered
