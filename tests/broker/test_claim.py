"""The rule by which one of several daemons may generate."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regstream import errors
from regstream.broker import leader
from regstream.event import Position

LEASE = leader.LEASE_SECONDS
A, B = (leader.Claim(name, f"server-{name}", "2026-01-01T00:00:00.000Z", frozenset({"t", name})) for name in "ab")
ELSEWHERE = dataclasses.replace(B, topics=frozenset({"u"}))


def released(one: leader.Claim, **positions: int) -> leader.Claim:
    stood = {name: Position("E", seq) for name, seq in positions.items()}
    return dataclasses.replace(one, released=True, positions=stood)


def ledger(*records: tuple[leader.Claim, float]) -> leader.ClaimLog:
    made = leader.ClaimLog()
    for one, at in records:
        made.take(one, at)
    return made


@pytest.mark.parametrize(
    ("records", "holders"),
    [
        ([(A, 0), (B, 0)], [A]),
        ([(A, 0), (ELSEWHERE, 0)], [A, ELSEWHERE]),
        ([(A, 0), (B, LEASE - 0.1)], [A]),
        ([(A, 0), (A, 5), (B, LEASE)], [A]),
        ([(A, 0), (B, LEASE)], [B]),
        ([(A, 0), (B, LEASE), (A, LEASE + 1)], [B]),
        ([(A, 0), (A, 3 * LEASE)], [A]),
        ([(A, 0), (released(A), 1), (B, 1)], [B]),
        ([(A, 0), (released(B), 1), (B, 1)], [A]),
        ([(A, 0), (dataclasses.replace(A, server="other", since="later"), 1), (B, 2)], [A]),
    ],
)
def test_who_holds(records: list[tuple[leader.Claim, float]], holders: list[leader.Claim]) -> None:
    made = ledger(*records)
    assert [one for one in (A, B) if made.holds(one)] == [
        one for one in (A, B) if one.instance in {h.instance for h in holders}
    ]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.floats(0, 2 * LEASE)), max_size=40))
def test_never_two_at_once_and_what_holds_had_no_rival(steps: list[tuple[str, bool, float]]) -> None:
    made, at = leader.ClaimLog(), 0.0
    for name, is_released, pause in steps:
        at += pause
        one = leader.Claim(name, name, "", frozenset("t"), is_released)
        held = [other for other in "abc" if made.holds(dataclasses.replace(one, instance=other))]
        rivals = made.rivals(one, at)
        assert made.take(one, at) is (is_released or not rivals)
        now = [other for other in "abc" if made.holds(dataclasses.replace(one, instance=other))]
        assert len(now) <= 1
        if rivals and not is_released:
            assert now == held


def test_one_whose_reload_takes_a_topic_of_another_one_has_a_rival() -> None:
    made = ledger((A, 0), (ELSEWHERE, 0))
    more = dataclasses.replace(A, topics=A.topics | {"u"})
    assert made.take(more, 1) is False
    assert set(made.rivals(more, 1)) == {ELSEWHERE}


def test_one_that_left_and_got_further() -> None:
    made = ledger((A, 0), (released(A, S=7, OTHER=9), 1))
    known = {"S": Position("E", 6)}
    assert made.behind(B, known)
    assert not made.behind(B, {"S": Position("E", 7)})
    assert not made.behind(B, {"S": Position("F", 1)})
    assert not made.behind(ELSEWHERE, known)
    assert not made.behind(A, known)


def test_what_is_on_the_log_comes_back() -> None:
    one = released(A, S=7)
    read = leader.Claim.unpack(one.pack())
    assert read == one and read is not None and read.positions == one.positions


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b"1", b"{}", A.pack().replace(b"{}", b'{"S":[1]}'), b"\xff"])
def test_anything_else_is_none(value: bytes | None) -> None:
    assert leader.Claim.unpack(value) is None


def test_what_is_said_names_the_other_one_and_the_cure() -> None:
    said = leader.overlap(A, [B])
    for part in ("topic t", "server-b", "instance b", "since 2026", "stop one", "ENABLE_STREAMING=false"):
        assert part in said
    assert leader.overlap(A, []) == ""


def test_a_daemon_is_known_by_its_folder(tmp_path: pathlib.Path) -> None:
    claiming = pytest.importorskip("regstream.broker.kafka.leader")
    path = tmp_path / "state" / "instance"
    known = claiming.instance(path)
    assert known and claiming.instance(path) == known
    assert claiming.instance(tmp_path / "other" / "instance") != known
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.StartError, match="instance cannot be used"):
        claiming.instance(tmp_path / "file" / "instance")
