"""A real Chromium on the page of a real daemon; a page must neither complain nor talk to anybody else."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest
from playwright import sync_api

from tests import node_packages, process
from tests.browser import pages


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    # Before any fixture starts a browser
    node_packages.need(item.nodeid, browser=True)


# Of the package and not of the session: while it is there a loop runs in this thread, and no other test could run one
@pytest.fixture(scope="package")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        sync_api.expect.set_options(timeout=pages.MILLISECONDS)
        started = playwright.chromium.launch(executable_path=node_packages.chromium(), args=pages.ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[process.Daemon]:
    folder = tmp_path_factory.mktemp("daemon")
    with process.running(folder) as running:
        yield running


@pytest.fixture
def visit(browser: sync_api.Browser) -> Iterator[pages.Visit]:
    """Opens pages; at the end none of them has complained."""
    visitor = pages.Visitor(browser)
    yield visitor.visit
    visitor.leave()


@pytest.fixture
def page(visit: pages.Visit, daemon: process.Daemon) -> sync_api.Page:
    return visit(daemon.url)


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    return process.copy_files(tmp_path)
