"""Rows that come, go through states and go."""

from __future__ import annotations

import collections
import itertools
import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from regstream import spec
from regstream.engine import active_stream, backfill
from regstream.generator import alerts, check, lifecycle, stream
from tests import profiles
from tests.generate import support

DAY = 86_400.0
STATES = {
    "OPEN": {"lasts": {"mean": "3d", "spread": "50%"}, "then": {"REVIEW": 4, "CLOSED": 1}},
    "REVIEW": {"lasts": {"between": ["1d", "4d"]}, "then": {"CLOSED": 3, "ESCALATED": 1}},
    "ESCALATED": {"lasts": {"mean": "12h"}, "then": {"CLOSED": 1}},
    "CLOSED": {"lasts": "1d"},
}


def living(name="finding", fields=None, states=None, count=40):
    return spec.EntitySpec.model_validate(
        {
            "name": name,
            "count": count,
            "key": "id",
            "fields": fields or {"id": f"{name}-{{{{ index }}}}"},
            "states": STATES if states is None else states,
        }
    )


PROJECT_STATES = {"RUNNING": {"lasts": {"mean": "20d"}, "then": {"DONE": 1}}, "DONE": {"lasts": "1d"}}
PROJECT = living("project", {"id": "project-{{ index }}", "begun": "{{ now }}"}, PROJECT_STATES, count=5)
FINDING = living(fields={"id": "finding-{{ index }}", "project": "{{ pick('project').id }}", "opened": "{{ now }}"})
TELLING = {"id": "{{ row.id }}", "state": "{{ state }}", "was": "{{ was }}", "project": "{{ row.project }}"}


def bank(*more: spec.StreamSpec, seed=7, entities=(PROJECT, FINDING)):
    told = support.stream_spec(TELLING, "TOLD", interval="1m", follow="finding")
    return support.workshop(told, *more, seed=seed, entities=entities)


def past(workshop, days, step=DAY):
    """The events of so many days, of all streams in the order of time."""
    at_work = active_stream.of_catalog(workshop, support.NOW, "epoch")
    made = backfill.Backfill(lambda: at_work, stream.Stream(alerts.SPEC, workshop, "epoch"), support.NOW)
    count = round(days * DAY / step)
    return [
        event for number in range(count) for batch in made.until(support.NOW + (number + 1) * step) for event in batch
    ]


def told(events, name="TOLD"):
    return [one for one in support.events(stream.Batch(events, [], None)) if one["subject"] == name]


DWELLS = [
    ({"exactly": 60_000}, 60, 0),
    ({"mean": 60_000}, 60, 60),
    ({"mean": 60_000, "spread": "50%"}, 60, 30),
    ({"mean": 60_000, "spread": "100%"}, 60, 60),
    ({"between": [30_000, 90_000]}, 60, 60 / math.sqrt(12)),
]


@pytest.mark.parametrize(("declared", "mean", "deviation"), DWELLS)
def test_a_state_lasts_as_long_as_it_says(declared, mean, deviation):
    lasts, count = spec.Dwell.model_validate(declared), 20_000
    drawn = [lifecycle.sojourn(lasts, (number + 0.5) / count) for number in range(count)]
    assert statistics.fmean(drawn) == pytest.approx(mean, rel=0.01)
    assert statistics.pstdev(drawn) == pytest.approx(deviation, rel=0.04, abs=1e-9)
    assert drawn == sorted(drawn) and drawn[0] > 0


# A machine's share of time in a state is how often it comes there times how long it stays
SHARES = {"OPEN": 3.0, "REVIEW": 0.8 * 2.5, "ESCALATED": 0.8 * 0.25 * 0.5, "CLOSED": 1.0}


def test_at_any_time_as_many_are_in_a_state_as_its_time_is_of_a_life():
    rows = living(count=4_000)
    workshop = support.workshop(support.stream_spec({"x": 1}), entities=(rows,))
    total = sum(SHARES.values())
    for days in (0, 3, 40):
        workshop.pools.lives["finding"].advance(support.NOW + days * DAY)
        found = collections.Counter(row["state"] for row in workshop.pools["finding"])
        for state, share in SHARES.items():
            assert found[state] / 4_000 == pytest.approx(share / total, abs=0.04), (days, state)
        assert found == {state: len(workshop.pools["finding"].in_state(state)) for state in SHARES}
    path = workshop.populations["finding"].path
    assert path.passages_a_second() * DAY == pytest.approx((2 + 0.8 + 0.2) / total, rel=0.05)


