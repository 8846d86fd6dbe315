"""A past at full speed: the shipped bank, and a hundred streams for a virtual week, over the event by hand."""

from __future__ import annotations

import pathlib
import statistics
import tempfile
import time

from benchmarks import floor, generation, rig, table
from regstream import config
from regstream.engine import active_stream, backfill
from regstream.generator import alerts
from regstream.generator import stream as streams

BEGIN = 1_767_225_600.0
STREAMS = 100
INTERVAL = "30s"
WEEK = "7d"
_ROUNDS = 5


def _bank() -> backfill.Backfill:
    declared = config.load(rig.ROOT / "streams.yaml", rig.ROOT / "scenarios", rig.ROOT / "templates", "production")
    workshop = streams.GenerationContext(declared, 7, streams.Identity("/regstream/LATAM/bench", "LATAM"))
    workshop.fill(BEGIN)
    at_work = active_stream.of_catalog(workshop, BEGIN, "0")
    return backfill.Backfill(lambda: at_work, streams.Stream(alerts.SPEC, workshop, "0"), BEGIN)


def bank(tiny: bool = False) -> table.Row:
    """Events a CPU second of all shipped streams in the order of time, without writing them anywhere."""
    past, by_hand = _bank(), floor.by_hand()
    rates, floors, upto = [], [], BEGIN
    for _ in range(1 if tiny else _ROUNDS):
        began, made = time.process_time(), 0
        while made < (1_000 if tiny else 60_000):
            upto += 3_600
            made += sum(map(len, past.until(upto)))
        rates.append(made / (time.process_time() - began))
        began = time.process_time()
        by_hand(1_000 if tiny else 60_000)
        floors.append((1_000 if tiny else 60_000) / (time.process_time() - began))
    ratio = statistics.median(one / other for one, other in zip(rates, floors, strict=True))
    figure = statistics.median(rates)
    return table.Row("history: bank / by hand", figure, "events/CPU s", 0.2, 0.4, figure / ratio, True, True)


def _declared() -> str:
    """A hundred times the reference stream, one event a tick."""
    text = generation.REFERENCE.read_text(encoding="utf-8")
    head, _, body = text.partition("  REFERENCE:\n")
    body = body.replace("interval: 1s", f"interval: {INTERVAL}").replace("batch_size: 100", "batch_size: 1")
    return head + "".join(f"  S{number}:\n{body}" for number in range(STREAMS))


def week(tiny: bool = False) -> table.Row:
    """``regstream generate`` as a process, into a file: events a second of wall time, start and end included."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        (path / "streams.yaml").write_text(_declared(), encoding="utf-8")
        out = path / "out.jsonl"
        span = ("--from", "2026-01-01", "--duration", "1h" if tiny else WEEK, "--out", str(out))
        alone, seconds = (_seconds(path, *span, *jobs) for jobs in (("--jobs", "1"), ()))
        with out.open("rb") as file:
            made = sum(1 for _ in file)
        size = out.stat().st_size
    by_hand, count = floor.by_hand(), 1_000 if tiny else 500_000
    began = time.perf_counter()
    by_hand(count)
    other = count / (time.perf_counter() - began)
    note = f"{made:,} events of {STREAMS} streams, {size / 1e6:,.0f} MB, in {seconds:.1f} s; one process: {alone:.1f} s"
    return table.Row("history: virtual week / by hand", made / seconds, "events/s", 0.3, 0.9, other, True, True, note)


def _seconds(path: pathlib.Path, *span: str) -> float:
    began = time.perf_counter()
    rig.output("-m", "regstream", "generate", *rig.flags(path), "--seed", "7", *span)
    return time.perf_counter() - began


def measure(tiny: bool = False) -> list[table.Row]:
    """Both."""
    return [bank(tiny), week(tiny)]
