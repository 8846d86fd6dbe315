import asyncio
import itertools
import logging
import time

import pytest

from regstream import schedule, spec
from regstream.schedule import clock

T = 1_700_000_000.0


class Hands:
    """A clock with hands that a test moves: wall time, and the steady time that it is held against."""

    def __init__(self, steady: bool = True):
        self.wall = T
        self.even = 50.0
        self.fired: list[tuple[str, float, int]] = []
        self.jumps: list[float] = []
        self.clock = schedule.Clock(
            lambda: self.wall,
            lambda name, due, skipped: self.fired.append((name, round(due - T, 6), skipped)),
            self.jumps.append,
            (lambda: self.even) if steady else None,
        )

    def turn(self, seconds: float = 0.0) -> list[tuple[str, float, int]]:
        self.wall += seconds
        self.even += seconds
        self.fired.clear()
        self.clock.turn()
        return list(self.fired)


@pytest.fixture
def hands() -> Hands:
    return Hands()


def every(ms: float = 1000, start: float = T, jitter: float = 0.0) -> schedule.Schedule:
    return schedule.Schedule.interval(ms, start, jitter, 7, "A")


def test_what_is_due_is_fired_in_the_order_of_its_time(hands: Hands):
    hands.clock.set("B", every(1000, T + 0.2))
    hands.clock.set("A", every(1000, T + 0.1))
    assert hands.turn(0.05) == []
    assert hands.turn(0.2) == [("A", 0.1, 0), ("B", 0.2, 0)]
    assert hands.turn(0.5) == []
    assert (hands.clock.next("A"), hands.clock.next("B")) == (T + 1.1, T + 1.2)


def test_after_a_stall_each_is_fired_once_and_the_rest_is_counted(hands: Hands):
    hands.clock.set("A", every(100))
    assert hands.turn() == [("A", 0, 0)]
    assert hands.turn(1.55) == [("A", 0.1, 14)]
    assert hands.turn(0.06) == [("A", 1.6, 0)]


def test_after_a_stall_points_of_a_rate_are_fired_each_unless_they_are_old(hands: Hands):
    rate = spec.RateSpec(base="50/s")
    points = schedule.Arrivals.declared(rate, "UTC", 1.0, seed=7, name="A")
    hands.clock.set("A", points)
    hands.turn()
    for stall, skips in ((1.5, False), (6.0, True), (0.02, False), (0.5, False)):
        begin = hands.wall
        fired = hands.turn(stall)
        wanted = [round(point - T, 6) for point in points.between(begin, hands.wall)]
        told = [due for _, due, _ in fired]
        missed = sum(skipped for *_, skipped in fired)
        assert (missed > 0) == skips
        assert len(told) + missed == len(wanted)
        assert told == sorted(told) and set(told) <= set(wanted)
        assert set(told[1:]) == {due for due in wanted if due > hands.wall - T - 2.0} - set(told[:1])


def test_a_changed_interval_takes_effect_at_once(hands: Hands):
    hands.clock.set("A", every(3_600_000))
    hands.turn()
    hands.turn(10)
    hands.clock.set("A", every(1000))
    assert hands.clock.next("A") == T + 10
    assert hands.turn(0.5) == [("A", 10, 0)]


def test_setting_the_same_again_neither_loses_nor_doubles_a_tick(hands: Hands):
    hands.clock.set("A", every())
    assert hands.turn() == [("A", 0, 0)]
    hands.clock.set("A", every())
    assert hands.turn() == []
    assert hands.clock.next("A") == T + 1
    hands.wall += 1.2
    hands.even += 1.2
    hands.clock.set("A", every())
    assert hands.turn() == [("A", 1, 0)]


def test_a_tick_that_waits_survives_a_change_and_old_points_of_the_new_do_not_count(hands: Hands):
    hands.clock.set("A", every())
    hands.turn()
    hands.wall += 1.5
    hands.even += 1.5
    hands.clock.set("A", every(10))
    assert hands.turn() == [("A", 1, 0)]
    assert hands.clock.next("A") == T + 1.51


