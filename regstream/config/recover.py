"""Values with a fault, mended so that the rest of them can be checked too; nothing mended is ever put in force."""

from __future__ import annotations

from typing import Any

import pydantic

from regstream import spec
from regstream.config import locate, validate

_MISSING: dict[str, Any] = {"count": 1, "key": "id", "when": "x", "message": "x"}


def quietly(spec: locate.Spec, data: Any) -> Any:
    """``data`` as a ``spec``, or None."""
    try:
        return spec.model_validate(data, by_alias=True, by_name=False)
    except pydantic.ValidationError:
        return None


def mended(spec: locate.Spec, data: dict[str, Any], findings: list[validate.Finding], dropped: frozenset[str]) -> Any:
    """``data`` as a ``spec`` with each finding replaced by something harmless, or None when that cannot be done."""
    data = {key: value for key, value in data.items() if key not in dropped}
    for finding in findings:
        head, rest = finding.where[0], finding.where[1:]
        if finding.type == "missing" and not rest:
            data[str(head)] = _MISSING.get(str(head))
        elif head == "name":
            data["name"] = "X"
        elif head in ("fields", "with", "update") and rest and isinstance(data[head], dict):
            data[head] = {**data[head], rest[0]: None if head != "with" else ""}
        else:
            data.pop(str(head), None)
    return quietly(spec, data) if _has_content(spec, data) else None


def _has_content(declaration: locate.Spec, data: dict[str, Any]) -> bool:
    return declaration is not spec.StreamSpec or data.get("fields") is not None or data.get("template") is not None
