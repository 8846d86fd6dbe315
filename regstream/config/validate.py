"""Data → specs through pydantic, with everything that it finds reported in place and in our words."""

from __future__ import annotations

import typing
from typing import Any

import pydantic
import pydantic_core

from regstream import errors, spec
from regstream.config import document, locate, messages, yaml

LEAST_BARE = 100
"""Whole numbers below that are seldom meant as milliseconds."""


class Finding(typing.NamedTuple):
    """One fault of a value: where (from the value on), what kind pydantic calls it."""

    where: yaml.Where
    type: str


def check(
    sheet: document.Document, base: yaml.Where, spec: locate.Spec, data: Any, ignore: frozenset[str] = frozenset()
) -> tuple[Any, list[Finding]]:
    """``data`` as a ``spec``, or None and what is wrong with it; all of that is reported, relative to ``base``.

    ``ignore`` names keys about which nothing is said.
    """
    for where in locate.empty(spec, data):
        sheet.report(
            (*base, *where), f"{messages.label(where)}: {messages.NOTHING}", "give a value or leave the key out"
        )
    for where, number in locate.durations(spec, data):
        if 0 < number < LEAST_BARE:
            sheet.warn((*base, *where), f"{messages.label(where)}: {number} is {number} ms", _with_unit(number))
    try:
        return spec.model_validate(data, by_alias=True, by_name=False), []
    except pydantic.ValidationError as error:
        return None, _report(sheet, base, spec, error, ignore)


def _with_unit(number: int) -> str:
    return f"write {number}s if seconds are meant, {number}ms if not"


def _report(
    sheet: document.Document,
    base: yaml.Where,
    spec: locate.Spec,
    error: pydantic.ValidationError,
    ignore: frozenset[str],
) -> list[Finding]:
    findings = []
    for detail in error.errors(include_url=False):
        where, _ = locate.follow(spec, messages.located(detail)[0])
        if (where and where[0] in ignore) or _is_echo(spec, detail):
            continue
        findings.append(Finding(where, detail["type"]))
        if detail["type"] == "step" or _beside_step(spec, detail):
            where = where if detail["type"] == "step" else where[:-1]
            _report_step(sheet, (*base, *where))
        else:
            message, hint, key = messages.sentence(spec, detail)
            sheet.report((*base, *where), message, hint, key=key)
    return findings


def _is_echo(spec: locate.Spec, detail: pydantic_core.ErrorDetails) -> bool:
    """A container that is too short because its members are wrong, a key that is missing because it is misspelt."""
    if detail["type"] == "too_short":
        return bool(len(detail["input"]) >= detail["ctx"]["min_length"])
    if detail["type"] == "missing" and isinstance(detail["input"], dict):
        parent = locate.follow(spec, detail["loc"][:-1])[1]
        return locate.misspelt(parent, str(detail["loc"][-1]), detail["input"])
    return False


def _beside_step(declaration: locate.Spec, detail: pydantic_core.ErrorDetails) -> bool:
    parent = locate.follow(declaration, detail["loc"][:-1])[1]
    return detail["type"] == "extra_forbidden" and parent in spec.STEP_KINDS.values()


def _report_step(sheet: document.Document, where: yaml.Where) -> None:
    data = sheet.value(where)
    label = messages.label(where)
    kinds = " ".join(spec.STEP_KINDS)
    if not isinstance(data, dict):
        sheet.report(where, f"{label}: {messages.wanted('a mapping', data)}", f"a step has one key of {kinds}")
        return
    for key in [one for one in data if one not in spec.STEP_KINDS]:
        hint = errors.did_you_mean(key, spec.STEP_KINDS) or f"a step has one key of {kinds}"
        sheet.report((*where, key), f"unknown step '{key}'", hint, key=True)
    known = [one for one in data if one in spec.STEP_KINDS]
    if len(known) > 1:
        sheet.report(
            where, f"{label}: a step has one key, not {len(known)}: {' '.join(known)}", "make it several steps"
        )
    if not data:
        sheet.report(where, f"{label}: a step without a key", f"a step has one key of {kinds}")


def report_no_mapping(sheet: document.Document, data: Any) -> None:
    """A whole file that is something else."""
    sheet.report((), yaml.EMPTY if data is None else f"the file must be a mapping, not {messages.shown(data)}")
