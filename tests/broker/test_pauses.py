"""How long the next try to connect waits: soon after an outage, later and later where nobody wants us."""

from __future__ import annotations

from regstream.broker import backoff


def test_nobody_answers() -> None:
    one = backoff.Backoff()
    assert [one.after_loss(3.0, answered=False) for _ in range(5)] == [1.0] * 5


def test_connections_that_do_not_last() -> None:
    one = backoff.Backoff()
    assert [one.after_loss(0.5, answered=True) for _ in range(5)] == [2.0, 4.0, 8.0, 10.0, 10.0]
    assert one.after_loss(60.0, answered=True) == 1.0
    assert one.after_loss(0.5, answered=True) == 2.0


def test_refused_credentials() -> None:
    one = backoff.Backoff()
    assert [one.after_login() for _ in range(7)] == [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]
    # That the cluster was away in between is no reason to knock more often
    assert one.after_loss(3.0, answered=False) == 1.0
    assert one.after_login() == 300.0
    # That it let us in is
    one.after_loss(60.0, answered=True)
    assert one.after_login() == 10.0