def test_what_is_removed_is_silent_and_comes_back_in_phase(hands: Hands):
    hands.clock.set("A", every())
    hands.turn()
    hands.clock.remove("A")
    hands.clock.remove("A")
    assert hands.turn(5.5) == []
    assert hands.clock.next("A") is None
    hands.clock.set("A", every())
    assert hands.turn(0.5) == [("A", 6, 0)]


def test_what_never_comes_is_never_fired(hands: Hands):
    hands.clock.set("A", schedule.Schedule.cron("0 0 31 2 *", "UTC"))
    assert hands.clock.next("A") is None
    assert hands.turn(1e9) == []


def test_a_pause_is_silent_and_what_it_missed_is_not_counted(hands: Hands):
    called = []
    hands.clock.set("A", every())
    hands.turn()
    hands.clock.pause()
    hands.clock.wake("run", T + 2, lambda: called.append(hands.wall))
    assert hands.turn(10.5) == [] and hands.clock.paused
    hands.clock.resume()
    assert not hands.clock.paused
    assert hands.turn() == []
    assert called == [T + 10.5]
    assert hands.turn(0.6) == [("A", 11, 0)]


def test_a_pause_from_within_stops_the_turn(hands: Hands):
    hands.clock.set("A", every())
    hands.clock.set("B", every())
    hands.clock.wake("stop", T, hands.clock.pause)
    assert len(hands.turn()) <= 2
    assert hands.turn(10) == []


def test_a_wake_is_called_once_and_not_early(hands: Hands):
    called = []
    hands.clock.wake("run", T + 1, lambda: called.append("first"))
    hands.clock.wake("run", T + 2, lambda: called.append("second"))
    hands.clock.wake("other", T + 2, lambda: called.append("other"))
    hands.clock.cancel("other")
    hands.clock.cancel("other")
    hands.turn(1.5)
    assert called == []
    hands.turn(1)
    hands.turn(1)
    assert called == ["second"]


def test_a_wake_that_wakes_itself_for_the_past_holds_up_nobody(hands: Hands):
    calls = []

    def again() -> None:
        calls.append(hands.wall)
        hands.clock.wake("run", T - 100, again)

    hands.clock.wake("run", T - 100, again)
    hands.clock.set("A", every())
    assert hands.turn() == [("A", 0, 0)]
    assert len(calls) == 1
    assert hands.turn(1) == [("A", 1, 0)]
    assert len(calls) == 2


def test_a_callback_may_change_the_clock(hands: Hands):
    fired = []

    def fire(name: str, due: float, skipped: int) -> None:
        fired.append(name)
        hands.clock.remove("A")
        hands.clock.set("C", every(start=T + 5))

    hands.clock._fire = fire
    hands.clock.set("A", every())
    hands.turn()
    assert hands.clock.next("A") is None
    hands.turn(4.9)
    assert fired == ["A"]
    hands.turn(0.1)
    assert fired == ["A", "C"]


def test_a_turn_fires_a_bounded_number_and_asks_to_be_called_again(hands: Hands):
    for number in range(clock.MAX_FIRES + 50):
        hands.clock.set(f"S{number}", every())
    assert hands.clock.turn() == 0
    assert len(hands.fired) == clock.MAX_FIRES
    assert hands.clock.turn() > 0
    assert len({name for name, _, _ in hands.fired}) == len(hands.fired) == clock.MAX_FIRES + 50


def test_the_wait_is_bounded_on_both_sides(hands: Hands):
    assert hands.clock.turn() == clock.MAX_SLEEP
    hands.clock.set("A", every(3_600_000, T + 3600))
    assert hands.clock.turn() == clock.MAX_SLEEP
    hands.clock.set("B", every(1000, T + 1))
    assert hands.clock.turn() == 1
    hands.clock.set("C", every(0.001))
    assert clock.LEAST <= hands.clock.turn() <= clock.QUANTUM


def test_thousands_of_changes_do_not_grow_the_heap(hands: Hands):
    for number in range(5000):
        hands.clock.set("A", every(1000 + number, T + 1))
        hands.clock.wake("run", T + 1, lambda: None)
    assert len(hands.clock._heap) < 200


