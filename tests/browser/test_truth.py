"""What is on the page is what the API says."""

from __future__ import annotations

import datetime
import re
from typing import Any

import pytest
from playwright import sync_api
from playwright.sync_api import expect

from tests import process
from tests.browser import pages


def settled(daemon: process.Daemon, page: sync_api.Page) -> list[dict[str, Any]]:
    """The streams of a daemon that makes nothing more, once the page shows the last of it."""
    daemon.post("stop", {})

    def same() -> list[dict[str, Any]] | None:
        streams, shown = daemon.streams(), pages.tiles(page)
        agree = all(pages.number(shown[one["name"]]["seq"]) == one["seq"] for one in streams)
        told = {one["state"] for one in shown.values()} == {"stopped"} and pages.text(page, "#streaming") == "Stopped"
        return streams if agree and told else None

    found: list[dict[str, Any]] = process.eventually(same, what="the same numbers on the page and in the API")
    return found


@pytest.fixture
def stopped(daemon: process.Daemon, page: sync_api.Page) -> Any:
    process.eventually(lambda: all(one["seq"] for one in daemon.streams()), what="an event of each stream")
    yield settled(daemon, page)
    daemon.post("start", {})


def rate(number: float) -> str:
    return f"{number:,.{2 if number < 10 else 1 if number < 100 else 0}f}"


def test_each_stream_has_a_tile_that_agrees(daemon, page, stopped):
    shown = pages.tiles(page)
    assert list(shown) == [one["name"] for one in stopped]
    for one in stopped:
        tile = shown[one["name"]]
        assert tile["state"] == "stopped"
        assert pages.number(tile["seq"]) == one["seq"] > 0
        assert tile["priority"] == one["priority"]
        assert pages.number(tile["missed"]) == one["missed"]
        assert one["event"] in tile["when"]
        follows = one["interval"] is not None and one["targetRate"] is None
        assert ("changes, every" if follows else str(one["batchSize"])) in tile["when"]


def test_the_state_of_a_stream_is_the_one_of_the_api(daemon, page):
    daemon.post("streams/RISK_EVENTS/pause")
    daemon.post("stop", {"streams": ["PROJECT_UPDATES"]})
    wanted = {one["name"]: one["state"] for one in daemon.streams()}
    assert {"running", "paused", "stopped"} == set(wanted.values())
    process.eventually(lambda: {name: one["state"] for name, one in pages.tiles(page).items()} == wanted)
    daemon.post("streams/RISK_EVENTS/resume")
    daemon.post("start", {"streams": ["PROJECT_UPDATES"]})


def test_rates_follow_the_api(daemon, page):
    def agree() -> bool:
        before, shown, after = daemon.streams(), pages.tiles(page), daemon.streams()
        bounds = zip(before, after, strict=True)
        # It moves on while it is read: between what the API says before and after, and one poll of the page
        return all(
            min(low["actualRate"], high["actualRate"]) * 0.8 - 0.1
            <= pages.number(shown[low["name"]]["rate"])
            <= max(low["actualRate"], high["actualRate"]) * 1.25 + 0.1
            for low, high in bounds
        )

    process.eventually(agree, what="rates near those of the API")


def test_a_rate_that_stands_still_is_the_same(daemon, page, stopped):
    # The minute over which rates are taken moves on: until page and API have looked at the same one
    def agree() -> bool:
        shown = pages.tiles(page)
        return all(shown[one["name"]]["rate"] == rate(one["actualRate"]) for one in daemon.streams())

    process.eventually(agree, 70, "the rates of the API")


def test_last_values_are_those_of_the_newest_event(daemon, page, stopped):
    for one in stopped:
        event = daemon.get(f"/api/streaming/events?stream={one['name']}&limit=1")["events"][0]
        key, value = next(iter(event["data"].items()))
        assert pages.tiles(page)[one["name"]]["values"].startswith(f"{key}{value}")


def test_the_newest_rows_are_the_newest_events(daemon, page, stopped):
    events = daemon.get("/api/streaming/events?limit=20")["events"]
    wanted = [(event["subject"], event["seq"]) for event in reversed(events)]

    def agree() -> bool:
        found = [(stream, int(text.split()[0][1:])) for stream, text in pages.rows(page)[:20]]
        return sorted(found) == sorted(wanted)

    process.eventually(agree, what="the newest events in the list")


