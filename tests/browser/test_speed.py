"""How large the page is, how long it keeps the browser busy, and that nothing on it jumps."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx
import pytest
from playwright import sync_api
from playwright.sync_api import expect

from tests import process
from tests.browser import pages

pytestmark = pytest.mark.slow

SIZE = 100_000
TASK = 50.0
WINDOW = 4.0
# What CALCULATION takes on the machine for which TASK is meant, in milliseconds
USUAL = 50.0
CALCULATION = """() => {
    const once = () => {
        const began = performance.now();
        const words = [];
        for (let number = 0; number < 100000; number++) words.push(String(number * 7919 % 100003));
        words.sort();
        JSON.parse(JSON.stringify(words));
        return performance.now() - began;
    };
    return Math.min(...Array.from({length: 5}, once));
}"""
FAST = """streams:
""" + "".join(
    f"""  FAST_{number}:
    interval: 100ms
    batch_size: 5
    fields: {{id: "{{{{ uuid() }}}}", amount: "{{{{ lognormal(3, 1) | round }}}}", text: "{{{{ fake('name') }}}}"}}
    alert: {{when: "{{{{ chance(0.02) }}}}", severity: WARNING, message: "{{{{ text }}}}"}}
"""
    for number in range(4)
)


@pytest.fixture
def fast(folder) -> Iterator[process.Daemon]:
    (folder / "streams.yaml").write_text(FAST)
    for file in (folder / "scenarios").glob("*.yaml"):
        file.unlink()
    daemon = process.Daemon(folder)
    yield daemon
    assert daemon.stop() == 0


def test_the_whole_page_is_small(daemon):
    with httpx.Client(base_url=daemon.url, headers={"accept-encoding": "identity"}) as client:
        found, left = {}, ["/"]
        while left:
            path = left.pop()
            if path in found:
                continue
            body = client.get(path).text
            found[path] = len(body.encode())
            left += re.findall(r'(?:href|src)="(/assets/[^"]+)"', body)
            left += [f"/assets/{name}" for name in re.findall(r'from "\./([^"]+)"', body)]
    assert len(found) > 8
    assert sum(found.values()) < SIZE, found


class Load(NamedTuple):
    """What a page asked of the machine in a span of time."""

    busiest: float
    """The most processor time that one task took, in milliseconds."""
    slow: float
    """How many times as long this machine takes as the usual one, 1 at least."""


def measured(browser: sync_api.Browser, url: str, work: Callable[[], sync_api.Page]) -> Load:
    """The longest task of a page while ``work`` ran, which gives the page."""
    browser.start_tracing(categories=["devtools.timeline", "toplevel"])
    page = work()
    events = json.loads(browser.stop_tracing())["traceEvents"]
    return Load(busiest(events, url), max(1.0, page.evaluate(CALCULATION) / USUAL))


def busiest(events: list[dict[str, Any]], url: str) -> float:
    # The browser has pages of its own, in other processes
    own = {(one["pid"], one["tid"]) for one in events if url in json.dumps(one.get("args", {}).get("data", ""))}
    main = {
        (one["pid"], one["tid"])
        for one in events
        if one.get("name") == "thread_name" and one["args"]["name"] == "CrRendererMain"
    }
    tasks = [
        one for one in events if (one["pid"], one["tid"]) in own & main and one.get("name", "").endswith("RunTask")
    ]
    assert len(tasks) > 20, "no trace of the page"
    return max(one.get("tdur", 0) for one in tasks) / 1000


# By the processor and not by the clock: a page that waits for the machine, or for the compositor, does nothing
def check(load: Load, bound: float = TASK) -> None:
    assert load.busiest < bound * load.slow, load


def test_no_task_is_long_at_two_hundred_events_a_second(browser, fast, visit):
    page = visit(fast.url)
    process.eventually(lambda: len(pages.rows(page)) == 100)
    began, before = time.monotonic(), sum(one["seq"] for one in fast.streams())

    def work() -> sync_api.Page:
        # What is measured is a span of time; nothing is waited for
        page.wait_for_timeout(WINDOW * 1000)
        return page

    check(measured(browser, fast.url, work))
    rate = (sum(one["seq"] for one in fast.streams()) - before) / (time.monotonic() - began)
    assert rate > 180
    fast.post("stop", {})
    # All of it was taken, and drawn
    process.eventually(
        lambda: all(pages.number(pages.tiles(page)[one["name"]]["seq"]) == one["seq"] for one in fast.streams())
    )


def test_opening_it_holds_nothing_up(browser, fast, visit):
    # With a full history, charts and a list that begin with it, and what goes on to arrive
    process.eventually(lambda: sum(one["seq"] for one in fast.streams()) > 1000)

    def work() -> sync_api.Page:
        page = visit(fast.url, pages.PHONE, is_mobile=True, has_touch=True, device_scale_factor=2)
        page.locator("#feed-text").fill("a")
        page.wait_for_timeout(WINDOW * 1000)
        return page

    check(measured(browser, fast.url, work))


def test_nothing_jumps(daemon, visit):
    page = visit(daemon.url)
    page.locator("#feed .row").first.wait_for()
    page.evaluate("() => { seen.shift = 0; }")
    first = page.evaluate("() => [...document.querySelectorAll('.tile')].map((one) => one.getBoundingClientRect().top)")
    seq = daemon.stream("TRANSACTION_STREAM")["seq"]
    process.eventually(lambda: pages.number(pages.tiles(page)["TRANSACTION_STREAM"]["seq"]) > seq + 60)
    assert page.evaluate("() => seen.shift") < 0.01
    assert first == page.evaluate(
        "() => [...document.querySelectorAll('.tile')].map((one) => one.getBoundingClientRect().top)"
    )


def test_a_thousand_streams_do_not_hold_it_up(browser, folder, visit):
    text = "".join(f"  S{number}:\n    interval: 1h\n    fields: {{x: 1}}\n" for number in range(1000))
    (folder / "streams.yaml").write_text(f"streams:\n{text}")
    for file in (folder / "scenarios").glob("*.yaml"):
        file.unlink()
    daemon = process.Daemon(folder)
    try:

        def work() -> sync_api.Page:
            page = visit(daemon.url)
            page.wait_for_function("() => document.querySelectorAll('article.tile').length === 60")
            expect(page.locator("#stat-streams")).to_have_text("1,000 of 1,000")
            expect(page.locator("#streams-note")).to_have_text("60 of 1,000")
            page.locator("#streams-find").fill("s99")
            page.wait_for_function("() => document.querySelectorAll('article.tile').length === 11")
            assert list(pages.tiles(page)) == ["S99", *(f"S99{number}" for number in range(10))]
            page.locator("#streams-find").fill("no such stream")
            page.locator("#tiles-empty").wait_for()
            return page

        # The status alone is 700 KB of JSON then, taken apart in one piece
        check(measured(browser, daemon.url, work), 3 * TASK)
    finally:
        daemon.stop()
