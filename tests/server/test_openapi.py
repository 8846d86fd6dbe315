"""The description is valid, whole and true."""

from __future__ import annotations

import asyncio
import json
import pathlib
import sys
from typing import Any

import jsonschema
import pytest

from regstream.server import openapi, problems, routes

DOCUMENT = json.loads(openapi.document(routes.TABLE, "1.2.3"))


async def test_a_fuzzer_finds_nothing_untrue(live: Any, tmp_path: pathlib.Path) -> None:
    command = (
        sys.executable, "-c", "import schemathesis.cli; schemathesis.cli.schemathesis()", "run",
        f"{live.url}/openapi.json", "--max-examples", "30", "--seed", "20261123", "--no-color",
        "--generation-database", "none",
        # A run that was cancelled stays readable, so that one can see how it ended; DELETE is how it is cancelled.
        "--exclude-checks", "use_after_free",
        # Its answer does not end
        "--exclude-path", "/api/streaming/stream",
        # Without a database there are none
        "--exclude-path-regex", r"/replay/\{runId\}",
    )  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    text = output.decode()
    assert process.returncode == 0, text[-8000:]
    assert "No issues found" in text
    assert (await live.client.get("/health/ready")).status_code == 200


def test_it_names_every_route_once() -> None:
    declared = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert declared == {(route.method, route.path) for route in routes.TABLE}
    names = [operation["operationId"] for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))


def test_every_reference_leads_somewhere_and_every_schema_is_used() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    used = set(_references(DOCUMENT))
    assert used == {f"#/components/schemas/{name}" for name in schemas}


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [one for part in value.values() for one in _references(part)]
    return [one for part in value for one in _references(part)] if isinstance(value, list) else []


@pytest.mark.parametrize("name", sorted(DOCUMENT["components"]["schemas"]))
def test_every_schema_is_one(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(DOCUMENT["components"]["schemas"][name])


def test_every_type_of_problem_is_explained() -> None:
    told = {one["slug"]: one for one in DOCUMENT["x-problems"]}
    assert set(told) == {kind.slug for kind in problems.TABLE.values()}
    assert all(one["description"] and one["title"] for one in told.values())


def test_every_part_is_described() -> None:
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            assert operation["summary"]
            for parameter in operation.get("parameters", ()):
                assert parameter["description"], (path, parameter["name"])
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert DOCUMENT["info"]["version"] == "1.2.3"


async def test_it_is_served(live: Any) -> None:
    response = await live.client.get("/openapi.json")
    served = response.json()
    assert served["paths"] == DOCUMENT["paths"]
    assert served["info"]["version"] == live.services.version
