"""The live page of a daemon that has tokens: it asks for one, shows what that is good for, and keeps it to itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright import sync_api
from playwright.sync_api import expect

from tests import process
from tests.browser import pages

TOKENS = {"read": "r-0123456789abcdef", "control": "c-0123456789abcdef", "admin": "a-0123456789+/abcdef=="}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[process.Daemon]:
    tokens = " ".join(f"{role}:{token}" for role, token in TOKENS.items())
    with process.running(tmp_path_factory.mktemp("daemon"), REGSTREAM_TOKENS=tokens) as running:
        yield running


def give(page: sync_api.Page, token: str) -> None:
    page.locator("#who-token").fill(token)
    page.get_by_role("button", name="Go on").click()


@pytest.fixture
def asked(visit: pages.Visit, daemon: process.Daemon) -> sync_api.Page:
    """A page that asks who is there."""
    page = visit(daemon.url, ready=False)
    page.wait_for_selector("#who-dialog[open]")
    return page


def test_nothing_is_shown_before_a_token_is_given(asked: sync_api.Page) -> None:
    expect(asked.locator("article.tile[data-stream]")).to_have_count(0)
    expect(asked.locator("#link")).to_have_text("Locked")
    expect(pages.banner(asked, "locked")).to_contain_text("token")


@pytest.mark.parametrize(
    ("role", "hidden"),
    [("read", ["#all", ".actions", "#files-check", "#files-reload"]), ("control", ["#files-check", "#files-reload"]),
     ("admin", [])],
)  # fmt: skip
def test_the_page_offers_what_the_token_is_good_for(asked: sync_api.Page, role: str, hidden: list[str]) -> None:
    give(asked, TOKENS[role])
    pages.live(asked)
    for name in ("#all", ".actions", "#files-check", "#files-reload"):
        expect(asked.locator(name).first).to_be_visible(visible=name not in hidden)
    expect(pages.banner(asked, "locked")).to_have_count(0)


def test_a_wrong_token_is_told_and_another_may_be_given(asked: sync_api.Page) -> None:
    give(asked, "wrong")
    asked.locator("#who-error", has_text="not known").wait_for()
    give(asked, TOKENS["read"])
    pages.live(asked)


def test_what_the_page_may_do_it_does(asked: sync_api.Page, daemon: process.Daemon) -> None:
    give(asked, TOKENS["admin"])
    pages.live(asked)
    asked.get_by_role("button", name="Check files").click()
    asked.locator("#files-report", has_text="The files are good").wait_for()


def test_the_token_is_kept_with_the_tab_and_nowhere_else(asked: sync_api.Page) -> None:
    addresses: list[str] = []
    asked.on("request", lambda request: addresses.append(request.url))
    asked.on("websocket", lambda socket: addresses.append(socket.url))
    give(asked, TOKENS["read"])
    pages.live(asked)
    asked.reload()
    pages.live(asked)
    expect(asked.locator("#who-dialog")).to_be_hidden()
    assert TOKENS["read"] in asked.evaluate("Object.values(sessionStorage)")
    assert asked.evaluate("JSON.stringify(localStorage) + document.cookie + location.href").find(TOKENS["read"]) == -1
    assert addresses and not [one for one in addresses if TOKENS["read"] in one]


def test_who_closes_the_dialog_can_open_it_again(asked: sync_api.Page) -> None:
    asked.keyboard.press("Escape")
    pages.banner(asked, "locked").get_by_role("button", name="Enter token").click()
    give(asked, TOKENS["read"])
    pages.live(asked)


def test_axe_finds_nothing_in_the_dialog(asked: sync_api.Page) -> None:
    assert pages.faults(asked) == []
