"""The list of events and the alerts: filtered, paused, kept until seen."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright import sync_api
from playwright.sync_api import expect

from tests import process
from tests.browser import pages

STREAM = "TRANSACTION_STREAM"
ALARMS = """streams:
  ALARMS:
    interval: 1h
    fields: {level: "{{ choice(['a', 'b']) }}"}
    alert: {when: "{{ true }}", severity: CRITICAL, message: "number {{ seq }}"}
  WORRIES:
    interval: 1h
    fields: {x: 1}
    alert: {when: "{{ true }}", severity: WARNING, message: "worry {{ seq }}"}
"""


@pytest.fixture
def alarms(folder) -> Iterator[process.Daemon]:
    (folder / "streams.yaml").write_text(ALARMS)
    for file in (folder / "scenarios").glob("*.yaml"):
        file.unlink()
    daemon = process.Daemon(folder)
    yield daemon
    assert daemon.stop() == 0


def unseen(page: sync_api.Page) -> dict[str, int]:
    return {
        one.get_attribute("data-severity") or "": int(pages.number(one.locator("b").text_content()))
        for one in page.locator(".chips button").all()
    }


def wait_unseen(page: sync_api.Page, critical: int, warning: int) -> None:
    wanted = {"CRITICAL": critical, "WARNING": warning, "INFO": 0}
    process.eventually(lambda: unseen(page) == wanted, what=f"{wanted}, there are {unseen(page)}")


def test_only_one_stream(page):
    page.locator("#feed-stream").select_option(STREAM)
    assert {stream for stream, _ in pages.rows(page)} <= {STREAM}
    seen = pages.rows(page)
    process.eventually(lambda: pages.rows(page)[0] != (seen or [None])[0], what="newer rows")
    assert {stream for stream, _ in pages.rows(page)} == {STREAM}
    page.locator("#feed-stream").select_option("")
    process.eventually(lambda: len({stream for stream, _ in pages.rows(page)}) > 1, what="rows of all streams")


def test_only_what_contains_a_text(daemon, page):
    event = daemon.get(f"/api/streaming/events?stream={STREAM}&limit=1")["events"][0]
    wanted = str(event["data"]["transactionId"])
    process.eventually(lambda: len(pages.rows(page)) > 20)
    page.locator("#feed-text").fill(wanted[:13].upper())
    process.eventually(lambda: len(pages.rows(page)) == 1, what="the one row")
    assert wanted in pages.rows(page)[0][1]
    page.locator("#feed-text").fill("nothing that there is")
    page.locator("#feed").wait_for(state="hidden")
    assert re.match(r"None of the last [\d,]+ events matches", pages.text(page, "#feed-empty"))
    page.locator("#feed-text").press("Escape")
    process.eventually(lambda: len(pages.rows(page)) > 20)


def test_paused_it_stands_still_and_counts(daemon, page):
    process.eventually(lambda: len(pages.rows(page)) > 5)
    page.locator("#feed-hold").click()
    before = pages.rows(page)
    first, last = daemon.burst("PROJECT_UPDATES", 7)
    page.wait_for_function("() => parseInt(document.getElementById('feed-note').textContent.match(/[0-9]+/)) >= 7")
    assert pages.rows(page) == before
    page.locator("#feed-hold").click()
    process.eventually(lambda: pages.rows(page) != before, what="the rows that came meanwhile")
    page.locator("#feed-stream").select_option("PROJECT_UPDATES")
    numbers = [int(text.split()[0][1:]) for _, text in pages.rows(page)]
    assert set(range(first, last + 1)) <= set(numbers)
    assert numbers == sorted(numbers, reverse=True)


def test_who_scrolls_down_reads_in_peace(page):
    process.eventually(lambda: len(pages.rows(page)) > 40)
    page.locator("#feed").evaluate("(box) => { box.scrollTop = 300; }")
    page.wait_for_selector("#feed-hold[aria-pressed=true]")
    page.locator("#feed").evaluate("(box) => { box.scrollTop = 0; }")
    page.wait_for_selector("#feed-hold[aria-pressed=false]")


def test_rows_are_bounded(daemon, page):
    daemon.burst(STREAM, 1500)
    seq = daemon.stream(STREAM)["seq"]
    process.eventually(lambda: pages.number(pages.tiles(page)[STREAM]["seq"]) >= seq)
    process.eventually(lambda: len(pages.rows(page)) == 100, what="a full list")


def test_alerts_stay_until_seen_also_over_a_reload_of_the_page(alarms, visit):
    alarms.burst("ALARMS", 3)
    page = visit(alarms.url)
    wait_unseen(page, 4, 1)
    alarms.burst("WORRIES", 2)
    wait_unseen(page, 4, 3)
    expect(page.locator("#jump-alerts")).to_have_text("7")
    page.reload()
    pages.live(page)
    wait_unseen(page, 4, 3)
    page.get_by_role("button", name="Seen: WARNING of WORRIES").click()
    wait_unseen(page, 4, 0)
    page.reload()
    pages.live(page)
    wait_unseen(page, 4, 0)
    alarms.burst("WORRIES", 1)
    wait_unseen(page, 4, 1)


def test_seen_by_mistake_can_be_undone(alarms, visit):
    page = visit(alarms.url)
    wait_unseen(page, 1, 1)
    page.locator("#alerts-all").click()
    wait_unseen(page, 0, 0)
    expect(page.locator("#alerts-empty")).to_be_visible()
    expect(page.locator("#alerts-all")).to_be_disabled()
    pages.toast(page, "2 alerts seen").get_by_role("button", name="Undo").click()
    wait_unseen(page, 1, 1)


def test_the_worst_comes_first_and_each_severity_can_be_left_out(alarms, visit):
    page = visit(alarms.url)
    wait_unseen(page, 1, 1)
    heads = page.locator("#alerts-list > li")
    assert [one.get_attribute("data-severity") for one in heads.all()] == ["CRITICAL", "WARNING"]
    page.get_by_role("button", name="Critical 1").click()
    page.wait_for_function("() => document.querySelectorAll('#alerts-list > li').length === 1")
    expect(heads.first).to_have_attribute("data-severity", "WARNING")


def test_a_thousand_alerts_are_few_rows(alarms, visit):
    page = visit(alarms.url)
    wait_unseen(page, 1, 1)
    alarms.burst("ALARMS", 1000)
    wait_unseen(page, 1001, 1)
    expect(page.locator("#alerts-list > li")).to_have_count(2)
    expect(page.locator("#alerts-list .times").first).to_have_text("\N{MULTIPLICATION SIGN}1,001")
    expect(page.locator("#alerts-list > li:first-child .alert-text")).to_have_text("number 1001")
    page.locator("#alerts summary").first.click()
    page.wait_for_function("() => document.querySelector('#alerts ol').children.length === 31")
    expect(page.locator("#alerts ol").first).to_contain_text("970 before these")
    assert pages.faults(page) == []
    page.locator("#alerts-all").click()
    wait_unseen(page, 0, 0)
    page.reload()
    pages.live(page)
    page.wait_for_function("() => document.querySelector('#feed .row')")
    wait_unseen(page, 0, 0)
