"""desflow: what a task of the blueprint publishes."""

from __future__ import annotations

import itertools
from typing import Any

from shape import event

numbers = itertools.count(1)


def payload(task_id: object, context: object) -> dict[str, Any]:
    """The next event."""
    return event(next(numbers))
