"""Writes docs/configuration.md and systemd/regstream.env.example from the declarations of files and variables.

Nothing about a key is said here that its declaration does not say; only the order and the examples are this script's.
"""

from __future__ import annotations

import pathlib
import re
import textwrap
from typing import Any, NamedTuple

from regstream import config, settings
from regstream.config import messages

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "configuration.md"
EXAMPLE = ROOT / "systemd" / "regstream.env.example"

HEAD = """# Configuration

<!-- Written by scripts/configuration_page.py from the declarations: change those, then run `make docs`. -->

| what | where | takes effect |
|---|---|---|
| streams, entities, profiles | `streams.yaml` | at once, without a restart |
| scenarios | `scenarios/*.yaml`, one a file | at once, for runs that begin afterwards |
| templates that several fields share | `templates/*.j2`, see [Templates](templates.md) | at once |
| values that are drawn from | `templates/*.csv`, see [Templates](templates.md#empirical) | at once |
| address, identity, environment | [environment variables](#environment-variables) | at the next start |

`regstream validate` reads all files and prints every problem as `file:line:column: message`; a running daemon refuses
files with a problem and goes on with what it has. What is odd but can be used, like `interval: 5` (5 ms), is a warning:
`validate` prints it as `file:line:column: warning: message` and succeeds, or fails with `--strict`; the daemon logs it
when the files come into force, and a reload has it among the `warnings` of its answer.

`run`, `generate`, `preview`, `plan` and every reload read the files in the same way, so that what `validate` accepts
starts. The rows of all entities are made, the first events of all streams with their keys, updates and alerts (for each
way from state to state of what they follow, in each month of the year), and those of each field that a scenario lays
over a stream. What fails there is a problem at its field; what fails for some draws, or at another time of the year, is
a warning. At most about 1.2 s of processor time go into that: of an entity with more than 5,000 rows some are made, and
`validate` prints a `note` that says how many.

YAML is read as version 1.2 has it: `yes` and `2026-01-01` are text, anchors, aliases and merge keys (`<<`) work, and a
file may have 8 MiB.

For completion and checks while you type, let your editor know the schema:

```sh
regstream schema streams > streams.schema.json
regstream schema scenario > scenario.schema.json
```

and begin the file with `# yaml-language-server: $schema=streams.schema.json`.

A **duration** is a whole number of milliseconds, or a number with a unit: `250ms` `5s` `5m` `1h` `1d`. A **template**
is a text in which `{{ … }}` and `{% … %}` are [filled in](templates.md) for each event; put it in quotes.
"""


class Section(NamedTuple):
    """One mapping of the files: its title, its declaration, and an example with the kind of its fence."""

    title: str
    declaration: str
    example: str = ""
    fence: str = "yaml streams"
    scenario: bool = False