def test_what_follows_comes_by_weight():
    workshop = support.workshop(support.stream_spec({"x": 1}), entities=(living(count=2_000),))
    population = workshop.populations["finding"]
    workshop.pools.lives["finding"].advance(support.NOW + 8 * DAY)
    moves = collections.Counter((one.was, one.state) for one in population.log)
    assert moves["OPEN", "REVIEW"] / moves["OPEN", "CLOSED"] == pytest.approx(4, rel=0.15)
    assert moves["REVIEW", "CLOSED"] / moves["REVIEW", "ESCALATED"] == pytest.approx(3, rel=0.2)
    assert set(moves) == {
        (None, "OPEN"), ("OPEN", "REVIEW"), ("OPEN", "CLOSED"), ("REVIEW", "CLOSED"), ("REVIEW", "ESCALATED"),
        ("ESCALATED", "CLOSED"),
    }  # fmt: skip


def test_every_change_is_told_once_at_its_time_and_in_order():
    workshop = bank()
    events = told(past(workshop, 30))
    assert len(events) > 300
    assert [one["time"] for one in events] == sorted(one["time"] for one in events)
    lived = collections.defaultdict(list)
    for one in events:
        lived[one["data"]["id"]].append(one["data"])
    for states in lived.values():
        for before, after in itertools.pairwise(states):
            assert after["was"] == before["state"]
    whole = [states for states in lived.values() if states[0]["was"] is None]
    assert len(whole) > 50 and all(one[0]["state"] == "OPEN" for one in whole)
    ended = {key for key, states in lived.items() if states[-1]["state"] == "CLOSED"}
    assert len(ended - {row["id"] for row in workshop.pools["finding"]}) > 50


LOOKING = support.stream_spec(
    {"id": "{{ f.id }}", "project": "{{ p.id }}", "begun": "{{ p.begun }}", "opened": "{{ f.opened }}"},
    "LOOKING",
    interval="1h",
    batch_size=5,
    **{"with": {"f": "{{ pick('finding') }}", "p": "{{ find('project', f.project) }}"}},
)


def test_no_event_names_a_row_that_is_no_more_or_not_yet():
    """What a row refers to outlives it, so ``find`` never fails and what it finds began before."""
    events = told(past(bank(LOOKING), 120), "LOOKING")
    assert len(events) == 120 * 24 * 5
    for one in events:
        assert one["data"]["begun"] <= one["data"]["opened"] <= one["time"]
    assert len({one["data"]["project"] for one in events}) > 15
    assert len({one["data"]["id"] for one in events}) > 500


def test_rows_that_never_end_are_made_at_the_beginning():
    states = {"UP": {"lasts": {"mean": "6d"}, "then": {"DOWN": 1}}, "DOWN": {"lasts": "2d", "then": {"UP": 1}}}
    machine = living("machine", {"id": "{{ index }}", "made": "{{ now }}"}, states, count=2_000)
    workshop = support.workshop(support.stream_spec({"x": 1}), entities=(machine,))
    for days in (0, 50):
        workshop.pools.lives["machine"].advance(support.NOW + days * DAY)
        rows = workshop.pools["machine"]
        assert len({row["made"] for row in rows}) == 1
        assert len(rows.in_state("DOWN")) / 2_000 == pytest.approx(0.25, abs=0.04)
    assert [row["id"] for row in rows] == list(range(2_000))


def test_a_row_ends_with_what_it_refers_to():
    workshop = bank()
    workshop.pools.lives["finding"].advance(support.NOW + 100 * DAY)
    moves = collections.Counter((one.was, one.state) for one in workshop.populations["finding"].log)
    # Only an end before its time leads from there straight to the end
    assert moves["REVIEW", "CLOSED"] > 0 and sum(moves.values()) > 500
    for row in workshop.pools["finding"]:
        project = next(one for one in workshop.pools["project"] if one["id"] == row["project"])
        assert project.born <= row.born and row.ends <= project.ends


