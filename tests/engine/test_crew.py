"""A past made by several processes: the same to the byte as by one, and no process is left, whoever ends how."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from collections.abc import Iterator, Sequence

import pytest

from regstream import errors, spec
from regstream.engine import active_stream, backfill
from regstream.event import Event, rfc3339
from regstream.generator import stream as streams
from tests.engine.test_history import BEGIN, FIELDS, WHOLE, lanes_of, specs
from tests.generate import support

END = BEGIN + 6 * 3600


def ordered(events: Sequence[Event], most: int = backfill.MOST_HELD) -> list[Event]:
    order: backfill.TimeOrder[Event] = backfill.TimeOrder(lanes_of(specs()), most)
    return order.put([(order.key(event), event) for event in events], None)


IN_TIME = [event.value for event in ordered(WHOLE)]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Windows of few events, so that there are many; and nobody is left."""
    monkeypatch.setattr(backfill, "WINDOW", 500)
    yield
    assert multiprocessing.active_children() == []


def judge(_: active_stream.ActiveStream, batch: streams.Batch, at: float) -> None:
    if batch.error is not None:
        raise batch.error


def working(
    jobs: int, declared: Sequence[spec.StreamSpec] | None = None, wanted: Sequence[str] | None = None
) -> backfill.BackfillPool:
    alerts = streams.Stream(support.stream_spec({"message": ""}, spec.ALERTS), support.workshop(), "E")
    return backfill.BackfillPool(lanes_of(declared or specs()), alerts, BEGIN, jobs, judge, wanted)


def made(one: backfill.BackfillPool) -> list[bytes]:
    with one as several:
        assert several is not None
        lines = list(several.until(END))
    text = b"".join(part.text for part in lines)
    found = text.splitlines()
    assert [part.text.count(b"\n") for part in lines] == [part.number for part in lines]
    assert len(lines) > 20
    assert one.at == END
    return found


@pytest.mark.parametrize("jobs", [2, 3, 50])
def test_it_is_that_of_one_process(jobs):
    assert made(working(jobs)) == IN_TIME


@pytest.mark.parametrize("wanted", [("EVEN",), ("TELLER", "RATED"), (spec.ALERTS,), ("SHAKEN", spec.ALERTS)])
def test_a_part_is_that_part_of_all(wanted):
    expected = [event.value for event in ordered(WHOLE) if event.head.stream in wanted]
    assert made(working(3, wanted=wanted)) == expected != []


def test_no_more_is_held_than_allowed_and_what_is_held_comes_in_order():
    order: backfill.TimeOrder[int] = backfill.TimeOrder([], 10)
    begin = [order.put([(rfc3339(BEGIN + number), number)], BEGIN) for number in range(10)]
    assert begin == [[0], *[[]] * 9]
    assert order.put([(rfc3339(BEGIN + 0.5), -1), (rfc3339(BEGIN + 10), 10)], BEGIN) == [-1, 1, 2, 3, 4]
    assert order.put([], BEGIN + 6) == [5, 6]
    assert order.put([(rfc3339(BEGIN + 6.5), -2)], None) == [-2, 7, 8, 9, 10]


def test_one_unit_is_not_shared_out():
    sharing = [one for one in specs() if one.name in ("TELLER", "CLERK")]
    for some, jobs in ((sharing, 4), (specs(), 1), (specs()[:1], None)):
        with working(jobs, some) as several:
            assert several is None


def test_the_work_is_shared_out_evenly():
    declared = [support.stream_spec(FIELDS, f"S{number}", interval=f"{number + 1}s") for number in range(20)]
    parts = backfill._shared(lanes_of(declared), 3)
    weights = [sum(1 / int(one.name[1:]) if one.name != "S0" else 1 for one in part) for part in parts]
    assert sorted(one.name for part in parts for one in part) == sorted(one.name for one in declared)
    assert max(weights) < 1.6 * min(weights)


def test_a_fault_is_raised_here():
    faulty = support.stream_spec({"n": "{{ 1 // (seq - 300) }}"}, "FAULTY", interval="9s")
    with pytest.raises(errors.RenderError) as raised:
        made(working(3, [*specs(), faulty]))
    assert (raised.value.stream, raised.value.field) == ("FAULTY", "fields.n")
    assert "ZeroDivisionError" in raised.value.cause


@pytest.mark.parametrize("before", [0, 3])
def test_a_process_that_is_killed_is_told_of(before):
    with pytest.raises(errors.Conflict, match=r"ended with code -9.*--jobs 1"), working(3) as several:
        assert several is not None
        parts = several.until(END)
        for _ in range(before):
            next(parts)
        pid = several._workers[1].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        list(parts)


def test_what_the_system_does_not_give_is_named():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_ = os.dup(0)
    os.close(next_)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_ + 6, hard))
    try:
        with pytest.raises(errors.Conflict, match="--jobs 1 needs none: Too many open files"), working(6):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_windows_settle_though_others_are_under_way():
    windows = backfill.BackfillWindows(BEGIN, 500)
    upto = windows.upto(END)
    asked, sizes = [next(upto), next(upto)], []
    for _ in range(60):
        start, end = asked.pop(0)
        sizes.append(round(3 * (end - start)))
        windows.adapt((start, end), sizes[-1])
        asked.append(next(upto))
    assert all(450 <= size <= 550 for size in sizes[-40:])


def test_who_stops_in_the_middle_leaves_nobody():
    with working(3) as several:
        assert several is not None
        next(several.until(END))
        assert len(multiprocessing.active_children()) == 3
