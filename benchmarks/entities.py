"""Resident memory of a process that has made a million entity rows."""

from __future__ import annotations

import tempfile

from benchmarks import rig, table

ROWS = 1_000_000
_PROGRAM = """
import os, pathlib, sys
from benchmarks import rig
from regstream import config
from regstream.generate import stream
declared = config.load(pathlib.Path(sys.argv[1]), pathlib.Path("none"), pathlib.Path("none"), "development")
before = rig.resident(os.getpid())
workshop = stream.Workshop(declared, 7, stream.Identity("/bench", "LATAM"))
workshop.fill(0.0)
made = stream.Stream(declared.streams["S"], workshop, "0").next_batch(0.0, 1000)
assert made.error is None and len(made.events) == 1000
print(rig.resident(os.getpid()), before)
"""
_STREAMS = """
entities:
  accounts:
    count: {rows}
    key: id
    fields:
      id: "{{{{ 'ACC-%07d' | format(index) }}}}"
      holder: "{{{{ fake('name') }}}}"
      region: "{{{{ choice(['MX', 'BR', 'AR', 'CL', 'CO', 'PE']) }}}}"
      balance: "{{{{ lognormal(8, 1) | round(2) }}}}"
streams:
  S:
    interval: 1s
    with: {{a: "{{{{ pick('accounts') }}}}"}}
    fields: {{id: "{{{{ a.id }}}}", holder: "{{{{ a.holder }}}}", balance: "{{{{ a.balance }}}}"}}
    update: {{a.balance: "{{{{ a.balance + 1 }}}}"}}
"""


def measure(tiny: bool = False) -> list[table.Row]:
    """A process of its own, whose rows have an id, a name, one of six regions and a number that events change."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(_STREAMS.format(rows=ROWS // 1000 if tiny else ROWS))
        file.flush()
        figure, before = map(float, rig.output("-c", _PROGRAM, file.name).split())
    return [table.Row("memory with a million entity rows", figure, "MB", 600, 300, note=f"{before:.1f} MB before them")]