PICKS = [
    "pick('project', state='RUNNING')",
    "pick('project', zipf=1.2)",
    "pick('project', weight='size')",
    "find('project', pick('project').id)",
]


@pytest.mark.parametrize("picked", [*PICKS, "{% set p = " + PICKS[0] + " %}{{ p.id }}"])
def test_a_row_ends_with_that_which_it_took_and_no_other(picked):
    text = picked if picked.startswith("{%") else f"{{{{ {picked}.id }}}}"
    project = living("project", {"id": "project-{{ index }}", "size": "{{ index % 7 + 1 }}"}, PROJECT_STATES, count=9)
    finding = living(fields={"id": "finding-{{ index }}", "project": text})
    workshop = support.workshop(support.stream_spec({"x": 1}), entities=(project, finding))
    population = workshop.populations["finding"]
    cut = 0
    for days in range(0, 100, 5):
        workshop.pools.lives["finding"].advance(support.NOW + days * DAY)
        by_key = {row["id"]: row for row in workshop.pools["project"]}
        for place, row in enumerate(population.rows):
            own = population.path.end(population._numbers[place], row.born)
            assert row.ends == min(own, by_key[row["project"]].ends)
            cut += row.ends < own
    assert 20 < cut < 400


def test_it_depends_on_nothing_but_time():
    """Not on the length of the windows, nor on who else looks."""
    other = support.stream_spec({"id": "{{ pick('project').id }}"}, "OTHER", interval="7m")
    expected = [one.value for one in past(bank(), 20)]
    assert [one.value for one in past(bank(), 20, DAY / 2)] == expected
    beside = [one.value for one in past(bank(other, LOOKING), 20) if one.head.stream == "TOLD"]
    assert beside == expected
    assert [one.value for one in past(bank(seed=8), 20)] != expected


@settings(max_examples=profiles.examples(25))
@given(cuts=some.lists(some.floats(0, 60), max_size=8), seed=some.integers(0, 2**32))
def test_however_often_it_is_looked_at(cuts, seed):
    often, once = bank(seed=seed), bank(seed=seed)
    for days in [*sorted(cuts), 60]:
        often.pools.lives["finding"].advance(support.NOW + days * DAY)
    once.pools.lives["project"].advance(support.NOW + 60 * DAY)
    for name in ("project", "finding"):
        assert often.pools[name] == once.pools[name]
        assert list(often.populations[name].log) == list(once.populations[name].log)


def test_what_is_told_late_finds_what_has_ended_meanwhile():
    """A finding is closed because its project ended, which is told after that."""
    finding = support.stream_spec(
        {"id": "{{ row.id }}", "begun": "{{ p.begun }}", "state": "{{ state }}"},
        "LATE",
        interval="12h",
        follow="finding",
        **{"with": {"p": "{{ find('project', row.project) }}"}},
    )
    workshop = bank(finding)
    found = told(past(workshop, 200), "LATE")
    # What came after its last look is not told yet
    assert 2_000 < workshop.populations["finding"].count - 60 < len(found)
    assert sum(one["data"]["state"] == "CLOSED" for one in found) > 500


def test_it_keeps_no_more_than_lives():
    workshop = bank()
    population = workshop.populations["finding"]
    workshop.pools.lives["finding"].advance(support.NOW + 3_000 * DAY)
    assert population.count > 50_000
    assert len(population.rows) == 40 == len(population.rows.by_key)
    assert sum(map(len, population.rows.places.values())) == 40
    assert len(population.log) == lifecycle.LEAST_LOG and len(population.rows._gone) == lifecycle.LEAST_GONE
    assert max(population._numbers) > 5_000


def test_events_that_pick_a_state_find_rows_in_it():
    fields = {"state": "{{ f.state }}", "text": "{% set g = pick('finding', state='OPEN') %}{{ g.state }}"}
    picking = support.stream_spec(
        fields, "PICKING", interval="1h", **{"with": {"f": "{{ pick('finding', state='REVIEW') }}"}}
    )
    found = [one["data"] for one in told(past(bank(picking), 20), "PICKING")]
    assert len(found) == 480
    assert all(one == {"state": "REVIEW", "text": "OPEN"} for one in found)


