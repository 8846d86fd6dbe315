import hypothesis
from hypothesis import strategies as st

from regstream import plan, spec


def stream(name: str = "A", **keys: object) -> spec.StreamSpec:
    return spec.StreamSpec.model_validate({"name": name, "interval": "1s", "fields": {"a": 1, "b": 2}, **keys})


def entity(name: str = "svp", **keys: object) -> spec.EntitySpec:
    return spec.EntitySpec.model_validate({"name": name, "count": 2, "key": "id", "fields": {"id": "x"}, **keys})


def scenario(name: str = "RUN", **keys: object) -> spec.ScenarioSpec:
    return spec.ScenarioSpec.model_validate({"name": name, "steps": [{"wait": "1s"}], **keys})


def catalog(*specs: spec.Spec, **keys: object) -> spec.Catalog:
    def of(kind: type) -> dict:
        return {spec.name: spec for spec in specs if isinstance(spec, kind)}

    made = spec.EMPTY._replace(
        streams=of(spec.StreamSpec), entities=of(spec.EntitySpec), scenarios=of(spec.ScenarioSpec)
    )
    return made._replace(**keys)


def test_the_first_start_adds_everything_in_the_order_of_the_files():
    new = catalog(stream("B"), stream("A"), entity(), scenario())
    assert plan.plan(spec.EMPTY, new) == plan.Plan(
        plan.Diff(added=("B", "A")), plan.Diff(added=("svp",)), plan.Diff(added=("RUN",))
    )


def test_the_same_declarations_read_again_change_nothing():
    old, new = (catalog(stream(), entity(), scenario(), digest=digest) for digest in "xy")
    found = plan.plan(old, new)
    assert found.empty
    assert found.streams.unchanged == ("A",)


def test_each_name_is_in_one_of_the_four():
    old = catalog(stream("GONE"), stream("KEPT"), stream("CHANGED"))
    new = catalog(stream("NEW"), stream("CHANGED", interval="2s"), stream("KEPT"))
    assert plan.plan(old, new).streams == plan.Diff(("NEW",), ("CHANGED",), ("GONE",), ("KEPT",))


def test_values_that_python_takes_for_equal_are_a_change():
    old = catalog(stream(fields={"a": 1}))
    for value in (1.0, True, "1"):
        assert plan.plan(old, catalog(stream(fields={"a": value}))).streams.changed == ("A",)


def test_the_order_of_fields_is_a_change_because_it_shows_in_the_event():
    old, new = catalog(stream(fields={"a": 1, "b": 2})), catalog(stream(fields={"b": 2, "a": 1}))
    assert plan.plan(old, new).streams.changed == ("A",)


def test_not_a_number_does_not_change_with_every_reload():
    old, new = (catalog(stream(fields={"a": float("nan")})) for _ in range(2))
    assert plan.plan(old, new).empty


def test_a_template_file_that_changed_changes_the_streams_that_use_it():
    old = catalog(stream(files=(("a.j2", "1"),)), stream("B"))
    new = catalog(stream(files=(("a.j2", "2"),)), stream("B"))
    assert plan.plan(old, new).streams == plan.Diff(changed=("A",), unchanged=("B",))


def test_another_speed_changes_intervals_and_rates_but_not_schedules():
    rated = stream("C", interval=None, rate={"base": "5/s"})
    both = (stream("A"), stream("B", interval=None, schedule="* * * * *"), rated, entity(), scenario())
    found = plan.plan(catalog(*both), catalog(*both, profile=spec.Profile(speed=2)))
    assert found.streams == plan.Diff(changed=("A", "C"), unchanged=("B",))
    assert found.entities.empty and found.scenarios.empty


def test_other_partitions_change_no_stream():
    profile = spec.Profile(kafka=spec.KafkaProfile(partitions=6))
    assert plan.plan(catalog(stream()), catalog(stream(), profile=profile)).empty


def test_another_seed_changes_streams_and_entities():
    found = plan.plan(catalog(stream(), entity(), scenario(), seed=1), catalog(stream(), entity(), scenario(), seed=2))
    assert found.streams.changed == ("A",)
    assert found.entities.changed == ("svp",)
    assert found.scenarios.unchanged == ("RUN",)


def test_scenarios_and_entities_are_compared_whole():
    old = catalog(entity(), entity("cc"), scenario(), scenario("OTHER"))
    new = catalog(entity(count=3), entity("cc"), scenario(steps=[{"wait": "2s"}]), scenario("OTHER"))
    found = plan.plan(old, new)
    assert found.entities == plan.Diff(changed=("svp",), unchanged=("cc",))
    assert found.scenarios == plan.Diff(changed=("RUN",), unchanged=("OTHER",))


SPECS = st.dictionaries(st.sampled_from("ABCDE"), st.integers(1, 3))


@hypothesis.given(SPECS, SPECS)
def test_a_plan_is_a_set_difference(old: dict[str, int], new: dict[str, int]):
    found = plan.plan(*(catalog(*(stream(name, interval=ms) for name, ms in which.items())) for which in (old, new)))
    assert set(found.streams.added) == new.keys() - old.keys()
    assert set(found.streams.removed) == old.keys() - new.keys()
    assert set(found.streams.changed) == {name for name in old.keys() & new.keys() if old[name] != new[name]}
    assert sorted(sum(found.streams, ())) == sorted(old.keys() | new.keys())
    assert found.streams.empty == (old == new)


def test_a_difference_of_an_entity_goes_on_to_those_that_pick_from_it():
    def declared(count: int) -> list[spec.Spec]:
        lead = {"id": "x", "lead": "{{ pick('svp').id }}"}
        return [
            entity("svp", count=count),
            entity("team", fields=lead),
            entity("unit", fields={"id": "{{ pick('team') }}"}),
        ]

    found = plan.plan(catalog(*declared(2), entity("svp2")), catalog(*declared(3), entity("svp2"))).entities
    assert found == plan.Diff(changed=("svp", "team", "unit"), unchanged=("svp2",))


def test_an_entity_follows_what_its_macros_pick_from():
    templates = {"m.j2": "{% macro f() %}{{ pick('svp').id }}{% endmacro %}"}
    team = entity("team", files=(("m.j2", "hash"),))
    old, new = (catalog(entity("svp", count=count), team, templates=templates) for count in (2, 3))
    assert plan.plan(old, new).entities.changed == ("svp", "team")
