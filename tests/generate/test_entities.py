"""Entity rows: how they are made, picked, changed by events and carried over a reload."""

from __future__ import annotations

import json

import pytest

from regstream import errors, spec
from regstream.generator import entities, stream
from tests.generate import support

P = support.entity("p", {"id": "P{{ index }}", "n": "{{ randint(1, 1000) }}", "spent": 0}, count=5)


def rows(*declared: spec.EntitySpec, seed: int = 7, **rest) -> dict[str, list[dict]]:
    return support.workshop(entities=declared, seed=seed, **rest).pools


def test_rows_are_made_once_with_their_index():
    made = rows(P)["p"]
    assert [row["id"] for row in made] == [f"P{n}" for n in range(5)]
    assert all(1 <= row["n"] <= 1000 and row["spent"] == 0 for row in made)


def test_rows_depend_on_the_seed_and_their_name_alone():
    assert rows(P) == rows(P)
    assert rows(P)["p"] == rows(support.entity("a", {"id": "{{ index }}"}), P)["p"]
    assert rows(P) != rows(P, seed=8)
    assert [row["n"] for row in rows(P)["p"]] != [row["n"] for row in rows(P.model_copy(update={"name": "q"}))["q"]]


def test_more_rows_leave_the_first_ones_as_they_were():
    assert rows(P.model_copy(update={"count": 50}))["p"][:5] == rows(P)["p"]


def test_rows_may_pick_from_entities_before_them_and_import_macros():
    q = support.entity(
        "q", {"id": "{{ index }}", "p": "{{ pick('p').id }}", "m": "{% from 'm.j2' import m %}{{ m() }}"}
    )
    made = rows(P, q, templates={"m.j2": "{% macro m() %}m{% endmacro %}"})["q"]
    assert {row["p"] for row in made} <= {f"P{n}" for n in range(5)}
    assert made[0]["m"] == "m"


def test_two_rows_of_one_key_are_an_error():
    for key in ("same", "{{ index // 2 }}", "{{ [index // 2] }}"):
        with pytest.raises(errors.RenderError) as caught:
            rows(support.entity("q", {"id": key}))
        assert caught.value.field == "fields.id"
        assert "rows 1 and 2 have the same key" in str(caught.value)


@pytest.mark.parametrize(
    ("template", "cause"),
    [
        ("{{ 1 / index }}", "ZeroDivisionError"),
        ("{{ range(10 ** 9) | sum }}", "CostError"),
        ("{{ {}.a }}", "UndefinedError"),
    ],
)
def test_a_row_that_cannot_be_made_names_entity_and_field(template, cause):
    broken = support.entity("q", {"id": "{{ index }}", "deep": {"x": template}, "y": "{{ deep.x ~ '' }}"})
    with pytest.raises(errors.RenderError) as caught:
        rows(broken)
    assert caught.value.stream == "q"
    assert caught.value.field in {"fields.deep.x", "fields.y"}
    assert caught.value.cause.startswith(cause)


def test_the_time_of_making_stands_in_rows_as_text():
    assert (
        rows(support.entity("q", {"id": "{{ index }}", "at": "{{ now }}"}))["q"][0]["at"] == "2026-11-23T12:00:00.123Z"
    )


BOUND = {"with": {"p": "{{ pick('p') }}"}}


def test_a_row_is_picked_for_each_event_and_all_are():
    fields = {"id": "{{ p.id }}", "same": "{{ p['id'] == p.id }}"}
    found = support.data(fields, 200, entities=(P,), key="{{ p.id }}", **BOUND)
    assert {one["id"] for one in found} == {f"P{n}" for n in range(5)}
    assert all(one["same"] for one in found)


def test_with_binds_values_and_rows_in_order():
    bound = {"a": "{{ randint(1, 9) }}", "b": "{{ a * 2 }}", "p": "{{ pick('p') }}", "same": "{{ p }}"}
    one = support.data({"x": "{{ [a, b, same.id == p.id] }}"}, with_=bound, entities=(P,))[0]["x"]
    assert one[1] == 2 * one[0]
    assert one[2]


def test_updates_are_seen_by_the_next_event_of_the_same_batch():
    one = support.entity("p", {"id": "only", "n": 0, "before": 0}, count=1)
    rules = {"p.n": "{{ n }}", "p.before": "{{ p.n }}"}
    made = support.build({"n": "{{ p.n + 1 }}", "old": "{{ p.n }}"}, entities=(one,), update=rules, **BOUND)
    assert [event["data"] for event in support.events(made.next_batch(support.NOW, 3))] == [
        {"n": 1, "old": 0}, {"n": 2, "old": 1}, {"n": 3, "old": 2},
    ]  # fmt: skip
    # All values are computed before any is stored
    assert made.workshop.pools["p"] == [{"id": "only", "n": 3, "before": 2}]


def test_streams_share_rows():
    one = support.entity("p", {"id": "only", "n": 0}, count=1)
    specs = [
        support.stream_spec({"n": "{{ p.n + 1 }}"}, name, update={"p.n": "{{ n }}"}, **BOUND) for name in ("S", "T")
    ]
    shop = support.workshop(*specs, entities=(one,))
    made = [stream.Stream(spec, shop, "e") for spec in specs]
    seen = [support.events(which.next_batch(support.NOW, 1))[0]["data"]["n"] for which in (*made, *made)]
    assert seen == [1, 2, 3, 4]