def test_how_long_a_row_has_been_in_its_state_can_be_said():
    aging = support.stream_spec({"hours": "{{ ((now - f.since).total_seconds() / 3600) | round(3) }}"}, "AGING",
                         interval="1h", **{"with": {"f": "{{ pick('finding') }}"}})  # fmt: skip
    hours = [one["data"]["hours"] for one in told(past(bank(aging), 20), "AGING")]
    assert len(hours) == 480 and min(hours) >= 0 and 24 < statistics.fmean(hours) < 60


def test_a_burst_tells_of_the_rows_as_they_are():
    workshop = bank()
    made = stream.Stream(workshop.catalog.streams["TOLD"], workshop, "epoch")
    batch = made.next_batch(support.NOW + DAY, 3)
    assert [one["data"]["was"] for one in support.events(batch)] == [None] * 3
    rows = workshop.pools["finding"]
    assert [one["data"]["state"] for one in support.events(batch)] == [row["state"] for row in rows[:3]]
    # What has passed meanwhile is still to be told
    tick = made.ticks([(support.NOW + DAY, 1, None)])[0]
    assert tick.events == workshop.populations["finding"].count > 0


def test_a_stream_in_the_place_of_another_tells_what_that_did_not():
    workshop = bank()
    spec = workshop.catalog.streams["TOLD"]
    before, after = (stream.Stream(spec, workshop, "epoch") for _ in range(2))
    first = before.ticks([(support.NOW + DAY, 1, None)])[0].events
    workshop.pools.lives["finding"].advance(support.NOW + 2 * DAY)
    after.go_on(before)
    second = after.ticks([(support.NOW + 2 * DAY, 1, None)])[0].events
    assert first and second and first + second == workshop.populations["finding"].count


def test_more_than_is_kept_is_said_to_be_missed(caplog):
    workshop = bank()
    made = stream.Stream(workshop.catalog.streams["TOLD"], workshop, "epoch")
    tick = made.ticks([(support.NOW + 3_000 * DAY, 1, None)])[0]
    assert tick.events == lifecycle.LEAST_LOG
    assert "were passed over" in caplog.text
    assert made.ticks([(support.NOW + 3_000 * DAY, 1, None)])[0].events == 0


def test_rows_of_an_unchanged_entity_live_on_over_a_reload():
    old = bank()
    old.pools.lives["finding"].advance(support.NOW + DAY)
    new = stream.GenerationContext(old.catalog, 7, support.IDENTITY)
    new.fill(support.NOW + DAY, old, frozenset({"finding", "project"}))
    assert new.pools["finding"] is old.pools["finding"]
    before = old.populations["finding"].count
    new.pools.lives["project"].advance(support.NOW + 3 * DAY)
    assert new.populations["finding"].count > before


def test_a_stream_that_stays_sees_what_has_become_of_its_entity():
    """The number of rows and their states are in what it was compiled to."""
    picking = support.stream_spec({"id": "{{ pick('finding', zipf=1.1).id }}"}, "PICKING")
    still = support.entity("finding", {"id": "old-{{ index }}"}, count=40)
    old = support.workshop(picking, entities=(still,))
    made = stream.Stream(picking, old, "epoch")
    assert made.next_batch(support.NOW, 5).error is None
    new = support.workshop(picking, entities=(living(count=3),))
    made.adopt(new)
    batch = made.next_batch(support.NOW + 400 * DAY, 200)
    assert batch.error is None
    found = {one["data"]["id"] for one in support.events(batch)}
    assert found == {row["id"] for row in new.pools["finding"]}
    assert not found & {f"finding-{number}" for number in range(3)}


