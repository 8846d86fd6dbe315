"""Random numbers depend on (seed, stream, seq) alone."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from regstream.functions import rng
from tests.generate import support

FIELDS = {
    "a": "{{ uniform(0, 1) }}",
    "b": "{{ uuid() }}",
    "c": "{{ choice(['x', 'y', 'z']) }}{{ digits(5) }}",
    "d": "{% for i in range(3) %}{{ randint(1, 1000) }} {{ normal(0, 1) }};{% endfor %}",
    "e": "{{ fake('name') }}",
    "n": "{{ seq }}",
}


def made(counts: list[int], seed: int = 7, name: str = "S", seq: int = 0) -> list[bytes]:
    stream = support.build(FIELDS, seed=seed, name=name)
    stream.seq = seq
    return [event.value for count in counts for event in stream.next_batch(support.NOW, count).events]


WHOLE = made([100])


@settings(deadline=None)
@given(some.lists(some.integers(1, 40), min_size=1, max_size=8))
def test_batch_sizes_do_not_matter(counts):
    assert made(counts) == made([sum(counts)])


@pytest.mark.parametrize("start", [0, 1, 30, 31, 32, 33, 63, 64, 95])
def test_a_stream_goes_on_anywhere_as_if_it_had_made_what_is_before(start):
    assert made([5], seq=start) == WHOLE[start : start + 5]


def test_two_runs_are_equal_and_other_seeds_and_streams_are_not():
    first = made([20])
    assert first == made([20])
    for other in (made([20], seed=8), made([20], name="T")):
        assert all(left != right for left, right in zip(first, other, strict=True))


def test_other_streams_and_the_order_of_calls_do_not_matter():
    specs = [support.stream_spec(FIELDS, name) for name in ("S", "T")]
    shop = support.workshop(*specs)
    one, two = (support.stream.Stream(spec, shop, "epoch") for spec in specs)
    mixed = [
        event.value for _ in range(10) for event in (two.next_batch(1.0, 3), one.next_batch(support.NOW, 2))[1].events
    ]
    assert mixed == WHOLE[:20]


def test_the_time_changes_no_draw():
    early, late = (support.build(FIELDS).next_batch(now, 3) for now in (0.0, 2e9))
    assert [one["data"] for one in support.events(early)] == [one["data"] for one in support.events(late)]


def test_the_fields_of_one_event_are_drawn_apart():
    row = support.data(dict.fromkeys("abcdef", "{{ uniform(0, 1) }}"))[0]
    assert len(set(row.values())) == 6


@pytest.mark.parametrize("layout", [rng.Layout(1, 0), rng.Layout(0, 1), rng.Layout(3, 2), rng.Layout(0, 0)])
def test_records_have_the_layout_and_the_doubles_their_range(layout):
    source = rng.Draws(rng.key(7, "S"), layout)
    records = list(source.span(1, 100))
    assert len(records) == 100
    for record in [*records, source.again(5, 1)]:
        assert len(record) == layout.doubles + layout.raws
        assert all(1.0 <= one < 2.0 for one in record[: layout.doubles])
        assert all(len(one) == 16 for one in record[layout.doubles :])


def test_a_new_attempt_is_drawn_apart():
    source = rng.Draws(rng.key(7, "S"), rng.Layout(1, 1))
    found = [next(iter(source.span(5, 1))), *(source.again(5, attempt) for attempt in range(1, 5)), source.again(6, 1)]
    assert len(set(found)) == 6


def test_loose_draws_differ_by_text_event_and_attempt():
    key = rng.key(7, "S")
    found = {rng.Loose(key, *place).raw() for place in itertools.product(range(3), range(3), range(3))}
    assert len(found) == 27
    loose = rng.Loose(key, 1, 1)
    assert 0 <= loose.double() < 1
    assert loose.raw() != loose.raw()


def test_keys_differ_by_seed_and_name():
    found = {rng.key(seed, name) for seed in (0, 1, 2**63 - 1, 2**64 - 1) for name in ("S", "T", "entity S")}
    assert len(found) == 12
    assert all(len(one) == 32 for one in found)
