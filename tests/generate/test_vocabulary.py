"""Every function of the vocabulary: its values, its moments, its bounds, and what it says of wrong arguments."""

from __future__ import annotations

import collections
import datetime
import math
import pathlib
import re
import statistics
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from regstream.functions import faker, registry
from tests.generate import support

COUNT = 20_000
# Call, mean and standard deviation, least and greatest value
MOMENTS = [
    ("uniform(-2, 6)", 2, 8 / math.sqrt(12), -2, 6),
    ("uniform(-2, seq * 0 + 6)", 2, 8 / math.sqrt(12), -2, 6),
    ("randint(1, 6)", 3.5, math.sqrt(35 / 12), 1, 6),
    ("randint(1, seq * 0 + 6)", 3.5, math.sqrt(35 / 12), 1, 6),
    ("normal(10, 2)", 10, 2, -2, 22),
    ("lognormal(1, 0.5)", math.exp(1.125), math.exp(1.125) * math.sqrt(math.exp(0.25) - 1), 0, 60),
    ("exponential(4)", 4, 4, 0, 100),
    ("triangular(0, 10, 2)", 4, math.sqrt((100 + 4 - 20) / 18), 0, 10),
    ("triangular(0, 10)", 5, 10 / math.sqrt(24), 0, 10),
    ("pareto(5, 2)", 2.5, math.sqrt(4 * 5 / (16 * 3)), 2, 200),
    ("zipf(3, 1)", 18 / 11, math.sqrt(36 / 11 - (18 / 11) ** 2), 1, 3),
    ("chance(0.3) | int", 0.3, math.sqrt(0.21), 0, 1),
    ("chance(seq * 0 + 0.3) | int", 0.3, math.sqrt(0.21), 0, 1),
    ("choice([1, 2, 3])", 2, math.sqrt(2 / 3), 1, 3),
    ("choice(range(1, 4) | list)", 2, math.sqrt(2 / 3), 1, 3),
    ("weighted({1: 1, 5: 3, 9: 0})", 4, math.sqrt(3), 1, 5),
    ("weighted({1: seq * 0 + 1, 5: 3})", 4, math.sqrt(3), 1, 5),
    ("digits(1) | int", 4.5, math.sqrt(8.25), 0, 9),
    ("pattern('#') | int", 4.5, math.sqrt(8.25), 0, 9),
]


@pytest.mark.parametrize(("call", "mean", "sd", "least", "greatest"), MOMENTS)
def test_expressions_have_the_moments_of_the_distribution(call, mean, sd, least, greatest):
    check(support.values(f"{{{{ {call} }}}}", COUNT), mean, sd, least, greatest)