def test_a_row_is_updated_only_when_its_event_was_made():
    one = support.entity("p", {"id": "only", "n": 0}, count=1)
    fields = {"n": "{{ p.n + 1 }}", "x": "{{ 1 / (n - 3) }}"}
    made = support.build(fields, entities=(one,), update={"p.n": "{{ n }}"}, **BOUND)
    batch = made.next_batch(support.NOW, 10)
    assert [event.seq for event in batch.events] == [1, 2]
    assert batch.error.field == "fields.x"
    assert made.workshop.pools["p"][0]["n"] == 2
    assert made.next_batch(support.NOW, 10).events == []
    assert (made.seq, made.workshop.pools["p"][0]["n"]) == (2, 2)


@pytest.mark.parametrize(
    "broken",
    [{"key": "{{ 1 / 0 }}"}, {"alert": {"when": "{{ 1 / 0 }}", "message": "m"}}, {"update": {"p.m": "{{ 1 / 0 }}"}}],
)
def test_a_fault_behind_the_fields_leaves_rows_alone_too(broken):
    one = support.entity("p", {"id": "only", "n": 0, "m": 0}, count=1)
    update = {"p.n": 5, **broken.get("update", {})}
    made = support.build({"x": 1}, entities=(one,), **{**BOUND, **broken, "update": update})
    assert made.next_batch(support.NOW).events == []
    assert made.workshop.pools["p"][0] == {"id": "only", "n": 0, "m": 0}


def reload(
    old_fields: dict, new_fields: dict, update: dict, bound: dict | None = None, name: str = "p"
) -> dict[str, dict]:
    """The rows, by key, after a reload with other fields of the entity, when events had changed the old ones."""
    spec = support.stream_spec({"x": 1}, update=update, with_=bound or BOUND["with"])
    old = support.workshop(entities=(support.entity(name, old_fields),))
    for row in old.pools[name]:
        row.update({key: "changed" for key in row if key != "id"})
    new = stream.GenerationContext(
        support.catalog(spec, entities=(support.entity(name, new_fields),)), 7, support.IDENTITY
    )
    new.fill(support.NOW, old)
    new.carry(old, frozenset())
    return {str(row["id"]): row for row in new.pools[name]}


def test_a_reload_carries_what_events_change_and_takes_the_rest_from_the_files():
    found = reload({"id": "{{ index }}", "n": 0, "m": 0}, {"id": "{{ index + 1 }}", "n": 1, "m": 1}, {"p.n": "{{ 1 }}"})
    assert found["1"] == {"id": 1, "n": "changed", "m": 1}
    assert found["4"] == {"id": 4, "n": 1, "m": 1}


def test_a_changed_field_that_is_gone_or_new_is_not_carried():
    assert reload({"id": "{{ index }}", "n": 0}, {"id": "{{ index }}", "m": 1}, {"p.m": 2})["0"] == {"id": 0, "m": 1}


def test_rows_with_keys_of_any_type_are_carried():
    found = reload({"id": "{{ [index] }}", "n": 0}, {"id": "{{ [index] }}", "n": 1}, {"p.n": 1})
    assert found["[0]"]["n"] == "changed"


def test_what_another_entity_of_a_similar_name_gets_is_not_carried():
    bound = {"q": "{{ pick('pp') }}", "p": "{{ pick('pp') }}"}
    spec = support.stream_spec({"x": 1}, update={"p.n": 1}, with_=bound)
    declared = [support.entity(name, {"id": "{{ index }}", "n": 0}) for name in ("p", "pp")]
    old = support.workshop(entities=tuple(declared))
    for row in old.pools["p"]:
        row["n"] = "changed"
    new = stream.GenerationContext(support.catalog(spec, entities=tuple(declared)), 7, support.IDENTITY)
    new.fill(support.NOW, old)
    new.carry(old, frozenset())
    assert {row["n"] for row in new.pools["p"]} == {0}


def test_a_row_by_another_name_is_carried_too():
    bound = {"q": "{{ pick('p') }}", "p": "{{ q }}"}
    assert (
        reload({"id": "{{ index }}", "n": 0}, {"id": "{{ index }}", "n": 1}, {"p.n": 1}, bound)["0"]["n"] == "changed"
    )


def test_unchanged_entities_keep_their_rows_themselves():
    old = support.workshop(entities=(P,))
    new = stream.GenerationContext(old.catalog, 7, support.IDENTITY)
    new.fill(support.NOW, old, frozenset({"p"}))
    assert new.pools["p"] is old.pools["p"]


def test_a_value_that_is_stored_stays_as_it_is():
    one = support.entity("p", {"id": "only", "tags": ["a"]}, count=1)
    made = support.build(
        {"x": "{{ p.tags }}"}, entities=(one,), update={"p.tags": "{{ x + ['b'] | map('upper') | list }}"}, **BOUND
    )
    seen = [json.loads(event.value)["data"]["x"] for event in made.next_batch(support.NOW, 3).events]
    assert seen == [["a"], ["a", "B"], ["a", "B", "B"]]


def test_rows_cannot_grow_without_end():
    one = support.entity("p", {"id": "only", "v": ["x"]}, count=1)
    for value in (
        ["{{ p.v }}", "{{ p.v }}"],
        "{{ p.v }}{{ p.v }}",
        "{{ [p.v, p.v] }}",
        {"a": "{{ p.v }}", "b": "{{ p.v }}"},
    ):
        made = support.build({"x": 1}, entities=(one,), update={"p.v": value}, **BOUND)
        batch = made.next_batch(support.NOW, 100)
        assert 10 < len(batch.events) < 20
        assert batch.error.field == "update.p.v"
        assert "CostError" in batch.error.cause


def test_carry_by_hand():
    new = [{"id": 1, "n": 0}, {"id": 3, "n": 0}]
    entities.carry([{"id": 1, "n": 5}, {"n": 9}], new, "id", ["n", "gone"])
    assert new == [{"id": 1, "n": 5}, {"id": 3, "n": 0}]
