"""What the buttons do, seen in the API."""

from __future__ import annotations

import pytest
from playwright import sync_api
from playwright.sync_api import expect

from tests import process
from tests.browser import pages

STREAM = "TRANSACTION_STREAM"


def button(page: sync_api.Page, name: str) -> sync_api.Locator:
    return page.get_by_role("button", name=name, exact=True)


def test_stop_and_start_everything(daemon, page):
    page.locator("#all").click()
    process.eventually(lambda: not daemon.get("/health")["streaming"]["isStreaming"])
    pages.banner(page, "streaming").wait_for()
    expect(page.locator("#all")).to_have_text("Start all")
    pages.banner(page, "streaming").get_by_role("button").click()
    process.eventually(lambda: daemon.get("/health")["streaming"]["isStreaming"])
    pages.banner(page, "streaming").wait_for(state="detached")
    expect(page.locator("#streaming")).to_have_text("Streaming")


def test_pause_and_resume_a_stream(daemon, page):
    button(page, f"Pause {STREAM}").click()
    process.eventually(lambda: daemon.stream(STREAM)["paused"])
    page.wait_for_selector(f"article[data-stream={STREAM}][data-state=paused]")
    button(page, f"Resume {STREAM}").click()
    process.eventually(lambda: daemon.stream(STREAM)["state"] == "running")
    page.wait_for_selector(f"article[data-stream={STREAM}][data-state=running]")


def test_a_stream_that_takes_no_part_can_be_started(daemon, page):
    daemon.post("stop", {"streams": [STREAM]})
    button(page, f"Start {STREAM}").click()
    process.eventually(lambda: daemon.stream(STREAM)["enabled"])
    button(page, f"Pause {STREAM}").wait_for()


def test_burst_makes_as_many_as_asked(daemon, page):
    before = daemon.stream("PROJECT_UPDATES")["seq"]
    page.get_by_label("How many events of PROJECT_UPDATES").fill("37")
    button(page, "Burst PROJECT_UPDATES").click()
    said = pages.toast(page, "37 events of PROJECT_UPDATES").inner_text()
    assert daemon.stream("PROJECT_UPDATES")["seq"] >= before + 37
    assert " to " in said


def test_tune_sends_what_was_changed_and_nothing_else(daemon, page):
    before = daemon.stream("SYSTEM_METRICS")
    button(page, "Tune SYSTEM_METRICS").click()
    form = page.locator("#tune-form")
    expect(form.locator("[name=interval]")).to_have_value("1500ms")
    with page.expect_request(lambda request: request.method == "PATCH") as sent:
        form.locator("[name=interval]").fill("2s")
        form.locator("[name=batchSize]").fill("3")
        form.get_by_role("button", name="Apply").click()
    assert sent.value.post_data_json == {"interval": "2s", "batchSize": 3}
    page.wait_for_selector("#tune-dialog", state="hidden")
    after = daemon.stream("SYSTEM_METRICS")
    assert (after["interval"], after["batchSize"], after["priority"]) == (2000, 3, before["priority"])
    process.eventually(lambda: "3 every 2s" in pages.tiles(page)["SYSTEM_METRICS"]["when"])


def test_tune_says_what_is_wrong_beside_it(daemon, page):
    before = daemon.stream("RISK_EVENTS")
    button(page, "Tune RISK_EVENTS").click()
    page.locator("#tune-form [name=interval]").fill("soon")
    page.locator("#tune-form").get_by_role("button", name="Apply").click()
    page.wait_for_function("() => document.getElementById('tune-error').textContent.includes('interval')")
    expect(page.locator("#tune-dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#tune-dialog")).to_be_hidden()
    assert daemon.stream("RISK_EVENTS")["interval"] == before["interval"]


def test_priority_is_changed(daemon, page):
    button(page, "Tune RISK_EVENTS").click()
    page.locator("#tune-form [name=priority]").select_option("LOW")
    page.locator("#tune-form").get_by_role("button", name="Apply").click()
    process.eventually(lambda: daemon.stream("RISK_EVENTS")["priority"] == "LOW")
    process.eventually(lambda: pages.tiles(page)["RISK_EVENTS"]["priority"] == "LOW")


