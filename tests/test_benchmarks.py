"""The benchmarks run and give a table; what the figures are is not for a test to judge."""

from __future__ import annotations

import json
import pathlib

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import table
from scripts import kafka


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (table.Row("a", 12, "ms", must=15, aim=5), "must"),
        (table.Row("a", 4, "ms", must=15, aim=5), "aim"),
        (table.Row("a", 16, "ms", must=15, aim=5), "no"),
        (table.Row("a", 90, "events", must=0.45, aim=0.8, floor=100, by_ratio=True, rising=True), "aim"),
        (table.Row("a", 40, "events", must=0.45, aim=0.8, floor=100, by_ratio=True, rising=True), "no"),
        (table.Row("a", 40, "MB", floor=10), ""),
    ],
)
def test_a_row_says_what_it_meets(row: table.Row, met: str) -> None:
    assert row.met == met


def test_the_table_has_a_line_a_row_and_its_notes_below() -> None:
    rows = [table.Row("first", 1234.5, "ms", 15, 5, 10, note="one\ntwo"), table.Row("second row", 0.5, "s")]
    head, first, *notes, second = table.text(rows).splitlines()
    assert head.split() == ["row", "figure", "floor", "ratio", "must", "aim", "met"]
    assert "1,234 ms" in first and "123.45" in first and first.endswith("no")
    assert [one.strip() for one in notes] == ["one", "two"]
    assert second.split() == ["second", "row", "0.50", "s"]


def test_cheap_rows_run_and_are_written_as_json(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "figures.json"
    assert benchmarks.main(["generation", "ticks", "reload", "--tiny", "--json", str(path)]) == 0
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    shown = capsys.readouterr().out
    assert len(rows) == 5
    for row in rows:
        assert row["figure"] > 0 and row["floor"] > 0 and row["must"] and row["met"] in ("aim", "must", "no")
        assert row["name"] in shown


def test_rows_with_kafka_are_passed_over_in_one_line_where_there_is_none(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "available", lambda: "no java: install Java 17 or newer")
    path = tmp_path / "figures.json"
    assert benchmarks.main(["kafka", "--tiny", "--json", str(path)]) == 0
    assert json.loads(path.read_text(encoding="utf-8")) == {"rows": []}
    said = [line for line in capsys.readouterr().err.splitlines() if "Java 17" in line]
    assert len(said) == 1 and said[0].startswith("skipping kafka-publish, ")


def test_rows_are_listed_and_unknown_ones_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmarks.main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(benchmarks.ROWS)
    with pytest.raises(SystemExit):
        benchmarks.main(["speed"])
    assert "no row 'speed'" in capsys.readouterr().err
