"""``/openapi.json``: OpenAPI 3.1 from the table of routes and pydantic's own schemas."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
import pydantic
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from regstream.server import problems, requests, router
from regstream.server.router import Route

References = Mapping[tuple[Any, str], Any]

_DESCRIPTION = (
    "Live data that behaves like a bank's. Events arrive over the WebSocket at `/ws`; this interface controls and "
    "watches what makes them. Errors are `application/problem+json` (RFC 9457)."
)
_TITLES = {
    400: "The query or the body cannot be used",
    401: "There is no token, or one that is not known",
    403: "The token is good for less than this, or the request comes from a page of an origin that is not allowed",
    404: "There is nothing of that name",
    409: "Not possible at present",
    413: "The body is too large",
    415: "The body is not declared as JSON",
    422: "The files have problems; nothing was changed",
    429: "Too many calls, or a queue is full; try again later",
    500: "A fault of regstream",
    503: "Not available at present",
}
_BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "A token with the role that the operation names, where the daemon was given tokens.",
}
_PARAMETERS = {
    "name": ("Name of a stream", "TRANSACTION_STREAM"),
    "runId": ("Id of a run, as `POST /api/streaming/simulate` gave it", None),
}


@functools.cache
def document(routes: tuple[Route, ...], version: str) -> bytes:
    """The description of ``routes`` as JSON."""
    references, definitions = _schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, references)
    whole = {
        "openapi": "3.1.0",
        "info": {"title": "regstream", "version": version, "description": _DESCRIPTION},
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(route.tag for route in routes)],
        "paths": paths,
        "components": {"schemas": definitions, "securitySchemes": {"bearer": _BEARER}},
        "x-problems": list(_kinds()),
    }
    return orjson.dumps(whole)


def _kinds() -> Iterable[dict[str, Any]]:
    """One entry a value of ``type``: what its errors mean, in the words of the errors themselves."""
    seen: dict[str, dict[str, Any]] = {}
    for error, kind in problems.TABLE.items():
        text = (error.__doc__ or "").strip().partition("\n\n")[0]
        plain = " ".join(text.replace("``", "`").split())
        seen.setdefault(
            kind.slug, {"slug": kind.slug, "status": kind.status, "title": kind.title, "description": plain}
        )
    return seen.values()


def _schemas(routes: Iterable[Route]) -> tuple[References, dict[str, Any]]:
    wanted: dict[tuple[type[pydantic.BaseModel], JsonSchemaMode], None] = {}
    for route in routes:
        wanted[route.body, "validation"] = wanted[route.query, "validation"] = None
        for shape in (route.answer, *route.also.values()):
            if shape is not None:
                wanted[shape, "serialization"] = None
    every: tuple[type[requests.ProblemDetail], ...] = (requests.ProblemDetail, *problems.SHAPES.values())
    wanted |= {(problem, "serialization"): None for problem in every}
    references, whole = models_json_schema(list(wanted), ref_template="#/components/schemas/{model}")
    queries = {route.query.__name__ for route in routes}
    definitions = {name: schema for name, schema in whole["$defs"].items() if name not in queries}
    return {(shape, mode): reference for (shape, mode), reference in references.items()}, definitions


def _operation(route: Route, references: References) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": route.name, "summary": route.summary, "tags": [route.tag]}
    parameters = [*_path_parameters(route), *_query_parameters(route)]
    if parameters:
        operation["parameters"] = parameters
    if route.method in router.WITH_BODY:
        operation["requestBody"] = _body(route, references)
    if route.needs is not None:
        # A daemon without tokens asks for none
        operation["security"] = [{"bearer": [route.needs]}, {}]
    operation["responses"] = _responses(route, references)
    return operation


def _path_parameters(route: Route) -> Iterable[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", route.path):
        text, example = _PARAMETERS[name]
        made = {"name": name, "in": "path", "required": True, "description": text}
        made["schema"] = {"type": "string", "minLength": 1}
        yield {**made, "example": example} if example else made


def _query_parameters(route: Route) -> Iterable[dict[str, Any]]:
    schema = route.query.model_json_schema(by_alias=True)
    for name, value in schema.get("properties", {}).items():
        plain = {key: part for key, part in value.items() if key not in ("title", "description")}
        required = name in schema.get("required", ())
        yield {"name": name, "in": "query", "required": required, "description": value["description"], "schema": plain}


def _body(route: Route, references: References) -> dict[str, Any]:
    required = any(field.is_required() for field in route.body.model_fields.values())
    return {"required": required, "content": {router.JSON: {"schema": references[route.body, "validation"]}}}


def _responses(route: Route, references: References) -> dict[str, Any]:
    schema = references[route.answer, "serialization"] if route.answer else _free(route)
    answers = {str(route.status): _answer(route.summary, route.media, schema)}
    answers[str(route.status)]["content"].update({media: {"schema": {"type": "string"}} for media in route.forms})
    if route.headers:
        answers[str(route.status)]["headers"] = {
            name: {"description": text, "required": True, "schema": {"type": "string"}}
            for name, text in route.headers.items()
        }
    if route.links:
        answers[str(route.status)]["links"] = {
            name: {"operationId": name, "parameters": {key: f"$response.body#/{key}"}}
            for name, key in route.links.items()
        }
    for status, shape in route.also.items():
        answers[str(status)] = _answer(_TITLES[status], route.media, references[shape, "serialization"])
    for status in sorted({*_always(route), *route.problems}):
        shape = problems.SHAPES.get(status, requests.ProblemDetail)
        answers[str(status)] = _answer(_TITLES[status], problems.MEDIA_TYPE, references[shape, "serialization"])
    return answers


def _free(route: Route) -> dict[str, Any]:
    return {"type": "object"} if route.media == router.JSON else {"type": "string"}


def _always(route: Route) -> tuple[int, ...]:
    with_body = (413, 415) if route.method in router.WITH_BODY else ()
    guarded = (401, 403) if route.needs is not None else ()
    paced = (429,) if route.concerns is not None else ()
    return (400, 500, *with_body, *guarded, *paced)


def _answer(text: str, media: str, schema: Any) -> dict[str, Any]:
    return {"description": text, "content": {media: {"schema": schema}}}
