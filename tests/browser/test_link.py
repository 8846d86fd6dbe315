"""A daemon that goes, comes back and comes back as another; a broker that is not there."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests import process
from tests.browser import pages

STREAM = "TRANSACTION_STREAM"


@pytest.fixture
def own(folder) -> Iterator[process.Daemon]:
    """A daemon that comes back on its port."""
    daemon = process.Daemon(folder)
    daemon._arguments = ("--port", str(daemon.port))
    yield daemon
    daemon.stop()


def agree(daemon: process.Daemon, page: object) -> bool:
    shown = pages.tiles(page)
    return all(pages.number(shown[one["name"]]["seq"]) == one["seq"] for one in daemon.streams())


def test_it_comes_back_by_itself_after_a_restart_with_a_new_epoch(own, visit):
    page = visit(own.url)
    before = own.stream(STREAM)
    # The reason is shown until the next try fails, for a second at first
    page.evaluate(
        """() => new MutationObserver(() => {
          if (document.body.textContent.includes("the daemon is stopping")) window.seen.reason = true;
        }).observe(document.body, {subtree: true, childList: true, characterData: true})"""
    )
    assert own.stop() == 0
    page.wait_for_selector("body[data-link=lost]")
    expect(pages.banner(page, "lost")).to_contain_text("No connection since")
    page.wait_for_function("() => window.seen.reason")
    expect(page.locator("#link")).to_have_text("Lost")
    assert pages.faults(page) == []
    own.start()
    page.wait_for_selector("body[data-link=live]")
    pages.banner(page, "lost").wait_for(state="detached")
    assert own.stream(STREAM)["epoch"] != before["epoch"]
    own.post("stop", {})
    process.eventually(lambda: agree(own, page), what="the numbers of the new epoch")
    process.eventually(lambda: any("begins anew" in text for _, text in pages.rows(page)), what="a row that says so")
    process.eventually(lambda: pages.tiles(page)[STREAM]["state"] == "stopped", what="the state of the new daemon")


def test_try_now_does_not_wait(own, visit):
    page = visit(own.url)
    assert own.stop() == 0
    page.wait_for_selector("body[data-link=lost]")
    # Until it waits long enough that a press is what brings it back
    page.wait_for_function(
        "() => +(document.querySelector('[data-about=lost]').textContent.match(/in ([0-9]+) s/) || [])[1] >= 5"
    )
    own.start()
    pages.banner(page, "lost").get_by_role("button", name="Try now").click()
    page.wait_for_selector("body[data-link=live]", timeout=4000)


def test_what_was_missed_arrives_in_order(daemon, visit):
    page = visit("about:blank", ready=False)
    broken, open_ = False, []

    def pass_on(socket):
        if broken:
            socket.close(code=4000)
        else:
            socket.connect_to_server()
            open_.append(socket)

    page.route_web_socket("**/ws", pass_on)
    page.goto(daemon.url)
    pages.live(page)
    broken = True
    open_[-1].close(code=4000, reason="cut")
    page.wait_for_selector("body[data-link=lost]")
    expect(pages.banner(page, "lost")).to_contain_text("(cut)")
    first, last = daemon.burst("PROJECT_UPDATES", 40)
    broken = False
    page.wait_for_selector("body[data-link=live]")
    pages.toast(page, "nothing was missed")
    daemon.post("stop", {})
    process.eventually(lambda: agree(daemon, page), what="the numbers of the API")
    page.locator("#feed-stream").select_option("PROJECT_UPDATES")
    numbers = [int(text.split()[0][1:]) for _, text in pages.rows(page)]
    assert set(range(first, last + 1)) <= set(numbers)
    assert len(numbers) == len(set(numbers))
    daemon.post("start", {})


def test_a_connection_that_died_without_a_word_is_noticed(own, visit):
    page = visit(own.url)
    own.tell(signal.SIGSTOP)
    page.wait_for_selector("body[data-link=lost]", timeout=45_000)
    own.tell(signal.SIGCONT)
    page.wait_for_selector("body[data-link=live]")


def test_what_was_dropped_for_a_slow_page_is_told(daemon, visit):
    page = visit("about:blank", ready=False)
    open_ = []

    def pass_on(socket):
        socket.connect_to_server()
        open_.append(socket)

    page.route_web_socket("**/ws", pass_on)
    page.goto(daemon.url)
    pages.live(page)
    open_[-1].send(json.dumps({"event": "lagging", "data": {"dropped": {STREAM: 1200}, "total": 1200}}))
    expect(page.locator("#feed-note")).to_contain_text("1,200 were skipped")
    page.locator("#feed-text").fill("too slow")
    process.eventually(lambda: [stream for stream, _ in pages.rows(page)] == [STREAM], what="the row that says so")


def test_a_broker_that_is_away_is_fallback_with_its_reason(folder, visit):
    daemon = process.Daemon(folder, KAFKA_BROKER="127.0.0.1:9", REGSTREAM_STATE=str(folder / "state"))
    try:
        page = visit(daemon.url)
        expect(page.locator("#broker")).to_have_text("Fallback")
        pages.banner(page, "broker").wait_for()
        kafka = daemon.get("/health")["kafka"]
        expect(pages.banner(page, "broker")).to_contain_text(kafka["reason"])
        expect(pages.banner(page, "broker")).to_contain_text("on disk wait for it")
        assert pages.faults(page) == []
    finally:
        daemon.stop()


@pytest.mark.parametrize(
    ("state", "simulation", "lamp", "banner"),
    [
        ("live", True, "Simulation", ""),
        ("live", False, "Kafka", ""),
        ("connecting", True, "Connecting to Kafka", "Connecting to Kafka."),
        ("draining", False, "Kafka, catching up", "Kafka is back, what waited goes first."),
        ("fallback", True, "Fallback", "Kafka is away: it said no. Streams go on in simulation."),
    ],
)
def test_every_state_of_the_broker_is_told(daemon, page, state, simulation, lamp, banner):
    def answer(route):
        status = daemon.get("/api/streaming/status")
        status["kafka"] |= {"state": state, "simulationMode": simulation, "reason": "it said no", "waiting": 1234}
        route.fulfill(json=status)

    page.route("**/api/streaming/status", answer)
    expect(page.locator("#broker")).to_have_text(lamp)
    if banner:
        expect(pages.banner(page, "broker")).to_contain_text(banner)
        expect(pages.banner(page, "broker")).to_contain_text("1,234 events on disk wait for it.")
    assert pages.faults(page) == []
    page.unroute_all(behavior="ignoreErrors")


def test_without_streams_and_scenarios_it_says_what_to_do(daemon, page):
    def answer(route):
        route.fulfill(json={**daemon.get("/api/streaming/status"), "streams": [], "scenarios": []})

    page.route("**/api/streaming/status", answer)
    page.locator("#tiles-empty").wait_for()
    page.locator("#scenarios-empty").wait_for()
    assert pages.faults(page) == []
    page.unroute_all(behavior="ignoreErrors")


def test_before_it_is_connected_it_says_so(daemon, visit):
    page = visit("about:blank", ready=False)
    page.route_web_socket("**/ws", lambda socket: None)
    page.goto(daemon.url)
    page.wait_for_selector("article.tile")
    expect(page.locator("#link")).to_have_text("Connecting")
    expect(page.locator("#feed-empty")).to_have_text("Nothing has arrived yet.")
    assert pages.faults(page) == []
