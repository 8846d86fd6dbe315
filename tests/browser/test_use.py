"""Whoever uses it: by keys alone, on a phone, in the dark, with a reader of screens."""

from __future__ import annotations

import pytest
from playwright import sync_api
from playwright.sync_api import expect

from tests import process
from tests.browser import pages


def focused(page: sync_api.Page) -> dict[str, object]:
    """What has the focus: its words, whether it is seen to have it, and where it is."""
    return dict(
        page.evaluate(
            """() => {
              const one = document.activeElement, style = getComputedStyle(one), box = one.getBoundingClientRect();
              return {id: one.id, name: one.getAttribute("aria-label") || one.textContent.trim().slice(0, 40),
                seen: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
                inside: box.top < innerHeight && box.bottom > 0, tag: one.tagName,
                part: one.closest("section")?.id || ""};
            }"""
        )
    )


def walk(page: sync_api.Page, most: int = 120) -> list[dict[str, object]]:
    """Everything that Tab comes to, once around."""
    found: list[dict[str, object]] = []
    for _ in range(most):
        page.keyboard.press("Tab")
        here = focused(page)
        if here["tag"] == "BODY":
            break
        found.append(here)
    return found


def test_tab_comes_to_everything_in_order_and_is_seen(page):
    page.locator("#feed").wait_for()
    found = walk(page)
    assert [one for one in found if not one["seen"]] == []
    assert [one for one in found if not one["inside"]] == []
    assert found[0]["name"] == "Skip to the streams"
    parts = list(dict.fromkeys(one["part"] for one in found if one["part"]))
    assert [one for one in parts if one] == ["streams", "events", "alerts", "scenarios", "files"]
    names = {one["name"] for one in found}
    for wanted in ("Pause RISK_EVENTS", "Burst RISK_EVENTS", "Tune RISK_EVENTS", "Start BUDGET_CRISIS", "Reload"):
        assert wanted in names
    for ident in ("all", "theme", "help", "feed", "feed-text", "feed-stream", "feed-hold", "files-check"):
        assert ident in {one["id"] for one in found}


def test_the_skip_link_goes_to_the_streams(page):
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert focused(page)["id"] == "streams"


@pytest.mark.parametrize(
    ("key", "part"),
    [("s", "streams"), ("a", "alerts"), ("e", "events"), ("c", "scenarios"), ("r", "files"), ("h", "health")],
)
def test_a_key_goes_to_each_part(page, key, part):
    page.keyboard.press(key)
    assert focused(page)["id"] == part
    assert focused(page)["inside"]


def test_a_stream_is_ruled_by_keys(daemon, page):
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    name = daemon.streams()[0]["name"]
    assert page.evaluate("() => document.activeElement.dataset.stream") == name
    page.keyboard.press("p")
    process.eventually(lambda: daemon.stream(name)["paused"])
    page.wait_for_selector(f"article[data-stream={name}][data-state=paused]")
    page.keyboard.press("p")
    process.eventually(lambda: not daemon.stream(name)["paused"])
    seq = daemon.stream(name)["seq"]
    page.keyboard.press("b")
    process.eventually(lambda: daemon.stream(name)["seq"] >= seq + 10)
    page.keyboard.press("t")
    page.locator("#tune-dialog").wait_for()
    page.keyboard.press("Escape")
    assert page.evaluate("() => document.activeElement.dataset.stream") == name


def test_the_list_of_events_by_keys(page):
    process.eventually(lambda: len(pages.rows(page)) > 5)
    page.keyboard.press("f")
    page.wait_for_selector("#feed-hold[aria-pressed=true]")
    page.keyboard.press("f")
    page.wait_for_selector("#feed-hold[aria-pressed=false]")
    page.locator("#feed").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("#feed-hold[aria-pressed=true]")
    active = page.locator("#feed").get_attribute("aria-activedescendant")
    assert page.locator("#feed .row[aria-selected=true]").get_attribute("id") == active
    stream = page.locator(f"#{active} b").text_content()
    page.keyboard.press("Enter")
    page.locator("#event-dialog").wait_for()
    assert pages.text(page, "#event-title").startswith(f"{stream} #")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.wait_for_selector("#feed-hold[aria-pressed=false]")
    page.keyboard.press("/")
    assert focused(page)["id"] == "feed-text"
    page.keyboard.type("fjm")
    expect(page.locator("#feed-text")).to_have_value("fjm")


