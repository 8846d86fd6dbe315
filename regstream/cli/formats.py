"""JSON Schemas on the command line: of the files, and of what a stream of theirs makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

from regstream import config, errors, model
from regstream.generate import shapes

Files = Literal["streams", "scenario"]
FILES: tuple[Files, ...] = get_args(Files)


def document(name: str, whole: bool, catalog: Callable[[], model.Catalog]) -> dict[str, Any]:
    """The schema of the files that ``name`` stands for, else of the data or the ``whole`` event of that stream.

    ``catalog`` loads the files, which is done for a stream alone. Raises UnknownName, BadValue.
    """
    for files in FILES:
        if name == files and whole:
            raise errors.BadValue("--event", f"goes with the name of a stream, {name} are files")
        if name == files:
            return config.schema(files)
    known = shapes.Schemas(catalog())
    if name not in known.names:
        raise errors.UnknownName("stream", name, errors.near(name, [*known.names, *FILES]))
    return known.document(name, whole)