SECTIONS = (
    Section(
        "## streams.yaml",
        "",
        """
version: 1
seed: 42
streams:
  HEARTBEAT:
    interval: 1s
    fields: {beat: "{{ seq }}"}
""",
    ),
    Section(
        "### streams: NAME:",
        "StreamSpec",
        """
streams:
  CARD_PAYMENTS:
    description: Payments by card, more on working days
    topic: bank.cards
    event: card-payment
    schedule: "*/5 8-20 * * MON-SAT"
    timezone: America/Bogota
    jitter: 10%
    batch_size: 20
    priority: HIGH
    key: "{{ card }}"
    fields:
      card: "{{ pattern('####-####') }}"
      amount: "{{ lognormal(11, 0.8) | round(2) }}"
      currency: COP
      merchant: {city: "{{ choice(['Bogotá', 'Medellín', 'Cali']) }}", online: "{{ chance(0.3) }}"}
""",
    ),
    Section(
        "### channels: CHANNEL:",
        "ChannelSpec",
        """
channels:
  dashboard-updates: {policy: conflate, max_rate: 2}
  card-payment: {policy: dropOldest, max_rate: 50}
streams:
  CARD_PAYMENTS:
    interval: 20ms
    event: card-payment
    key: "{{ card }}"
    fields: {card: "{{ pattern('####-####') }}", amount: "{{ lognormal(11, 0.8) | round(2) }}"}
""",
    ),
    Section(
        "### alert:",
        "AlertRule",
        """
streams:
  LIQUIDITY:
    interval: 1m
    fields: {ratio: "{{ normal(118, 9) | round(1) }}"}
    alert: {when: "{{ ratio < 100 }}", severity: CRITICAL, message: "Liquidity coverage at {{ ratio }}%"}
""",
    ),
    Section(
        "### entities: NAME:",
        "EntitySpec",
        """
entities:
  branch:
    count: 30
    key: id
    fields:
      id: "BR-{{ '%03d' % (index + 1) }}"
      city: "{{ weighted({'Lima': 5, 'Cusco': 1, 'Trujillo': 1}) }}"
      cash: "{{ uniform(50000, 900000) | round(2) }}"
streams:
  CASH_MOVEMENTS:
    interval: 2s
    key: "{{ branch.id }}"
    with: {branch: "{{ pick('branch') }}"}
    fields:
      branchId: "{{ branch.id }}"
      movement: "{{ normal(0, 5000) | round(2) }}"
      cash: "{{ (branch.cash + movement) | round(2) }}"
    update: {branch.cash: "{{ cash }}"}
""",
    ),
    Section(
        "#### states: NAME:",
        "StateSpec",
        """
entities:
  case:
    count: 20
    key: id
    fields: {id: "CASE-{{ index }}", customer: "{{ fake('name') }}"}
    states:
      OPEN: {lasts: {mean: 2d}, then: {REVIEW: 3, CLOSED: 1}}
      REVIEW: {lasts: {mean: 4h, spread: 50%}, then: {CLOSED: 1}}
      CLOSED: {lasts: 1d}
streams:
  CASES:
    follow: case
    interval: 10s
    key: "{{ row.id }}"
    fields: {id: "{{ row.id }}", status: "{{ state }}", before: "{{ was }}"}
""",
    ),
    Section(
        "### defaults:",
        "Defaults",
        """
defaults: {batch_size: 5, priority: LOW, jitter: 5%, timezone: America/Lima}
streams:
  VISITS: {interval: 10s, fields: {visitors: "{{ randint(1, 40) }}"}}
  QUEUES: {interval: 10s, priority: HIGH, fields: {waiting: "{{ randint(0, 15) }}"}}
""",
    ),
    Section(
        "### profiles: NAME:",
        "Profile",
        """
profiles:
  development: {speed: 20}
  production: {speed: 1, kafka: {partitions: 6, replication: 3, batch_bytes: 524288}}
streams:
  VISITS: {interval: 10s, fields: {visitors: "{{ randint(1, 40) }}"}}
""",
    ),
    Section("#### kafka:", "KafkaProfile"),
    Section(
        "## scenarios/*.yaml",
        "",
        """
name: END_OF_QUARTER
description: Budgets run over while the systems are slow
steps:
  - alert: {severity: WARNING, message: The quarter is closing}
  - set: {stream: BUDGET_UPDATES, interval: 2s, for: 30s}
  - repeat: {times: 3, steps: [{burst: {stream: PROJECT_UPDATES, count: 5}}, {wait: 2s}]}
""",
        "yaml scenario",
        scenario=True,
    ),
    Section("### burst:", "Burst", scenario=True),
    Section("### set:", "Overlay", scenario=True),
    Section("### alert: in a scenario", "Alert", scenario=True),
    Section("### repeat:", "Repeat", scenario=True),
)

STEPS = ["AlertStep", "BurstStep", "SetStep", "WaitStep", "ParallelStep", "RepeatStep", "PauseStep", "ResumeStep"]

TAIL = """## Problems

Everything wrong is said at once, with its place and, where there is one, the cure:

```text
streams.yaml:12:5: unknown key 'intervall' (did you mean interval?)
streams.yaml:31:15: schedule: hour: 25 is not from 0 to 23
streams.yaml:47:9: 'amuont' is undefined (did you mean amount?)
scenarios/crisis.yaml:9:21: unknown stream 'BUDGET_UPDATE' (did you mean BUDGET_UPDATES?)
```
"""


def page() -> str:
    """The whole page."""
    schemas = {False: config.files_schema("streams"), True: config.files_schema("scenario")}
    parts = [HEAD, *(_section(one, schemas[one.scenario]) for one in SECTIONS)]
    parts.insert(-4, _steps(schemas[True]))
    return "\n".join([*parts, _variables(), TAIL])


