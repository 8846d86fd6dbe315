"""Commands that only read the files: validate, preview, plan, schema."""

from __future__ import annotations

import datetime
import json
import pathlib
import re
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from tests import process
from tests.support import ROOT

BAD = """
version: 1
streams:
  VISITS:
    interval: 5 seconds
    batchsize: 3
    fields:
      branch: "{{ choise(['Centro', 'Norte']) }}"
"""
CALENDAR = """
version: 1
seed: 1
profiles: {development: {speed: 2}}
streams:
  EVEN: {interval: 10s, batch_size: 5, fields: {a: "{{ digits(8) }}"}}
  OFFICE: {schedule: "*/5 8-18 * * MON-FRI", batch_size: 2, fields: {a: 1}}
  RESTING: {interval: 1s, enabled: false, fields: {a: 1}}
"""


def test_validate_counts_what_is_good(files: pathlib.Path) -> None:
    done = process.run("validate", cwd=files)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "ok: 6 streams, 5 scenarios, 7 entities, 2 template files\n"
    (files / "templates" / "amounts.csv").write_text("value\n1\n")
    assert process.run("validate", cwd=files).stdout.endswith("2 template files, 1 CSV file\n")


def test_validate_prints_every_problem_of_every_file_with_its_place(files: pathlib.Path) -> None:
    (files / "streams.yaml").write_text(BAD)
    (files / "scenarios" / "bad.yaml").write_text("name: BAD\nsteps:\n  - wait: long\n  - burst: {stream: VISIT}\n")
    done = process.run("validate", cwd=files)
    assert done.returncode == 78 and done.stdout == ""
    *problems, count = done.stderr.splitlines()
    assert all(re.match(r"^(streams|scenarios/[a-z-]+)\.yaml:\d+:\d+: \S", line) for line in problems)
    assert count == f"regstream: {len(problems)} problems in the configuration"
    text = "\n".join(problems)
    assert "streams.yaml:5:15: " in text
    assert re.search(r"streams\.yaml:6:5: .*batchsize.*batch_size", text)
    assert re.search(r"streams\.yaml:8:\d+: .*choise.*choice", text)
    assert "scenarios/bad.yaml:3:11: " in text
    assert re.search(r"scenarios/bad\.yaml:4:\d+: .*VISIT.*VISITS", text)