def test_the_keys_are_documented_and_can_be_turned_off(page):
    page.keyboard.press("?")
    page.locator("#help-dialog").wait_for()
    documented = set(page.locator("kbd").all_inner_texts())
    assert {*"saecrhjkpbtfm", "/", "?", "Esc", "Enter"} <= documented
    page.get_by_label("Single keys do something").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("f")
    expect(page.locator("#feed-hold")).to_have_attribute("aria-pressed", "false")
    page.reload()
    pages.live(page)
    page.keyboard.press("f")
    expect(page.locator("#feed-hold")).to_have_attribute("aria-pressed", "false")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [pages.DESKTOP, (800, 1000), pages.PHONE])
def test_axe_finds_nothing(daemon, visit, size, scheme):
    daemon.post("simulate", {"scenario": "BUDGET_CRISIS"}, 202)
    page = visit(daemon.url, size, scheme)
    page.locator("#alerts-list > li").first.wait_for()
    page.locator("#feed .row").first.wait_for()
    page.locator("[data-run]").first.wait_for()
    assert pages.faults(page) == []
    # A row that moves on between the press of a button and its release is not clicked
    page.locator("#feed-hold").click()
    for opener, dialog in (
        ("#help", "#help-dialog"),
        ("article .tune", "#tune-dialog"),
        ("#feed .row", "#event-dialog"),
    ):
        page.locator(opener).first.click()
        page.locator(dialog).wait_for()
        assert pages.faults(page) == [], dialog
        page.keyboard.press("Escape")
        page.locator(dialog).wait_for(state="hidden")
    page.locator("#files-check").click()
    page.locator(".report").wait_for()
    page.locator("#alerts-all").click()
    page.locator(".toast").first.wait_for()
    assert pages.faults(page) == []


def test_a_phone_shows_all_of_it_without_scrolling_sideways(daemon, visit):
    page = visit(daemon.url, pages.PHONE, has_touch=True, is_mobile=True, device_scale_factor=2)
    page.locator("#feed .row").first.wait_for()
    assert page.evaluate("() => document.documentElement.scrollWidth") == pages.PHONE[0]
    outside = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, h2, h3, output")].filter((one) => {
          const box = one.getBoundingClientRect();
          return box.width > 1 && (box.left < 0 || box.right > innerWidth);
        }).map((one) => one.id || one.textContent)"""
    )
    assert outside == []
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select")].filter((one) => {
          const box = one.getBoundingClientRect();
          return box.height && box.height < 24;
        }).map((one) => `${one.id || one.textContent || one.name} ${one.getBoundingClientRect().height}`)"""
    )
    # The smallest that WCAG 2.2 allows; a check box belongs to its label
    assert [one for one in small if not one.startswith("help-on")] == []
    page.get_by_role("link", name="Configuration").click()
    page.locator("#files").wait_for()
    expect(page.locator("#files-title")).to_be_visible()


def test_a_theme_is_chosen_and_remembered(daemon, visit):
    page = visit(daemon.url, scheme="light")

    def back() -> str:
        return str(page.evaluate("() => getComputedStyle(document.body).backgroundColor"))

    light = back()
    page.locator("#theme").click()
    assert back() == light
    page.locator("#theme").click()
    dark = back()
    assert dark != light
    page.reload()
    pages.live(page)
    assert back() == dark
    assert visit(daemon.url, scheme="dark").evaluate("() => getComputedStyle(document.body).backgroundColor") == dark


def test_nothing_moves_for_who_does_not_want_it(daemon, visit):
    page = visit(daemon.url, reduced_motion="reduce")
    daemon.post("simulate", {"scenario": "BUDGET_CRISIS"}, 202)
    page.locator("[data-run]").first.wait_for()
    assert page.evaluate("() => document.getAnimations().length") == 0
