"""``/metrics``: the state of the daemon with Prometheus' names and units.

The state is copied on the loop, which is quick; the text is made from the copy in a thread, which is not.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import prometheus_client
from prometheus_client import core
from prometheus_client.registry import Collector

from regstream import broker, hub, reloader
from regstream.engine import status
from regstream.server.services import Services

if TYPE_CHECKING:
    from regstream import store

MEDIA_TYPE = prometheus_client.CONTENT_TYPE_LATEST
STATES = ("running", "paused", "stopped", "failing")


class Snapshot(NamedTuple):
    """A copy of all that is shown."""

    streams: tuple[status.StreamStatus, ...]
    broker: broker.BrokerStatus
    store: store.StoreStatus | None
    store_bytes: int
    runs: tuple[str, ...]
    totals: status.Totals
    lateness: tuple[tuple[int, ...], float]
    waiting: int
    ways: Mapping[str, int]
    refusals: Mapping[str, int]
    loop_lag: tuple[tuple[int, ...], float]
    subscribers: int
    pending: int
    fullest: float
    shown: hub.HubCounts
    generation: int
    loaded_at: float
    reloads: Mapping[tuple[str, str], int]
    refused: bool
    streaming: bool
    allowed: bool
    uptime: float
    version: str


def snapshot(services: Services, ways: Mapping[str, int]) -> Snapshot:
    """The present state, with how many readers are connected by which of ``ways``; to be called on the loop."""
    engine, door = services.engine, services.door
    return Snapshot(
        streams=tuple(engine.streams()),
        broker=services.broker.status,
        store=services.store.status if services.store is not None else None,
        store_bytes=services.store.waiting_bytes if services.store is not None else 0,
        runs=tuple(run.state for run in engine.runs()),
        totals=dataclasses.replace(engine.totals),
        lateness=engine.lateness.copy(),
        waiting=engine.waiting,
        ways=ways,
        refusals=services.guard.refusals.counts,
        loop_lag=services.pulse.lag.copy(),
        subscribers=services.hub.subscribers,
        pending=services.hub.pending,
        fullest=services.hub.fullest,
        shown=services.hub.counts,
        generation=door.receipt.generation,
        loaded_at=door.receipt.loaded_at,
        reloads=dict(door.counts),
        refused=door.error is not None,
        streaming=engine.streaming,
        allowed=engine.allowed,
        uptime=services.now() - engine.started_at,
        version=services.version,
    )


def render(state: Snapshot) -> bytes:
    """The text format of ``state`` and of this process; touches nothing but its argument."""
    registry = prometheus_client.CollectorRegistry(auto_describe=False)
    registry.register(_Families(state))
    prometheus_client.ProcessCollector(registry=registry)
    return prometheus_client.generate_latest(registry)


_COUNTERS = (
    ("events", "events", "Events made"),
    ("bytes", "bytes", "Bytes of the events made"),
    ("ticks", "ticks", "Ticks that made a batch"),
    ("missed", "ticks_missed", "Ticks that were due while an earlier one still waited"),
    ("errors", "errors", "Ticks that failed"),
)
_GAUGES = (
    ("seq", "seq", "Number of the last event in its epoch"),
    ("target_rate", "target_events_per_second", "Events a second that the declaration asks for"),
    ("actual_rate", "actual_events_per_second", "Events a second that were made lately"),
)


class _Families(Collector):
    """Turns one snapshot into families."""

    def __init__(self, state: Snapshot) -> None:
        self._state = state

    def collect(self) -> Iterator[core.Metric]:
        """All families."""
        yield from self._streams()
        yield from self._broker()
        yield from self._store()
        yield from self._daemon()

    def _streams(self) -> Iterator[core.Metric]:
        streams = self._state.streams
        for attribute, name, text in _COUNTERS:
            yield _by("stream", f"stream_{name}", text, {one.name: getattr(one, attribute) for one in streams})
        due = {one.name: one.ticks + one.missed for one in streams}
        yield _by("stream", "stream_ticks_due", "Ticks that were due, missed ones included", due)
        for attribute, name, text in _GAUGES:
            yield self._gauges(attribute, name, text)
        state = core.GaugeMetricFamily("regstream_stream_state", "1 for the state it is in", labels=["stream", "state"])
        for one in streams:
            for name in STATES:
                state.add_metric([one.name, name], float(one.state == name))
        yield state
        late = core.GaugeMetricFamily(
            "regstream_stream_lateness_seconds", "Lateness of the last tick", labels=["stream"]
        )
        for one in streams:
            if one.late_ms is not None:
                late.add_metric([one.name], one.late_ms / 1000)
        yield late

    def _gauges(self, attribute: str, name: str, text: str) -> core.Metric:
        gauge = core.GaugeMetricFamily(f"regstream_stream_{name}", text, labels=["stream"])
        for one in self._state.streams:
            if (value := getattr(one, attribute)) is not None:
                gauge.add_metric([one.name], value)
        return gauge

    def _broker(self) -> Iterator[core.Metric]:
        broker = self._state.broker
        yield core.CounterMetricFamily("regstream_broker_produced", "Events given to the broker", broker.produced)
        yield core.CounterMetricFamily("regstream_broker_consumed", "Events taken from the broker", broker.consumed)
        yield core.CounterMetricFamily("regstream_broker_errors", "Errors of the broker", broker.errors)
        for name, text, value in (
            ("waiting_events", "Events on disk that wait for a broker that is away", broker.waiting),
            ("waiting_bytes", "Bytes on disk that wait for a broker that is away", broker.waiting_bytes),
            ("lag", "Messages on the topics that were not consumed yet", broker.lag),
            ("simulation", "1 while no broker takes events", broker.simulation),
        ):
            yield core.GaugeMetricFamily(f"regstream_broker_{name}", text, float(value))
        yield core.CounterMetricFamily("regstream_broker_foreign", "Messages that are none of ours", broker.foreign)
        yield core.CounterMetricFamily("regstream_broker_skipped", "Numbers that never came", broker.skipped)
        text = "Events given up because the disk space for them was"
        yield _by("stream", "broker_dropped", text, self._of_all(broker.dropped))
        info = core.GaugeMetricFamily("regstream_broker_state", "1 for the state it is in", labels=["kind", "state"])
        info.add_metric([broker.kind, broker.state], 1)
        yield info

    def _of_all(self, counts: Mapping[str, int]) -> dict[str, int]:
        """With the streams of which nothing was counted: the increase from nothing to something is seen by nobody."""
        return {**dict.fromkeys((one.name for one in self._state.streams), 0), **counts}

    def _store(self) -> Iterator[core.Metric]:
        store = self._state.store
        if store is None:
            return
        for name, text, count in (
            ("recorded", "Events that the database has since the start", store.recorded),
            ("refused", "Events and notes that no row of the database can hold", store.refused),
            ("lost", "Messages that were gone from a topic before they were recorded", store.lost),
        ):
            yield core.CounterMetricFamily(f"regstream_store_{name}", text, count)
        for name, text, value in (
            ("waiting", "Events and notes on disk that wait for the database", store.waiting),
            ("waiting_bytes", "Bytes on disk that wait for the database", self._state.store_bytes),
            ("lag", "Messages on the topics that the database has not", store.lag),
        ):
            yield core.GaugeMetricFamily(f"regstream_store_{name}", text, float(value))
        text = "Events that will not be recorded because the disk was full"
        yield _by("stream", "store_dropped", text, self._of_all(store.dropped))
        state = core.GaugeMetricFamily("regstream_store_state", "1 for the state it is in", labels=["state"])
        state.add_metric([store.state], 1)
        yield state

    def _daemon(self) -> Iterator[core.Metric]:
        state = self._state
        build = core.GaugeMetricFamily("regstream_build_info", "Always 1", labels=["version"])
        build.add_metric([state.version], 1)
        yield build
        yield _histogram("tick_lateness", "How late ticks were", state.lateness)
        yield _histogram("loop_lag", "How much later than asked for the event loop called", state.loop_lag)
        yield self._reloads()
        yield _by("reason", "refusals", "What was refused to clients, by reason", state.refusals)
        recoveries = {"true": state.shown.recovered, "false": state.shown.unrecovered}
        text = "Positions from which subscribers asked to go on, by whether they could"
        yield _by("recovered", "recoveries", text, recoveries)
        ways = core.GaugeMetricFamily("regstream_readers", "Connected readers, by way", labels=["way"])
        for way, count in state.ways.items():
            ways.add_metric([way], count)
        yield ways
        for name, text, count in (
            ("events_lost", "Events that the broker refused or lost", state.totals.lost),
            ("alerts_dropped", "Alerts dropped because too many waited", state.totals.alerts_dropped),
            ("events_shown", "Events shown to subscribers", state.shown.shown),
            ("subscribers_slow", "Subscribers cut off because they were too slow", state.shown.slow),
            ("deliveries_dropped", "Deliveries that slow subscribers had no room for", state.shown.lost),
        ):
            yield core.CounterMetricFamily(f"regstream_{name}", text, count)
        running = sum(run == "running" for run in state.runs)
        for name, text, value in (
            ("streams_waiting", "Streams that are due or have a burst, and wait to be served", state.waiting),
            ("subscribers", "Subscribers of the hub", state.subscribers),
            ("subscribers_pending", "Subscribers for whom something waits", state.pending),
            ("subscribers_fullest_ratio", "How full the fullest queue of a subscriber is, from 0 to 1", state.fullest),
            ("streaming", "1 while streaming is started", state.streaming),
            ("streaming_allowed", "0 with ENABLE_STREAMING=false, or while another daemon generates", state.allowed),
            ("uptime_seconds", "Time since the start", state.uptime),
            ("scenario_runs", "Runs of scenarios that are under way", running),
            ("config_generation", "Generation of the configuration in force", state.generation),
            ("config_loaded_timestamp_seconds", "When the configuration in force was loaded", state.loaded_at),
            ("config_last_reload_successful", "0 after a reload was refused", not state.refused),
        ):
            yield core.GaugeMetricFamily(f"regstream_{name}", text, float(value))

    def _reloads(self) -> core.Metric:
        text = "Reloads, by what asked for them and what came of it"
        family = core.CounterMetricFamily("regstream_reloads", text, labels=["source", "result"])
        none = dict.fromkeys(itertools.product(reloader.SOURCES, ("applied", "refused")), 0)
        for labels, count in {**none, **self._state.reloads}.items():
            family.add_metric(labels, count)
        return family


def _histogram(name: str, text: str, counted: tuple[tuple[int, ...], float]) -> core.Metric:
    counts, seconds = counted
    bounds = [*map(str, status.LATENESS), "+Inf"]
    buckets = list(zip(bounds, itertools.accumulate(counts), strict=True))
    return core.HistogramMetricFamily(f"regstream_{name}_seconds", text, buckets=buckets, sum_value=seconds)


def _by(label: str, name: str, text: str, counts: Mapping[str, int]) -> core.Metric:
    family = core.CounterMetricFamily(f"regstream_{name}", text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