@pytest.mark.parametrize(("call", "mean", "sd", "least", "greatest"), MOMENTS)
def test_statements_have_the_same_moments(call, mean, sd, least, greatest):
    found = support.values(f"{{% if true %}}{{{{ {call} }}}}{{% endif %}}", COUNT // 4)
    check([float(one) for one in found], mean, sd, least, greatest)


def check(found, mean, sd, least, greatest):
    # Six standard errors; for the deviation twice as many again, as heavy tails need
    assert abs(statistics.fmean(found) - mean) < 6 * sd / math.sqrt(len(found))
    assert abs(statistics.pstdev(found) - sd) < 12 * sd / math.sqrt(len(found))
    assert least <= min(found)
    assert max(found) <= greatest


def test_each_value_comes_as_often_as_it_should():
    found = collections.Counter(support.values("{{ weighted({'a': 1, 'b': 2, 'c': 7}) }}", COUNT))
    assert set(found) == set("abc")
    for value, share in (("a", 0.1), ("b", 0.2), ("c", 0.7)):
        assert abs(found[value] / COUNT - share) < 0.02
    ranks = collections.Counter(support.values("{{ zipf(50) }}", COUNT))
    assert [rank for rank, _ in ranks.most_common(3)] == [1, 2, 3]
    assert abs(ranks[1] / ranks[4] - 4**1.1) < 0.7


def test_values_that_are_equal_but_not_the_same_are_kept_apart():
    for mapping, values in (("{1: 1, 2: 1}", {1, 2}), ("{true: 1, 2: 1}", {True, 2}), ("{1.0: 1, 2: 1}", {1.0, 2})):
        found = support.values(f"{{{{ weighted({mapping}) }}}}", 50)
        assert {type(one) for one in found} == {type(one) for one in values}


def test_uuids_are_of_version_4():
    for template in ("{{ uuid() }}", "{% if true %}{{ uuid() }}{% endif %}"):
        found = support.values(template, 500)
        assert len(set(found)) == 500
        assert all(
            re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", x) for x in found
        )
        assert {one[19] for one in found} == set("89ab")
    assert registry.uuid(bytes(range(16))) == "00010203-0405-4607-8809-0a0b0c0d0e0f"


def test_patterns_put_digits_and_letters_where_they_are_asked_for():
    for one in support.values("{{ pattern('??-##/*\\\\#\\\\\\\\x') }}", 200):
        assert re.fullmatch(r"[A-Z]{2}-\d\d/[A-Z0-9]#\\x", one)
    assert registry.pattern(bytes(16), "") == ""
    assert registry.pattern(bytes(16), "a\\") == "a"
    long = support.value("{{ pattern('?' * 900) }}")
    assert re.fullmatch("[A-Z]{900}", long)
    assert len(set(long)) == 26
    assert re.fullmatch(r"\d{40}", support.value("{{ digits(40) }}"))
    assert support.value("{{ digits(0) }}") == ""


def test_sequences_follow_the_number_of_the_event():
    assert support.values("{{ sequence() }}", 3) == [1, 2, 3]
    assert support.values("{{ sequence(100, -10) }}", 3) == [100, 90, 80]
    assert support.values("{{ sequence(step=2, start=0) }}", 3) == [0, 2, 4]
    assert support.values("{% if true %}{{ sequence(5) }}{% endif %}", 3) == ["5", "6", "7"]


def test_dates_move_from_now():
    assert support.value("{{ date() }}") == "2026-11-23"
    assert support.value("{{ date('-23d') }}") == "2026-10-31"
    assert support.value("{{ date('+2w') }}") == "2026-12-07"
    assert support.value("{{ date('90m', format='%H:%M:%S') }}") == "13:30:00"
    assert support.value("{{ date(offset='36h') }}") == "2026-11-25"
    found = support.values("{{ date('-2d', '+2d') }}", 2_000)
    assert set(found) == {"2026-11-21", "2026-11-22", "2026-11-23", "2026-11-24"} | set(found) & {"2026-11-25"}
    assert support.value("{% if true %}{{ date('1d') }}{% endif %}") == "2026-11-24"


def test_the_present_prints_with_milliseconds_and_z():
    moment = registry.Instant.at(0.0129)
    assert str(moment) == f"{moment}" == "1970-01-01T00:00:00.012Z"
    assert str(registry.Instant.at(1_795_435_200.0)) == "2026-11-23T12:00:00.000Z"
    assert str(moment + datetime.timedelta(days=1)) == "1970-01-02T00:00:00.012Z"


def test_fakes_are_the_same_for_the_same_event_and_follow_the_locale():
    assert support.values("{{ fake('name') }}", 5) == support.values("{{ fake('name') }}", 5)
    assert len(set(support.values("{{ fake('name') }}", 50))) > 40
    assert re.fullmatch(r"[\d./-]+", support.value("{{ fake('cpf', locale='pt_BR') }}"))
    assert isinstance(support.value("{{ fake('latitude') }}"), float)
    assert isinstance(support.value("{{ fake('words') }}"), list)
    assert isinstance(support.value("{{ fake('currency') }}"), list)
    assert isinstance(support.value("{{ fake('pybool') }}"), bool)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("date_time", "gives a datetime"), ("date", "depends on the day"), ("rfc", "depends on the day"),
        ("credit_card_expire", "depends on the day"), ("color", "draws by itself"), ("zip", "gives a bytes"),
        ("pyset", "gives a set"), ("time_series", "gives a generator"), ("image", "'image': "), ("enum", "missing 1"),
        ("nonsense", "no provider"), ("__class__", "no provider"), ("seed", "no provider"), ("random", "no provider"),
    ],
)  # fmt: skip
def test_fakes_that_would_differ_or_fit_no_event_are_refused(kind, reason):
    fault = support.fault(f"{{{{ fake('{kind}') }}}}")
    assert fault.message.startswith("fake: ")
    assert reason in fault.message


