"""Traces, as a collector gets them over HTTP from a daemon: decoded with OpenTelemetry's own schema."""

from __future__ import annotations

import contextlib
import json
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk import trace
from opentelemetry.sdk.trace import export
from opentelemetry.sdk.trace.export import in_memory_span_exporter

from regstream import errors, sanitize, tracing
from regstream.broker import codec
from tests import otlp, process
from tests.otlp import Collector, about, named, names
from tests.process import Daemon, eventually

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = f"00-{TRACE}-b7ad6b7169203331-01"

STREAMS = """\
version: 1
seed: 7
streams:
  QUIET:
    schedule: "0 3 29 2 *"
    fields: {n: "{{ seq }}", text: 'a "traceparent":"of its own"'}
    alert: {when: "{{ seq == 2 }}", severity: WARNING, message: "two"}
  TICKING:
    interval: 200ms
    batch_size: 3
    fields: {n: "{{ seq }}"}
  BROKEN:
    schedule: "0 3 29 2 *"
    fields: {n: "{{ 1 / (0 if seq > 200 else 1) }}"}
"""
SCENARIO = """\
name: SMALL
description: An alert and two bursts
steps:
  - alert: {severity: WARNING, message: it begins}
  - burst: {stream: QUIET, count: 2}
  - wait: 100ms
  - burst: {stream: QUIET, count: 1}
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with otlp.collecting() as server:
        yield server


@contextlib.contextmanager
def traced(folder: pathlib.Path, url: str, **more: str) -> Iterator[Daemon]:
    (folder / "streams.yaml").write_text(STREAMS)
    (folder / "scenarios").mkdir()
    (folder / "scenarios" / "small.yaml").write_text(SCENARIO)
    daemon = Daemon(folder, **{**otlp.environment(url), **more})
    try:
        yield daemon
    finally:
        daemon.stop()


def events(daemon: Daemon, stream: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = daemon.get(f"/api/streaming/events?stream={stream}&limit=100")["events"]
    return found


class TestDaemon:
    def test_a_call_leads_to_its_burst_and_that_to_its_events(
        self, tmp_path: pathlib.Path, collector: Collector
    ) -> None:
        with traced(tmp_path, collector.url) as daemon:
            answer = httpx.post(
                f"{daemon.url}/api/streaming/burst",
                json={"streamType": "QUIET", "count": 450},
                headers={"traceparent": CALLER},
            )
            assert answer.status_code == 200
            burst = eventually(lambda: collector.named("burst QUIET"))[0]
            call = eventually(lambda: collector.named("POST /api/streaming/burst"))[0]
            assert (call.trace_id.hex(), call.parent_span_id.hex()) == (TRACE, "b7ad6b7169203331")
            assert call.kind == trace_pb2.Span.SPAN_KIND_SERVER
            assert (
                about(call)["http.route"] == "/api/streaming/burst" and about(call)["http.response.status_code"] == 200
            )
            assert (burst.trace_id, burst.parent_span_id) == (call.trace_id, call.span_id)
            assert about(burst) == {
                "regstream.stream": "QUIET",
                "regstream.events": 450,
                "regstream.first_seq": 1,
                "regstream.last_seq": 450,
            }
            # In slices of 200
            eventually(lambda: collector.children(burst) == {"generate": 3, "publish": 3})
            assert {names(one["traceparent"]) for one in events(daemon, "QUIET")} == {named(burst)}
            (alert,) = events(daemon, "ALERTS")
            assert alert["data"]["causeSeq"] == 2 and names(alert["traceparent"]) == named(burst)

    def test_each_tick_is_a_trace_of_its_own(self, tmp_path: pathlib.Path, collector: Collector) -> None:
        with traced(tmp_path, collector.url) as daemon:
            ticks = eventually(lambda: found if len(found := collector.named("tick TICKING")) > 2 else None)
            shown = events(daemon, "TICKING")
        assert all(not one.parent_span_id for one in ticks) and len({one.trace_id for one in ticks}) == len(ticks)
        for tick in ticks:
            said = about(tick)
            assert said["regstream.events"] == 3 and said["regstream.late_seconds"] >= 0
            of = {one["seq"] for one in shown if names(one["traceparent"]) == named(tick)}
            assert of == set(range(said["regstream.first_seq"], said["regstream.last_seq"] + 1))
            assert tick.end_time_unix_nano > tick.start_time_unix_nano

    def test_a_run_has_its_bursts_and_its_alerts(self, tmp_path: pathlib.Path, collector: Collector) -> None:
        with traced(tmp_path, collector.url) as daemon:
            daemon.post("simulate", {"scenario": "SMALL"}, 202)
            run = eventually(lambda: collector.named("run SMALL"))[0]
            call = eventually(lambda: collector.named("POST /api/streaming/simulate"))[0]
            assert run.parent_span_id == call.span_id and about(run)["regstream.state"] == "completed"
            eventually(lambda: collector.children(run) == {"burst QUIET": 2})
            begun = next(one for one in events(daemon, "ALERTS") if one["data"]["message"] == "it begins")
            assert names(begun["traceparent"]) == named(run)
            for burst in collector.named("burst QUIET"):
                assert about(burst)["regstream.run_id"] == about(run)["regstream.run_id"]

    def test_faults_are_told(self, tmp_path: pathlib.Path, collector: Collector) -> None:
        with traced(tmp_path, collector.url) as daemon:
            assert daemon.burst("BROKEN", 200)
            answer = httpx.post(f"{daemon.url}/api/streaming/burst", json={"streamType": "BROKEN", "count": 1})
            assert answer.status_code >= 400
            failed = trace_pb2.Status.STATUS_CODE_ERROR
            burst = eventually(lambda: [one for one in collector.named("burst BROKEN") if one.status.code == failed])[0]
            calls = "POST /api/streaming/burst"
            call = eventually(lambda: [one for one in collector.named(calls) if "error.type" in about(one)])[0]
            assert "BROKEN" in burst.status.message
            assert about(call)["error.type"] == "RenderError"

    def test_says_whose_they_are_and_hands_over_the_last(self, tmp_path: pathlib.Path, collector: Collector) -> None:
        more = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=demo,deployment.environment.name=test"}
        with traced(tmp_path, collector.url, OTEL_BSP_SCHEDULE_DELAY="60000", **more) as daemon:
            assert daemon.burst("QUIET", 1)
            assert not collector.spans
        assert collector.named("burst QUIET")
        assert (
            collector.resources[0].items()
            >= {
                "service.name": "demo",
                "deployment.environment.name": "test",
                "service.instance.id": "VPS-DataStreamer",
                "telemetry.sdk.name": "opentelemetry",
            }.items()
        )

    def test_what_is_not_sampled_says_so(self, tmp_path: pathlib.Path, collector: Collector) -> None:
        with traced(tmp_path, collector.url, OTEL_TRACES_SAMPLER="always_off") as daemon:
            daemon.burst("QUIET", 1)
            (event,) = events(daemon, "QUIET")
        assert names(event["traceparent"])[2] is False
        assert not collector.spans

    @pytest.mark.parametrize("given", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "é" * 500])
    def test_whatever_the_caller_says(self, tmp_path: pathlib.Path, collector: Collector, given: str) -> None:
        with traced(tmp_path, collector.url) as daemon:
            answer = httpx.post(
                f"{daemon.url}/api/streaming/burst",
                json={"streamType": "QUIET", "count": 1},
                headers={"traceparent": given.encode()},
            )
            assert answer.status_code == 200
            call = eventually(lambda: collector.named("POST /api/streaming/burst"))[0]
            assert not call.parent_span_id and any(call.trace_id)

    def test_a_collector_that_is_away_holds_nothing_up(self, tmp_path: pathlib.Path) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            with traced(tmp_path, url) as daemon:
                assert daemon.burst("QUIET", 1)
                began = time.monotonic()
                assert daemon.stop() == 0
                assert time.monotonic() - began < 10

    def test_one_that_refuses_is_told_of_seldom(self, tmp_path: pathlib.Path) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            with traced(tmp_path, f"http://127.0.0.1:{closed.getsockname()[1]}") as daemon:
                eventually(lambda: "opentelemetry" in daemon.log.read_text())
                before = len(events(daemon, "TICKING"))
                eventually(lambda: len(events(daemon, "TICKING")) > before + 15)
                assert len([one for one in daemon.log.read_text().splitlines() if "opentelemetry" in one]) < 5


def test_what_is_raised_is_recorded_without_what_it_quotes(monkeypatch: pytest.MonkeyPatch) -> None:
    secret, known = "correct-horse", sanitize.Redactor()
    known.remember([secret])
    monkeypatch.setattr(sanitize, "redact", known.redact)
    exporter, provider = in_memory_span_exporter.InMemorySpanExporter(), trace.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    recording = tracing._Recording(provider, "1")
    tick = recording.begin("tick", {})
    with contextlib.suppress(ValueError), tick.part("publish"):
        raise ValueError(f"password={secret}")
    tick.end(f"password={secret}")
    with contextlib.suppress(ValueError), recording.send({}, tuple):
        raise ValueError(f"password={secret}")
    with contextlib.suppress(ValueError), recording.call("GET /", {}, ""):
        raise ValueError(f"password={secret}")
    spans = [span.to_json() for span in exporter.get_finished_spans()]
    assert len(spans) == 4 and not [span for span in spans if "horse" in span]
    assert sum("ValueError" in span for span in spans) == 2 and any("password=***" in span for span in spans)


class TestOff:
    def test_events_carry_nothing(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "streams.yaml").write_text(STREAMS)
        daemon = Daemon(tmp_path)
        try:
            daemon.burst("QUIET", 1)
            assert "traceparent" not in events(daemon, "QUIET")[0]
        finally:
            daemon.stop()

    def test_the_library_is_not_loaded(self) -> None:
        code = (
            "import sys; from regstream import daemon, settings; daemon.build(settings.load({})); "
            "print([one for one in sys.modules if one.startswith('opentelemetry')])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=process.environment(), capture_output=True, text=True, check=True
        )
        assert done.stdout == "[]\n"

    def test_without_the_library_it_says_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
        with pytest.raises(errors.StartError, match=r"OTEL_TRACES_EXPORTER=otlp: opentelemetry\S* is not.*make traces"):
            tracing.make("otlp", "1", "here")

    def test_another_exporter_is_refused(self) -> None:
        done = process.run("run", OTEL_TRACES_EXPORTER="jaeger")
        assert done.returncode and "OTEL_TRACES_EXPORTER" in done.stderr and "none otlp" in done.stderr


class TestInTheBytes:
    @pytest.mark.parametrize(
        ("value", "found"),
        [
            (b'{"region":"x","traceparent":"00-a","data":{}}', b"00-a"),
            (b'{"region":"x","data":{"traceparent":"00-a"}}', None),
            (json.dumps({"region": '"traceparent":"no"', "data": {}}, separators=(",", ":")).encode(), None),
            (b"", None),
        ],
    )
    def test_is_found(self, value: bytes, found: bytes | None) -> None:
        assert codec.traceparent(value) == found