def test_a_page_that_opens_is_full_at_once(daemon, visit, page, stopped):
    # More than the list and the charts begin with: what other streams said last is not in it any more
    daemon.post("start", {})
    daemon.burst("TRANSACTION_STREAM", 1200)
    daemon.post("stop", {})
    late = visit(daemon.url)
    for one in stopped:
        event = daemon.get(f"/api/streaming/events?stream={one['name']}&limit=1")["events"][0]
        key, value = next(iter(event["data"].items()))
        process.eventually(
            lambda name=one["name"], words=f"{key}{value}": pages.tiles(late)[name]["values"].startswith(words),
            what=f"the last values of {one['name']}",
        )


def test_charts_begin_with_what_was_there_before_the_page(daemon, visit, page, stopped):
    daemon.post("start", {})
    daemon.burst("PROJECT_UPDATES", 17)
    daemon.post("stop", {})
    late = visit(daemon.url)

    def drawn() -> bool:
        found = re.match(r"peak (\d+) /s", pages.tile(late, "PROJECT_UPDATES").locator(".peak").text_content() or "")
        # Two seconds may share them
        return found is not None and int(found[1]) >= 9

    process.eventually(drawn, what="a chart with the burst")


def test_the_numbers_at_a_glance(daemon, page, stopped):
    status, health = daemon.get("/api/streaming/status"), daemon.get("/health")
    assert pages.number(pages.text(page, "#stat-total")) == status["dataStreamer"]["totalMessagesSent"]
    expect(page.locator("#stat-streams")).to_have_text(f"0 of {len(status['streams'])}")
    expect(page.locator("#stat-subscribers")).to_have_text(str(status["subscribers"]))
    megabytes = pages.number(pages.text(page, "#stat-memory").removesuffix(" MB"))
    assert megabytes == pytest.approx(health["system"]["memory"] / 1e6, rel=0.1)
    facts = page.locator("#health-list").inner_text()
    for value in (health["system"]["pid"], health["system"]["python"], health["system"]["version"]):
        assert str(value) in facts
    expect(page.locator("#health-state")).to_have_text(health["status"])
    loaded = datetime.datetime.fromisoformat(status["config"]["loadedAt"]).astimezone()
    expect(page.locator("#files-state")).to_have_text(
        f"Generation {status['config']['generation']}, loaded {loaded:%H:%M:%S}"
    )


def test_every_scenario_is_listed_as_declared(daemon, page):
    scenarios = daemon.get("/api/streaming/scenarios")["scenarios"]
    shown = page.locator("#scenarios-list > li")
    assert [one.get_attribute("data-scenario") for one in shown.all()] == [one["name"] for one in scenarios]
    for one, element in zip(scenarios, shown.all(), strict=True):
        expect(element).to_contain_text(one["description"])
        expect(element).to_contain_text(f"{one['steps']} steps")


def test_markup_in_a_value_is_text(folder, visit):
    (folder / "streams.yaml").write_text(
        "streams:\n  MARKED:\n    interval: 100ms\n    description: <b>bold</b>\n"
        "    fields: {html: \"<img src=x onerror='document.title=1'><script>document.title=2</script>\"}\n"
        '    alert: {when: "{{ seq == 1 }}", message: "<i>{{ html }}</i>"}\n'
    )
    for file in (folder / "scenarios").glob("*.yaml"):
        file.unlink()
    daemon = process.Daemon(folder)
    try:
        page = visit(daemon.url)
        page.wait_for_function("() => document.querySelector('.values dd')?.textContent.includes('<script>')")
        page.wait_for_function("() => document.querySelector('#feed .what')?.textContent.includes('<img')")
        page.wait_for_function("() => document.querySelector('.alert-text')?.textContent.includes('<i><img')")
        page.locator("#feed .row").first.click()
        expect(page.locator("#event-text")).to_contain_text("<img src=x")
        expect(page.locator("main img, main script, main b b, main i i, dialog img")).to_have_count(0)
        assert "regstream" in page.title()
    finally:
        assert daemon.stop() == 0