def test_fakes_of_unknown_locales_are_refused():
    for locale in ("'zz_ZZ'", "'../../etc'"):
        assert "there is no locale" in support.fault(f"{{{{ fake('name', locale={locale}) }}}}").message
    assert "name" in faker.providers("pt_BR")


FAKES = [
    ("'name', locale=['es_MX', 'pt_BR']", "fake takes one locale, not a list: write locale=choice(['es_MX', 'pt_BR'])"),
    ("'name', locale='es_MC'", "there is no locale 'es_MC', did you mean es_MX"),
    ("'name', locale='pt'", "there is no locale 'pt', of that language there are pt_BR, pt_PT"),
    ("'name', locale='es-PE'", "there is no locale 'es-PE', did you mean es_"),
    ("'name', locale='xx_YY'", "there is no locale 'xx_YY', write one such as es_MX"),
    ("'name', locale=5", "the locale of fake is a text such as 'pt_BR', not 5"),
    ("'nmae'", "there is no provider 'nmae', did you mean name"),
    ("'compnay'", "there is no provider 'compnay', did you mean company"),
    ("['name', 'city']", "fake takes the name of one provider as a text"),
]


@pytest.mark.parametrize(("arguments", "message"), FAKES)
@pytest.mark.parametrize("form", ["{{{{ fake({}) }}}}", "{{% if 1 %}}{{{{ fake({}) }}}}{{% endif %}}"])
def test_fakes_are_refused_with_the_cause_and_the_cure(arguments, message, form):
    assert message in support.fault(form.format(arguments)).message


def test_a_list_of_locales_that_is_made_while_events_are_is_named_too():
    said = str(support.build({"x": "{{ fake('name', locale=['es_MX', stream]) }}"}).next_batch(support.NOW, 1).error)
    assert "fake takes one locale, not a list" in said


@pytest.mark.parametrize("missing", ["faker.factory", "faker.config"])
def test_a_faker_that_cannot_be_used_is_named_and_not_its_locale(missing, monkeypatch):
    for cache in (faker._faker, faker._locales, faker._providers, faker._work):
        cache.cache_clear()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, missing, None)
        message = support.fault("{{ fake('name') }}").message
    assert "Faker cannot be used" in message and "install it again: pip install" in message
    assert "locale" not in message
    assert support.faults({"x": "{{ fake('name') }}"}) == []