def test_what_events_change_is_remembered_of_rows_that_do_not_end():
    states = {"UP": {"lasts": {"mean": "6d"}, "then": {"DOWN": 1}}, "DOWN": {"lasts": "2d", "then": {"UP": 1}}}
    fields = {"id": "{{ index }}", "load": 0}
    specs = [living("machine", fields, states, count=3), living("case", fields, count=3)]
    changing = support.stream_spec(
        {"x": 1},
        "CHANGING",
        update={"m.load": 7, "c.load": 7},
        **{"with": {"m": "{{ pick('machine') }}", "c": "{{ pick('case') }}"}},
    )
    workshop = support.workshop(changing, entities=tuple(specs))
    batch = stream.Stream(changing, workshop, "epoch").next_batch(support.NOW, 1)
    kept = workshop.states(batch.touched)
    assert list(kept) == ["machine"] and [*kept["machine"].values()] == [{"load": 7}]
    again = support.workshop(changing, entities=tuple(specs))
    again.recall(stream.GenerationContext(spec.EMPTY, 7, support.IDENTITY), lambda name: kept.get(name, {}))
    [key] = kept["machine"]
    assert {str(row["id"]): row["load"] for row in again.pools["machine"]}[key] == 7


def test_a_row_that_cannot_be_made_leaves_the_old_one_there(caplog):
    fields = {"id": "finding-{{ 1 // (0 if index > 45 else 1) ~ index }}"}
    workshop = support.workshop(support.stream_spec({"x": 1}), entities=(living(fields=fields),))
    workshop.pools.lives["finding"].advance(support.NOW + 60 * DAY)
    rows = workshop.pools["finding"]
    assert len(rows) == 40 and len(rows.by_key) == 40
    assert caplog.text.count("could not be made") == 1
    assert "ZeroDivisionError" in caplog.text


def test_two_rows_of_one_key_are_refused_at_the_start():
    with pytest.raises(Exception, match="rows 1 and 2 have the same key 'finding-0'"):
        support.workshop(support.stream_spec({"x": 1}), entities=(living(fields={"id": "finding-{{ index // 2 }}"}),))


def test_those_who_share_such_rows_are_served_in_the_order_of_time():
    alone = support.stream_spec({"x": 1}, "ALONE")
    workshop = bank(LOOKING, alone)
    made = [stream.Stream(one, workshop, "epoch") for one in workshop.catalog.streams.values()]
    assert stream.partition_by_shared_rows(made) == [["TOLD", "LOOKING"], ["ALONE"]]


FAULTS = [
    ({"x": "{{ pick('finding', state='OPNE') }}"}, "entity 'finding' has no state 'OPNE'"),
    ({"x": "{% set f = pick('finding', state='OPNE') %}{{ f.id }}"}, "entity 'finding' has no state 'OPNE'"),
    ({"x": "{{ pick('finding').status }}"}, "entity 'finding' has no field 'status'"),
    ({"x": "{{ pick('plain', state='OPEN') }}"}, "entity 'plain' has no states"),
]


@pytest.mark.parametrize(("fields", "message"), FAULTS)
def test_what_cannot_be_is_said_before_it_runs(fields, message):
    plain = support.entity("plain", {"id": "{{ index }}"})
    found = support.faults(fields, entities=(PROJECT, FINDING, plain))
    assert [one.message for one in found] == [message]


def test_only_what_has_states_can_be_followed():
    plain = support.entity("plain", {"id": "{{ index }}"})
    found = support.faults({"x": 1}, follow="plain", entities=(plain, FINDING, PROJECT))
    assert [(one.path, one.message) for one in found] == [(("follow",), "no entity 'plain' with states")]


def test_rows_for_ever_cannot_refer_to_rows_that_end():
    plain = support.entity("plain", {"id": "{{ index }}", "project": "{{ pick('project').id }}"})
    [found] = check.check_entity(plain, {}, {"project": PROJECT})
    assert "rows of 'project' come and go" in found.message and "give 'plain' states too" in found.hint


def test_its_states_cannot_be_changed_by_events():
    found = support.faults(
        {"x": 1}, update={"f.state": "CLOSED"}, entities=(PROJECT, FINDING), **{"with": {"f": "{{ pick('finding') }}"}}
    )
    assert [one.message for one in found] == ["'f.state' is what the states of entity 'finding' say"]
