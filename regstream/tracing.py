"""Traces: what made an event and where its time went, for whoever collects them with OpenTelemetry.

A trace begins with a control call, a scenario's run, or a tick; the events that come of it carry its ``traceparent``
(W3C Trace Context, as the CloudEvents extension for distributed tracing has it), so that who reads them can go on with
it. ``Traces`` is what there is when nobody collects any: it costs a few calls a tick. ``make`` gives the one that
records, and only then is the library imported.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from regstream import errors, logs, sanitize

CLOSING_SECONDS = 2.0
MAX_LINKS = 128
Attributes = Mapping[str, str | int | float]


class Span:
    """A stretch of work; this one is of no trace. ``traceparent`` names it to others, empty when there is none."""

    traceparent = ""

    def part(self, name: str) -> contextlib.AbstractContextManager[None]:
        """A shorter stretch within it."""
        return contextlib.nullcontext()

    def note(self, attributes: Attributes) -> None:
        """Add what became known meanwhile."""

    def end(self, fault: str = "") -> None:
        """It is over, and went wrong if there is a ``fault``; to be called once."""


NONE = Span()


class Traces:
    """Records nothing."""

    def begin(self, name: str, attributes: Attributes, parent: Span | None = None) -> Span:
        """A new stretch within ``parent``, or else within the call under way, or else at the root of a trace."""
        return NONE

    def call(self, name: str, attributes: Attributes, traceparent: str) -> contextlib.AbstractContextManager[Span]:
        """A call that is served, within the caller's trace if it has one; what is done meanwhile belongs to it."""
        return contextlib.nullcontext(NONE)

    def send(
        self, attributes: Attributes, links: Callable[[], Collection[str]]
    ) -> contextlib.AbstractContextManager[Span]:
        """Events of several traces that are sent at once; ``links`` gives the ``traceparent`` of each of these."""
        return contextlib.nullcontext(NONE)

    async def close(self) -> None:
        """Hand over what was recorded, for ``CLOSING_SECONDS`` at most."""


OFF = Traces()


class _Recorded(Span):
    def __init__(self, tracer: Any, span: Any) -> None:
        from opentelemetry import trace

        self._tracer, self._span = tracer, span
        self.within = trace.set_span_in_context(span)
        of = span.get_span_context()
        self.traceparent = f"00-{of.trace_id:032x}-{of.span_id:016x}-{int(of.trace_flags):02x}"

    def part(self, name: str) -> contextlib.AbstractContextManager[None]:
        # The span around it says what went wrong
        found: contextlib.AbstractContextManager[None] = self._tracer.start_as_current_span(
            name, context=self.within, record_exception=False, set_status_on_exception=False
        )
        return found

    def note(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def end(self, fault: str = "") -> None:
        if fault:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_status(Status(StatusCode.ERROR, sanitize.redact(fault)))
        self._span.end()


class _Recording(Traces):
    def __init__(self, provider: Any, version: str) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("regstream", version)

    def begin(self, name: str, attributes: Attributes, parent: Span | None = None) -> Span:
        within = parent.within if isinstance(parent, _Recorded) else None
        return _Recorded(self._tracer, self._tracer.start_span(name, context=within, attributes=attributes))

    @contextlib.contextmanager
    def call(self, name: str, attributes: Attributes, traceparent: str) -> Iterator[Span]:
        from opentelemetry import trace

        # Not the present context: a connection that is kept alive would have that of an earlier call
        with self._current(
            name, context=_context(traceparent), kind=trace.SpanKind.SERVER, attributes=attributes
        ) as span:
            yield span

    @contextlib.contextmanager
    def _current(self, name: str, **options: Any) -> Iterator[Span]:
        """A span with the class of what is raised, and not its text: whoever wrote that may have quoted a secret."""
        with self._tracer.start_as_current_span(
            name, **options, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield _Recorded(self._tracer, span)
            except Exception as error:
                span.set_attribute("error.type", type(error).__name__)
                raise

    @contextlib.contextmanager
    def send(self, attributes: Attributes, links: Callable[[], Collection[str]]) -> Iterator[Span]:
        from opentelemetry import trace

        found = [trace.get_current_span(_context(one)).get_span_context() for one in list(links())[:MAX_LINKS]]
        with self._current(
            "send",
            context=_context(""),
            kind=trace.SpanKind.PRODUCER,
            attributes=attributes,
            links=[trace.Link(one) for one in found],
        ) as span:
            yield span

    async def close(self) -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut() -> None:
            self._provider.shutdown()
            # The loop may be gone by then, when the collector took too long
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(done.set)

        # A daemon's thread: a collector that does not answer must not hold the process up
        threading.Thread(target=shut, name="traces", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), CLOSING_SECONDS)


def _context(traceparent: str) -> Any:
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": traceparent} if traceparent else {}, Context())


def make(exporter: str, version: str, instance: str) -> Traces:
    """What records for ``exporter``: ``otlp``, which sends to a collector, or ``none``.

    The rest is told by the variables that OpenTelemetry has for it. Raises StartError when the library is not there.
    """
    if exporter == "none":
        return OFF
    try:
        import requests
        from opentelemetry.exporter.otlp.proto.http import trace_exporter
        from opentelemetry.sdk import resources, trace
        from opentelemetry.sdk.trace import export
    except ImportError as error:
        cure = "install what traces need, `make traces` or systemd/install.sh once more, or set it to none"
        raise errors.StartError("OTEL_TRACES_EXPORTER=otlp", f"{error.name} is not installed: {cure}") from None
    logs.limit_rate("opentelemetry")
    own = {"service.name": "regstream", "service.version": version, "service.instance.id": instance}
    # What the environment says goes before ours
    resource = resources.Resource.create(own).merge(resources.OTELResourceDetector().detect())
    provider = trace.TracerProvider(resource=resource, shutdown_on_exit=False)
    # To the collector that is named, by no proxy of the environment, and with no login of a .netrc
    session = requests.Session()
    session.trust_env = False
    provider.add_span_processor(export.BatchSpanProcessor(trace_exporter.OTLPSpanExporter(session=session)))
    return _Recording(provider, version)
