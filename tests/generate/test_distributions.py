"""Many draws of each distribution, against its formulas: shares by chi-square, means and variances by their errors.

The seeds are fixed, so that what holds once holds always.
"""

from __future__ import annotations

import itertools
import math

import pytest

from regstream.functions import registry, rng
from tests.generate import support

MANY = 200_000
FEW = 50_000
RARE = 1e-4


@pytest.fixture(scope="module")
def doubles() -> list[float]:
    """Draws as events get them, in [0, 1)."""
    return [one - 1.0 for (one,) in rng.Draws(rng.key(42, "MANY"), rng.Layout(1, 0)).span(0, MANY)]


def lognormal(mu: float, sigma: float) -> tuple[float, float, float]:
    part = math.exp(sigma * sigma)
    return (
        math.exp(mu + sigma * sigma / 2),
        (part - 1) * math.exp(2 * mu) * part,
        part**4 + 2 * part**3 + 3 * part**2 - 6,
    )


def pareto(a: float, low: float) -> tuple[float, float, float]:
    excess = 6 * (a**3 + a**2 - 6 * a - 2) / (a * (a - 3) * (a - 4))
    return a * low / (a - 1), low * low * a / ((a - 1) ** 2 * (a - 2)), excess


def triangular(low: float, high: float, mode: float) -> tuple[float, float, float]:
    squares = low * low + high * high + mode * mode - low * high - low * mode - high * mode
    return (low + high + mode) / 3, squares / 18, -0.6


# Name, arguments, and the mean, variance and excess kurtosis that they make
CONTINUOUS = [
    ("uniform", (-2, 6), (2, 64 / 12, -1.2)),
    ("normal", (10, 2.5), (10, 6.25, 0)),
    ("lognormal", (1, 0.5), lognormal(1, 0.5)),
    ("exponential", (4,), (4, 16, 6)),
    ("triangular", (0, 10, 2), triangular(0, 10, 2)),
    ("triangular", (-3, 5), triangular(-3, 5, 1)),
    ("pareto", (12, 2), pareto(12, 2)),
]


@pytest.mark.parametrize(("name", "given", "moments"), CONTINUOUS)
def test_means_and_variances_are_within_four_standard_errors(doubles, name, given, moments):
    mean, variance, excess = moments
    call = registry.FUNCTIONS[name].call
    check([call(u, *given) for u in doubles], mean, variance, excess)


@pytest.mark.parametrize(("name", "given", "moments"), CONTINUOUS)
def test_those_of_marginals_are_too(doubles, name, given, moments):
    z = [registry.normal(u, 0, 1) for u in doubles]
    check([registry.marginal(one, name, *given) for one in z], *moments)


def check(found: list[float], mean: float, variance: float, excess: float) -> None:
    count = len(found)
    measured = math.fsum(found) / count
    assert abs(measured - mean) < 4 * math.sqrt(variance / count)
    spread = math.fsum((one - measured) ** 2 for one in found) / (count - 1)
    assert abs(spread - variance) < 4 * variance * math.sqrt((excess + 2) / count)


def test_a_pair_has_its_correlation(doubles):
    halves = zip(doubles[::2], doubles[1::2], strict=True)
    pairs = [registry.FUNCTIONS["correlated"].call(u, v, 0.7) for u, v in halves]
    for one in zip(*pairs, strict=True):
        check(list(one), 0, 1, 0)
    # The product of two has the mean rho and the variance 1 + rho²
    products = [first * second for first, second in pairs]
    error = math.sqrt((1 + 0.7**2) / len(products))
    assert math.fsum(products) / len(products) == pytest.approx(0.7, abs=4 * error)


@pytest.mark.parametrize(("n", "s"), [(2, 0), (50, 1.1), (100, 0.5), (8, 3)])
def test_ranks_come_by_zipf(doubles, n, s):
    shares = {rank: rank**-s for rank in range(1, n + 1)}
    assert support.likelihood((registry.zipf(u, n, s) for u in doubles), shares) > RARE
    for call in (f"zipf({n}, {s})", f"zipf({n} + index * 0, {s})"):
        assert support.likelihood(support.values(f"{{{{ {call} }}}}", FEW), shares) > RARE


@pytest.mark.parametrize("s", [0, 0.8, 1.5])
def test_rows_come_by_zipf(s):
    rows = support.entity("rows", {"id": "{{ index }}"}, 40)
    shares = {index: (index + 1) ** -s for index in range(40)}
    for call in (f"pick('rows', zipf={s})", f"pick('rows', zipf={s} + index * 0)"):
        assert support.likelihood(support.values(f"{{{{ {call}.id }}}}", FEW, entities=(rows,)), shares) > RARE


def test_values_come_by_weight(doubles):
    shares = {"a": 0.5, "b": 12, "c": 0, "d": 3.25, "e": 7}
    assert support.likelihood((registry.weighted(u, shares) for u in doubles), shares) > RARE
    for first in ("0.5", "0.5 + index * 0"):
        found = support.values(f"{{{{ weighted({{'a': {first}, 'b': 12, 'c': 0, 'd': 3.25, 'e': 7}}) }}}}", FEW)
        assert support.likelihood(found, shares) > RARE


@pytest.mark.parametrize(("low", "high"), [(1, 6), (-3, 12), (0, 999)])
def test_whole_numbers_are_equally_likely(doubles, low, high):
    shares = dict.fromkeys(range(low, high + 1), 1)
    assert support.likelihood((registry.randint(u, low, high) for u in doubles), shares) > RARE
    for call in (f"randint({low}, {high})", f"randint({low}, {high} + index * 0)"):
        assert support.likelihood(support.values(f"{{{{ {call} }}}}", FEW), shares) > RARE


def test_a_draw_says_nothing_of_the_next(doubles):
    pairs = [(int(8 * one), int(8 * other)) for one, other in zip(doubles[::2], doubles[1::2], strict=True)]
    assert support.likelihood(pairs, dict.fromkeys(itertools.product(range(8), repeat=2), 1)) > RARE


@pytest.mark.parametrize(
    ("distance", "degrees", "tail"),
    [
        (3.841, 1, 0.05),
        (10.828, 1, 0.001),
        (0.711, 4, 0.95),
        (18.307, 10, 0.05),
        (124.342, 100, 0.05),
        (149.449, 100, 0.001),
        (1074.679, 1000, 0.05),
    ],
)
def test_the_measure_itself_is_that_of_the_tables(distance, degrees, tail):
    assert support.tail_of_chi_square(distance, degrees) == pytest.approx(tail, rel=0.02)


def test_the_measure_finds_what_is_slightly_off(doubles):
    found = [registry.zipf(u, 50, 1.12) for u in doubles]
    assert support.likelihood(found, {rank: rank**-1.1 for rank in range(1, 51)}) < RARE
