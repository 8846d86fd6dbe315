"""The same seed gives the same bytes on every machine: zone, locale, clock, environment and the order of hashes."""

# ruff: noqa: E501 - a template reads best on one line

from __future__ import annotations

import datetime
import hashlib
import os
import pathlib
import subprocess
import sys

import pytest

from regstream.functions import faker, time_format
from regstream.generator import stream
from tests import support as shared
from tests.generate import support
from tests.generate.test_budget import FILTERS, FUNCTIONS, GIVEN, MORE, OPERATORS, OUT_OF_REACH, TESTS, TEXTS

FORMATS = "aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZf%"
TIMES = (
    [f"now.strftime('%{name}')" for name in FORMATS]
    + [f"date('+9d', format='%{name}')" for name in FORMATS]
    + [f"now.{name}" for name in ("year", "month", "day", "hour", "minute", "second", "microsecond", "tzinfo", "fold")]
    + [f"now.{name}()" for name in ("ctime", "isocalendar", "isoformat", "isoweekday", "timetuple", "toordinal", "weekday", "dst", "tzname", "utcoffset", "date", "time", "timetz", "timestamp", "utctimetuple")]
    + ["now.replace(tzinfo=none).timestamp()", "now.replace(tzinfo=none).strftime('%s %c')", "now.date().strftime('%s %x')", "now.time().strftime('%s %X')", "'{}'.format(now)", "now ~ ''", "'%s' % now"]
)  # fmt: skip
OTHERS = ["x is " + name for name in support.box().tests if name.isidentifier() and name not in TESTS]
OTHERS += [f"x.{name}()" for name in dir(str) if name[0] != "_" and name not in TEXTS and name not in OUT_OF_REACH]
SLOW = {"json", "csv", "dsv", "psv", "tsv"}


def everything() -> list[str]:
    cases = {**FILTERS, **TESTS, **TEXTS, **OPERATORS, **FUNCTIONS, **MORE}
    return [*cases.values(), *TIMES, *OTHERS]


def tell() -> None:
    """Write what every expression and provider gives; this module is run so under two environments."""
    import locale

    locale.setlocale(locale.LC_ALL, "")
    _shift(float(os.environ["SHIFT"]))
    entity = support.entity("p", {"id": "{{ index }}", "v": "{{ index + 1 }}"}, count=50)
    table = {"a.csv": "v\n" + "\n".join(map(str, range(99)))}
    cases = [f"{GIVEN}{{% set i = seq %}}{{{{ {one} }}}}" for one in everything()]
    specs = [support.stream_spec({"x": template}, f"V{number}") for number, template in enumerate(cases)]
    workshop = support.workshop(*specs, entities=(entity,), templates=table)
    for spec in specs:
        batch = stream.Stream(spec, workshop, "epoch").next_batch(support.NOW, 1)
        said = f"{batch.error} {[event.value for event in batch.events]}"
        print(spec.name, said[:300], hashlib.sha256(said.encode()).hexdigest())
    # Chance decides which branches are tried: here as many as a test has time for
    faker._TRIALS = 3
    for kind in sorted(faker.providers() - SLOW):
        try:
            print(kind, [faker.fake(bytes([seed]) * 16, kind) for seed in range(20)])
        except ValueError as error:
            print(kind, str(error).split(":")[0])


def _shift(seconds: float) -> None:
    """Let whoever asks for the time be told another: before Faker takes the functions that it asks by."""
    import time

    real, now = time.time, datetime.datetime.now

    class Shifted(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return now(tz) + datetime.timedelta(seconds=seconds)

        @classmethod
        def today(cls):
            return cls.now()

    time.time = lambda: real() + seconds
    import faker.providers.date_time as module

    module.datetime = Shifted


def told(**environment: str) -> subprocess.Popen[str]:
    given = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    code = "from tests.generate import test_machine; test_machine.tell()"
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code], cwd=shared.PACKAGE.parent, text=True, encoding="utf-8",
        env=given | {"PYTHONIOENCODING": "utf-8", "PYTHONPATH": str(shared.PACKAGE.parent)} | environment, stdout=subprocess.PIPE,
    )  # fmt: skip


