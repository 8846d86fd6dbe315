"""How many encoded events of the reference stream a CPU second makes, beside the same event without regstream."""

from __future__ import annotations

import pathlib
import statistics
import time

from benchmarks import floor, table
from regstream import config, spec
from regstream.generator import stream as streams

REFERENCE = pathlib.Path(__file__).with_name("reference.yaml")
BATCHES = (1, 10, 100, 1000)
_NOWHERE = pathlib.Path(__file__).with_name("nowhere")
_NOW = 1_795_435_200.0


def catalog() -> spec.Catalog:
    """The declaration of the reference stream."""
    return config.load(REFERENCE, _NOWHERE, _NOWHERE, "development")


def source(declared: spec.Catalog) -> streams.Stream:
    """The reference stream, ready to be asked for events."""
    workshop = streams.GenerationContext(declared, 7, streams.Identity("/regstream/LATAM/bench", "LATAM"))
    workshop.fill(_NOW)
    return streams.Stream(declared.streams["REFERENCE"], workshop, "0")


def _ours(declared: spec.Catalog, batch: int) -> floor.Maker:
    stream = source(declared)

    def make(count: int) -> None:
        for number in range(count // batch):
            stream.next_batch(_NOW + number, batch)

    return make


def _rates(makers: dict[str, floor.Maker], seconds: float, rounds: int) -> dict[str, list[float]]:
    """Events a CPU second of each, once a round, so that a busy neighbour disturbs all of them alike."""
    counts = {}
    for name, make in makers.items():
        make(1000)
        counts[name] = max(1000, int(1000 / _cpu(make, 1000) * seconds) // 1000 * 1000)
    rates: dict[str, list[float]] = {name: [] for name in makers}
    for _ in range(rounds):
        for name, make in makers.items():
            rates[name].append(counts[name] / _cpu(make, counts[name]))
    return rates


def _cpu(make: floor.Maker, count: int) -> float:
    began = time.process_time()
    make(count)
    return time.process_time() - began


def measure(tiny: bool = False) -> list[table.Row]:
    """Over the event by hand, and over a template per field; medians of the rounds' ratios decide."""
    declared = catalog()
    fields = declared.streams["REFERENCE"].fields or {}
    makers = {str(batch): _ours(declared, batch) for batch in BATCHES}
    makers |= {"hand": floor.by_hand(), "fields": floor.template_per_field(fields)}
    rates = _rates(makers, 0.01 if tiny else 0.25, 1 if tiny else 9)
    middle = {name: statistics.median(found) for name, found in rates.items()}

    def floored(name: str) -> float:
        # Such a floor that figure over floor is the median of the ratios, not the ratio of two medians
        ratios = [ours / other for ours, other in zip(rates["100"], rates[name], strict=True)]
        return middle["100"] / statistics.median(ratios)

    sizes = ", ".join(f"{batch}: {middle[str(batch)]:,.0f}" for batch in BATCHES)
    ours = middle["100"]
    return [
        table.Row(
            "generation / by hand", ours, "events/CPU s", 0.45, 0.8, floored("hand"), True, True,
            f"events a CPU second by batch size: {sizes}",
        ),
        table.Row("generation / template per field", ours, "events/CPU s", 10, 20, floored("fields"), True, True),
    ]  # fmt: skip
