"""What is recorded is in the table once, whatever the database, the disk or the process do meanwhile."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

import pytest

from regstream import errors, spec, store
from regstream.broker.kafka import consumer
from regstream.event import Event, Position
from regstream.store import audit, recorder, spooled_queue, writer
from tests.conftest import MakePostgres
from tests.store import making
from tests.store.making import Rig, events, kept, records, until

HOSTILE = (
    b'{"text":"a\\tb\\\\n\\"q\\"","other":"\\\\N"}',
    '{"text":"Zürich, 銀行 \U0001f3e6"}'.encode(),
    b'{"text":"\\u0000 is no character of theirs","n":[1,{"deep":null}]}',
    b'{\n\t"spaced" : "as others\\rwrite it"\r\n}',
)


class TestTheRow:
    async def test_is_the_event_byte_for_byte(self, rig: Rig) -> None:
        one = await rig.open()
        made = [
            event
            for seq, data in enumerate(HOSTILE, 1)
            for event in events(1, first=seq, key=f"k\t\\{seq}", data=lambda _, data=data: data)
        ]
        one.record(records(made))
        await kept(one)
        found = rig.rows("SELECT value, id, key, type, priority, region FROM regstream.events ORDER BY seq")
        assert [row[0].encode() for row in found] == [event.value for event in made]
        assert [row[1:] for row in found] == [(event.id, event.key, "one", "NORMAL", "LATAM") for event in made]

    async def test_can_be_asked_for_by_what_is_in_its_data(self, rig: Rig) -> None:
        one = await rig.open()
        one.record(records(events(20)))
        one.record(records(events(1, "TWO", data=lambda _: HOSTILE[2])))
        await kept(one)
        assert rig.rows("SELECT seq FROM regstream.events WHERE data ->> 'svpId' = 'SVP-003' ORDER BY seq") == [
            (3,), (10,), (17,)
        ]  # fmt: skip
        assert rig.rows("SELECT data ->> 'text' FROM regstream.events WHERE stream = 'TWO'") == [
            ("\ufffd is no character of theirs",)
        ]

    async def test_is_in_the_table_of_its_day(self, rig: Rig) -> None:
        one = await rig.open()
        for days in (-40, 0, 1, 400):
            one.record(records(events(1, f"S{days}".replace("-", "M"), at=days * 86400)))
        await kept(one)
        found = rig.rows("SELECT tableoid::regclass::text, time::date::text FROM regstream.events ORDER BY time")
        assert [(name.rpartition("_")[2], day.replace("-", "")) for name, day in found] == [
            (day, day) for day in ("20260214", "20260326", "20260327", "20270430")
        ]

    @pytest.mark.parametrize("key", ["\ud800", "nul\0", "", "\t"])
    async def test_a_key_of_any_text_does_not_hold_up_others(self, rig: Rig, key: str) -> None:
        one = await rig.open()
        one.record(records([*events(1, key=key), *events(1, first=2)]))
        await kept(one)
        assert rig.numbers() == [1, 2] and one.status.refused == 0


class TestTheCount:
    async def test_what_was_given_twice_is_there_once(self, rig: Rig) -> None:
        one = await rig.open()
        one.record(records(events(3)))
        await kept(one)
        one.record(records(events(5)))
        await kept(one)
        assert rig.numbers() == [1, 2, 3, 4, 5]
        assert one.status.recorded == 5

    @pytest.mark.parametrize(
        "bad",
        [
            b'{"number":1e400000}',
            b'{"text":"\\ud800"}',
            b'{"not":"json"',
        ],
    )  # fmt: skip
    async def test_an_event_that_no_row_can_hold_is_counted_and_named_and_holds_up_none(
        self, rig: Rig, bad: bytes
    ) -> None:
        one = await rig.open()
        some = [*events(2), *events(1, first=3, data=lambda _: bad), *events(2, first=4)]
        one.record(records(some))
        await kept(one)
        assert rig.numbers() == [1, 2, 4, 5]
        status = one.status
        assert (status.recorded, status.refused) == (4, 1) and status.refusal.startswith(some[2].id)

    async def test_what_is_double_and_what_is_bad_in_one_batch(self, rig: Rig) -> None:
        one = await rig.open()
        one.record(records(events(2)))
        await kept(one)
        bad = events(1, first=3, data=lambda _: b'{"number":1e400000}')
        one.record(records([*events(2), *bad, *events(2, first=4)]))
        await kept(one)
        assert rig.numbers() == [1, 2, 4, 5]
        assert (one.status.recorded, one.status.refused) == (4, 1)

    async def test_a_number_that_is_none_of_theirs_is_refused(self, rig: Rig) -> None:
        one = await rig.open(Topic([*events(1), *events(1, first=2**63), *events(1, first=2)]).source())
        await until(lambda: one.status.recorded == 2)
        assert rig.numbers() == [1, 2] and one.status.refused == 1

    @pytest.mark.parametrize("time", ["yesterday", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+14:00", ""])
    async def test_so_is_one_without_a_day(self, rig: Rig, time: str) -> None:
        one = await rig.open()
        (good,) = events(1)
        one.record(records([good._replace(head=good.head._replace(time=time), seq=2), good]))
        await kept(one)
        assert rig.numbers() == [1]
        assert one.status.refused == 1 and repr(time) in one.status.refusal

    async def test_a_name_that_is_too_long_for_an_index_is_refused(self, rig: Rig) -> None:
        one = await rig.open()
        # Compressed it might fit
        name = "".join(chr(0x4E00 + (number * 7919) % 20_000) for number in range(4_000))
        one.record(records([*events(1, name), *events(1)]))
        await kept(one)
        assert rig.numbers() == [1] and one.status.refused == 1

    async def test_many_at_once_and_more_than_are_held_in_memory(self, rig: Rig) -> None:
        one = await rig.open()
        count = spooled_queue.LIMIT + 5_000
        for first in range(1, count + 1, 500):
            one.record(records(events(500, first=first)))
        await kept(one)
        assert rig.numbers() == list(range(1, count + 1))
        one.record(records(events(10, first=count + 1)))
        await kept(one)
        assert rig.numbers()[-1] == count + 10 and one.status.dropped == {}


class TestTheDatabaseIsAway:
    async def test_at_the_start(self, make_postgres: MakePostgres, tmp_path: pathlib.Path) -> None:
        cluster = make_postgres()
        cluster.stop()
        rig = Rig(cluster.url(), tmp_path / "store")
        one = await rig.open()
        assert one.status.state == "away" and "refused" in one.status.reason and one.status.ailing
        one.record(records(events(10)))
        assert one.status.waiting == 10
        with pytest.raises(errors.StoreError, match="refused"):
            await one.settled()
        cluster.start()
        await kept(one)
        assert rig.numbers() == list(range(1, 11))
        assert [name for name, _ in rig.states] == ["away", "live"] and not one.status.ailing
        await rig.close()

    @pytest.mark.parametrize("how", ["kill", "stop"])
    async def test_killed_and_restarted_while_events_come(
        self, make_postgres: MakePostgres, tmp_path: pathlib.Path, how: str
    ) -> None:
        cluster = make_postgres()
        rig = Rig(cluster.url(), tmp_path / "store")
        one = await rig.open()
        done = asyncio.Event()
        writing = asyncio.create_task(write_until(one, done))
        for _ in range(4):
            before = one.status.recorded
            await until(lambda before=before: one.status.recorded > before + 500)
            await asyncio.to_thread(getattr(cluster, how))
            await until(lambda: one.status.state == "away")
            waiting = one.status.waiting
            await until(lambda waiting=waiting: one.status.waiting > waiting + 200)
            await asyncio.to_thread(cluster.start)
        done.set()
        count = await writing
        await kept(one)
        assert rig.numbers() == list(range(1, count + 1)) and one.status.dropped == {}
        await rig.close()

    async def test_frozen_is_away_and_then_goes_on(
        self, make_postgres: MakePostgres, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(recorder, "WRITE_SECONDS", 1.0)
        monkeypatch.setattr(recorder, "PING_SECONDS", 1.0)
        cluster = make_postgres()
        rig = Rig(cluster.url(), tmp_path / "store")
        one = await rig.open()
        done = asyncio.Event()
        writing = asyncio.create_task(write_until(one, done))
        await until(lambda: one.status.recorded > 500)
        cluster.freeze()
        await until(lambda: one.status.state == "away")
        waiting = one.status.waiting
        await until(lambda: one.status.waiting > waiting + 200)
        assert await one.history("ONE", Position(making.EPOCH, 1), 5) is None
        cluster.thaw()
        await until(lambda: one.status.state == "live")
        done.set()
        count = await writing
        await kept(one)
        assert rig.numbers() == list(range(1, count + 1))
        await rig.close()

    async def test_frozen_does_not_hold_up_the_end(self, make_postgres: MakePostgres, tmp_path: pathlib.Path) -> None:
        cluster = make_postgres()
        rig = Rig(cluster.url(), tmp_path / "store")
        one = await rig.open()
        cluster.freeze()
        one.record(records(events(2_000)))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(5.0):
            await one.close()
        cluster.thaw()
        again = await rig.open()
        await kept(again)
        assert rig.numbers() == list(range(1, 2_001))
        await rig.close()

    async def test_a_connection_that_is_cut_while_nothing_happens_is_noticed(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(recorder, "IDLE_SECONDS", 0.05)
        await rig.open()
        rig.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'regstream'")
        await until(lambda: [name for name, _ in rig.states] == ["live", "away", "live"])


class TestTheDatabaseIsSlow:
    async def test_it_is_given_less_until_it_can_keep_up(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(recorder, "WRITE_SECONDS", 1.0)
        rig.rows("CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
                 "'BEGIN PERFORM pg_sleep(0.001); RETURN new; END'")  # fmt: skip
        one = await rig.open()
        rig.rows("CREATE TRIGGER slow BEFORE INSERT ON regstream.events FOR EACH ROW EXECUTE FUNCTION slow()")
        # At once it would take five seconds
        one.record(records(events(4_000)))
        await until(lambda: rig.states[-1][0] == "away" or one.status.recorded == 4_000)
        await kept(one)
        assert rig.numbers() == list(range(1, 4_001)) and one.status.dropped == {}
        rig.rows("DROP TRIGGER slow ON regstream.events")
        for first in range(4_001, 40_001, 4_000):
            one.record(records(events(4_000, first=first)))
        await kept(one)
        assert len(rig.numbers()) == 40_000


class TestTheDiskIsFull:
    async def test_of_the_database(self, make_postgres: MakePostgres, tmp_path: pathlib.Path) -> None:
        cluster = make_postgres()
        cluster.stop()
        cluster.start(largest=4 * 2**20)
        rig = Rig(cluster.url(), tmp_path / "store")
        one = await rig.open()
        count = 0
        while one.status.state == "live":
            one.record(records(events(500, first=count + 1, data=lambda _: b'{"n":"%s"}' % (b"x" * 900))))
            count += 500
            await asyncio.sleep(0.01)
            assert count < 100_000
        await until(lambda: one.status.state == "away")
        assert "could not extend file" in one.status.reason and one.status.waiting
        one.record(records(events(500, first=count + 1)))
        cluster.stop()
        cluster.start()
        await kept(one)
        assert rig.numbers() == list(range(1, count + 501)) and one.status.dropped == {}
        await rig.close()

    async def test_of_ours_costs_what_is_counted(self, rig: Rig) -> None:
        rig.limit = 2 * 2**20
        one = await rig.open(url="postgresql://regstream@127.0.0.1:1/none")
        urgent = events(1_000, "URGENT", priority=spec.Priority.CRITICAL)
        for first in range(1, 20_001, 500):
            one.record(records(events(500, first=first, priority=spec.Priority.LOW)))
        one.record(records(urgent))
        dropped = dict(one.status.dropped)
        assert dropped["ONE"] > 5_000 and "URGENT" not in dropped
        await one.close()
        again = await rig.open()
        await kept(again)
        assert len(rig.numbers()) == 20_000 - dropped["ONE"]
        assert rig.numbers("URGENT") == list(range(1, 1_001))

    async def test_of_ours_costs_nothing_while_the_database_keeps_up(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = await rig.open()

        def fail(*_: Any) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.writev", fail)
        monkeypatch.setattr("os.write", fail)
        one.record(records(events(100)))
        await until(lambda: one.status.recorded == 100)
        assert "no space left on device: free space" in one.status.reason and one.status.dropped == {}
        monkeypatch.undo()
        one.record(records(events(1, first=101)))
        await until(lambda: one.status.recorded == 101)
        assert one.status.reason == ""


async def write_until(one: store.Store, done: asyncio.Event) -> int:
    """About 2,000 events a second; how many they were."""
    count = 0
    while not done.is_set():
        one.record(records(events(20, first=count + 1)))
        count += 20
        await asyncio.sleep(0.01)
    return count


class TestDays:
    async def test_without_a_limit_all_stay(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(recorder, "DAYS_SECONDS", 0.05)
        one = await rig.open()
        one.record(records(events(1, at=-4000 * 86400)))
        await kept(one)
        for seq in (2, 3):
            one.record(records(events(1, first=seq)))
            await kept(one)
        assert rig.numbers() == [1, 2, 3]


class TestNotes:
    CONTROL = audit.Control(making.SECOND, "anonymous", "127.0.0.1", "patch", "/x", {"interval": 5}, 200, [1], None)

    async def test_a_control_call_is_a_row_even_if_the_database_comes_later(self, rig: Rig) -> None:
        one = await rig.open(url="postgresql://regstream@127.0.0.1:1/none")
        one.note(self.CONTROL)
        one.note(self.CONTROL._replace(status=404, request=None))
        await one.close()
        again = await rig.open()
        again.note(self.CONTROL._replace(action="reload"))
        await kept(again)
        found = rig.rows(
            "SELECT extract(epoch FROM at)::float, actor, address, action, target, request, status, before, after "
            "FROM regstream.audit ORDER BY id"
        )
        assert [audit.Control(*row) for row in found] == [
            self.CONTROL,
            self.CONTROL._replace(status=404, request=None),
            self.CONTROL._replace(action="reload"),
        ]

    async def test_rows_of_entities_are_as_they_were_last(self, rig: Rig) -> None:
        one = await rig.open()
        for spend in range(1, 500):
            one.memory.keep({"svp": {"SVP-003": {"spend": spend}}})
        one.memory.keep({"svp": {"SVP-004": {"spend": 7}}, "project": {"P": {"open": False}}})
        await kept(one)
        assert rig.rows("SELECT entity, key, state FROM regstream.entities ORDER BY 1, 2") == [
            ("project", "P", {"open": False}),
            ("svp", "SVP-003", {"spend": 499}),
            ("svp", "SVP-004", {"spend": 7}),
        ]


class TestSettled:
    async def test_is_true_when_the_table_has_it(self, rig: Rig) -> None:
        one = await rig.open()
        for first in range(1, 2_000, 100):
            one.record(records(events(100, first=first)))
            assert await one.settled(making.BOUND)
            assert rig.count == first + 99


class TestWithTopics:
    """The log is a double here; tests/kafka has the real one."""

    async def test_rows_and_offsets_are_one_transaction(self, rig: Rig) -> None:
        topic = Topic(events(5_000))
        one = await rig.open(topic.source())
        await until(lambda: one.status.recorded == 5_000)
        assert rig.rows('SELECT topic, "partition", next FROM regstream.offsets') == [("t.one", 0, 5_000)]
        await one.close()
        topic.events += events(10, first=5_001)
        again = await rig.open(topic.source())
        await until(lambda: again.status.recorded == 10)
        assert rig.numbers() == list(range(1, 5_011)) and topic.starts == [{}, {("t.one", 0): 5_000}]

    async def test_what_is_shown_is_not_recorded_by_another_way(self, rig: Rig) -> None:
        topic = Topic(events(10))
        one = await rig.open(topic.source())
        one.record(records(events(10)))
        assert await one.settled(making.BOUND)
        assert rig.numbers() == list(range(1, 11)) and one.status.waiting == 0
        one.record(records(events(1, first=11)))
        assert not await one.settled(0.2)

    async def test_a_broker_that_is_away_is_said_and_notes_go_on(self, rig: Rig) -> None:
        topic = Topic(events(10))
        topic.fault = errors.BrokerError("nobody there")
        one = await rig.open(topic.source())
        await until(lambda: one.status.reason == "nobody there")
        assert one.status.state == "live" and one.status.ailing
        one.note(TestNotes.CONTROL)
        await kept(one)
        topic.fault = None
        await until(lambda: one.status.recorded == 10)
        assert one.status.reason == ""

    async def test_what_is_gone_from_a_topic_is_counted(self, rig: Rig) -> None:
        topic = Topic(events(10, first=91))
        topic.lost = {("t.one", 0): 90}
        one = await rig.open(topic.source())
        await until(lambda: one.status.lost == 90)

    async def test_one_reads_and_others_stand_by_until_it_is_gone(
        self, rig: Rig, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(recorder, "IDLE_SECONDS", 0.05)
        monkeypatch.setattr(recorder, "LOCK_SECONDS", 0.2)
        topic = Topic(events(100))
        other = Rig(rig.url, tmp_path / "other")
        one = await rig.open(topic.source())
        two = await other.open(topic.source())
        assert (one.status.state, two.status.state) == ("live", "standby") and not two.status.ailing
        two.note(TestNotes.CONTROL)
        await kept(two)
        await until(lambda: one.status.recorded == 100)
        await one.close()
        topic.events += events(5, first=101)
        await until(lambda: two.status.state == "live" and two.status.recorded == 5)
        assert rig.numbers() == list(range(1, 106))
        await other.close()


class Topic:
    """A partition as ``kafka.log.Log`` gives it, several at a time."""

    def __init__(self, some: list[Event]) -> None:
        self.events = some
        self.starts: list[dict[writer.Place, int]] = []
        self.lost: dict[writer.Place, int] = {}
        self.fault: errors.BrokerError | None = None

    def source(self) -> store.Source:
        return store.Source(self._open, lambda: ["t.one"])

    def _open(self, starts: Any) -> _Log:
        self.starts.append(dict(starts))
        return _Log(self, starts.get(("t.one", 0), 0))


class _Log:
    foreign = 0
    denied: dict[str, str] = {}

    def __init__(self, topic: Topic, offset: int) -> None:
        self._topic, self._next = topic, offset

    @property
    def lag(self) -> int:
        return len(self._topic.events) - self._next

    async def start(self) -> None:
        if self._topic.fault:
            raise self._topic.fault

    def follow(self, topics: Any) -> None:
        assert list(topics) == ["t.one"]

    async def fetch(self, limit: int, seconds: float) -> consumer.FetchedRecords:
        found = self._topic.events[self._next : self._next + min(limit, 700)]
        self._next += len(found)
        if not found:
            await asyncio.sleep(0.01)
            return consumer.FetchedRecords([], {}, {})
        lost, self._topic.lost = self._topic.lost, {}
        return consumer.FetchedRecords(records(found), {("t.one", 0): self._next}, lost)

    async def close(self) -> None:
        return
