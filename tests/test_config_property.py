"""Any text, any bytes, any tree: a catalog, or problems that lie inside the files."""

from __future__ import annotations

import json
import pathlib
import re
import tempfile
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regstream import config, errors, spec
from regstream.config import yaml
from tests import support

FOLDER = support.ROOT / "tests" / "testdata" / "config"
GOOD = {path.name: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.yaml"))}
PIECES = [
    "", " ", "  ", "\n", "\n  ", "\t", ":", ": ", "- ", "? ", "&a ", "*a", "<<: *a", "{", "}", "[", "]", "'", '"', "|",
    ">\n", "#", "---\n", "...\n", "!!str ", "!x ", "%YAML 1.1\n", "{{ ", " }}", "{% if x %}", "{% endfor %}", "{# ",
    "{{ seq }}", "{{ x.__class__ }}", "\r\n", "\r", "\u2028", "\x85", "\ufeff", "\0", "\U0001f600", "null", ".inf",
    "1e999", "0x1F", "5m", "-1", "interval: ", "fields: ", "streams:\n", "steps:\n", "name: ", "batchSize: 1\n",
    "template: a.j2\n", "with: {svp: x}\n",
]  # fmt: skip
SPECS = (spec.StreamsFile, spec.StreamSpec, spec.EntitySpec, spec.ScenarioSpec, spec.Overlay, spec.AlertRule)
ODD_KEYS = {"intervall", "", "1", "<<", "with_", "[key]", "batchSize", "A", "svp"}
KEYS = sorted(ODD_KEYS | set(spec.STEP_KINDS) | {name.rstrip("_") for spec in SPECS for name in spec.model_fields})
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10), st.sampled_from(PIECES),
    st.sampled_from(["5m", "HIGH", "10%", "{{ seq }}", "A", "svp", "* * * * *", "UTC", "SUN", "alert", "1 2 3 4 5/6"]),
)  # fmt: skip
TREES: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6)
)
STREAMS = st.fixed_dictionaries(
    {"streams": st.dictionaries(st.sampled_from(KEYS), st.dictionaries(st.sampled_from(KEYS), TREES, max_size=6))},
    optional={"entities": TREES, "defaults": TREES, "profiles": TREES, "seed": TREES, "version": TREES},
)
SCENARIOS = st.fixed_dictionaries(
    {"name": SCALARS, "steps": st.lists(st.dictionaries(st.sampled_from(sorted(spec.STEP_KINDS)), TREES, max_size=2))}
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A file of the test data with pieces put in, taken out and moved."""
    text = GOOD[draw(st.sampled_from(sorted(GOOD)))]
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        end = min(len(text), at + draw(st.integers(0, 12)))
        text = text[:at] + draw(st.sampled_from([*PIECES, text[at:end] * 2])) + text[end:]
    return text


def check(data: bytes, scenario: bool) -> None:
    """Load ``data`` as a streams file, or as a scenario beside a good one."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "scenarios").mkdir()
        streams = FOLDER / "six-streams.good.yaml" if scenario else folder / "streams.yaml"
        (folder / ("scenarios/a.yaml" if scenario else "streams.yaml")).write_bytes(data)
        try:
            config.load(streams, folder / "scenarios", FOLDER / "templates", "development")
        except errors.ConfigError as error:
            check_problems(error.problems)


def check_problems(problems: tuple[errors.Problem, ...]) -> None:
    assert problems
    assert list(problems) == sorted(set(problems))
    for problem in problems:
        text = pathlib.Path(problem.file).read_bytes().decode("utf-8-sig", "replace")
        lines = re.split(r"\r\n|\n|\r", text)
        assert 1 <= problem.line <= len(lines), problem
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1, problem
        assert problem.message


LIMITS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@LIMITS
@given(st.binary(max_size=400), st.booleans())
def test_any_bytes(data: bytes, scenario: bool) -> None:
    check(data, scenario)


@LIMITS
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=6), max_size=30), st.booleans())
def test_any_text(parts: list[str], scenario: bool) -> None:
    check("".join(parts).encode("utf-8", "replace"), scenario)


@LIMITS
@given(mutated(), st.booleans())
def test_any_file_with_slips(text: str, scenario: bool) -> None:
    check(text.encode(), scenario)


@LIMITS
@given(STREAMS | TREES)
def test_any_tree_of_streams(tree: Any) -> None:
    check(json.dumps(tree, ensure_ascii=False).encode("utf-8", "replace"), scenario=False)


@LIMITS
@given(SCENARIOS | TREES)
def test_any_tree_of_steps(tree: Any) -> None:
    check(json.dumps(tree, ensure_ascii=False).encode("utf-8", "replace"), scenario=True)


@given(st.text(alphabet="0123456789+-.eE_xoabcdfnlutrINFy~", max_size=12))
def test_a_plain_scalar_is_text_or_what_json_can_carry(text: str) -> None:
    try:
        value = yaml.resolve(text)
    except ValueError:
        return
    assert value is None or isinstance(value, str | bool | int | float)
    json.dumps(value, allow_nan=False)
