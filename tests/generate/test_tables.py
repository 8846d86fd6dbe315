"""CSV files that are drawn from: values, shares, weights, what lies between, and what is wrong with them."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest

from regstream import schema
from regstream.functions import csv, rng
from regstream.generator import check
from tests.generate import support

COUNT = 20_000
BANKS = '''\
bank,share,branches,code,note
BBVA,3,1500,007,"a, b"
Itaú,1.5,2000,010,
"Banco ""X""",0,12,011,x
BBVA,0.5,,012,y
'''
FILES = {"banks.csv": BANKS}
SHAPES = {"expression": "{{{{ {} }}}}", "statement": "{{% if true %}}{{{{ {} }}}}{{% endif %}}"}


def drawn(call: str, form: str = "expression", text: str = BANKS) -> list[Any]:
    return support.values(SHAPES[form].format(call), COUNT, templates={"banks.csv": text})


@pytest.mark.parametrize("form", SHAPES)
def test_values_come_as_often_as_in_the_file(form):
    assert (
        support.likelihood(drawn("empirical('banks.csv', 'bank')", form), {"BBVA": 2, "Itaú": 1, 'Banco "X"': 1}) > 1e-4
    )
    branches = {1500: 1, 2000: 1, 12: 1}
    found = drawn("empirical('banks.csv', 'branches')", form)
    assert support.likelihood([int(one) for one in found], branches) > 1e-4


@pytest.mark.parametrize("form", SHAPES)
def test_values_come_by_their_weights(form):
    found = drawn("empirical('banks.csv', 'bank', weight='share')", form)
    assert support.likelihood(found, {"BBVA": 3.5, "Itaú": 1.5, 'Banco "X"': 0}) > 1e-4


@pytest.mark.parametrize("form", SHAPES)
def test_what_lies_between_is_drawn_too(form):
    found = [float(one) for one in drawn("empirical('banks.csv', 'branches', smooth=true)", form)]
    # Half of it uniform from 12 to 1500, half from 1500 to 2000
    assert support.likelihood([one < 1500 for one in found], {True: 1, False: 1}) > 1e-4
    parts = [int((one - 12) / 1488 * 10) if one < 1500 else 10 + int((one - 1500) / 500 * 10) for one in found]
    assert support.likelihood(parts, dict.fromkeys(range(20), 1)) > 1e-4
    assert min(found) >= 12 and max(found) < 2000


@pytest.mark.parametrize(
    "further",
    ["'bank'", "'bank', 'share'", "'branches'", "'branches', smooth=true", "'share', weight='share', smooth=true"],
)
def test_of_the_same_draw_either_form_makes_the_same(further, monkeypatch):
    # With one draw an event each, both expressions have the same one
    draws_made = support.values("{{ uniform(0, 1) }}", 300)
    call = f"empirical('banks.csv', {further})"
    found = support.values(SHAPES["expression"].format(call), 300, templates=FILES)
    again = iter(draws_made)
    monkeypatch.setattr(rng.Loose, "double", lambda _: next(again))
    assert support.values(SHAPES["statement"].format(call), 300, templates=FILES) == list(map(str, found))
    assert len(set(found)) > 1


def table(*values: Any, **further: list[Any]) -> csv.CsvTable:
    columns = {"x": values, **further}
    rows = [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    return csv.Csv("\n".join([",".join(columns), *rows])).table


def test_smooth_quantiles_are_the_inverse_of_the_straight_lines_through_the_values():
    made = table(30, 10, 20, 50, 40).drawn("x", smooth=True)
    for u, value in ((0, 10), (0.25, 20), (0.3, 22), (0.5, 30), (0.999, 49.96)):
        assert made.quantile(u) == pytest.approx(value)
    assert table(7).drawn("x", smooth=True).quantile(0.9) == 7
    assert table(7, 7).drawn("x", smooth=True).quantile(0.9) == 7
    # Equal weights are none, and one that is greater draws to it
    even = table(30, 10, 20, 50, 40, w=[2] * 5).drawn("x", "w", smooth=True)
    assert [even.quantile(u / 64) for u in range(64)] == pytest.approx([made.quantile(u / 64) for u in range(64)])
    heavy = table(0, 1, 2, w=[1, 2, 1]).drawn("x", "w", smooth=True)
    assert heavy.points == (0, 0.5, 1)
    assert table(0, 1, 2, w=[1, 1, 3]).drawn("x", "w", smooth=True).points == pytest.approx((0, 1 / 3, 1))
    assert table(0, 9, 1, w=[1, 0, 1]).drawn("x", "w", smooth=True).values == (0, 1)


@pytest.mark.parametrize("u", [0.0, 2.0**-60, 1 / 3, 0.5, 1 - 2.0**-53])
def test_greater_draws_are_greater_numbers_within_the_values(u):
    for smooth in (False, True):
        for weight in (None, "w"):
            made = table(0.1, -5, 0.3, 1e300, 2, w=[1e-300, 1, 0.1, 0.2, 5]).drawn("x", weight, smooth)
            assert -5 <= made.quantile(u) <= 1e300
            every = [made.quantile(number / 50) for number in range(50)]
            assert every == sorted(every)


NUMBERS = [
    (["1", "2"], [1, 2]),
    (["1", "2.50"], [1, 2.5]),
    (["-1", "1e3", "0.5E-1"], [-1, 0.05, 1000.0]),
    (["0", "007"], ["0", "007"]),
    (["1", "+2"], ["1", "+2"]),
    (["1", ".5"], ["1", ".5"]),
    (["1", "5."], ["1", "5."]),
    (["1", " 2"], ["1", " 2"]),
    (["1", "nan"], ["1", "nan"]),
    (["1", "1e999"], ["1", "1e999"]),
    (["1", "\u0661"], ["1", "\u0661"]),
    (["1", "2", ""], [1, 2]),
    (["18446744073709551615", "-9223372036854775808"], [-(2**63), 2**64 - 1]),
    (["1", "18446744073709551616"], ["1", "18446744073709551616"]),
    (["1", "-9223372036854775809"], ["1", "-9223372036854775809"]),
    (["true", "null"], ["true", "null"]),
]


@pytest.mark.parametrize(("cells", "values"), NUMBERS, ids=[" ".join(one[0]) for one in NUMBERS])
def test_a_column_is_of_numbers_when_all_are_such_as_json_writes(cells, values):
    found = csv.Csv("\n".join(["n,x", *(f"1,{cell}" for cell in cells)])).table.drawn("x").values
    assert [repr(one) for one in found] == [repr(one) for one in values]
    made = support.values("{{ empirical('t.csv', 'x') }}", 50, templates={"t.csv": "x\n" + "\n".join(cells)})
    assert set(made) == set(values)


def test_a_text_is_what_stands_in_the_file():
    text = 'x\n"a, ""b""\nc"\n\n" d "\r\n{{ 1 }}\n'
    assert csv.Csv(text).table.drawn("x").values == ('a, "b"\nc', " d ", "{{ 1 }}")


BROKEN = [
    ("", 1, "no header", "write the names of the columns into the first line"),
    ("\nx\n1\n", 1, "no header", "write the names"),
    ("a,,b\n1,2,3\n", 1, "column 2 has no name", "write the names"),
    ("a;b\n1,5;2\n", 1, "the columns are separated by semicolons", "commas between them, and with points in numbers"),
    ("a;b\n", 1, "the columns are separated by semicolons", "commas between them"),
    ("a\tb\n1\t2\n", 1, "the columns are separated by tabs", "commas between them"),
    ("a|b\n1|2\n", 1, "the columns are separated by vertical bars", "commas between them"),
    ("sep=;\na;b\n1;2\n", 1, "the first line is 'sep=;'", "remove it"),
    ("a,b,a\n1,2,3\n", 1, "there are two columns 'a'", "give one of them another name"),
    ("a,b\n1,2\n\n1\n", 4, "the row has 1 cell, the header 2", "put texts with commas between quotes"),
    ('a,b\n"x\ny",2\n1,2,3\n', 4, "the row has 3 cells, the header 2", "leave no cell out"),
    ('a\n"x"y\n', 2, "not CSV: ", "between quotes"),
    ('a\n1\n"x\n', 3, "not CSV: unexpected end of data", "between quotes"),
    ("a\n" + "1\n" * 100_001, 100_002, "more than 100,000 rows", "take a sample of them"),
]


@pytest.mark.parametrize(("text", "line", "message", "hint"), BROKEN, ids=[one[2] for one in BROKEN])
def test_what_is_no_table_is_told_by_its_line(text, line, message, hint):
    (fault,) = check.check_templates({"t.csv": text})
    assert (fault.path, fault.line) == (("t.csv",), line)
    assert message in fault.message
    assert hint in fault.hint
    # Who draws from it has no fault of his own, and no event
    for form in SHAPES.values():
        fields = {"x": form.format("empirical('t.csv', 'a')")}
        assert support.faults(fields, templates={"t.csv": text}) == []
        batch = support.build(fields, templates={"t.csv": text}).next_batch(support.NOW, 1)
        assert batch.error is not None
        assert f"'t.csv' has a fault in line {line}, mend it first" in batch.error.cause


def test_so_many_rows_are_read():
    assert len(csv.Csv("a\n" + "1\n" * 100_000).table.drawn("a").values) == 100_000


WRONG = [
    ("empirical('bank.csv', 'bank')", "no CSV file 'bank.csv'", "did you mean banks.csv?"),
    ("empirical('m.j2', 'bank')", "no CSV file 'm.j2'", ""),
    ("empirical('banks.csv', 'bnk')", "there is no column 'bnk'", "did you mean bank?"),
    ("empirical('banks.csv', 'zzz')", "there is no column 'zzz'", "there are bank, share, branches, code, note"),
    ("empirical('banks.csv', 'bank', 'shares')", "there is no column 'shares'", "did you mean share?"),
    ("empirical('banks.csv', 'branches', weight='bank')", "as weights, not 'BBVA' in line 2", ""),
    ("empirical('banks.csv', 'bank', weight='branches')", "as weights, not '' in line 5", ""),
    ("empirical('banks.csv', 'bank', smooth=true)", "has texts", "leave smooth out"),
    ("empirical('banks.csv', 'code', smooth=true)", "has texts", "leave smooth out"),
    ("empirical('empty.csv', 'a')", "column 'a' has no values", ""),
    ("empirical('empty.csv', 'b')", "column 'b' has no values", ""),
    ("empirical('nothing.csv', 'a', weight='w')", "no values with a weight above 0", ""),
    ("empirical('nothing.csv', 'a', weight='negative')", "as weights, not '-1' in line 2", ""),
    ("empirical('wide.csv', 'a', smooth=true)", "too far apart", ""),
    ("empirical('wide.csv', 'a', weight='w')", "the weights are too large", ""),
    ("empirical('banks.csv')", "missing a required argument: 'column'", ""),
    ("empirical(file='banks.csv', column='bank')", "the name of the file comes first", ""),
    ("empirical('banks.csv', stream)", "not be made by an expression", ""),
    ("empirical(stream, 'bank')", "not be made by an expression", ""),
    ("empirical('banks.csv', 'bank', smooth=seq > 1)", "not be made by an expression", ""),
    ("empirical('banks.csv', 5)", "named by texts", ""),
    ("empirical('banks.csv', 'branches', smooth=1)", "smooth is true or false", ""),
    ("empirical(*['banks.csv', 'bank'])", "takes its arguments one by one", ""),
]
OTHERS = {
    **FILES,
    "m.j2": "",
    "empty.csv": "a,b\n,\n",
    "nothing.csv": "a,w,negative\nx,0,-1\n",
    "wide.csv": "a,w\n-1e308,1e308\n1e308,1e308\n",
}


@pytest.mark.parametrize("form", SHAPES)
@pytest.mark.parametrize(("call", "message", "hint"), WRONG)
def test_what_a_file_does_not_have_is_a_fault_at_load(call, message, hint, form):
    fault = support.fault(SHAPES[form].format(call), templates=OTHERS)
    assert message in fault.message
    assert hint in fault.hint


def test_in_macros_too():
    macro = "\n{% macro f() %}{{ empirical('banks.csv', 'bnk') }}{% endmacro %}"
    (fault,) = check.check_templates({**FILES, "m.j2": macro})
    assert (fault.path, fault.line, fault.hint) == (("m.j2",), 2, "did you mean bank?")


def test_a_table_is_no_template():
    files = {"t.csv": "a\n{% macro f() %}{% endmacro %}{{ nonsense }}\n"}
    assert check.check_templates(files) == []
    for text in ("{% include 't.csv' %}", "{% from 't.csv' import f %}"):
        assert "no template file 't.csv'" in support.fault(text, templates=files).message
    (fault,) = support.faults(None, template="t.csv", templates=files)
    assert fault.message == "no template file 't.csv'"


def test_the_files_of_a_text_are_found_wherever_it_draws_from_them():
    files = {**FILES, "other.csv": "a\n1\n", "m.j2": "{% macro f() %}{{ empirical('other.csv', 'a') }}{% endmacro %}"}
    for text, found in (
        ("{{ empirical('banks.csv', 'bank') }}", {"banks.csv"}),
        ("{{ [empirical('banks.csv', 'bank'), empirical('other.csv', 'a')] }}", {"banks.csv", "other.csv"}),
        ("{% if true %}{{ empirical('banks.csv', 'bank') }}{% endif %}", {"banks.csv"}),
        ("{% from 'm.j2' import f %}{{ f() }}", {"m.j2", "other.csv"}),
        ("{{ choice(['banks.csv']) }}", set()),
    ):
        assert check.references([text], files) == found


def test_a_file_is_read_once_for_all_who_draw_from_it():
    text = csv.Csv(BANKS)
    streams = [support.stream_spec({"x": "{{ empirical('banks.csv', 'bank') }}"}, name) for name in "AB"]
    shop = support.workshop(*streams, templates={"banks.csv": text})
    assert shop.box.table("banks.csv") is text.table
    assert text.table.drawn("bank") is text.table.drawn("bank")


@pytest.mark.parametrize(
    ("call", "json_schema"),
    [
        ("empirical('banks.csv', 'bank')", {"type": "string", "enum": ["BBVA", "Itaú", 'Banco "X"']}),
        ("empirical('banks.csv', 'bank', 'share')", {"type": "string", "enum": ["BBVA", "Itaú"]}),
        ("empirical('banks.csv', 'branches')", {"type": "integer", "enum": [12, 1500, 2000]}),
        ("empirical('banks.csv', 'branches', smooth=true)", {"type": "number", "minimum": 12, "maximum": 2000}),
        ("empirical('many.csv', 'a')", {"type": "integer", "minimum": 0, "maximum": 999}),
        ("empirical('many.csv', 'b')", {"type": "number", "minimum": 0.5, "maximum": 999.5}),
        ("empirical('many.csv', 'c')", {"type": "string"}),
    ],
)
def test_a_schema_knows_the_values_of_a_column(call, json_schema):
    many = "a,b,c\n" + "".join(f"{n},{n}.5,t{n}\n" for n in range(1000))
    files = {**FILES, "many.csv": many}
    catalog = support.catalog(support.stream_spec({"x": f"{{{{ {call} }}}}"}), templates=files)
    assert schema.Schemas(catalog).data("S")["properties"]["x"] == json_schema


def test_a_smooth_column_has_the_mean_of_its_lines():
    rows = [math.exp(n / 100) for n in range(500)]
    text = "x\n" + "\n".join(map(str, rows))
    found = support.values("{{ empirical('t.csv', 'x', smooth=true) }}", COUNT, templates={"t.csv": text})
    trapezes = (sum(rows) - (rows[0] + rows[-1]) / 2) / (len(rows) - 1)
    assert statistics.fmean(found) == pytest.approx(trapezes, abs=4 * statistics.pstdev(rows) / math.sqrt(COUNT))
