"""Values that move and rows that are taken: moments, bounds, what is remembered, what is refused."""

from __future__ import annotations

import datetime
import itertools
import math
import statistics
import zoneinfo

import pytest

from regstream.functions import processes, registry
from tests.generate import support

COUNT = 20_000


def path(step: str, start: float, count: int = COUNT, rows: int = 1) -> list[list[float]]:
    """The values that a field of each row goes through."""
    one = support.build(
        {"id": "{{ a.id }}", "x": f"{{{{ {step} }}}}"},
        entities=(support.entity("rows", {"id": "{{ index }}", "x": start}, rows),),
        **{"with": {"a": "{{ pick('rows') }}"}, "update": {"a.x": "{{ x }}"}},
    )
    batch = one.next_batch(support.NOW, count)
    assert batch.error is None, batch.error
    found: dict[int, list[float]] = {}
    for event in support.events(batch):
        found.setdefault(event["data"]["id"], [start]).append(event["data"]["x"])
    return list(found.values())


def steps(values: list[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(values)]


def test_a_random_walk_has_independent_normal_steps():
    moved = steps(path("walk(a.x, 2.5)", 100.0)[0])
    assert abs(statistics.fmean(moved)) < 4 * 2.5 / math.sqrt(COUNT)
    assert statistics.stdev(moved) == pytest.approx(2.5, rel=4 / math.sqrt(2 * COUNT))
    assert abs(statistics.correlation(moved[:-1], moved[1:])) < 4 / math.sqrt(COUNT)


def test_a_walk_stays_within_its_bounds():
    found = path("walk(a.x, 3, low=0, high=10)", 5.0)[0]
    assert 0 <= min(found) < 0.2 and 9.8 < max(found) <= 10
    assert statistics.fmean(found) == pytest.approx(5, abs=0.3)


def test_growth_has_its_mean_and_spread():
    found = path("grow(a.x, 0.001, 0.02)", 1e-3)[0]
    ratios = [after / before for before, after in itertools.pairwise(found)]
    assert statistics.fmean(ratios) == pytest.approx(1.001, abs=4 * 0.02 / math.sqrt(COUNT))
    assert statistics.stdev(map(math.log, ratios)) == pytest.approx(0.02, rel=0.03)


def test_what_reverts_keeps_near_its_mean_and_forgets():
    rate, sd = 0.2, 3.0
    found = path(f"revert(a.x, 50, {rate}, {sd})", 500.0)[0][100:]
    spread = sd / math.sqrt(1 - (1 - rate) ** 2)
    assert statistics.fmean(found) == pytest.approx(50, abs=4 * spread * 3 / math.sqrt(COUNT))
    assert statistics.stdev(found) == pytest.approx(spread, rel=0.05)
    assert statistics.correlation(found[:-1], found[1:]) == pytest.approx(1 - rate, abs=0.03)


def test_each_row_moves_by_itself():
    found = path("walk(a.x, 1)", 0.0, 4000, rows=5)
    assert len(found) == 5 and all(values[0] == 0 for values in found)
    for values in found:
        assert max(map(abs, steps(values))) < 6


def test_a_mixture_has_the_moments_of_its_parts():
    found = support.values(
        "{{ mixture([[3, normal(0, 1)], [1, normal(10, 2)], [0, 1 / 0]]) }}".replace("1 / 0", "99"), COUNT
    )
    assert statistics.fmean(found) == pytest.approx(2.5, abs=0.15)
    # The law of total variance: 0.75·1 + 0.25·4 + 0.75·2.5² + 0.25·7.5²
    assert statistics.variance(found) == pytest.approx(20.5, rel=0.05)
    assert 99 not in found


@pytest.mark.parametrize("rho", [-1.0, -0.6, 0.0, 0.8, 1.0])
def test_a_pair_is_normal_and_correlated(rho):
    pairs = support.values(f"{{{{ correlated({rho}) }}}}", COUNT)
    first, second = zip(*pairs, strict=True)
    for one in (first, second):
        assert abs(statistics.fmean(one)) < 4 / math.sqrt(COUNT)
        assert statistics.stdev(one) == pytest.approx(1, rel=0.03)
    assert statistics.correlation(first, second) == pytest.approx(rho, abs=4 / math.sqrt(COUNT) + 1e-9)


def ranks(values: list[float]) -> list[float]:
    found = dict.fromkeys(values, 0)
    for place, number in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        found[values[number]] = place
    return [found[one] for one in values]


def pairs_of(first: str, second: str, rho: float) -> tuple[list[float], list[float]]:
    fields = {"a": f"{{{{ marginal(z[0], {first}) }}}}", "b": f"{{{{ marginal(z[1], {second}) }}}}"}
    found = support.data(fields, COUNT, **{"with": {"z": f"{{{{ correlated({rho}) }}}}"}})
    return [one["a"] for one in found], [one["b"] for one in found]


@pytest.mark.parametrize("rho", [-0.8, 0.0, 0.7])
def test_marginals_keep_their_ranks_together(rho):
    amounts, times = pairs_of("'lognormal', 4, 1.2", "'exponential', mean=30", rho)
    # What the ranks of a Gaussian copula correlate by; the standard error is below that of independent ones
    rank_correlation = statistics.correlation(ranks(amounts), ranks(times))
    assert rank_correlation == pytest.approx(6 / math.pi * math.asin(rho / 2), abs=4 / math.sqrt(COUNT))
    assert statistics.fmean(times) == pytest.approx(30, abs=4 * 30 / math.sqrt(COUNT))
    mean = math.exp(4 + 1.2**2 / 2)
    spread = mean * math.sqrt(math.exp(1.2**2) - 1)
    assert statistics.fmean(amounts) == pytest.approx(mean, abs=4 * spread / math.sqrt(COUNT))


# The arguments of a marginal and its mean and standard deviation
MARGINALS = [
    ("'uniform', 0, 12", 6, math.sqrt(12)),
    ("'normal', sd=3, mean=5", 5, 3),
    ("'triangular', 0, 10", 5, 10 / math.sqrt(24)),
    ("'pareto', 5, 2", 2.5, math.sqrt(5 / 12)),
    ("'randint', 1, 6", 3.5, math.sqrt(35 / 12)),
    ("'zipf', 3, 1", 18 / 11, math.sqrt(36 / 11 - (18 / 11) ** 2)),
    ("'choice', [1, 2, 3]", 2, math.sqrt(2 / 3)),
    ("'weighted', {1: 1, 5: 3, 9: 0}", 4, math.sqrt(3)),
]


@pytest.mark.parametrize(("given", "mean", "sd"), MARGINALS)
def test_marginals_have_the_means_of_their_distributions(given, mean, sd):
    for found in pairs_of(given, given, 0.5):
        assert statistics.fmean(found) == pytest.approx(mean, abs=4 * sd / math.sqrt(COUNT))


@pytest.mark.parametrize(("given", "mean", "sd"), MARGINALS)
def test_in_statements_or_by_a_name_that_is_made_marginals_are_the_same(given, mean, sd):
    name, _, rest = given.partition(", ")
    forms = (
        f"{{{{ marginal(z, {given}) }}}}",
        f"{{{{ marginal(z, {name} ~ '', {rest}) }}}}",
        f"{{% if true %}}{{{{ marginal(z, {given}) }}}}{{% endif %}}",
    )
    for z in ("-40", "-1.25", "0", "0.5 * seq", "3", "8.5", "40"):
        found = support.data(dict(zip("abc", forms, strict=True)), **{"with": {"z": f"{{{{ {z} }}}}"}})[0]
        assert found["a"] == found["b"]
        assert str(found["a"]) == found["c"]


@pytest.mark.parametrize("z", [-math.inf, -1e300, -38.6, -8.3, 0.0, 8.3, 38.6, 1e300, math.inf])
def test_however_far_out_a_number_is_its_share_is_a_draw(z):
    assert 0 <= registry.share_below(z) < 1
    assert math.isfinite(registry.marginal(z, "exponential", 1))
    assert registry.marginal(z, "choice", "ab") in "ab"


def test_the_marginal_of_the_normal_distribution_is_the_number_itself():
    for z in (-8, -2.5, 0.0, 1, 2.5, 5):
        assert registry.marginal(z, "normal", 0, 1) == pytest.approx(z, abs=1e-9)


def test_a_marginal_of_what_is_no_number_fails_the_event_in_either_form():
    for template in ("{{ marginal(z, 'normal', 0, 1) }}", "{% if true %}{{ marginal(z, 'normal', 0, 1) }}{% endif %}"):
        batch = support.build({"x": template}, **{"with": {"z": "{{ 'a' ~ seq }}"}}).next_batch(support.NOW, 1)
        assert batch.error is not None
        assert batch.error.cause == "ValueError: marginal takes a standard normal number, not 'a1'"


def at(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


SEASONS = [
    ("'day', '14:00', 0.3", "2026-05-05T14:00:00Z", 1.3),
    ("'day', '14:00', 0.3", "2026-05-05T02:00:00Z", 0.7),
    ("'day', '14:00', 0.3", "2026-05-05T20:00:00Z", 1.0),
    ("'day', '14:00', 0.3, 'America/Sao_Paulo'", "2026-05-05T17:00:00Z", 1.3),
    ("'week', 'mon 10:00', 0.5", "2026-05-04T10:00:00Z", 1.5),
    ("'week', peak='mon 10:00', amplitude=0.5", "2026-05-07T22:00:00Z", 0.5),
    ("'year', '12-15', 1", "2026-12-15T00:00:00Z", 2.0),
    ("'hour', ':45', 0.3", "2026-05-05T14:45:00Z", 1.3),
    ("'hour', ':45', 0.3", "2026-05-05T14:15:00Z", 0.7),
    ("'hour', ':10', 0.3, 'Asia/Kolkata'", "2026-05-05T14:40:00Z", 1.3),
    ("'hour'", "2026-05-05T14:30:00Z", 1.5),
    ("'month', '15', 0.3", "2026-02-15T00:00:00Z", 1.3),
    ("'month', '15', 0.3", "2026-02-01T00:00:00Z", 0.7),
    ("'month', '15', 0.3", "2028-02-29T12:00:00Z", 0.7),
    ("'month', 15, 0.3", "2026-05-30T12:00:00Z", 0.7),
    ("'month', '31', 0.3", "2026-02-28T00:00:00Z", 1.3),
    ("'month', '1', 0.3, 'America/Sao_Paulo'", "2026-05-01T03:00:00Z", 1.3),
    ("'month'", "2026-02-15T00:00:00Z", 1.5),
    ("'month'", "2026-05-16T12:00:00Z", 1.5),
    ("'quarter', '60', 0.3", "2026-03-01T00:00:00Z", 1.3),
    ("'quarter', '60', 0.3", "2026-01-15T00:00:00Z", 0.7),
    ("'quarter', '60', 0.3", "2026-08-29T00:00:00Z", 1.3),
    ("'quarter', '60', 0.3", "2026-07-14T00:00:00Z", 0.7),
    ("'quarter', 92, 0.3", "2026-03-31T00:00:00Z", 1.3),
    ("'quarter', amplitude=1", "2026-05-16T12:00:00Z", 2.0),
]


@pytest.mark.parametrize(("arguments", "time", "expected"), SEASONS)
def test_a_season_peaks_when_it_says(arguments, time, expected):
    made = support.build({"x": f"{{{{ seasonal({arguments}) }}}}"}).next_batch(at(time), 1)
    assert support.events(made)[0]["data"]["x"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("period", "start", "end"),
    [
        ("hour", "2026-05-05T14:00:00-03:00", "2026-05-05T15:00:00-03:00"),
        ("day", "2026-05-05T00:00:00-03:00", "2026-05-06T00:00:00-03:00"),
        ("week", "2026-05-04T00:00:00-03:00", "2026-05-11T00:00:00-03:00"),
        ("month", "2028-02-01T00:00:00-03:00", "2028-03-01T00:00:00-03:00"),
        ("quarter", "2026-07-01T00:00:00-03:00", "2026-10-01T00:00:00-03:00"),
        ("year", "2028-01-01T00:00:00-03:00", "2029-01-01T00:00:00-03:00"),
    ],
)
def test_over_a_whole_period_a_season_takes_nothing_away(period, start, end):
    first, length = at(start), at(end) - at(start)
    zone = zoneinfo.ZoneInfo("America/Sao_Paulo")
    times = (datetime.datetime.fromtimestamp(first + length * part / 240, zone) for part in range(240))
    found = [processes.seasonal(time, period, amplitude=0.8, timezone="America/Sao_Paulo") for time in times]
    assert statistics.fmean(found) == pytest.approx(1, abs=1e-9)
    assert min(found) == pytest.approx(0.2, abs=1e-3) and max(found) == pytest.approx(1.8, abs=1e-3)


def test_statements_know_them_too():
    text = "{% if true %}{{ walk(5, 0) }} {{ mixture([[1, 'a']]) }} {{ seasonal('day', '12:00', 0) }}{% endif %}"
    assert support.value(text) == "5.0 a 1.0"


ROWS = support.entity("rows", {"id": "{{ 'R' ~ index }}", "weight": "{{ index }}", "name": "n"}, 6)


def share(call: str) -> dict[str, float]:
    found = support.values(f"{{{{ {call}.id }}}}", COUNT, entities=(ROWS,))
    return {f"R{number}": found.count(f"R{number}") / COUNT for number in range(6)}


@pytest.mark.parametrize("s", [0, 0.7, 1.5])
def test_rows_are_picked_by_zipf(s):
    total = sum(rank**-s for rank in range(1, 7))
    wanted = {f"R{rank - 1}": rank**-s / total for rank in range(1, 7)}
    for call in (f"pick('rows', zipf={s})", f"pick('rows', {s})", f"pick('rows', zipf={s} + index * 0)"):
        assert share(call) == pytest.approx(wanted, abs=0.015)


def test_rows_are_picked_by_weight():
    assert share("pick('rows', weight='weight')") == pytest.approx({f"R{n}": n / 15 for n in range(6)}, abs=0.015)


def test_a_picked_row_can_be_changed_and_another_be_found():
    one = support.build(
        {"n": "{{ a.name }}", "same": "{{ b.name == a.name }}"},
        entities=(ROWS,),
        **{
            "with": {"a": "{{ pick('rows', zipf=3) }}", "b": "{{ find('rows', a.id) }}"},
            "update": {"b.name": "{{ b.name ~ '!' }}"},
        },
    )
    made = one.next_batch(support.NOW, 50)
    assert all(event["data"]["same"] for event in support.events(made))
    assert sum(row["name"].count("!") for row in one.workshop.pools["rows"]) == 50
    assert (one.reads, one.changes) == ({"rows"}, {"rows"})


REFUSED = [
    ("mixture([])", "list of pairs"),
    ("mixture([[-1, 2]])", "weights of 0 or more"),
    ("mixture([[0, 2]])", "a weight above 0"),
    ("mixture([[-1, 2], [seq, 3]])", "weights of 0 or more"),
    ("mixture([[0.9, normal(0, 1)], [-0.1, seq]])", "weights of 0 or more"),
    ("mixture(parts=[['a', seq]])", "weights of 0 or more"),
    ("mixture([[true, seq], [1, 2]])", "weights of 0 or more"),
    ("mixture([[0, seq], [0, normal(0, 1)]])", "a weight above 0"),
    ("mixture([[1, seq], [1, 2, 3]])", "list of pairs"),
    ("mixture([[1, seq], [seq]])", "list of pairs"),
    ("mixture([[1, seq], 5])", "list of pairs"),
    ("mixture([[1, seq], '12'])", "list of pairs"),
    ("correlated(2)", "from -1 to 1"),
    ("marginal(0)", "missing a required argument: 'name'"),
    ("marginal(0, 'norml', 0, 1)", "there is no distribution 'norml', did you mean normal or lognormal"),
    ("marginal(0, 'chance', 0.5)", "there is no distribution 'chance'"),
    ("marginal(0, 'fuzzy')", "write one of uniform, normal"),
    ("marginal(0, 5)", "there is no distribution 5"),
    ("marginal('a', 'normal', 0, 1)", "a standard normal number, not 'a'"),
    ("marginal(seq, 'normal', 0, -1)", "0 or more, not -1"),
    ("marginal(seq, 'normal', seq)", "missing a required argument: 'sd'"),
    ("marginal(seq, 'normal', mean=1, sd=1, spread=2)", "unexpected keyword argument 'spread'"),
    ("marginal(seq, 'uniform', 'a', 2)", "low must be a finite number"),
    ("marginal(*[1, 'normal'])", "takes its arguments one by one"),
    ("walk(1, -1)", "standard deviation"),
    ("walk(1, 1, 5, 5)", "lower bound below"),
    ("revert(1, 2, 3, 4)", "rate from 0 to 1"),
    ("seasonal('decade')", "hour, day, week, month, quarter, year, not 'decade'"),
    ("seasonal('months')", "did you mean month?"),
    ("seasonal(5)", "not 5"),
    ("seasonal('hour', '30')", "write :30"),
    ("seasonal('hour', ':60')", "write :30"),
    ("seasonal('month', '0')", "a day from 1 to 31"),
    ("seasonal('month', '1x')", "a day from 1 to 31"),
    ("seasonal('month', 32)", "a day from 1 to 31"),
    ("seasonal('quarter', 93)", "a day from 1 to 92"),
    ("seasonal('day', '25:00')", "is no peak, write 14:00"),
    ("seasonal('week', '14:00')", "write mon 10:00"),
    ("seasonal('year', '13-45')", "write 12-15"),
    ("seasonal('day', '12:00', 2)", "amplitude"),
    ("seasonal('day', '12:00', 1, 'Mars')", "no time zone"),
    ("pick('row')", "did you mean rows?"),
    ("find('row', 1)", "unknown entity 'row'"),
    ("find('rows')", "missing a required argument"),
]


@pytest.mark.parametrize(("call", "said"), REFUSED)
def test_what_cannot_be_is_a_fault_of_the_file(call, said):
    found = support.fault(f"{{{{ {call} }}}}", entities=(ROWS,))
    assert said in f"{found.message} {found.hint}"


@pytest.mark.parametrize(
    ("call", "said"), [one for one in REFUSED if one[0].startswith(("marginal", "mixture", "seasonal"))]
)
def test_in_statements_it_is_one_too(call, said):
    assert said in support.fault(f"{{% if true %}}{{{{ {call} }}}}{{% endif %}}").message


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("find('rows', 'X').id", "no row has the key 'X'"),
        ("pick('rows', weight='name').id", "a number of 0 or more"),
        ("mixture([[0 - seq, 2], [1, 3]])", "ValueError: mixture needs weights of 0 or more"),
        ("mixture([seq, [1, 3]])", "ValueError: mixture takes a list of pairs"),
        ("mixture(seq)", "ValueError: mixture takes a list of pairs"),
    ],
)
def test_what_shows_only_when_events_are_made(call, said):
    for form in ("{{{{ {} }}}}", "{{% if true %}}{{{{ {} }}}}{{% endif %}}"):
        batch = support.build({"x": form.format(call)}, entities=(ROWS,)).next_batch(support.NOW, 1)
        assert batch.error is not None and said in batch.error.cause


def test_picks_are_the_same_each_time():
    made = [support.values("{{ pick('rows', zipf=1.2).id }}{{ walk(0, 1) }}", 50, entities=(ROWS,)) for _ in range(2)]
    assert made[0] == made[1]