@pytest.mark.parametrize("jump", [-3600, 3600, -2.5, 2.5, -1e9])
@pytest.mark.parametrize("jitter", [0.0, 0.9])
def test_when_the_system_clock_is_set_intervals_keep_their_distance(
    hands: Hands, jump: float, jitter: float, caplog: pytest.LogCaptureFixture
):
    still = Hands()
    for one in (hands, still):
        one.clock.set("A", every(5000, jitter=jitter))
        one.turn(7)
    hands.wall += jump
    seen = [(hands.turn(0.137), still.turn(0.137)) for _ in range(190)]
    for mine, theirs in seen:
        assert [(name, pytest.approx(due - jump, abs=1e-5), skipped) for name, due, skipped in mine] == theirs
    assert sum(len(mine) for mine, _ in seen) in (5, 6)
    assert hands.jumps == [pytest.approx(jump)]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_wake_keeps_its_distance_too(hands: Hands):
    called = []
    hands.clock.wake("run", T + 5, lambda: called.append(hands.even))
    hands.turn(1)
    hands.wall -= 3600
    for _ in range(10):
        hands.turn(1)
    assert called == [55.0]


def test_small_steps_of_the_system_clock_are_taken_as_they_come(hands: Hands, caplog: pytest.LogCaptureFixture):
    hands.clock.set("A", every())
    hands.turn()
    for _ in range(10):
        hands.wall += 0.9
        hands.turn(0.1)
    assert hands.jumps == [] and not caplog.records
    assert hands.clock.next("A") == T + 11


def test_what_follows_the_wall_clock_goes_by_its_new_time(hands: Hands):
    minute = T - T % 60 + 60
    hands.clock.set("A", schedule.Schedule.cron("* * * * *", "UTC"))
    hands.turn(minute - T)
    assert hands.fired == [("A", minute - T, 0)]
    hands.wall += 600
    assert hands.turn(1) == [("A", minute + 60 - T, 9)]
    hands.wall -= 7200
    assert hands.turn(1) == []
    assert hands.clock.next("A") == minute + 660 - 7200


def test_without_a_steady_time_a_jump_is_a_stall():
    hands = Hands(steady=False)
    hands.clock.set("A", every())
    hands.turn()
    assert hands.turn(3600) == [("A", 1, 3599)]


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def running():
    """A clock that runs in the test's loop; ``fired`` holds (name, due, lateness, skipped)."""
    fired: list[tuple[str, float, float, int]] = []

    def fire(name: str, due: float, skipped: int) -> None:
        fired.append((name, due, time.time() - due, skipped))

    made = schedule.Clock(time.time, fire)
    task = asyncio.create_task(made.run(), name="clock")
    yield made, fired
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_run_fires_every_point_once_and_never_early(running):
    made, fired = running
    start = time.time() + 0.05
    made.set("A", every(20, start, 0.5))
    await until(lambda: len(fired) >= 20)
    made.remove("A")
    known = [start - 1]
    while known[-1] < fired[-1][1]:
        known.append(every(20, start, 0.5).after(known[-1], known[-1])[0])
    places = [known.index(due) for _, due, _, _ in fired]
    assert places[0] == 1
    for (before, place), (_, _, late, skipped) in zip(itertools.pairwise(places), fired, strict=False):
        assert place == before + 1 + skipped
        assert late >= 0


async def test_run_wakes_early_for_what_is_set_later(running):
    made, fired = running
    await asyncio.sleep(0)
    called = asyncio.Event()
    made.set("A", every(1, time.time()))
    made.wake("run", time.time() + 0.01, called.set)
    async with asyncio.timeout(4):
        await called.wait()
    await until(lambda: fired)


async def test_run_leaves_every_other_task_its_turn(running):
    made, fired = running
    for number in range(1000):
        made.set(f"S{number}", every(0.01, time.time()))
    turns = 0
    while len(fired) < 20_000:
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 20_000 / clock.MAX_FIRES - 2


async def test_run_goes_on_after_a_pause(running):
    made, fired = running
    made.set("A", every(10, time.time()))
    await until(lambda: fired)
    made.pause()
    count = len(fired)
    await asyncio.sleep(0.05)
    assert len(fired) == count
    made.resume()
    await until(lambda: len(fired) > count)


async def test_what_fire_raises_ends_run():
    def fire(name: str, due: float, skipped: int) -> None:
        raise ZeroDivisionError

    made = schedule.Clock(time.time, fire)
    made.set("A", every(1, time.time()))
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(made.run(), 10)