def test_the_whole_vocabulary_gives_the_same_on_another_machine():
    runs = [
        told(TZ="UTC", LC_ALL="C", PYTHONHASHSEED="1", SHIFT="0"),
        told(TZ="America/Lima", LC_ALL="C.UTF-8", PYTHONHASHSEED="2", SHIFT=str(213 * 86_400 + 11 * 3_600)),
    ]
    here, there = (run.communicate()[0].splitlines() for run in runs)
    assert all(run.returncode == 0 for run in runs)
    assert len(here) > len(everything()) + 200
    assert [pair for pair in zip(here, there, strict=True) if pair[0] != pair[1]] == []


SHOWN = ["{{ now.strftime }}", "{{ 'a'.upper }}", "{{ 'a'['upper'] }}", "{{ [seq].count }}", "{{ seq.real.conjugate }} x", "{% if 1 %}{{ 'a'.upper }}{% endif %}", "{% if 1 %}{{ ['a'.upper] }}{% endif %}", "{% if 1 %}{{ 'a' ~ now.ctime }}{% endif %}", "{{ '%s' % now.ctime }}", "{{ [now.ctime] }}", "{{ ['a'] | map(attribute='upper') | list }}", "{{ 'a' | attr('upper') }}"]  # fmt: skip


@pytest.mark.parametrize("template", SHOWN)
def test_no_text_holds_a_place_in_memory(template):
    batch = support.build({"x": template}).next_batch(support.NOW, 1)
    assert not batch.events
    assert (
        "is a function" in str(batch.error) or "is not a value" in str(batch.error) or "cannot be" in str(batch.error)
    )


CLOSED = ["now.now()", "now.today()", "now.utcnow()", "now.fromtimestamp(0)", "now.strptime('1', '%d')", "now.astimezone()", "now.min", "now.max", "now.combine(now, now)", "now.fromisoformat('2026-01-01')", "now.date().today()", "now.date().min", "now.time().max"]  # fmt: skip


@pytest.mark.parametrize("call", CLOSED)
def test_what_could_ask_the_machine_is_out_of_reach(call):
    for template in (f"{{{{ {call} }}}}", f"{{% if 1 %}}{{{{ {call} }}}}{{% endif %}}"):
        found = support.faults({"x": template})
        said = found[0].message if found else str(support.build({"x": template}).next_batch(support.NOW, 1).error)
        assert "a time has no" in said or "unsafe" in said


@pytest.mark.parametrize("call", ["'{:n}'.format(seq)", "'{:,n}'.format(seq)", "'{:%s}'.format(now)"])
def test_formats_of_the_machine_are_refused_with_a_cure(call):
    said = str(support.build({"x": f"{{{{ {call} }}}}"}).next_batch(support.NOW, 1).error)
    assert "write" in said


@pytest.mark.parametrize("flags", ["", "-", "_", "0", "^", "#", "5", "05", "_5", "-5"])
def test_times_are_formatted_as_the_c_library_does_it(flags):
    moments = [datetime.datetime.fromtimestamp(number * 12_345_678.9, datetime.UTC) for number in range(300)]
    for name in FORMATS if not flags else set(FORMATS) - set("zZf%s"):
        for moment in moments:
            if name != "s":
                assert time_format.formatted(moment, f"a%{flags}{name} %é") == moment.strftime(f"a%{flags}{name} %é"), (
                    name
                )


def test_seconds_of_a_time_are_those_of_utc():
    assert support.value("{{ now.strftime('%s') }}") == support.value("{{ date(format='%s') }}") == "1795435200"
    assert support.value("{{ now.replace(tzinfo=none).timestamp() }}") == 1_795_435_200.123
    assert pathlib.Path(time_format.__file__).read_text(encoding="utf-8").count("localtime") == 0