def test_a_scenario_is_started_followed_and_cancelled(daemon, page):
    button(page, "Start BUDGET_CRISIS").click()
    box = page.locator("[data-scenario=BUDGET_CRISIS] .runs > li")
    box.wait_for()
    run = next(one for one in daemon.get("/api/streaming/simulate")["runs"] if one["state"] == "running")
    expect(box).to_have_attribute("data-run", run["runId"])

    def same_steps() -> bool:
        current = daemon.get(f"/api/streaming/simulate/{run['runId']}")["current"]
        return [one.get_attribute("title") for one in box.locator(".now li").all()] == current

    process.eventually(same_steps, what="the steps that the API names")
    expect(box.locator(".done")).to_contain_text("alert WARNING")
    expect(pages.tile(page, "BUDGET_UPDATES").locator(".overlays")).to_contain_text("1 RUN")
    button(page, "Cancel BUDGET_CRISIS").click()
    box.wait_for(state="detached")
    assert daemon.get(f"/api/streaming/simulate/{run['runId']}")["state"] == "cancelled"
    expect(page.locator("[data-scenario=BUDGET_CRISIS]")).to_contain_text("Cancelled")


def test_a_dry_run_shows_the_difference_and_changes_nothing(daemon, page):
    generation = daemon.get("/health")["config"]["generation"]
    button(page, "Check files").click()
    page.locator(".report[data-tone=good]").wait_for()
    expect(page.locator("#files-report")).to_contain_text("Nothing differs")
    assert daemon.get("/health")["config"]["generation"] == generation


def test_a_reload_takes_effect(daemon, page):
    generation = daemon.get("/health")["config"]["generation"]
    button(page, "Reload").click()
    page.wait_for_function(
        f"() => document.getElementById('files-report').textContent.includes('Generation {generation + 1}')"
    )
    assert daemon.get("/health")["config"]["generation"] == generation + 1


@pytest.fixture
def spoilt(daemon, page):
    path = daemon.folder / "streams.yaml"
    good = path.read_text()
    path.write_text(good.replace("batch_size", "batch_sice", 1).replace("priority: HIGH", "priority: HIHG", 1))
    yield
    path.write_text(good)
    process.eventually(lambda: daemon.get("/health")["config"]["error"] is None, what="files that are taken again")


def test_problems_are_shown_with_their_places_and_hints(daemon, page, spoilt):
    process.eventually(lambda: daemon.get("/health")["config"]["error"], what="the refusal of the saved file")
    problems = daemon.http.post("/api/streaming/reload?dryRun=true").json()["problems"]
    pages.banner(page, "files").wait_for()
    for name in (None, "Check files", "Reload"):
        if name:
            button(page, name).click()
        page.wait_for_function(f"() => document.querySelectorAll('.problems > li').length === {len(problems)}")
        for one, element in zip(problems, page.locator(".problems > li").all(), strict=True):
            expect(element.locator("code")).to_have_text(f"{one['file']}:{one['line']}:{one['column']}")
            expect(element).to_contain_text(one["message"])
            expect(element).to_contain_text(one["hint"])
    assert any(one["hint"] for one in problems)


def test_mended_files_take_the_problems_away(daemon, page, spoilt):
    pages.banner(page, "files").wait_for()
    path = daemon.folder / "streams.yaml"
    path.write_text(path.read_text().replace("batch_sice", "batch_size").replace("HIHG", "HIGH"))
    pages.banner(page, "files").wait_for(state="detached")
    expect(page.locator(".problems")).to_have_count(0)


def test_a_stream_that_fails_says_why(folder, visit):
    (folder / "streams.yaml").write_text(
        'streams:\n  BROKEN:\n    interval: 20ms\n    fields: {x: "{{ 1 / (1 if seq < 300 else 0) }}"}\n'
        "  WHOLE:\n    interval: 1s\n    fields: {x: 1}\n"
    )
    for file in (folder / "scenarios").glob("*.yaml"):
        file.unlink()
    daemon = process.Daemon(folder)
    try:
        page = visit(daemon.url)
        page.wait_for_selector("article[data-stream=BROKEN][data-state=failing]")
        error = daemon.stream("BROKEN")["error"]
        assert pages.tiles(page)["BROKEN"]["error"] == error
        expect(pages.banner(page, "failing")).to_contain_text("BROKEN")
        expect(page.locator("#health-state")).to_have_text("degraded")
        assert pages.faults(page) == []
    finally:
        daemon.stop()
