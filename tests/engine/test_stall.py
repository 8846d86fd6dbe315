"""A daemon that stands still for a moment makes what a rate had brought meanwhile."""

from __future__ import annotations

import pathlib
import signal
import time

import pytest

from tests import process

FILE = """
streams:
  ARRIVALS: {rate: 200/s, fields: {n: "{{ seq }}"}}
  TICKS: {interval: 20ms, fields: {n: "{{ seq }}"}}
"""


def test_what_arrives_while_it_stands_still_is_not_missed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "streams.yaml").write_text(FILE)
    daemon = process.Daemon(tmp_path, "--port", "0")

    def stand_still() -> tuple[float, int, int]:
        """For how long at most, and how many ticks of the two streams were missed."""
        before = [daemon.stream(name)["missed"] for name in ("ARRIVALS", "TICKS")]
        seq, began = daemon.stream("ARRIVALS")["seq"], time.monotonic()
        daemon.process.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        daemon.process.send_signal(signal.SIGCONT)
        process.eventually(lambda: daemon.stream("ARRIVALS")["seq"] > seq + 100)
        arrivals, ticks = (daemon.stream(name)["missed"] for name in ("ARRIVALS", "TICKS"))
        return time.monotonic() - began, arrivals - before[0], ticks - before[1]

    try:
        process.eventually(lambda: daemon.stream("ARRIVALS")["seq"] > 200)
        for _ in range(20):
            seconds, arrivals, ticks = stand_still()
            if seconds < 1.5:
                assert arrivals == 0 and ticks > 10
                return
        pytest.skip("the machine stands still for longer than a rate is patient")
    finally:
        daemon.stop()