def test_a_warning_is_printed_and_refuses_nothing_unless_validate_is_strict(tmp_path: pathlib.Path) -> None:
    (tmp_path / "streams.yaml").write_text("streams: {A: {interval: 5, fields: {n: 1}}}\n")
    said = "streams.yaml:1:25: warning: interval: 5 is 5 ms (write 5s if seconds are meant, 5ms if not)\n"
    done = process.run("validate", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, said)
    assert done.stdout == "ok: 1 stream, 0 scenarios, 0 entities, 0 template files, 1 warning\n"
    done = process.run("validate", "--strict", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == f"{said}regstream: 1 warning in the configuration\n"
    done = process.run("preview", "A", "-n", 1, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, said)
    assert json.loads(done.stdout)["data"] == {"n": 1}
    (tmp_path / "streams.yaml").write_text("streams: {A: {interval: 5, fields: {n: 1}, colour: 1}}\n")
    done = process.run("validate", cwd=tmp_path)
    assert done.returncode == 78
    assert done.stderr.startswith(said) and done.stderr.endswith("regstream: 1 problem in the configuration\n")


@pytest.mark.parametrize("command", ["validate", "plan", "preview"])
def test_files_that_are_not_there_are_named_with_the_cure(tmp_path: pathlib.Path, command: str) -> None:
    done = process.run(command, *(["X"] if command == "preview" else []), cwd=tmp_path)
    assert done.returncode == 78
    assert done.stderr.startswith("streams.yaml:1:1: there is no such file")
    assert "--streams" in done.stderr and "1 problem in" in done.stderr


def preview(*arguments: object, cwd: pathlib.Path = ROOT) -> list[str]:
    done = process.run("preview", *arguments, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_a_preview_with_a_seed_is_the_same_whenever_and_whatever_the_batch(files: pathlib.Path) -> None:
    first = preview("TRANSACTION_STREAM", "-n", "40", "--seed", "7", cwd=files)
    path = files / "streams.yaml"
    path.write_text(re.sub(r"batch_size: \d+", "batch_size: 17", path.read_text()))
    assert preview("TRANSACTION_STREAM", "-n", "40", "--seed", "7", cwd=files) == first
    assert preview("TRANSACTION_STREAM", "-n", "12", "--seed", "7", cwd=files) == first[:12]
    assert preview("TRANSACTION_STREAM", "-n", "12", "--seed", "8", cwd=files) != first[:12]
    events = [json.loads(line) for line in first]
    assert [event["seq"] for event in events] == list(range(1, 41))
    assert events[0]["time"].startswith("2026-01-01T00:00:00") and events[0]["specversion"] == "1.0"
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)


def test_a_preview_of_an_unknown_stream_names_the_near_ones() -> None:
    done = process.run("preview", "BUDGET_UPDATE")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("regstream: unknown stream 'BUDGET_UPDATE', did you mean BUDGET_UPDATES")


def test_a_preview_shows_five_events_of_a_stream_that_is_not_enabled_too(tmp_path: pathlib.Path) -> None:
    (tmp_path / "streams.yaml").write_text(CALENDAR)
    assert len(preview("RESTING", cwd=tmp_path)) == 5
    office = [json.loads(line)["time"] for line in preview("OFFICE", "--seed", "1", cwd=tmp_path)]
    assert office == [f"2026-01-01T08:{minute:02}:00.000Z" for minute in (0, 5, 10, 15, 20)]


FOLLOWING = """
seed: 3
entities:
  case:
    count: 3
    key: id
    fields: {id: "{{ index }}"}
    states: {OPEN: {lasts: 5d, then: {WON: 3, LOST: 1}}, WON: {lasts: {mean: 9d}}, LOST: {lasts: 2d}}
  door:
    count: 2
    key: id
    fields: {id: "{{ index }}"}
    states: {OPEN: {lasts: 1h, then: {SHUT: 1}}, SHUT: {}}
streams:
  CASES: {interval: 1m, follow: case, fields: {id: "{{ row.id }}", was: "{{ was }}", to: "{{ state }}"}}
  DOORS: {interval: 1m, follow: door, fields: {id: "{{ row.id }}", was: "{{ was }}", to: "{{ state }}"}}
"""


def test_a_preview_of_a_stream_that_follows_shows_what_rows_go_through(tmp_path: pathlib.Path) -> None:
    (tmp_path / "streams.yaml").write_text(FOLLOWING)
    found = [json.loads(line) for line in preview("CASES", "-n", 30, "--seed", 1, cwd=tmp_path)]
    assert len(found) == 30
    ways = [(one["data"]["was"], one["data"]["to"]) for one in found]
    assert set(ways) == {(None, "OPEN"), ("OPEN", "WON"), ("OPEN", "LOST")}
    last: dict[int, str] = {}
    for one in found:
        number, was = one["data"]["id"], one["data"]["was"]
        assert was == last.get(number, "OPEN" if was else None)
        last[number] = one["data"]["to"]
    assert [one["time"] for one in found] == sorted(one["time"] for one in found)
    doors = [json.loads(line)["data"] for line in preview("DOORS", "-n", 30, "--seed", 1, cwd=tmp_path)]
    assert {(one["was"], one["to"]) for one in doors} <= {("OPEN", "SHUT")} and len(doors) <= 2


def test_a_template_that_fails_while_it_is_previewed_is_told_of(tmp_path: pathlib.Path) -> None:
    (tmp_path / "streams.yaml").write_text(
        'version: 1\nstreams:\n  X: {interval: 1s, fields: {a: "{{ 1 // (seq - 300) }}"}}\n'
    )
    done = process.run("preview", "X", "-n", 400, cwd=tmp_path)
    assert done.returncode == 1 and len(done.stdout.splitlines()) == 299
    assert done.stderr.startswith("regstream: X: fields.a: ") and "Traceback" not in done.stderr


def test_a_plan_adds_up_to_a_virtual_day(tmp_path: pathlib.Path) -> None:
    (tmp_path / "streams.yaml").write_text(CALENDAR)
    done = process.run("plan", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    plan = json.loads(done.stdout)
    rows: dict[str, dict[str, Any]] = {row["stream"]: row for row in plan["streams"]}
    assert rows["EVEN"]["eventsPerDay"] == pytest.approx(86_400 / 10 * 2 * 5), "every ten seconds, twice as fast"
    assert rows["OFFICE"]["eventsPerDay"] == pytest.approx(11 * 12 * 2 * 5 / 7), "a schedule knows no speed"
    assert rows["RESTING"]["eventsPerDay"] == 0 and rows["RESTING"]["when"] == "stopped"
    for key in ("eventsPerHour", "eventsPerDay", "bytesPerHour", "bytesPerDay"):
        assert plan["total"][key] == pytest.approx(sum(row[key] for row in rows.values()))
    assert plan["total"]["eventsPerDay"] == pytest.approx(24 * plan["total"]["eventsPerHour"])
    # One topic for each stream, and that of the alerts
    topics = len(rows) + 1
    assert {key: plan["kafka"][key] for key in ("topics", "partitions", "replicas")} == dict.fromkeys(
        ("topics", "partitions", "replicas"), topics
    )
    assert plan["kafka"]["bytesPerDay"] == pytest.approx(plan["total"]["bytesPerDay"])


def test_the_bytes_of_a_plan_are_those_of_what_is_made(files: pathlib.Path) -> None:
    sizes: dict[str, list[int]] = {}
    done = process.run("generate", "--from", "2026-01-05T09:00:00Z", "--duration", "30m", cwd=files)
    for line in done.stdout.splitlines():
        sizes.setdefault(json.loads(line)["subject"], []).append(len(line.encode()))
    for row in plan_of(files)["streams"]:
        made = sizes[row["stream"]]
        assert row["bytesPerEvent"] == pytest.approx(sum(made) / len(made), rel=0.02), row["stream"]


def test_a_plan_names_the_days_that_its_means_hide(tmp_path: pathlib.Path) -> None:
    (tmp_path / "streams.yaml").write_text(CALENDAR.replace("batch_size: 2", "batch_size: 500"))
    plan = plan_of(tmp_path)
    week = [(one["date"], one["events"]) for one in plan["days"]]
    assert [date for date, _ in week] == sorted({date for date, _ in week}) and len(week) == 7
    assert sum(one["bytes"] for one in plan["days"]) == pytest.approx(7 * plan["total"]["bytesPerDay"])
    working = [events for date, events in week if datetime.date.fromisoformat(date).weekday() < 5]
    resting = [events for date, events in week if datetime.date.fromisoformat(date).weekday() >= 5]
    assert max(resting) < min(working)
    line = next(one for one in process.run("plan", cwd=tmp_path).stdout.splitlines() if one.startswith("days differ"))
    said = re.fullmatch(
        r"days differ    .* week from (\S+): the busiest is .* (\S+) with .*, .*quietest is (\w+) .*", line
    )
    assert said and said[1] == week[0][0]
    assert dict(week)[said[2]] in working and said[3] in ("Saturday", "Sunday")


def test_a_plan_is_a_table_for_people(files: pathlib.Path) -> None:
    table = process.run("plan", cwd=files).stdout.splitlines()
    assert table[0] == "profile development, speed 20"
    assert re.split(r" {2,}", table[1]) == [
        *("STREAM", "WHEN", "BATCH", "PRIORITY"),
        *("EVENTS/H", "EVENTS/DAY", "BYTES/EVENT", "BYTES/H", "BYTES/DAY"),
    ]
    empty = table.index("")
    rows = {line.split()[0]: line.split() for line in table[2:empty]}
    assert rows["SYSTEM_METRICS"][1:7] == ["every", "1500ms", "5", "LOW", "12,000", "288,000"]
    assert rows["TRANSACTION_STREAM"][1:5] == ["16.6667/s", "payments", "5", "NORMAL"]
    assert set(rows) == {*(one["stream"] for one in plan_of(files)["streams"]), "all"}
    assert table[empty + 1].startswith("with Kafka     7 topics, 7 partitions, 1 copy: ")
    assert table[empty + 2].startswith("with database  ")
    slow = process.run("plan", cwd=files, REGSTREAM_ENV="production").stdout.splitlines()
    assert slow[0] == "profile production, speed 1"
    assert any(
        line.startswith("with Kafka     7 topics, 42 partitions, 3 copies on as many brokers: ") for line in slow
    )
    assert next(line for line in slow if line.startswith("BUDGET_UPDATES")).split()[1:3] == ["every", "5m"]


def plan_of(folder: pathlib.Path) -> dict[str, Any]:
    return dict(json.loads(process.run("plan", "--json", cwd=folder).stdout))


@pytest.mark.parametrize(
    ("kind", "paths"),
    [("streams", [ROOT / "streams.yaml"]), ("scenario", sorted((ROOT / "scenarios").glob("*.yaml")))],
)
def test_a_schema_is_one_and_takes_the_files(kind: str, paths: list[pathlib.Path]) -> None:
    schema = json.loads(process.run("schema", kind).stdout)
    kind_of = jsonschema.validators.validator_for(schema, default=None)
    assert kind_of is not None, "it says which schema it follows"
    kind_of.check_schema(schema)
    assert paths
    for path in paths:
        kind_of(schema).validate(YAML(typ="safe").load(path))
    with pytest.raises(jsonschema.ValidationError):
        kind_of(schema).validate({"nonsense": 1})


def test_the_schema_of_a_stream_is_that_of_its_data_and_takes_what_a_preview_shows(files: pathlib.Path) -> None:
    data = json.loads(process.run("schema", "SYSTEM_METRICS", cwd=files).stdout)
    event = json.loads(process.run("schema", "SYSTEM_METRICS", "--event", cwd=files).stdout)
    assert data["$schema"] == event["$schema"] and data["$id"] != event["$id"]
    assert data["properties"]["site"] == {"type": "string", "enum": ["Querétaro", "São Paulo"]}
    for line in preview("SYSTEM_METRICS", "-n", "20", cwd=files):
        jsonschema.Draft202012Validator(event).validate(json.loads(line))
        jsonschema.Draft202012Validator(data).validate(json.loads(line)["data"])


def test_the_schema_of_a_stream_that_is_none_names_the_near_ones() -> None:
    done = process.run("schema", "BUDGET_UPDATE")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("regstream: unknown stream 'BUDGET_UPDATE', did you mean BUDGET_UPDATES")


LARGE = """\
version: 1
streams:
  TRANSFERS:
    interval: 1s
    fields:
      id: "{{ 1610521604143693812 + seq }}"
      text: "{{ (1610521604143693812 + seq) | string }}"
      of: {account: 9007199254740993, small: 9007199254740991}
"""


def test_validate_warns_of_whole_numbers_that_javascript_changes(tmp_path: pathlib.Path) -> None:
    (tmp_path / "streams.yaml").write_text(LARGE)
    done = process.run("validate", "--strict", cwd=tmp_path)
    assert done.returncode == 78
    told = [line for line in done.stderr.splitlines() if "warning:" in line]
    places = [("6:11", "id"), ("8:21", "of.account")]
    assert len(told) == len(places)
    for line, (place, field) in zip(told, places, strict=True):
        assert f"streams.yaml:{place}: warning: {field}: whole numbers beyond 2^53 - 1" in line
        assert "| string }}" in line
    assert process.run("validate", cwd=tmp_path).returncode == 0
