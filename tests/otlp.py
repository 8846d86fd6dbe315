"""A collector of traces: OTLP over HTTP, decoded with OpenTelemetry's own schema."""

from __future__ import annotations

import collections
import contextlib
import gzip
import http.server
import re
import threading
from collections.abc import Iterator
from typing import Any

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

WELL_FORMED = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class Collector(http.server.ThreadingHTTPServer):
    """What takes traces by OTLP over HTTP (opentelemetry.io/docs/specs/otlp), and keeps the spans."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[trace_pb2.Span] = []
        self.resources: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def named(self, name: str) -> list[trace_pb2.Span]:
        return [one for one in list(self.spans) if one.name == name]

    def children(self, span: trace_pb2.Span) -> collections.Counter[str]:
        return collections.Counter(one.name for one in list(self.spans) if one.parent_span_id == span.span_id)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.path == "/v1/traces"
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        for group in trace_service_pb2.ExportTraceServiceRequest.FromString(body).resource_spans:
            self.server.resources.append(about(group.resource))
            self.server.spans += [span for scope in group.scope_spans for span in scope.spans]
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *about: Any) -> None:
        pass


def about(one: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in one.attributes}


def names(traceparent: str) -> tuple[str, str, bool]:
    """Trace, span and whether it is sampled; a flag beside that says how random the id is (W3C Trace Context 2)."""
    found = WELL_FORMED.fullmatch(traceparent)
    assert found is not None, traceparent
    return found[1], found[2], bool(int(found[3], 16) & 1)


def named(span: trace_pb2.Span) -> tuple[str, str, bool]:
    return span.trace_id.hex(), span.span_id.hex(), True


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def environment(url: str) -> dict[str, str]:
    """What lets a daemon send its traces there, and soon."""
    return {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
