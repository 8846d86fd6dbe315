"""Readers that come back to a busy stream, while it is busy, on every transport and from a real database."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from scripts import resume
from tests.kafka import clusters

PLAN = resume.Plan(resumes=2, missed=(1_200, 1_800), rate=1_000)


@pytest.mark.parametrize("with_kafka", [False, True], ids=["simulation", "kafka"])
def test_a_busy_stream_is_always_recovered(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path, database_url: str, with_kafka: bool
) -> None:
    bootstrap = ""
    if with_kafka:
        clusters.need(request.node.nodeid)
        bootstrap = request.getfixturevalue("shared_cluster").bootstrap
    clients = asyncio.run(resume.play(PLAN, tmp_path, database_url, bootstrap, seed=1))
    assert len(clients) == 3
    for one in clients:
        assert one.holds and one.judge.replayed >= 2 * PLAN.missed[0], one.row
