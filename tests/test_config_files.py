"""Every file of ``testdata/config``: a bad one gives what its first lines expect and nothing else, a good one loads.

One that ends in ``.warning.yaml`` loads too, with the warnings that its first lines expect.
"""

from __future__ import annotations

import pathlib
import shutil

import jsonschema
import pytest

from regstream import config, errors, spec
from regstream.config import yaml
from tests import support

FOLDER = support.ROOT / "tests" / "testdata" / "config"
TEMPLATES = FOLDER / "templates"
COMPANION = FOLDER / "six-streams.good.yaml"
EXPECT = "# expect: "
BAD = sorted(FOLDER.glob("*.bad.yaml"))
ODD = sorted(FOLDER.glob("*.warning.yaml"))
GOOD = sorted(FOLDER.glob("*.good.yaml"))


def is_scenario(path: pathlib.Path) -> bool:
    return path.name.startswith("scenario-")


def load(path: pathlib.Path, tmp_path: pathlib.Path) -> spec.Catalog:
    """A streams file alone, or a scenario beside the six streams."""
    scenarios = tmp_path / "scenarios"
    scenarios.mkdir(exist_ok=True)
    if not is_scenario(path):
        return config.load(path, scenarios, TEMPLATES, "development")
    shutil.copy(path, scenarios)
    return config.load(COMPANION, scenarios, TEMPLATES, "development")


def expected(text: str) -> list[str]:
    return [line.removeprefix(EXPECT) for line in text.splitlines() if line.startswith(EXPECT)]


def identify(path: pathlib.Path) -> str:
    return path.name.removesuffix(".yaml")


@pytest.mark.parametrize("path", BAD, ids=identify)
def test_a_bad_file_gives_exactly_the_problems_it_expects(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        load(path, tmp_path)
    file = str(tmp_path / "scenarios" / path.name if is_scenario(path) else path)
    assert {problem.file for problem in caught.value.problems} == {file}
    given = [str(problem).removeprefix(f"{file}:") for problem in caught.value.problems]
    assert given == expected(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", BAD, ids=identify)
def test_a_message_is_a_plain_sentence(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        load(path, tmp_path)
    for problem in caught.value.problems:
        assert not problem.message.endswith(".")
        assert "pydantic" not in str(problem)
        assert "Input should" not in str(problem)


def test_there_are_enough_bad_files() -> None:
    assert len(BAD) >= 60
    assert all(expected(path.read_text(encoding="utf-8")) for path in BAD)


@pytest.mark.parametrize("path", GOOD, ids=identify)
def test_a_good_file_loads(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    catalog = load(path, tmp_path)
    assert catalog.streams
    assert bool(catalog.scenarios) == is_scenario(path)
    assert catalog.warnings == ()


@pytest.mark.parametrize("path", ODD, ids=identify)
def test_an_odd_file_loads_with_exactly_the_warnings_that_it_expects(
    path: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    # Twice, because the second load remembers what the first one found sound
    for _ in range(2):
        found = load(path, tmp_path).warnings
        file = str(tmp_path / "scenarios" / path.name if is_scenario(path) else path)
        assert {one.file for one in found} == {file}
        assert [str(one).removeprefix(f"{file}:") for one in found] == expected(path.read_text(encoding="utf-8"))


def test_the_shipped_files_give_no_warning() -> None:
    paths = [support.ROOT / name for name in ("streams.yaml", "scenarios", "templates")]
    for env in ("development", "test", "production"):
        assert config.load(*paths, env).warnings == ()


@pytest.mark.parametrize("path", GOOD, ids=identify)
def test_a_good_file_is_accepted_by_the_schema(path: pathlib.Path) -> None:
    root = yaml.parse(path.read_text(encoding="utf-8"), lambda at, message, hint: pytest.fail(message))
    assert root is not None
    schema = config.files_schema("scenario" if is_scenario(path) else "streams")
    jsonschema.Draft202012Validator(schema).validate(root.data)


# What a schema can know: the shape of a file, not what its names and templates refer to.
SHAPES = (
    "unknown-key*", "both-*", "neither-*", "missing-*", "empty-*", "*-is-*", "batch-size-*", "seed-negative",
    "interval-bad-unit", "jitter-is-number", "priority-*", "enabled-is-yes", "topic-*", "event-in-capitals",
    "name-with-space", "profile-*", "internal-key-*", "version-2", "with-*", "scenario-unknown-key",
    "scenario-unknown-step", "scenario-two-kinds", "scenario-empty-step", "scenario-step-is-text", "scenario-no-steps",
    "scenario-wait-unit", "scenario-burst-*", "scenario-set-values",
)  # fmt: skip
SHAPED = [
    path for path in BAD if any(path.match(f"{shape}.bad.yaml") for shape in SHAPES) and "key-is-no" not in path.name
]


@pytest.mark.parametrize("path", SHAPED, ids=identify)
def test_a_bad_shape_is_refused_by_the_schema(path: pathlib.Path) -> None:
    root = yaml.parse(path.read_text(encoding="utf-8"), lambda at, message, hint: pytest.fail(message))
    assert root is not None
    schema = config.files_schema("scenario" if is_scenario(path) else "streams")
    assert not jsonschema.Draft202012Validator(schema).is_valid(root.data)
