"""Every state with every signal."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regstream.broker import failover
from regstream.broker.failover import ConnectionPhase, ConnectionSignal

LEGAL = {
    (ConnectionPhase.CONNECTING, ConnectionSignal.CONNECTED): ConnectionPhase.DRAINING,
    (ConnectionPhase.CONNECTING, ConnectionSignal.LOST): ConnectionPhase.FALLBACK,
    (ConnectionPhase.LIVE, ConnectionSignal.LOST): ConnectionPhase.FALLBACK,
    (ConnectionPhase.FALLBACK, ConnectionSignal.CONNECTED): ConnectionPhase.DRAINING,
    (ConnectionPhase.FALLBACK, ConnectionSignal.LOST): ConnectionPhase.FALLBACK,
    (ConnectionPhase.DRAINING, ConnectionSignal.DRAINED): ConnectionPhase.LIVE,
    (ConnectionPhase.DRAINING, ConnectionSignal.LOST): ConnectionPhase.FALLBACK,
}
WAYS = {
    ConnectionPhase.CONNECTING: (),
    ConnectionPhase.DRAINING: (ConnectionSignal.CONNECTED,),
    ConnectionPhase.LIVE: (ConnectionSignal.CONNECTED, ConnectionSignal.DRAINED),
    ConnectionPhase.FALLBACK: (ConnectionSignal.LOST,),
}


def told() -> tuple[failover.ConnectionState, list[tuple[ConnectionPhase, ConnectionPhase, str]]]:
    changes: list[tuple[ConnectionPhase, ConnectionPhase, str]] = []
    return failover.ConnectionState(lambda *change: changes.append(change)), changes


@pytest.mark.parametrize(("state", "signal"), list(itertools.product(ConnectionPhase, ConnectionSignal)))
def test_every_state_with_every_signal(state: ConnectionPhase, signal: ConnectionSignal) -> None:
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
    one.take(ConnectionSignal.LOST, "first")
    one.take(ConnectionSignal.LOST, "second")
    assert (one.reason, len(changes)) == ("second", 1)


@given(st.lists(st.sampled_from(ConnectionSignal)))
def test_it_is_reachable_when_live_or_draining_and_changes_follow_each_other(signals: list[ConnectionSignal]) -> None:
    one, changes = told()
    for signal in signals:
        if (one.state, signal) in LEGAL:
            one.take(signal)
        assert one.reachable is (one.state in (ConnectionPhase.LIVE, ConnectionPhase.DRAINING))
    states = [ConnectionPhase.CONNECTING, *(after for _, after, _ in changes)]
    assert [before for before, _, _ in changes] == states[:-1]
    assert all(before is not after for before, after, _ in changes)
