"""Opening the live page, reading what is on it, and asking axe-core what is wrong with it."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from typing import Any

from playwright import sync_api

from tests import node_packages, process

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
MILLISECONDS = process.SECONDS * 1000
DESKTOP, PHONE = (1440, 900), (360, 740)
# What a browser says by itself of an answer that is an error, or of a daemon that is not there
EXPECTED = re.compile(r"Failed to load resource|WebSocket connection to|net::ERR_CONNECTION")
# Before anything else of the page: what moved without being asked to
WATCH = """
window.seen = {shift: 0};
new PerformanceObserver((list) => list.getEntries().forEach((one) => {
  if (!one.hadRecentInput) seen.shift += one.value;
})).observe({type: "layout-shift", buffered: true});
"""
Visit = Callable[..., sync_api.Page]


class Visitor:
    """Pages that are open, and what they said that they should not have."""

    def __init__(self, browser: sync_api.Browser) -> None:
        self._browser = browser
        self._contexts: list[sync_api.BrowserContext] = []
        self.complaints: list[str] = []
        self._asked: list[str] = []

    def visit(
        self, url: str, size: tuple[int, int] = DESKTOP, scheme: str = "light", ready: bool = True, **more: Any
    ) -> sync_api.Page:
        """A page of its own, with nothing remembered; with ``ready`` when it is live and shows all streams."""
        context = self._browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, **more)
        self._contexts.append(context)
        context.add_init_script(WATCH)
        page = context.new_page()
        page.set_default_timeout(MILLISECONDS)
        page.on("console", lambda said: self._hear(said.type, said.text))
        page.on("pageerror", lambda error: self._hear("error", str(error)))
        page.on("request", lambda request: self._asked.append(request.url))
        page.goto(url)
        if ready:
            live(page)
        return page

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not EXPECTED.search(text):
            self.complaints.append(text)

    def leave(self) -> None:
        for context in self._contexts:
            context.close()
        assert self.complaints == []
        assert [one for one in self._asked if not re.match(r"(http://127\.0\.0\.1:\d+/|data:)", one)] == []


def live(page: sync_api.Page) -> None:
    """Return when the page is connected and shows its streams."""
    page.wait_for_selector("body[data-link=live]")
    page.wait_for_selector("article.tile")


def tile(page: sync_api.Page, stream: str) -> sync_api.Locator:
    return page.locator(f"article[data-stream={stream}]")


def number(text: str | None) -> float:
    """A number as the page writes it."""
    return float((text or "").replace(",", ""))


def text(page: sync_api.Page, selector: str) -> str:
    return (page.locator(selector).text_content() or "").strip()


def tiles(page: sync_api.Page) -> dict[str, dict[str, str]]:
    """What all tiles say, by stream, at one moment."""
    return dict(
        page.evaluate(
            """() => Object.fromEntries([...document.querySelectorAll("article.tile")].map((tile) => {
              const say = (name) => tile.querySelector(`.${name}`).textContent;
              return [tile.dataset.stream, {state: tile.dataset.state, seq: say("seq"), rate: say("rate"),
                priority: say("priority"), missed: say("missed"), when: say("when"), values: say("values"),
                error: say("tile-error"), last: say("last")}];
            }))"""
        )
    )


def rows(page: sync_api.Page) -> list[tuple[str, str]]:
    """Stream and text of each row of the list of events, newest first."""
    found = page.evaluate(
        """() => [...document.querySelectorAll("#feed .row")].map((row) =>
          [row.children[1].textContent, `${row.children[2].textContent} ${row.children[3].textContent}`])"""
    )
    return [(one[0], one[1]) for one in found]


def toast(page: sync_api.Page, words: str) -> sync_api.Locator:
    """The notice that says ``words``, as soon as it is there."""
    found = page.locator(".toast").filter(has_text=words).first
    found.wait_for()
    return found


def banner(page: sync_api.Page, about: str) -> sync_api.Locator:
    return page.locator(f".banner[data-about={about}]")


@functools.cache
def _axe() -> str:
    return (node_packages.MODULES / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


def faults(page: sync_api.Page) -> list[str]:
    """What axe-core finds, every rule of it, best practices included: a line for each element."""
    page.evaluate(_axe())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{rule['id']}: {json.dumps(node['target'])} {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]
