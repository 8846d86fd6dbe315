"""What events look like, before there are any: JSON Schema of each stream's ``data`` and of its CloudEvents.

It is proved from the declarations, so it holds for every event that they can make, under whatever overlay of a declared
scenario; what cannot be proved is left open. Rows that were kept from other declarations, by a reload or a database,
may still hold what those said.
"""

from __future__ import annotations

from regstream.schema.json_schema import Schemas

__all__ = [
    "Schemas",
]
