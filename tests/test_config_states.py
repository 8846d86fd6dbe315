"""States of entities and streams that follow them: what is wrong with them is said with its place and its cure."""

from __future__ import annotations

import pathlib

import pytest

from regstream import config, errors, spec

FILE = """\
entities:
  case:
    count: 3
    key: id
    fields: {{id: "{{{{ index }}}}"{field}}}
    states: {states}
streams:
  CASES: {{follow: case, interval: 1m, fields: {{id: "{{{{ row.id }}}}"}}{rest}}}
"""
FINE = "{OPEN: {lasts: 3d, then: {CLOSED: 1}}, CLOSED: {}}"


def load(folder: pathlib.Path, states: str = FINE, field: str = "", rest: str = "") -> spec.Catalog:
    (folder / "streams.yaml").write_text(FILE.format(states=states, field=field, rest=rest))
    return config.load(folder / "streams.yaml", folder / "scenarios", folder / "templates", "development")


def problems(folder: pathlib.Path, **given: str) -> list[str]:
    with pytest.raises(errors.ConfigError) as caught:
        load(folder, **given)
    return [str(one).removeprefix(f"{folder}/streams.yaml:") for one in caught.value.problems]


DWELLS = [
    ("3d", {"exactly": 259_200_000}),
    ("{mean: 2h}", {"mean": 7_200_000}),
    ("{mean: 2h, spread: 50%}", {"mean": 7_200_000, "spread": 0.5}),
    ("{between: [2s, 5000]}", {"between": (2_000, 5_000)}),
]


@pytest.mark.parametrize(("text", "expected"), DWELLS)
def test_a_time_can_be_said_in_four_ways(tmp_path: pathlib.Path, text: str, expected: dict[str, object]) -> None:
    states = load(tmp_path, f"{{OPEN: {{lasts: {text}, then: {{CLOSED: 1}}}}, CLOSED: {{}}}}").entities["case"].states
    assert states["OPEN"].lasts == spec.Dwell.model_construct(**expected)
    assert states["CLOSED"].lasts is None


WRONG = [
    ("{OPEN: {lasts: 3d, then: {CLOSD: 1}}, CLOSED: {}}", "6:", "there is no state 'CLOSD', there are OPEN, CLOSED"),
    ("{OPEN: {then: {CLOSED: 1}}, CLOSED: {}}", "6:", "lasts is missing: only a state that nothing follows"),
    ("{OPEN: {lasts: 3d, then: {CLOSED: 0}}, CLOSED: {}}", "6:", "then: needs a weight above 0"),
    ("{OPEN: {lasts: 3d}, CLOSED: {}}", "6:", "no row comes into state 'CLOSED' from the first one, 'OPEN'"),
    ("{OPEN: {lasts: soon}}", "6:", "not a duration"),
    ("{OPEN: {lasts: {mean: 3d, between: [1d, 2d]}}}", "6:", "write one of 3d, {mean: 3d} and {between: [2d, 5d]}"),
    ("{OPEN: {lasts: {between: [1d, 2d], spread: 5%}}}", "6:", "spread goes with mean"),
    ("{OPEN: {lasts: {between: [3d, 2d]}}}", "6:", "the shorter time and then the longer"),
    ("{OPEN: {lasts: 5ms}}", "6:", "1000"),
    ("{OPEN: {last: 5s}}", "6:", "unknown key 'last' (did you mean lasts?)"),
]


@pytest.mark.parametrize(("states", "place", "message"), WRONG)
def test_what_is_wrong_with_states_is_said_once(tmp_path: pathlib.Path, states: str, place: str, message: str) -> None:
    [found] = problems(tmp_path, states=states)
    assert found.startswith(place) and message in found, found


def test_what_the_states_say_is_no_field(tmp_path: pathlib.Path) -> None:
    [found] = problems(tmp_path, field=", state: OPEN")
    assert "5:" in found and "'state' is what the states say" in found


@pytest.mark.parametrize("rest", [", rate: 5/s", ", batch_size: 5", ", batchSize: 5"])
def test_how_many_events_there_are_is_not_declared(tmp_path: pathlib.Path, rest: str) -> None:
    found = problems(tmp_path, rest=rest)
    assert any("follow and" in one and "both given" in one for one in found), found


def test_what_cannot_be_followed_is_said(tmp_path: pathlib.Path) -> None:
    found = problems(tmp_path, states="{}")
    assert any("no entity 'case' with states" in one and one.startswith("8:") for one in found), found