def _section(section: Section, schema: dict[str, Any]) -> str:
    part = schema["$defs"][section.declaration] if section.declaration else schema
    text = f"{section.title}\n\n{_prose(part['description'])}\n\n{_table(part, schema['$defs'])}"
    return text + (f"\n```{section.fence}\n{section.example.strip()}\n```\n" if section.example else "")


def _table(part: dict[str, Any], definitions: dict[str, Any]) -> str:
    rows = ["| key | takes | left out | meaning |", "|---|---|---|---|"]
    for key, value in part["properties"].items():
        if key == "batchSize":
            continue
        name = "`batch_size`, `batchSize`" if key == "batch_size" else f"`{key}`"
        left_out = "**required**" if key in part.get("required", ()) else _default(value)
        meaning = value.get("description") or definitions[value["$ref"].rpartition("/")[2]]["description"]
        rows.append(f"| {name} | {_takes(value, definitions)} | {left_out} | {_prose(meaning)} |")
    return "\n".join(rows) + "\n"


def _default(value: dict[str, Any]) -> str:
    default = value.get("default")
    if default in (None, "", {}, []):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _takes(value: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in value:
        target = definitions[value["$ref"].rpartition("/")[2]]
        if "anyOf" in target:
            return "duration or mapping"
        return " ".join(f"`{one}`" for one in target["enum"]) if "enum" in target else "mapping, below"
    if "anyOf" in value:
        return "duration"
    if "const" in value:
        return f"`{value['const']}`"
    kind = value.get("type")
    if kind in ("integer", "number"):
        return ("whole number" if kind == "integer" else "number") + _bounds(value)
    if kind == "string" and "%" in value.get("pattern", ""):
        return "`0%` to `100%`"
    if value.get("pattern") in messages.PATTERNS:
        return f"text, {messages.PATTERNS[value['pattern']]}".replace(", must", "; it must")
    names = {"string": "text", "boolean": "`true` `false`", "array": "list", "object": "mapping"}
    return names[str(kind)] + (", not empty" if value.get("minProperties") or value.get("minItems") else "")


def _bounds(value: dict[str, Any]) -> str:
    low = value.get("minimum")
    text = f" from {low:,}" if low is not None else " above 0" if "exclusiveMinimum" in value else ""
    high = value.get("maximum")
    return text + (f" to {high:,}" if high is not None else "")


def _prose(text: str) -> str:
    """A docstring as Markdown: one line, double backticks single, bars escaped."""
    return re.sub(r"``(.+?)``", r"`\1`", " ".join(text.split())).replace("|", r"\|")


def _steps(schema: dict[str, Any]) -> str:
    rows = ["### steps:", "", "Each step has one key.", "", "| step | takes | what it does |", "|---|---|---|"]
    for name in STEPS:
        part = schema["$defs"][name]
        ((key, value),) = part["properties"].items()
        takes = _takes(value, schema["$defs"])
        more = f" {value['description']}" if takes == "duration" else ""
        rows.append(f"| `{key}` | {takes} | {_prose(part['description'] + more)} |")
    return "\n".join(rows) + "\n\n[Scenarios](scenarios.md) has an example of each.\n"


def _variables() -> str:
    rows = ["## Environment variables", "", "| variable | default | meaning |", "|---|---|---|"]
    for one in settings.VARIABLES:
        default = f"`{one.default}`" if one.default else "unset"
        rows.append(f"| `{one.name}` | {default} | {_prose(one.description)} |")
    return "\n".join(
        [*rows, "", "A value that cannot be used stops the start and names the variable; a secret is never shown.", ""]
    )


def example() -> str:
    """The environment of a service, with every variable as it is by default."""
    lines = [
        "# The environment of the service: one variable a line, as systemd.exec(5) reads an EnvironmentFile=.",
        "# What is commented out shows the default. systemctl restart regstream puts it in force.",
        "# Written by scripts/configuration_page.py from the declarations.",
    ]
    for one in settings.VARIABLES:
        text = one.description.replace("`", "") + "."
        lines += ["", *textwrap.wrap(text, 117, initial_indent="# ", subsequent_indent="# ")]
        lines.append(f"#{one.name}={one.default}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    EXAMPLE.write_text(example(), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
