"""Every state with every signal."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regstream.broker import machine
from regstream.broker.machine import Signal, State

LEGAL = {
    (State.CONNECTING, Signal.CONNECTED): State.DRAINING,
    (State.CONNECTING, Signal.LOST): State.FALLBACK,
    (State.LIVE, Signal.LOST): State.FALLBACK,
    (State.FALLBACK, Signal.CONNECTED): State.DRAINING,
    (State.FALLBACK, Signal.LOST): State.FALLBACK,
    (State.DRAINING, Signal.DRAINED): State.LIVE,
    (State.DRAINING, Signal.LOST): State.FALLBACK,
}
WAYS = {
    State.CONNECTING: (),
    State.DRAINING: (Signal.CONNECTED,),
    State.LIVE: (Signal.CONNECTED, Signal.DRAINED),
    State.FALLBACK: (Signal.LOST,),
}


def told() -> tuple[machine.Machine, list[tuple[State, State, str]]]:
    changes: list[tuple[State, State, str]] = []
    return machine.Machine(lambda *change: changes.append(change)), changes


@pytest.mark.parametrize(("state", "signal"), list(itertools.product(State, Signal)))
def test_every_state_with_every_signal(state: State, signal: Signal) -> None:
    one, changes = told()
    for step in WAYS[state]:
        one.take(step)
    assert one.state is state
    changes.clear()
    after = LEGAL.get((state, signal))
    if after is None:
        with pytest.raises(ValueError, match=f"{signal} while {state}"):
            one.take(signal, "why")
        assert (one.state, changes) == (state, [])
    else:
        assert one.take(signal, "why") is one.state is after
        assert one.reason == "why"
        assert changes == ([(state, after, "why")] if after is not state else [])


def test_a_new_reason_for_the_same_state_is_kept_and_is_no_change() -> None:
    one, changes = told()
    one.take(Signal.LOST, "first")
    one.take(Signal.LOST, "second")
    assert (one.reason, len(changes)) == ("second", 1)


@given(st.lists(st.sampled_from(Signal)))
def test_it_is_reachable_when_live_or_draining_and_changes_follow_each_other(signals: list[Signal]) -> None:
    one, changes = told()
    for signal in signals:
        if (one.state, signal) in LEGAL:
            one.take(signal)
        assert one.reachable is (one.state in (State.LIVE, State.DRAINING))
    states = [State.CONNECTING, *(after for _, after, _ in changes)]
    assert [before for before, _, _ in changes] == states[:-1]
    assert all(before is not after for before, after, _ in changes)
