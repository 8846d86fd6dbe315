"""Replayed events on the page: shown as such, counted nowhere, and no alert is raised a second time."""

from __future__ import annotations

import pathlib
import re
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests import process
from tests.browser import pages
from tests.browser.test_feed import ALARMS, unseen
from tests.store import making


@pytest.fixture
def daemon(folder: pathlib.Path, database_url: str) -> Iterator[process.Daemon]:
    (folder / "streams.yaml").write_text(ALARMS.replace("interval: 1h", 'schedule: "0 0 29 2 *"'))
    for file in (folder / "scenarios").glob("*.yaml"):
        file.unlink()
    daemon = process.Daemon(folder, DATABASE_URL=database_url)
    yield daemon
    assert daemon.stop() == 0


def test_they_are_marked_and_move_nothing(daemon: process.Daemon, visit: pages.Visit, tmp_path: pathlib.Path) -> None:
    page = visit(daemon.url)
    since = making.stamp(time.time() - 1 - making.SECOND)
    daemon.burst("ALARMS", 3)
    process.eventually(lambda: len(pages.rows(page)) >= 6, what="three events and their alerts")
    process.eventually(lambda: unseen(page)["CRITICAL"] == 3, what="three alerts")
    before = pages.tiles(page)["ALARMS"]
    span = {"from": since, "to": making.stamp(time.time() + 1 - making.SECOND), "speed": "max"}
    daemon.post("replay", span, 202)
    marked = page.locator('#feed .row[data-kind="replay"]')
    expect(marked).to_have_count(6)
    badge = marked.first.locator(".what").evaluate("(cell) => getComputedStyle(cell, '::before').content")
    assert badge == '"replay"'
    after = pages.tiles(page)["ALARMS"]
    assert {name: before[name] for name in ("seq", "missed")} == {name: after[name] for name in ("seq", "missed")}
    assert unseen(page)["CRITICAL"] == 3
    # What is live goes on where it was, without a gap being told
    daemon.burst("ALARMS", 1)
    process.eventually(lambda: unseen(page)["CRITICAL"] == 4, what="a fourth alert")
    expect(page.locator('#feed .row[data-kind="gap"]')).to_have_count(0)
    page.locator("#feed-text").fill("replay")
    process.eventually(lambda: len(pages.rows(page)) == 6, what="those that are marked, found by that word")
    marked.first.click()
    page.keyboard.press("Enter")
    process.eventually(lambda: re.search("replayed", pages.text(page, "#event-about")), what="the event by itself")
    page.screenshot(path=tmp_path / "replay.png")
    assert pages.faults(page) == []