BAD = [
    ("choice()", "missing a required argument: 'values'"),
    ("choice([])", "choice takes a list with at least one value"),
    ("choice(5)", "choice takes a list"),
    ("choice({'a': 1})", "choice takes a list"),
    ("weighted({})", "one above 0"),
    ("weighted({'a': 0})", "one above 0"),
    ("weighted({'a': 1, 'b': -1})", "must not be negative"),
    ("weighted({'a': 'b'})", "finite numbers"),
    ("weighted({'a': 1e999})", "finite numbers"),
    ("weighted(['a'])", "takes a mapping"),
    ("uniform(1)", "missing a required argument: 'high'"),
    ("uniform(1, 2, 3)", "too many positional arguments"),
    ("uniform(1, 2, up=2)", "unexpected keyword argument 'up'"),
    ("uniform('a', 2)", "low must be a finite number, not 'a'"),
    ("uniform(seq, 'b')", "high must be a finite number, not 'b'"),
    ("uniform(0, 1e999)", "high must be a finite number, not inf"),
    ("uniform(*[1, 2])", "takes its arguments one by one"),
    ("randint(5, 1)", "low <= high"),
    ("randint(0, 2 ** 60)", ""),
    ("randint(1.5, 2)", "whole numbers, not 1.5"),
    ("normal(0, -1)", "0 or more, not -1"),
    ("lognormal(1000, 1)", "1000 is too large"),
    ("lognormal(1, -1)", "0 or more, not -1"),
    ("exponential()", "missing a required argument: 'mean'"),
    ("triangular(0, 1, 2)", "low <= mode <= high"),
    ("triangular(2, 1)", "low <= mode <= high"),
    ("triangular('a', 'a')", "low must be a finite number"),
    ("pareto(0)", "alpha above 0"),
    ("zipf(0)", "n from 1 to 10000"),
    ("zipf(99999999)", "n from 1 to 10000"),
    ("zipf(5, -1)", "s from 0 to 20"),
    ("zipf(1.5)", "whole numbers"),
    ("chance(30)", "probability from 0 to 1, not 30"),
    ("chance('a')", "p must be a finite number"),
    ("uuid(1)", "too many positional arguments"),
    ("digits(-1)", "0 to 1000 digits"),
    ("digits(5000)", "0 to 1000 digits"),
    ("digits(1.5)", "whole numbers"),
    ("pattern(5)", "a text of at most"),
    ("sequence('a')", "start must be a finite number"),
    ("sequence(0.5)", "whole numbers"),
    ("date('tomorrow')", "write -5d, +30d, 12h or 2w"),
    ("date(5)", "write -5d"),
    ("date('999999w')", "leaves the years 1 to 9999"),
    ("pick([])", "pick takes the name"),
    ("pick()", "missing a required argument"),
    ("pick(seq)", "name of an entity as text"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), BAD)
def test_wrong_arguments_are_faults_at_load(call, message):
    if not message:
        # What shows only when it is computed is an error of the event, which says as much
        assert "at most 2**50" in support.build({"x": f"{{{{ {call} }}}}"}).next_batch(support.NOW).error.cause
        return
    fault = support.fault(f"{{{{ {call} }}}}")
    assert message in fault.message
    assert call.partition("(")[0] in fault.message


@pytest.mark.parametrize(("call", "message"), [one for one in BAD if one[1] and "seq" not in one[0]])
def test_in_statements_too(call, message):
    fault = support.fault(f"\n{{% if true %}}\n{{{{ {call} }}}}{{% endif %}}")
    assert message in fault.message
    assert fault.line == 3


def test_every_function_is_tried_here():
    spoken = " ".join([one[0] for one in MOMENTS + BAD]) + " fake("
    for name in ("test_motion.py", "test_tables.py"):
        spoken += pathlib.Path(__file__).with_name(name).read_text(encoding="utf-8")
    assert all(f"{name}(" in spoken for name in registry.FUNCTIONS)


@pytest.mark.parametrize("u", [0.0, 2.0**-52, 0.5, 1.0 - 2.0**-52])
def test_the_ends_of_a_draw_stay_in_bounds(u):
    assert registry.choice(u, [1, 2]) in (1, 2)
    assert registry.weighted(u, {"a": 0.1, "b": 0.2, "c": 0}) in ("a", "b")
    assert 1 <= registry.randint(u, 1, 2**50) <= 2**50
    assert registry.randint(u, -3, -3) == -3
    assert 1 <= registry.zipf(u, 10_000, 0) <= 10_000
    assert registry.triangular(u, 4, 4) == 4
    for value in (
        registry.normal(u, 0, 1), registry.lognormal(u, 0, 1), registry.exponential(u, 1),
        registry.pareto(u, 1), registry.triangular(u, 0, 1, 1), registry.triangular(u, 0, 1, 0),
    ):  # fmt: skip
        assert math.isfinite(value)


@given(some.floats(0, 4e9))
@example(0.9995)
@example(1_795_435_200.9999999)
@example(1_795_435_200.0005)
@example(140_737_488.4979995)
def test_the_time_as_text_is_that_of_the_instant(now):
    expected = datetime.datetime.fromtimestamp(now, datetime.UTC)
    instant = registry.Instant.at(now)
    assert isinstance(instant, registry.Instant) and instant == expected
    text = expected.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert registry.time_text(now) == str(instant) == text
