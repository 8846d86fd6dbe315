"""What the tests of this room use: streams made from a few keys, and what their events say."""

from __future__ import annotations

import collections
import itertools
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from regstream import spec
from regstream.generator import check, stream
from regstream.templates import sandbox

NOW = 1_795_435_200.123
IDENTITY = stream.Identity("/regstream/LATAM/test", "LATAM")


def stream_spec(fields: Mapping[str, Any] | None, name: str = "S", **rest: Any) -> spec.StreamSpec:
    return spec.StreamSpec.model_validate({"name": name, "interval": "1s", "fields": fields, **rest})


def entity(name: str, fields: Mapping[str, Any], count: int = 4, key: str = "id") -> spec.EntitySpec:
    return spec.EntitySpec.model_validate({"name": name, "count": count, "key": key, "fields": fields})


def catalog(
    *streams: spec.StreamSpec, entities: tuple[spec.EntitySpec, ...] = (), templates: Mapping[str, str] | None = None
) -> spec.Catalog:
    by_name = {one.name: one for one in streams}
    return spec.Catalog(
        None, spec.Profile(), {one.name: one for one in entities}, by_name, {}, templates or {}, "digest"
    )


def workshop(*streams: spec.StreamSpec, seed: int = 7, **rest: Any) -> stream.GenerationContext:
    made = stream.GenerationContext(catalog(*streams, **rest), seed, IDENTITY)
    made.fill(NOW)
    return made


def build(fields: Mapping[str, Any] | None, seed: int = 7, **rest: Any) -> stream.Stream:
    """A stream of these fields; ``entities`` and ``templates`` go to its catalog, other keys to its declaration."""
    shared = {key: rest.pop(key) for key in ("entities", "templates") if key in rest}
    one = stream_spec(fields, **rest)
    return stream.Stream(one, workshop(one, seed=seed, **shared), "epoch")


def events(made: stream.Batch) -> list[dict[str, Any]]:
    return [json.loads(one.value) for one in made.events]


def data(fields: Mapping[str, Any] | None, count: int = 1, **rest: Any) -> list[dict[str, Any]]:
    """``data`` of the first events of such a stream, all of which must have been made."""
    made = build(fields, **rest).next_batch(NOW, count)
    assert made.error is None, made.error
    return [one["data"] for one in events(made)]


def value(template: Any, **rest: Any) -> Any:
    """What one template gives in the first event."""
    return data({"x": template}, **rest)[0]["x"]


def values(template: Any, count: int, **rest: Any) -> list[Any]:
    return [one["x"] for one in data({"x": template}, count, **rest)]


def faults(fields: Mapping[str, Any] | None, **rest: Any) -> list[check.Fault]:
    """What the check finds in such a stream."""
    shared = {one.name: one for one in rest.pop("entities", ())}
    templates = rest.pop("templates", {})
    return check.check_stream(stream_spec(fields, **rest), shared, templates)


def fault(template: Any, **rest: Any) -> check.Fault:
    """The one fault of one template."""
    found = faults({"x": template}, **rest)
    assert len(found) == 1, found
    return found[0]


def box(**templates: str) -> sandbox.Sandbox:
    return sandbox.Sandbox(templates)


def tail_of_chi_square(distance: float, degrees: int) -> float:
    """The probability that a chi-square variable is at least ``distance``: the regularised upper gamma function."""
    half, x = degrees / 2, distance / 2
    if not degrees or x <= 0:
        return 1.0 if distance <= 0 else 0.0
    scale = math.exp(half * math.log(x) - x - math.lgamma(half))
    if x < half + 1:
        term = total = 1 / half
        for n in itertools.count(1):
            term *= x / (half + n)
            total += term
            if term < total * 1e-15:
                return 1 - total * scale
    # The continued fraction of Lentz
    b = x + 1 - half
    c, d = 1e300, 1 / b
    made = d
    for n in itertools.count(1):
        a = n * (half - n)
        b += 2
        d = 1 / (a * d + b)
        c = b + a / c
        made *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return made * scale


def likelihood(found: Iterable[Any], shares: Mapping[Any, float]) -> float:
    """How likely it is that values which have these shares are as far off them as ``found``: Pearson's chi-square."""
    counts = collections.Counter(found)
    assert set(counts) <= {value for value, share in shares.items() if share}
    scale = counts.total() / sum(shares.values())
    wanted = {value: share * scale for value, share in shares.items() if share}
    distance = sum((counts[value] - mean) ** 2 / mean for value, mean in wanted.items())
    return tail_of_chi_square(distance, len(wanted) - 1)
