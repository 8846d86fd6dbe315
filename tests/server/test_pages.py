"""The pages: complete in themselves, small, strict."""

from __future__ import annotations

import importlib.resources
import re
from typing import Any

import pytest
from prometheus_client import parser

from regstream.server import assets

FOLDER = importlib.resources.files("regstream") / "dashboard"
FILES = ("index.html", "docs.html", *assets.ASSETS)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("path", "media"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/docs", "text/html; charset=utf-8"),
        ("/assets/page.js", "text/javascript; charset=utf-8"),
        ("/assets/docs.js", "text/javascript; charset=utf-8"),
        ("/assets/page.css", "text/css; charset=utf-8"),
    ],
)
async def test_a_page_is_served_as_it_is_and_once(shared: Any, path: str, media: str) -> None:
    response = await shared.client.get(path)
    assert (response.status_code, response.headers["content-type"]) == (200, media)
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    for tag in (response.headers["etag"], f'"x", W/{response.headers["etag"]}'):
        again = await shared.client.get(path, headers={"if-none-match": tag})
        assert (again.status_code, again.content) == (304, b"")
    assert (await shared.client.get(path, headers={"if-none-match": '"x"'})).status_code == 200


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("path", ["/assets/", "/assets/../app.py", "/assets/%2e%2e/app.py", "/assets/index.html"])
async def test_nothing_else_is_served(shared: Any, path: str) -> None:
    assert (await shared.client.get(path)).status_code == 404


@pytest.mark.asyncio(loop_scope="module")
async def test_all_that_a_page_names_is_there(shared: Any) -> None:
    for page in ("/", "/docs"):
        text = (await shared.client.get(page)).text
        for link in re.findall(r'(?:href|src)="(/[^"]*)"', text):
            assert (await shared.client.get(link)).status_code == 200, link


@pytest.mark.parametrize("name", FILES)
def test_no_value_becomes_markup_and_nothing_comes_from_elsewhere(name: str) -> None:
    text = (FOLDER / name).read_text()
    assert not re.search(r"innerHTML\s*[+=]|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text)
    assert not re.search(r"https?://(?!\$)", text)
    assert not re.search(r"<script>|<style>|\son\w+=|style=", text)


def test_the_live_page_is_small() -> None:
    files = [name for name in assets.ASSETS if name != "docs.js"]
    assert sum(len((FOLDER / name).read_bytes()) for name in ("index.html", *files)) < 100_000


async def test_metrics_are_understood_by_prometheus_own_parser(live: Any) -> None:
    await live.until(lambda: live.services.engine.totals.events > 3)
    response = await live.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    families = {family.name: family for family in parser.text_string_to_metric_families(response.text)}
    events = {one.labels["stream"]: one.value for one in families["regstream_stream_events"].samples}
    assert events["TRANSACTION_STREAM"] > 0
    assert set(events) == {one.name for one in live.services.engine.streams()}
    assert families["regstream_stream_events"].type == "counter"
    for name in ("regstream_subscribers", "regstream_config_generation", "process_resident_memory_bytes"):
        assert families[name].samples
    states = [one for one in families["regstream_stream_state"].samples if one.labels["stream"] == "SYSTEM_METRICS"]
    assert sum(one.value for one in states) == 1


async def test_metrics_with_a_thousand_streams_do_not_hold_up_the_loop(live: Any) -> None:
    text = "".join(f"  S{number}:\n    interval: 1h\n    fields: {{x: 1}}\n" for number in range(1000))
    (live.folder / "streams.yaml").write_text(f"streams:\n{text}")
    (live.folder / "scenarios" / "crisis.yaml").unlink()
    (live.folder / "scenarios" / "quick.yaml").unlink()
    assert (await live.client.post("/api/streaming/reload", timeout=60)).status_code == 200
    response = await live.client.get("/metrics")
    assert response.text.count("regstream_stream_events_total{") == 1000
