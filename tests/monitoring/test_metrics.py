"""`/metrics` of a real daemon: each family is the one that the documentation names, and Prometheus finds no fault."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from prometheus_client import parser

from tests import databases, process
from tests.monitoring import prometheus
from tests.support import ROOT

PAGE = ROOT / "docs" / "monitoring.md"


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[str]:
    """What a daemon with a database shows after it was used."""
    databases.need(request.node.nodeid)
    url = request.getfixturevalue("_postgres").newest()
    with process.running(tmp_path_factory.mktemp("shown"), DATABASE_URL=url) as daemon, daemon.reader() as reader:
        reader.subscribe("dashboard-updates", after={"RISK_EVENTS": {"epoch": "none", "seq": 1}})
        last = daemon.burst("RISK_EVENTS", 5)[1]
        reader.event("RISK_EVENTS", last)
        # A burst is no tick: until the clock has served one, no stream has a lateness to show.
        yield process.eventually(lambda: ticked(daemon.http.get("/metrics").text), 60, "a tick")


def ticked(text: str) -> str:
    """That text, when the clock of its daemon has served a tick; nothing before."""
    return text if re.search(r"^regstream_stream_ticks_total\{.*\} [1-9]", text, re.MULTILINE) else ""


def documented() -> dict[str, tuple[str, str]]:
    """Type and labels of each family, as the page has them."""
    rows = re.findall(r"^\| `(regstream_\w+)` \| (\w+) \| ([^|]*) \|", PAGE.read_text(), re.MULTILINE)
    return {name: (kind, labels.strip()) for name, kind, labels in rows}


def value(text: str, line: str) -> float:
    """The one figure of that name and these labels."""
    found = re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
    assert found is not None, line
    return float(found[1])


def test_prometheus_own_linter_finds_nothing(text: str) -> None:
    done = prometheus.promtool("check", "metrics", stdin=text)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_shown_is_what_is_documented(text: str) -> None:
    shown = {}
    for family in parser.text_string_to_metric_families(text):
        if family.name.startswith("regstream_"):
            labels = sorted({key for one in family.samples for key in one.labels} - {"le"})
            name = f"{family.name}_total" if family.type == "counter" else family.name
            shown[name] = (family.type, ", ".join(f"`{label}`" for label in labels))
    assert shown == documented()


def test_lateness_is_counted_by_how_late(text: str) -> None:
    families = parser.text_string_to_metric_families(text)
    family = next(one for one in families if one.name == "regstream_tick_lateness_seconds")
    counts = [one.value for one in family.samples if one.name.endswith("_bucket")]
    assert counts == sorted(counts) and counts[-1] > 0
    ticks = re.findall(r"^regstream_stream_ticks_total\{.*\} (\S+)$", text, re.MULTILINE)
    assert value(text, "regstream_tick_lateness_seconds_count") == counts[-1] == sum(map(float, ticks))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('regstream_readers{way="websocket"}', 1),
        ('regstream_readers{way="socketio"}', 0),
        ('regstream_readers{way="sse"}', 0),
        ('regstream_recoveries_total{recovered="false"}', 1),
        ('regstream_reloads_total{result="applied",source="start"}', 1),
        ('regstream_reloads_total{result="refused",source="SIGHUP"}', 0),
        ('regstream_refusals_total{reason="unauthorized"}', 0),
        ('regstream_store_dropped_total{stream="RISK_EVENTS"}', 0),
        ("regstream_events_lost_total", 0),
        ("regstream_subscribers", 1),
    ],
)
def test_a_figure_is_what_happened(text: str, line: str, expected: float) -> None:
    assert value(text, line) == expected


def test_the_page_names_each_alert() -> None:
    written = set(re.findall(r"^\| `(Regstream\w+)` \|", PAGE.read_text(), re.MULTILINE))
    assert written == {one["alert"] for one in prometheus.alerts()}
